//! What the pages for people are opened with in tests: Chromium without a window.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::apt;
use crate::cmd;

/// Debian's name of the package and of its program: the smaller of two, without a desktop's libraries.
const PACKAGE: &str = "chromium-headless-shell";
/// What it is called elsewhere. These have a window, but do without.
const OTHERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The installed program, or that of the distribution's package, which is installed: it needs many libraries, and starts
/// nothing.
///
/// # Errors
/// If there is none and it cannot be had.
pub fn program() -> Result<PathBuf> {
    // Several tests want it at the same moment, and apt-get does not wait for another one's lists.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = [PACKAGE].iter().chain(&OTHERS).find_map(|name| cmd::find_program(name)) {
        return Ok(program);
    }
    apt::install(&[PACKAGE])?;
    cmd::find_program(PACKAGE)
        .with_context(|| format!("{PACKAGE} has no such program: install Chromium yourself"))
}
