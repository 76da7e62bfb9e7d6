//! Logs go to stderr: JSON for machines, short lines for a person at a terminal.

use std::io::{self, IsTerminal, Stderr, Write};

use tracing_subscriber::EnvFilter;

use crate::bar;

pub(crate) fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    if is_terminal() {
        logs.with_writer(|| OverBar(io::stderr())).compact().with_target(false).init();
    } else {
        logs.with_writer(io::stderr).json().flatten_event(true).init();
    }
}

/// Whether a person watches.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Lines take the place of the progress bar, which is drawn again below them.
struct OverBar(Stderr);

impl Write for OverBar {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(bar::CLEAR.as_bytes())?;
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
