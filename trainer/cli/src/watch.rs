//! What a running command shares with those who watch it: where it stands, and whether it was told to stop.

use std::{
    io::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lethe_api::contract::{Metrics, Progress};

use crate::{
    bar,
    failure::{Failed, Result},
    logging,
};

/// Between two lines of a log, and between two pictures of the bar at a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
const BAR_EVERY: Duration = Duration::from_millis(200);

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
    /// When something was last shown.
    shown: Instant,
}

impl Watch {
    pub(crate) fn new(run: &str) -> Self {
        let progress = Progress { run: run.into(), stage: "start".into(), ..Progress::default() };
        let now = Instant::now();
        let state = State { progress, began: (now, 0), shown: now };
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
        state.shown = now;
        tracing::info!(stage, step, total, "begin");
    }

    /// The stage has done `step` steps.
    pub(crate) fn at(&self, step: u64) {
        let mut state = self.state();
        state.advance(step);
        if self.shared.is_terminal {
            state.draw();
        } else if state.is_due(LINE_EVERY) {
            let Progress { stage, step, total, eta_seconds, .. } = &state.progress;
            tracing::info!(stage, step, total, eta_seconds, "progress");
        }
    }

    /// The training has done `step` steps. What it is like is told by its records alone.
    pub(crate) fn trained(&self, step: u64) {
        let mut state = self.state();
        state.advance(step);
        if self.shared.is_terminal {
            state.draw();
        }
    }

    /// What the training says of itself. Whether it was time to write it down too.
    pub(crate) fn record(&self, record: &Metrics) -> bool {
        let mut state = self.state();
        state.progress.metrics = Some(record.clone());
        if self.shared.is_terminal {
            state.draw();
            return false;
        }
        let is_due = state.is_due(LINE_EVERY);
        if is_due && tracing::enabled!(tracing::Level::INFO) {
            // The record itself, not a paraphrase. Nobody may be there to read it.
            let _ = std::io::stderr().write_all((record.to_line() + "\n").as_bytes());
        }
        is_due
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
}

impl State {
    fn advance(&mut self, step: u64) {
        let (began, first) = self.began;
        self.progress.step = step;
        let left = self.progress.total.saturating_sub(step);
        self.progress.eta_seconds = eta(began.elapsed(), step.saturating_sub(first), left);
    }

    /// Whether it is time to show something again; the end of a stage is always shown.
    fn is_due(&mut self, every: Duration) -> bool {
        let is_due = self.shown.elapsed() >= every || self.progress.step >= self.progress.total;
        if is_due {
            self.shown = Instant::now();
        }
        is_due
    }

    fn draw(&mut self) {
        if self.is_due(BAR_EVERY) {
            let end = if self.progress.step >= self.progress.total { "\n" } else { "" };
            let bar = bar::draw(&self.progress, bar::columns());
            // A terminal that went away is no reason to stop.
            let _ = write!(std::io::stderr(), "{}{bar}{end}", bar::CLEAR);
        }
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

    #[test]
    fn the_progress_has_the_last_record_until_the_next_stage_begins() {
        let watch = Watch::new("run");
        watch.begin("forget", 0, 500);
        let record = Metrics { stage: "forget".into(), step: 20, ..Metrics::default() };
        watch.record(&record);
        watch.trained(21);
        assert_eq!((watch.progress().step, watch.progress().metrics), (21, Some(record)));
        watch.begin("judge", 0, 1);
        assert_eq!(watch.progress().metrics, None);
    }
}
