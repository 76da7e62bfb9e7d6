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

/// A number and what it is.
pub type Named = (&'static str, f64);

/// Where a training stands. A function of the training's arguments and the steps at which reports were asked for, on a
/// CPU: interruptions do not change it.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub stage: Stage,
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub total: u64,
    /// Images that those steps were taken on.
    pub images: u64,
    /// Mean of each loss over the steps since the last report.
    pub losses: Vec<Named>,
    /// Mean Euclidean norm of each network's gradient, before it is clipped, over the same steps.
    pub gradient_norms: Vec<Named>,
    /// What was found by looking since the last report.
    pub looks: Vec<Named>,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Teach => "teach",
            Stage::Distil => "distil",
            Stage::Forget => "forget",
        }
    }
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
    /// [`Error::Diverged`] if a loss, a gradient or a weight is not finite.
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

/// Losses and norms of gradients, summed on the device until somebody asks.
#[derive(Debug)]
pub(crate) struct Meter {
    losses: &'static [&'static str],
    networks: &'static [&'static str],
    one: Tensor,
    /// Of each loss, of each norm, of ones, and of ones as long as all of these were finite: [L + N + 2]
    sums: Tensor,
}

/// What a [`Meter`] has summed: means by name.
#[derive(Debug, PartialEq)]
pub(crate) struct Means {
    pub(crate) losses: Vec<Named>,
    pub(crate) gradient_norms: Vec<Named>,
}

/// The first mean that is not finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Diverged {
    pub(crate) what: NotFinite,
    /// How many steps were done after the one in which it went wrong.
    ago: u64,
}

/// A loss or a network's gradient, by name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NotFinite {
    Loss(&'static str),
    Gradient(&'static str),
}

impl Diverged {
    /// `step`: at which it was read. `weight`: where in the gradient, if that is known.
    pub(crate) fn at(self, step: u64, weight: Option<&str>) -> Error {
        let tensor = match (self.what, weight) {
            (NotFinite::Loss(name), _) => format!("the {name} loss"),
            (NotFinite::Gradient(network), None) => format!("the gradient of the {network}"),
            (NotFinite::Gradient(network), Some(weight)) => {
                format!("the gradient of the {network} at weight {weight}")
            }
        };
        Error::Diverged { step: step.saturating_sub(self.ago), tensor }
    }
}

impl Meter {
    pub(crate) fn new(
        losses: &'static [&'static str],
        networks: &'static [&'static str],
        device: Device,
    ) -> Self {
        let kind = (Kind::Double, device);
        let sums = Tensor::zeros([(losses.len() + networks.len() + 2) as i64], kind);
        Self { losses, networks, one: Tensor::ones([], kind), sums }
    }

    /// Takes in one step.
    ///
    /// # Shapes
    /// One scalar per loss and per network.
    pub(crate) fn add(&mut self, losses: &[Tensor], gradient_norms: &[Tensor]) {
        let scalars = losses.iter().chain(gradient_norms).chain([&self.one]);
        let scalars: Vec<Tensor> = scalars.map(|scalar| scalar.detach().to_kind(Kind::Double)).collect();
        let last = scalars.len() as i64;
        no_grad(|| {
            let mut sums = self.sums.narrow(0, 0, last);
            sums += Tensor::stack(&scalars, 0);
            // What is not finite once stays so in a sum.
            let mut sound = self.sums.get(last);
            sound += sums.isfinite().all();
        });
    }

    /// The sums, by name: what a training has to keep to report the same after an interruption.
    pub(crate) fn state(&self) -> (String, &Tensor) {
        ("meter".into(), &self.sums)
    }

    /// Means since the last reading, if all are finite.
    pub(crate) fn read(&mut self) -> Result<Means, Diverged> {
        let sums = Vec::<f64>::try_from(&self.sums).expect("a vector of this kind");
        let (sums, steps) = sums.split_at(self.losses.len() + self.networks.len());
        let (losses, norms) = sums.split_at(self.losses.len());
        let mean = |(&name, sum): (&&'static str, &f64)| (name, sum / steps[0].max(1.0));
        let means = Means {
            losses: self.losses.iter().zip(losses).map(mean).collect(),
            gradient_norms: self.networks.iter().zip(norms).map(mean).collect(),
        };
        let not_finite =
            |means: &[Named]| means.iter().find(|(_, mean)| !mean.is_finite()).map(|found| found.0);
        let loss = not_finite(&means.losses).map(NotFinite::Loss);
        let found = loss.or_else(|| not_finite(&means.gradient_norms).map(NotFinite::Gradient));
        if let Some(what) = found {
            return Err(Diverged { what, ago: (steps[0] - steps[1] - 1.0).max(0.0) as u64 });
        }
        let _ = self.sums.zero_();
        Ok(means)
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

    fn meter() -> Meter {
        Meter::new(&["first", "second"], &["teacher"], Device::Cpu)
    }

    #[test]
    fn means_are_over_the_steps_since_the_last_reading() {
        let mut meter = meter();
        for loss in [1.0, 3.0] {
            meter.add(&[Tensor::from(loss), Tensor::from(0.5_f32)], &[Tensor::from(5.0)]);
        }
        let means = meter.read().unwrap();
        assert_eq!(means.losses, [("first", 2.0), ("second", 0.5)]);
        assert_eq!(means.gradient_norms, [("teacher", 5.0)]);
        let nothing = meter.read().unwrap();
        assert_eq!((nothing.losses[0].1, nothing.gradient_norms[0].1), (0.0, 0.0));
    }

    #[test]
    fn a_loss_or_a_gradient_that_is_not_finite_is_named() {
        let message = |loss: f64, gradient: f64| {
            let mut meter = meter();
            meter.add(&[Tensor::from(1.0), Tensor::from(loss)], &[Tensor::from(gradient)]);
            meter.read().unwrap_err().at(12, None).to_string()
        };
        let named = message(f64::NAN, f64::NAN);
        assert!(named.contains("step 12") && named.contains("the second loss"), "{named}");
        // A clipped gradient would be finite again.
        let named = message(1.0, f64::INFINITY);
        assert!(named.contains("step 12") && named.contains("the gradient of the teacher"), "{named}");
    }

    #[test]
    fn the_step_that_is_named_is_the_one_in_which_it_went_wrong() {
        let mut meter = meter();
        for loss in [1.0, 2.0, f64::INFINITY, f64::NEG_INFINITY, 3.0] {
            meter.add(&[Tensor::from(loss), Tensor::from(1.0)], &[Tensor::from(1.0)]);
        }
        // Read after step 105, as the fifth since the last reading: it was the third.
        let named = meter.read().unwrap_err().at(105, None).to_string();
        assert!(named.contains("step 103") && named.contains("the first loss"), "{named}");
    }
}
