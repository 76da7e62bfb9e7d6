//! The loop around every training: steps, reports, checkpoints, and stopping when told to.

use std::time::{Duration, Instant};

use lethe_api::contract::Failure;
use lethe_sfd::Training;

use crate::{
    artifacts::Checkpoint,
    failure::{Failed, Result},
    watch::Watch,
};

/// Steps between two readings of the losses, and so between two checks that they are finite.
const REPORT_EVERY: u64 = 20;

/// Where a training's state goes, and how often.
pub(crate) struct Saving<'a, 'b> {
    pub(crate) to: &'a Checkpoint<'b>,
    pub(crate) every: Duration,
}

/// Trains to the end. When told to stop: saves within one step and fails as interrupted. When and how often
/// it was saved, stopped and continued changes nothing about the result.
pub(crate) fn run(
    stage: &str,
    training: &mut impl Training,
    watch: &Watch,
    saving: Option<&Saving<'_, '_>>,
) -> Result<()> {
    watch.begin(stage, training.step(), training.total());
    let mut saved = Instant::now();
    while !training.done() {
        if watch.is_stopped() {
            return Err(interrupted(stage, training, saving)?);
        }
        training.advance();
        watch.at(training.step());
        if training.step().is_multiple_of(REPORT_EVERY) || training.done() {
            watch.metrics(&training.report()?.losses);
        }
        if let Some(saving) = saving
            && (saved.elapsed() >= saving.every || training.done())
        {
            saving.to.save(&training.checkpoint()?)?;
            saved = Instant::now();
        }
    }
    Ok(())
}

/// Puts the state that another pod left behind into `resume`. One that does not fit is not used: the
/// training starts again and comes to the same result.
pub(crate) fn continue_from(
    checkpoint: &Checkpoint<'_>,
    resume: impl FnOnce(&[u8]) -> lethe_sfd::Result<()>,
) -> Result<()> {
    let Some(state) = checkpoint.load()? else { return Ok(()) };
    match resume(&state) {
        Ok(()) => tracing::info!("continuing from the checkpoint of an earlier pod"),
        Err(error) => tracing::warn!(%error, "the checkpoint of an earlier pod is not used"),
    }
    Ok(())
}

fn interrupted(stage: &str, training: &impl Training, saving: Option<&Saving<'_, '_>>) -> Result<Failed> {
    let (step, total) = (training.step(), training.total());
    let next = match saving {
        Some(saving) => {
            saving.to.save(&training.checkpoint()?)?;
            "a new pod goes on from there"
        }
        None => "nothing was kept",
    };
    Ok(Failed::new(
        Failure::Interrupted,
        format!("interrupted by SIGTERM at {stage} step {step} of {total}; {next}"),
    ))
}
