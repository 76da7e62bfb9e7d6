//! What every resumable training has in common. The caller owns the loop: when to stop, save and report is its business.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

/// Which training this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Teacher from images.
    Teach,
    /// Stage 1: one-step generator from the teacher.
    Distil,
    /// Stage 2: forgetting.
    Forget,
}

/// Where a training stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub stage: Stage,
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub total: u64,
    /// Mean of each loss over the steps since the last report, by name, and what was found by looking since.
    pub losses: Vec<(&'static str, f64)>,
}

/// A training that is advanced step by step and can be left and continued at any step, with the same result to the bit
/// on the same machine.
pub trait Training {
    fn stage(&self) -> Stage;

    /// Steps done.
    fn step(&self) -> u64;

    /// Steps in all.
    fn total(&self) -> u64;

    /// Does one step. Reads nothing back from the device. Does nothing once it is [`Training::done`].
    fn advance(&mut self);

    /// Reads the losses since the last report.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss or a weight is not finite.
    fn report(&mut self) -> Result<Progress>;

    /// Everything that `resume` needs, as safetensors bytes. Still knows what is forgotten: keep it in the run's
    /// scratch space.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a weight is not finite.
    fn checkpoint(&self) -> Result<Vec<u8>>;

    /// Whether `step()` has reached `total()`, or it is good enough before.
    fn done(&self) -> bool {
        self.step() >= self.total()
    }
}

/// Asked between two pieces of work that cannot be continued: whether to give up, so that somebody starts it again
/// later. Giving up changes nothing about the result of the next time.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// # Errors
/// [`Error::Stopped`] if the caller gives up.
pub(crate) fn go_on(stop: Stop<'_>) -> Result<()> {
    if stop() { Err(Error::Stopped) } else { Ok(()) }
}

/// Losses summed on the device until somebody asks.
#[derive(Debug)]
pub(crate) struct Meter {
    names: &'static [&'static str],
    sums: Tensor,
    steps: u64,
}

impl Meter {
    pub(crate) fn new(names: &'static [&'static str], device: Device) -> Self {
        Self { names, sums: Tensor::zeros([names.len() as i64], (Kind::Double, device)), steps: 0 }
    }

    /// # Shapes
    /// One scalar per name.
    pub(crate) fn add(&mut self, losses: &[Tensor]) {
        no_grad(|| self.sums += Tensor::stack(losses, 0).detach());
        self.steps += 1;
    }

    /// Means since the last reading, if all are finite.
    pub(crate) fn read(&mut self, step: u64) -> Result<Vec<(&'static str, f64)>> {
        let steps = self.steps.max(1) as f64;
        let means = |index: usize| self.sums.double_value(&[index as i64]) / steps;
        let losses: Vec<_> = self.names.iter().enumerate().map(|(i, &name)| (name, means(i))).collect();
        if let Some((name, _)) = losses.iter().find(|(_, mean)| !mean.is_finite()) {
            return Err(Error::Diverged { step, tensor: format!("the {name} loss") });
        }
        let _ = self.sums.zero_();
        self.steps = 0;
        Ok(losses)
    }
}

/// Learning rate factor: a linear rise over `warmup` steps, then 1, then a cosine to zero over the last part `decay`.
pub(crate) fn schedule(step: u64, total: u64, warmup: u64, decay: f64) -> f64 {
    let rise = if warmup == 0 { 1.0 } else { ((step + 1) as f64 / warmup as f64).min(1.0) };
    let progress = step as f64 / total as f64;
    let fall = ((progress - (1.0 - decay)) / decay.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    rise * 0.5 * (1.0 + (std::f64::consts::PI * fall).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_holds_and_falls() {
        let at = |step| schedule(step, 100, 10, 0.5);
        assert!((at(0) - 0.1).abs() < 1e-12);
        assert_eq!((at(9), at(50)), (1.0, 1.0));
        assert!((at(75) - 0.5).abs() < 1e-12);
        assert!(at(99) < 0.001);
        assert_eq!(schedule(99, 100, 0, 0.0), 1.0);
    }

    #[test]
    fn a_loss_that_is_not_finite_is_named() {
        let mut meter = Meter::new(&["first", "second"], Device::Cpu);
        meter.add(&[Tensor::from(1.0), Tensor::from(f64::NAN)]);
        let message = meter.read(12).unwrap_err().to_string();
        assert!(message.contains("step 12") && message.contains("second"), "{message}");
    }
}
