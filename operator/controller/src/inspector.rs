//! Goes through the whole audit log once in a while: what was appended has to be there still, as it was.
//!
//! Appending looks at the end of the log alone. Somebody who changes or takes out what is older would be found by the next
//! auditor, who may come once a year.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use lethe_store::log::{Head, LogError};
use tokio::{sync::watch, time::sleep};

use crate::{keeping::Keeping, leader::Leadership, metrics::LogMetrics};

/// How soon for the first time, and again while something is wrong with it, if that is sooner than usual.
const SOON: Duration = Duration::from_secs(600);

pub struct Inspector {
    pub keeping: Keeping,
    pub every: Duration,
    pub leadership: Leadership,
    pub metrics: LogMetrics,
    /// How far this process has written.
    pub written: watch::Receiver<Option<Head>>,
}

impl Inspector {
    /// Never ends.
    pub async fn run(self) {
        let soon = self.every.min(SOON);
        let mut wait = soon;
        loop {
            sleep(wait).await;
            wait = if self.look().await { self.every } else { soon };
        }
    }

    /// Whether all is well, as far as is known.
    async fn look(&self) -> bool {
        let written = *self.written.borrow();
        let Some(written) = written.filter(|_| self.leadership.holds()) else { return false };
        let log = &self.keeping.uri;
        match self.check(&written).await {
            Ok(()) => {
                tracing::info!(
                    log,
                    entries = written.size,
                    "the audit log was read, and is as it was written"
                );
                self.metrics.intact.set(1);
                self.metrics.checked.set(Timestamp::now().as_second());
                true
            }
            Err(LogError::Damaged { what, why }) => {
                tracing::error!(log, what, why, "the audit log is not as it was written");
                self.metrics.intact.set(0);
                self.metrics.checked.set(Timestamp::now().as_second());
                false
            }
            Err(error) => {
                tracing::warn!(log, %error, "the audit log could not be read");
                false
            }
        }
    }

    async fn check(&self, written: &Head) -> Result<(), LogError> {
        let keeping = Arc::new(self.keeping.clone());
        let opened = tokio::task::spawn_blocking({
            let keeping = keeping.clone();
            move || keeping.open()
        });
        let unreadable =
            |reason| lethe_store::Error::Unavailable { action: "read", what: keeping.uri.clone(), reason };
        let opened = opened.await.map_err(|error| error.to_string()).and_then(|opened| opened);
        let (log, _, trusted) = opened.map_err(unreadable)?;
        log.check(&keeping.origin, &trusted, Some(written)).await
    }
}
