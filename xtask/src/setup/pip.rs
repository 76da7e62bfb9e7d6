//! pip, for what is published as Python wheels.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::apt;
use crate::{cache, cmd};

/// Unpacks exactly these wheels into `into`, without what they say they depend on. `python` chooses among the wheels
/// for different Pythons; without it, the one of this machine.
///
/// # Errors
/// If pip is missing and cannot be installed, or the wheels cannot be had.
pub(super) fn unpack(wheels: &[&str], python: &[&str], into: &Path, log: &str) -> Result<()> {
    apt::ensure(apt::PYTHON)?;
    if cmd::output(pip().arg("--version")).is_err() {
        apt::install(&[apt::PIP])?;
    }
    let mut pip = pip();
    pip.args(["install", "--no-deps", "--no-compile", "--no-cache-dir", "--only-binary=:all:", "--quiet"])
        .args(["--disable-pip-version-check", "--root-user-action=ignore"])
        .args(python)
        .arg("--target")
        .arg(into)
        .args(wheels);
    cmd::run_logged(&mut pip, &cache::log(log)?)
}

fn pip() -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip"]);
    pip
}
