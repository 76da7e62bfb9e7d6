//! Signed evidence: made with the key that is mounted, kept in the store, and looked at before anything is decided by it.
//!
//! What is signed, and what may be done without it, core says. To sign is no effect that could be done twice: the same run gives
//! the same bytes, under a name that follows from them.

use std::path::{Path, PathBuf};

use lethe_api::{
    Digest,
    contract::Statement,
    v1alpha1::{Reason, UnlearnRun},
};
use lethe_core::evidence::{Found, Problem};
use lethe_evidence::{KeyError, SigningKey, TrustedKeys, seal};
use lethe_store::{Evidence, Store};

use crate::{Args, records};

/// Where the keys are. They are read anew each time: a Secret that was changed, or mounted late, is seen.
#[derive(Clone, Debug)]
pub struct Notary {
    signing: PathBuf,
    trusted: Option<PathBuf>,
}

/// The keys, as they are now.
struct Keys {
    signing: SigningKey,
    trusted: TrustedKeys,
}

impl Notary {
    /// None without a signing key.
    pub fn new(args: &Args) -> Option<Self> {
        let signing = args.signing_key.clone()?;
        Some(Self { signing, trusted: args.trusted_keys.clone() })
    }

    /// Why the keys could not be used, if they could not.
    pub fn complaint(&self) -> Option<String> {
        keys(&self.signing, self.trusted.as_deref()).err().map(|problem| problem.message)
    }

    /// The envelope in the store with what core wants signed of a run. Evidence that somebody changed is not made good by
    /// itself, so that people learn of it.
    pub async fn sign(&self, store: &str, run: &UnlearnRun, wanted: &Statement) -> Result<Digest, Problem> {
        let Keys { signing, trusted } = self.keys().await?;
        let bundle = wanted.bundle().ok_or_else(|| refused("the statement is about no bundle".into()))?;
        let statement = wanted.to_json();
        let named = run.status.as_ref().and_then(|status| status.evidence.clone());
        let done = records::with_store(store, move |store| async move {
            let found = store.evidence(&bundle, &trusted).await.map_err(records::problem)?;
            if let Some((envelope, _)) = found.good.iter().find(|(_, proof)| proof.statement == statement) {
                return Ok(Ok(envelope.clone()));
            }
            let changed = found.bad.iter().find(|bad| bad.envelope.is_some() && bad.envelope == named);
            if let Some(changed) = changed {
                return Ok(Err(refused(changed.to_string())));
            }
            let envelope = store.put_evidence(&bundle, seal(&statement, &signing)).await;
            Ok(Ok(envelope.map_err(records::problem)?))
        });
        done.await.map_err(unavailable)?
    }

    /// What trusted keys have signed about a bundle.
    pub async fn look(&self, store: &str, bundle: &Digest) -> Result<Found, Problem> {
        let trusted = self.keys().await?.trusted;
        let bundle = bundle.clone();
        let found = records::with_store(store, move |store: Store| async move {
            store.evidence(&bundle, &trusted).await.map_err(records::problem)
        });
        let Evidence { good, bad } = found.await.map_err(unavailable)?;
        Ok(Found {
            good: good.into_iter().map(|(_, proof)| proof.evidence).collect(),
            bad: bad.iter().map(ToString::to_string).collect(),
        })
    }

    async fn keys(&self) -> Result<Keys, Problem> {
        let Self { signing, trusted } = self.clone();
        let read = tokio::task::spawn_blocking(move || keys(&signing, trusted.as_deref())).await;
        read.unwrap_or_else(|error| Err(unusable(error.to_string())))
    }
}

/// Without a file of trusted keys, the one that signs is trusted alone.
fn keys(signing: &Path, trusted: Option<&Path>) -> Result<Keys, Problem> {
    let failed = |error: KeyError| unusable(error.to_string());
    let signing = SigningKey::load(signing).map_err(failed)?;
    let trusted = match trusted {
        Some(trusted) => TrustedKeys::load(trusted).map_err(failed)?,
        None => TrustedKeys::only(signing.public()),
    };
    if trusted.iter().any(|key| key == signing.public()) {
        return Ok(Keys { signing, trusted });
    }
    Err(unusable(format!(
        "the key that signs, {}, is not among the trusted keys {}: add its public half to them",
        signing.public().id().short(),
        trusted.names()
    )))
}

fn unusable(message: String) -> Problem {
    Problem { reason: Reason::SigningKeyUnusable, message }
}

fn refused(message: String) -> Problem {
    Problem { reason: Reason::EvidenceRefused, message }
}

fn unavailable(problem: lethe_core::run::RecordProblem) -> Problem {
    let message = format!("the evidence cannot be kept or read: {}", problem.message);
    Problem { reason: Reason::EvidenceUnavailable, message }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use tempfile::TempDir;

    use super::*;

    fn openssl(args: &[&str]) {
        let done = Command::new("openssl").args(args).output().expect("openssl is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn key(folder: &TempDir, name: &str) -> (PathBuf, PathBuf) {
        let (private, public) = (folder.path().join(name), folder.path().join(format!("{name}.pub")));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", private.to_str().unwrap()]);
        let (private_name, public_name) = (private.to_str().unwrap(), public.to_str().unwrap());
        openssl(&["pkey", "-in", private_name, "-pubout", "-out", public_name]);
        (private, public)
    }

    #[test]
    fn the_key_that_signs_has_to_be_trusted() {
        let folder = TempDir::new().unwrap();
        let ((a, a_public), (_, b_public)) = (key(&folder, "a"), key(&folder, "b"));
        assert!(keys(&a, None).is_ok());
        assert!(keys(&a, Some(&a_public)).is_ok());
        let both = folder.path().join("both");
        fs::write(&both, [fs::read(&a_public).unwrap(), fs::read(&b_public).unwrap()].concat()).unwrap();
        assert!(keys(&a, Some(&both)).is_ok());
        let problem = keys(&a, Some(&b_public)).err().unwrap();
        assert_eq!(problem.reason, Reason::SigningKeyUnusable);
        assert!(problem.message.contains("is not among the trusted keys"), "{}", problem.message);
    }

    #[tokio::test]
    async fn a_key_that_is_not_there_is_told_and_one_that_comes_late_is_seen() {
        let folder = TempDir::new().unwrap();
        let store = lethe_store::folder_uri(folder.path()).unwrap();
        let notary = Notary { signing: folder.path().join("late"), trusted: None };
        let problem = notary.look(&store, &Digest::of("bundle")).await.unwrap_err();
        assert_eq!(problem.reason, Reason::SigningKeyUnusable);
        assert!(problem.message.contains("late: it cannot be read"), "{}", problem.message);
        assert!(notary.complaint().is_some());
        key(&folder, "late");
        assert!(notary.complaint().is_none());
        let found = notary.look(&store, &Digest::of("bundle")).await.unwrap();
        assert!(found.good.is_empty() && found.bad.is_empty());
        let problem = notary.look("file:///no/such/store", &Digest::of("bundle")).await.unwrap_err();
        assert_eq!(problem.reason, Reason::EvidenceUnavailable);
    }
}
