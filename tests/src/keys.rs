//! Keys that sign evidence, made as people make them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use lethe_evidence::TrustedKeys;

/// A pair of files.
#[derive(Clone, Debug)]
pub struct Key {
    pub private: PathBuf,
    pub public: PathBuf,
}

impl Key {
    /// With `openssl`, in this folder.
    ///
    /// # Errors
    /// If that is not there.
    pub fn make(folder: &Path, name: &str) -> Result<Self> {
        let key = Self {
            private: folder.join(format!("{name}.pem")),
            public: folder.join(format!("{name}.pub.pem")),
        };
        openssl(&["genpkey", "-algorithm", "ed25519", "-out"], &[&key.private])?;
        openssl(&["pkey", "-pubout", "-in"], &[&key.private, Path::new("-out"), &key.public])?;
        Ok(key)
    }

    /// # Errors
    /// If it is gone.
    pub fn trusted(&self) -> Result<TrustedKeys> {
        Ok(TrustedKeys::load(&self.public)?)
    }

    /// The operator's flags, with which it signs with this key and trusts these.
    ///
    /// # Errors
    /// If the file of trusted keys cannot be written.
    pub fn flags(&self, trusted: &[&Key]) -> Result<Vec<String>> {
        let file = self.private.with_extension("trusted");
        let all: Vec<_> = trusted.iter().map(|key| fs::read(&key.public)).collect::<Result<_, _>>()?;
        fs::write(&file, all.concat())?;
        Ok(vec![
            format!("--signing-key={}", self.private.display()),
            format!("--trusted-keys={}", file.display()),
        ])
    }
}

fn openssl(verb: &[&str], files: &[&Path]) -> Result<()> {
    let status = Command::new("openssl").args(verb).args(files).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "openssl {verb:?} ended with {status}");
    Ok(())
}
