//! The loop around every training: steps, records, checkpoints, and stopping when told to.

use std::time::{Duration, Instant};

use lethe_api::contract::Failure;
use lethe_sfd::{Named, Training};

use crate::{
    artifacts::Checkpoint,
    curves::{self, Curves, Recorder},
    failure::{Failed, Result},
    watch::Watch,
};

/// Where a training's state goes, and how often.
pub(crate) struct Saving<'a, 'b> {
    pub(crate) to: &'a Checkpoint<'b>,
    pub(crate) every: Duration,
}

/// A training, what it has said of itself so far, and what is to be done with both.
pub(crate) struct Run<'a, 'b, T> {
    pub(crate) training: &'a mut T,
    /// Goes on where an earlier pod's ended.
    pub(crate) curves: Curves,
    pub(crate) watch: &'a Watch,
    pub(crate) saving: Saving<'a, 'b>,
}

impl<T: Training> Run<'_, '_, T> {
    /// Trains to the end. When told to stop: saves within one step and fails as interrupted. When and how often it was
    /// saved, stopped and continued changes nothing about the result, nor about the curves, which are returned.
    ///
    /// `look` says what is to be seen in the training at a step at which there is a record.
    pub(crate) fn finish(mut self, look: impl Fn(&T) -> Vec<Named>) -> Result<Curves> {
        self.watch.begin(self.training.stage().name(), self.training.step(), self.training.total());
        let interval = curves::interval(self.training.total());
        let (mut saved, mut recorder) = (Instant::now(), Recorder::new(self.curves.images()));
        while !self.training.done() {
            if self.watch.is_stopped() {
                return Err(self.interrupted()?);
            }
            self.training.advance();
            self.watch.trained(self.training.step());
            if self.training.step().is_multiple_of(interval) || self.training.done() {
                self.record(&mut recorder, &look)?;
            }
            if saved.elapsed() >= self.saving.every || self.training.done() {
                self.save()?;
                saved = Instant::now();
            }
        }
        Ok(self.curves)
    }

    fn record(&mut self, recorder: &mut Recorder, look: impl Fn(&T) -> Vec<Named>) -> Result<()> {
        let progress = self.training.report()?;
        let record = recorder.record(&progress, &look(self.training), self.watch.progress().eta_seconds);
        let is_shown = self.watch.record(&record);
        self.curves.push(record);
        if is_shown {
            self.saving.to.show(&self.curves);
        }
        Ok(())
    }

    fn interrupted(&self) -> Result<Failed> {
        let (stage, step, total) =
            (self.training.stage().name(), self.training.step(), self.training.total());
        self.save()?;
        Ok(Failed::new(
            Failure::Interrupted,
            format!(
                "interrupted by SIGTERM at {stage} step {step} of {total}; whoever starts it again goes on from there"
            ),
        ))
    }

    fn save(&self) -> Result<()> {
        self.saving.to.save(&self.curves, &self.training.checkpoint()?)
    }
}

/// Puts the state that another pod left behind into `resume`, and returns what that pod had said. A state that does not fit
/// is not used: the training starts again and comes to the same result.
pub(crate) fn continue_from(
    checkpoint: &Checkpoint<'_>,
    resume: impl FnOnce(&[u8]) -> lethe_sfd::Result<()>,
) -> Result<Curves> {
    let Some((curves, state)) = checkpoint.load()? else { return Ok(Curves::default()) };
    match resume(&state) {
        Ok(()) => {
            tracing::info!("continuing from the checkpoint of an earlier pod");
            Ok(curves)
        }
        Err(error) => {
            tracing::warn!(%error, "the checkpoint of an earlier pod is not used");
            Ok(Curves::default())
        }
    }
}
