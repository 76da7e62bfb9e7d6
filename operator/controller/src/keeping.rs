//! Where and how the audit log is kept. Everything here looks at the file system, and may hang with it.

use std::path::PathBuf;

use lethe_evidence::{SigningKey, TrustedKeys};
use lethe_store::log::Log;
use lethe_transparency::Writer as Signature;

#[derive(Clone, Debug)]
pub struct Keeping {
    pub uri: String,
    pub origin: String,
    /// Read anew each time that the log is opened.
    pub key: PathBuf,
    /// None: the key's own half.
    pub trusted: Option<PathBuf>,
    /// Who writes.
    pub replica: String,
}

/// The files of the signing key and of the trusted ones, as far as they can be read.
pub type Keys = [Option<Vec<u8>>; 2];

impl Keeping {
    /// What each entry says of who wrote it.
    pub fn signature(&self) -> Signature {
        Signature { version: env!("CARGO_PKG_VERSION").into(), replica: self.replica.clone() }
    }

    /// The files of the keys as they are now.
    pub fn keys(&self) -> Keys {
        let trusted = self.trusted.as_ref().and_then(|file| std::fs::read(file).ok());
        [std::fs::read(&self.key).ok(), trusted]
    }

    /// The folder of the log, the key to write on, and those whose signatures count.
    ///
    /// # Errors
    /// Which of them is not as it should be, in words.
    pub fn open(&self) -> Result<(Log, SigningKey, TrustedKeys), String> {
        let key = SigningKey::load(&self.key).map_err(|error| error.to_string())?;
        let (log, trusted) = self.open_to_read()?;
        Ok((log, key, trusted))
    }

    /// The folder of the log, and the keys whose signatures count.
    ///
    /// # Errors
    /// Which of them is not as it should be, in words.
    pub fn open_to_read(&self) -> Result<(Log, TrustedKeys), String> {
        let trusted = match &self.trusted {
            Some(file) => TrustedKeys::load(file),
            None => SigningKey::load(&self.key).map(|key| TrustedKeys::only(key.public())),
        };
        let log = Log::open(&self.uri).map_err(|error| error.to_string())?;
        Ok((log, trusted.map_err(|error| error.to_string())?))
    }
}
