//! Logs go to stderr: JSON for machines, short lines for a person at a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub(crate) fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if is_terminal() {
        logs.compact().with_target(false).init();
    } else {
        logs.json().flatten_event(true).init();
    }
}

/// Whether a person watches.
pub(crate) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}
