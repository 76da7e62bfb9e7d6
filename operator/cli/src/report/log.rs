//! The head of the audit log, for whoever compares it with what they saw before: of how many entries it is, and their hash.

use std::path::Path;

use lethe_evidence::TrustedKeys;
use lethe_store::log::Log;
use lethe_transparency::Checkpoint;
use serde_json::{Value, json};

use crate::args::Report;

/// A log and what its checkpoint says.
#[derive(Clone, Debug)]
pub struct Head {
    pub checkpoint: Checkpoint,
    /// As it lies there: what `verify --since` takes.
    pub note: Vec<u8>,
    pub signed: Signed,
}

/// Who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    ByATrustedKey,
    /// Nobody said whom to trust.
    NotLookedAt,
    No(String),
}

impl Head {
    fn of(note: Vec<u8>, trusted: Option<&TrustedKeys>) -> Result<Self, String> {
        let checkpoint = Checkpoint::read(&note).map_err(|error| error.to_string())?;
        if checkpoint.origin.chars().any(char::is_control) {
            return Err("its checkpoint has a name that is none".into());
        }
        let signed = match trusted.map(|trusted| Checkpoint::open(&note, &checkpoint.origin, trusted)) {
            None => Signed::NotLookedAt,
            Some(Ok(_)) => Signed::ByATrustedKey,
            Some(Err(error)) => Signed::No(error.to_string()),
        };
        Ok(Self { checkpoint, note, signed })
    }

    /// In one line.
    pub fn words(&self) -> String {
        let Checkpoint { origin, size, root, .. } = &self.checkpoint;
        format!("audit log {origin}: {size} entries, root hash {root}; {}", self.vouched())
    }

    pub fn vouched(&self) -> String {
        match &self.signed {
            Signed::ByATrustedKey => "signed by a trusted key".into(),
            Signed::NotLookedAt => "who signed it was not looked at: give --trusted-keys".into(),
            Signed::No(why) => format!("NOT signed by a trusted key: {why}"),
        }
    }

    pub(crate) fn about(&self) -> Value {
        let Checkpoint { origin, size, root, .. } = &self.checkpoint;
        json!({"origin": origin, "entries": size, "rootHash": root.to_string(), "signature": self.vouched()})
    }
}

/// The head of the log at `uri`; none if nothing was written yet.
async fn read(uri: &str, trusted: Option<&Path>) -> Result<Option<Head>, String> {
    let trusted = trusted.map(TrustedKeys::load).transpose().map_err(|error| error.to_string())?;
    let log = Log::open(uri).map_err(|error| error.to_string())?;
    let note = log.checkpoint().await.map_err(|error| error.to_string())?;
    note.map(|note| Head::of(note, trusted.as_ref())).transpose()
}

/// Of the log that somebody named; else of that in the store, where one was given and has one.
///
/// # Errors
/// Why the log that was named cannot be told of.
pub(super) async fn head(report: &Report) -> Result<Option<Head>, String> {
    let trusted = report.trusted_keys.as_deref();
    let failed = |uri: &str, why: &str| format!("the head of the audit log {uri}: {why}");
    if let Some(uri) = &report.log {
        let found = read(uri, trusted).await.map_err(|why| failed(uri, &why))?;
        return found.map(Some).ok_or_else(|| failed(uri, "nothing is in it yet"));
    }
    let Some(store) = &report.store else { return Ok(None) };
    let uri = format!("{}/log", store.trim_end_matches('/'));
    // Nobody said that one is kept there.
    Ok(read(&uri, trusted).await.ok().flatten())
}

#[cfg(test)]
mod tests {
    use lethe_transparency::merkle;

    use super::*;

    /// RFC 8032, section 7.1, test 1.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

    #[test]
    fn a_head_is_told_of_whoever_signed_it_and_who_did_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, KEY).unwrap();
        let key = lethe_evidence::SigningKey::load(&file).unwrap();
        let root = merkle::leaf(b"entry");
        let checkpoint = Checkpoint { origin: "lethe.dev/studio".into(), size: 64, root, extensions: vec![] };
        let note = checkpoint.sign(&key).unwrap().into_bytes();
        let trusted = TrustedKeys::only(key.public());
        let of = |note: &[u8], trusted| Head::of(note.to_vec(), trusted);

        let good = of(&note, Some(&trusted)).unwrap();
        assert_eq!(good.signed, Signed::ByATrustedKey);
        let words =
            format!("audit log lethe.dev/studio: 64 entries, root hash {root}; signed by a trusted key");
        assert_eq!(good.words(), words);
        assert_eq!(of(&note, None).unwrap().signed, Signed::NotLookedAt);
        let changed = String::from_utf8(note).unwrap().replacen("\n64\n", "\n65\n", 1);
        let changed = of(changed.as_bytes(), Some(&trusted)).unwrap();
        assert!(
            changed.words().contains("65 entries") && changed.words().contains("NOT signed"),
            "{changed:?}"
        );
        assert!(of(b"no note", None).is_err());
        let steering = Checkpoint { origin: "\u{1b}[2J".into(), ..good.checkpoint };
        let note = format!("{}\n1\n{root}\n\n\u{2014} x y\n", steering.origin);
        assert!(of(note.as_bytes(), None).is_err(), "a name does not steer a terminal");
    }
}
