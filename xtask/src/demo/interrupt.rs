//! Ctrl-C and SIGTERM: noted, so that the demo can clean up behind itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static NOTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The exit code of a program that Ctrl-C ended.
pub const EXIT_CODE: u8 = 130;

/// From here on the first signal is noted, and a second one ends this process at once.
///
/// # Errors
/// If the system refuses.
pub fn watch() -> Result<()> {
    let noted = NOTED.get_or_init(|| Arc::new(AtomicBool::new(false)));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second looks at what the first has noted.
        flag::register_conditional_shutdown(signal, EXIT_CODE.into(), noted.clone())
            .and_then(|_| flag::register(signal, noted.clone()))
            .context("cannot watch for Ctrl-C")?;
    }
    Ok(())
}

/// Whether a signal came.
pub fn noted() -> bool {
    NOTED.get().is_some_and(|noted| noted.load(Ordering::Relaxed))
}

/// # Errors
/// If a signal came: whoever works stops here.
pub fn check() -> Result<()> {
    if noted() {
        bail!("interrupted");
    }
    Ok(())
}
