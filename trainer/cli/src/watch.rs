//! What a running command shares with those who watch it: where it stands, and whether it was told to stop.

use std::{
    io::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lethe_api::contract::Progress;

use crate::{
    failure::{Failed, Result},
    logging,
};

/// Cheap to clone; every clone sees the same.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
    is_terminal: bool,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    /// When the stage began, and at which step: a resumed one does not begin at 0.
    began: (Instant, u64),
    logged: Instant,
}

impl Watch {
    pub(crate) fn new(run: &str) -> Self {
        let progress = Progress { run: run.into(), stage: "start".into(), ..Progress::default() };
        let now = Instant::now();
        let state = State { progress, began: (now, 0), logged: now };
        let is_terminal = logging::is_terminal();
        Self {
            shared: Arc::new(Shared { state: Mutex::new(state), stop: AtomicBool::new(false), is_terminal }),
        }
    }

    /// A stage of `total` steps begins at `step`.
    pub(crate) fn begin(&self, stage: &str, step: u64, total: u64) {
        let mut state = self.state();
        let (run, now) = (state.progress.run.clone(), Instant::now());
        state.progress = Progress { run, stage: stage.into(), step, total, ..Progress::default() };
        state.began = (now, step);
        state.logged = now;
        tracing::info!(stage, step, total, "begin");
    }

    /// The stage has done `step` steps.
    pub(crate) fn at(&self, step: u64) {
        let mut state = self.state();
        let (began, first) = state.began;
        state.progress.step = step;
        state.progress.eta_seconds =
            eta(began.elapsed(), step.saturating_sub(first), state.progress.total - step);
        self.show(&mut state);
    }

    /// The last losses, by name.
    pub(crate) fn metrics(&self, losses: &[(&'static str, f64)]) {
        self.state().progress.metrics =
            losses.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    }

    pub(crate) fn progress(&self) -> Progress {
        self.state().progress.clone()
    }

    /// Tells the command to stop as soon as it can.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Fails if the command was told to stop. For work that is short enough to do again.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_stopped() {
            return Err(Failed::stopped());
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half-done under the lock, so a panic elsewhere has not spoilt it.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One line that is rewritten at a terminal, one record every ten seconds elsewhere.
    fn show(&self, state: &mut State) {
        let every =
            if self.shared.is_terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        let Progress { stage, step, total, eta_seconds, metrics, .. } = &state.progress;
        let is_last = step == total;
        if state.logged.elapsed() < every && !is_last {
            return;
        }
        let eta = eta_seconds.unwrap_or_default();
        if self.shared.is_terminal {
            let end = if is_last { "\n" } else { "" };
            // A terminal that went away is no reason to stop.
            let _ = write!(std::io::stderr(), "\r\x1b[K{stage} {step}/{total}, {eta} s left{end}");
        } else {
            tracing::info!(stage, step, total, eta_seconds = eta, ?metrics, "progress");
        }
        state.logged = Instant::now();
    }
}

/// Seconds left if the rest goes as fast as what was done.
fn eta(elapsed: Duration, done: u64, left: u64) -> Option<u64> {
    (done > 0).then(|| (elapsed.as_secs_f64() / done as f64 * left as f64).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_api::contract::Failure;

    #[test]
    fn the_rest_is_expected_to_go_as_fast_as_what_was_done() {
        assert_eq!(eta(Duration::from_secs(10), 5, 20), Some(40));
        assert_eq!(eta(Duration::from_secs(10), 0, 20), None);
    }

    #[test]
    fn whoever_was_told_to_stop_is_interrupted() {
        let watch = Watch::new("run");
        assert!(watch.check().is_ok());
        watch.clone().stop();
        assert_eq!(watch.check().unwrap_err().failure, Failure::Interrupted);
    }
}
