//! Goes through the whole audit log once in a while: what was appended has to be there still, as it was.
//!
//! Appending looks at the end of the log alone. Somebody who changes or takes out what is older would be found by the next
//! auditor, who may come once a year.

use std::time::Duration;

use jiff::Timestamp;
use lethe_store::{
    Error,
    log::{Known, LogError},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{keeping::Keeping, leader::Leadership, metrics::LogMetrics};

/// How soon after a start, and again where it could not be read or something is wrong with it, if that is sooner than usual.
const FIRST: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(600);

pub struct Inspector {
    pub keeping: Keeping,
    pub every: Duration,
    pub leadership: Leadership,
    pub metrics: LogMetrics,
    /// What this process knows of the log.
    pub known: watch::Sender<Known>,
}

impl Inspector {
    /// Never ends.
    pub async fn run(self) {
        // Until it was read once, or twice as long as usual after the last time, nobody has to wonder.
        self.metrics.check_seconds.set(self.every.as_secs() as i64);
        self.metrics.checked.set(Timestamp::now().as_second());
        let mut wait = FIRST;
        loop {
            sleep(wait.min(self.every)).await;
            wait = if self.look().await { self.every } else { AGAIN };
        }
    }

    /// Whether all is well, as far as is known.
    async fn look(&self) -> bool {
        let known = self.known.borrow().clone();
        if !self.leadership.holds() || known.heads.is_empty() {
            return false;
        }
        let log = &self.keeping.uri;
        match self.check(&known).await {
            Ok(()) => {
                tracing::info!(
                    log,
                    entries = known.heads.last().map(|last| last.size),
                    "the audit log is as it was written"
                );
                self.metrics.intact.set(1);
                self.metrics.checked.set(Timestamp::now().as_second());
                self.known.send_modify(|now| now.found(&known));
                true
            }
            Err(LogError::Damaged { what, why }) => {
                tracing::error!(log, what, why, "the audit log is not as it was written");
                self.metrics.intact.set(0);
                self.metrics.checked.set(Timestamp::now().as_second());
                false
            }
            Err(error) => {
                tracing::warn!(log, %error, "the audit log could not be read to its end");
                false
            }
        }
    }

    /// In a task of its own, which a store that hangs keeps: it is waited for, and no other one is begun.
    async fn check(&self, known: &Known) -> Result<(), LogError> {
        let mut checking = tokio::spawn(read(self.keeping.clone(), known.clone()));
        loop {
            match timeout(self.every.max(AGAIN), &mut checking).await {
                Ok(Ok(checked)) => return checked,
                Ok(Err(error)) => return Err(unread(&self.keeping, error.to_string())),
                Err(_) => tracing::warn!(log = self.keeping.uri, "the audit log is still being read"),
            }
        }
    }
}

async fn read(keeping: Keeping, known: Known) -> Result<(), LogError> {
    let to_open = keeping.clone();
    let opened = tokio::task::spawn_blocking(move || to_open.open_to_read()).await;
    let opened = opened.map_err(|error| error.to_string()).flatten();
    let (log, trusted) = opened.map_err(|why| unread(&keeping, why))?;
    log.check(&keeping.origin, &trusted, &known).await
}

fn unread(keeping: &Keeping, reason: String) -> LogError {
    Error::Unavailable { action: "read", what: keeping.uri.clone(), reason }.into()
}
