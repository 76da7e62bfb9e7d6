//! A renewal of a lease that comes late: after the term has ended, and before its holder has given up.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};

/// How long the operator relies on a renewal.
const TERM: Duration = Duration::from_secs(10);
/// It waits for no renewal as long as this and [`GAP`] together.
const LAST_TRY: Duration = Duration::from_millis(2_050);
/// So long nobody holds the lease.
const GAP: Duration = Duration::from_millis(500);
/// From the end of the term by our clock until it has surely ended by the operator's.
const SURELY: Duration = Duration::from_millis(50);

/// What becomes of renewals. Usually they are passed on.
#[derive(Debug, Default)]
pub struct Renewals(Mutex<Option<Late>>);

#[derive(Debug)]
struct Late {
    /// When the last one was passed on in time.
    last: Option<Instant>,
    ended: oneshot::Sender<()>,
}

impl Renewals {
    /// The next renewal is passed on, those after it are refused, and one of them is passed on only after the term of the first has
    /// ended. Says when that is so: for half a second from then on nobody holds the lease.
    pub fn be_late(&self) -> oneshot::Receiver<()> {
        let (ended, heard) = oneshot::channel();
        *self.late() = Some(Late { last: None, ended });
        heard
    }

    /// Whether the next one is to be refused. Waits as long as it has to be late.
    pub async fn refuses_next(&self) -> bool {
        let Some((last, ended)) = self.last_in_time() else { return false };
        let Some(ended) = ended else { return true };
        sleep_until(last + TERM + SURELY).await;
        let _ = ended.send(());
        sleep(GAP).await;
        false
    }

    /// None if it is passed on at once. The sender is for the one that has to be late.
    fn last_in_time(&self) -> Option<(Instant, Option<oneshot::Sender<()>>)> {
        let mut late = self.late();
        let it = late.as_mut()?;
        let Some(last) = it.last else {
            it.last = Some(Instant::now());
            return None;
        };
        let is_late = last.elapsed() + LAST_TRY > TERM;
        Some((last, if is_late { late.take().map(|it| it.ended) } else { None }))
    }

    fn late(&self) -> std::sync::MutexGuard<'_, Option<Late>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
