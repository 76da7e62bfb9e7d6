//! Signed evidence about bundles.
//!
//! An envelope is one object, in the folder of the bundle that it is about and under the digest of its own bytes: so it is
//! found by the bundle, it is there whole or not at all, and to sign the same twice is to write the same twice. A bundle has
//! several where it was signed with several keys, or where several runs made it.

use lethe_api::contract::Digest;
use lethe_evidence::{EnvelopeError, MAX_BYTES, Proof, TrustedKeys, open};

use crate::{
    error::{Error, Result},
    objects::Objects,
    store::Store,
};

/// More envelopes about one bundle are not read: somebody else has put them there.
const MOST: usize = 64;

/// What there is about one bundle.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What a trusted key has signed, by the digest of its envelope.
    pub good: Vec<(Digest, Proof)>,
    /// Everything else that lies there.
    pub bad: Vec<Doubt>,
}

/// An envelope that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Its place, as one would type it.
    pub place: String,
    /// By which it is named, if it is.
    pub envelope: Option<Digest>,
    /// It is whole, and signed by somebody else.
    pub is_foreign: bool,
    pub why: String,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

impl Store {
    /// Keeps an envelope about this bundle, and returns its name. One that is there already is left as it is.
    pub async fn put_evidence(&self, bundle: &Digest, envelope: Vec<u8>) -> Result<Digest> {
        let (folder, digest) = (self.evidence_folder(bundle), Digest::of(&envelope));
        let file = file(&digest);
        match folder.read(&file, MAX_BYTES as u64).await {
            Ok(found) if found == envelope => return Ok(digest),
            // Damaged, it is written anew: it is known what it was.
            Ok(_) | Err(Error::NotFound { .. } | Error::TooLarge { .. } | Error::Corrupt { .. }) => {}
            Err(other) => return Err(other),
        }
        folder.write(&file, envelope).await?;
        Ok(digest)
    }

    /// What is signed about this bundle, and by whom.
    ///
    /// # Errors
    /// If the store does not say what there is. What is there and proves nothing is no error.
    pub async fn evidence(&self, bundle: &Digest, trusted: &TrustedKeys) -> Result<Evidence> {
        let folder = self.evidence_folder(bundle);
        let files = folder.list().await?;
        if files.len() > MOST {
            let reason = format!(
                "it holds {} files, of which at most {MOST} are read; see who writes them",
                files.len()
            );
            return Err(Error::refused(folder.name(""), reason));
        }
        let mut found = Evidence::default();
        for file in files {
            let doubt =
                |envelope, why: String| Doubt { place: folder.name(&file), envelope, is_foreign: false, why };
            let Some(digest) = named(&file) else {
                found.bad.push(doubt(None, "its name is no digest".into()));
                continue;
            };
            let bytes = match read(&folder, &file, &digest).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(error @ (Error::Corrupt { .. } | Error::TooLarge { .. })) => {
                    found.bad.push(doubt(Some(digest), error.to_string()));
                    continue;
                }
                Err(other) => return Err(other),
            };
            match open(&bytes, bundle, trusted) {
                Ok(proof) => found.good.push((digest, proof)),
                Err(error) => {
                    let is_foreign = matches!(error, EnvelopeError::NotTrusted { .. });
                    found.bad.push(Doubt { is_foreign, ..doubt(Some(digest), error.to_string()) });
                }
            }
        }
        Ok(found)
    }

    /// The bytes of every envelope about this bundle, **whoever made them**.
    pub(crate) async fn envelopes(&self, bundle: &Digest) -> Result<Vec<Vec<u8>>> {
        let folder = self.evidence_folder(bundle);
        let mut all = Vec::new();
        for file in folder.list().await? {
            if let Some(digest) = named(&file) {
                all.extend(read(&folder, &file, &digest).await?);
            }
        }
        Ok(all)
    }

    fn evidence_folder(&self, bundle: &Digest) -> Objects {
        self.objects.below("evidence").below(bundle.hex())
    }
}

/// The bytes that a file of this name must have; none if it is gone since it was listed.
async fn read(folder: &Objects, file: &str, digest: &Digest) -> Result<Option<Vec<u8>>> {
    let bytes = match folder.read(file, MAX_BYTES as u64).await {
        Err(Error::NotFound { .. }) => return Ok(None),
        other => other?,
    };
    crate::bundle::verify(&folder.name(file), &bytes, digest)?;
    Ok(Some(bytes))
}

fn file(envelope: &Digest) -> String {
    format!("{}.json", envelope.hex())
}

fn named(file: &str) -> Option<Digest> {
    Digest::from_hex(file.strip_suffix(".json")?)
}
