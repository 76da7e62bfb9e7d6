//! The pod's last words.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::cli::TerminationArgs;

/// Where Kubernetes reads them from.
const DEFAULT: &str = "/dev/termination-log";

impl TerminationArgs {
    /// Writes `message` in place: in a pod the file is a mount of its own and cannot be replaced.
    ///
    /// Failing to write it is logged and no more: the exit code still says what happened.
    pub(crate) fn write(&self, message: &str) {
        let Some(path) = self.path() else { return };
        if let Err(error) = fs::write(&path, message) {
            tracing::error!(path = %path.display(), %error, "cannot write the termination message");
        }
    }

    fn path(&self) -> Option<PathBuf> {
        let default = || Path::new(DEFAULT).exists().then(|| PathBuf::from(DEFAULT));
        self.termination_log.clone().or_else(default)
    }
}
