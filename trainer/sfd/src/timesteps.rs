//! Discrete noise levels: the sigma of a timestep, and the timestep of a sigma.
//!
//! With abar the running product of 1 - beta, a noisy image of discrete-time diffusion is sqrt(abar) clean +
//! sqrt(1 - abar) noise. Divided by sqrt(abar) it is clean + sigma noise, the form that everything else here uses.

use crate::config::{Betas, DiscreteConfig};
use crate::device::upload;
use tch::{Kind, Tensor};

/// sigma by timestep, rising.
#[derive(Debug, Clone, PartialEq)]
pub struct Timesteps {
    sigmas: Vec<f64>,
}

impl Timesteps {
    /// `config` must be valid.
    pub fn new(config: &DiscreteConfig) -> Self {
        let bend = |beta: f64| if config.betas == Betas::ScaledLinear { beta.sqrt() } else { beta };
        let (start, end) = (bend(config.beta_start), bend(config.beta_end));
        let last = (config.steps - 1) as f64;
        let betas = (0..config.steps).map(|step| start + (end - start) * step as f64 / last);
        let betas = betas.map(|beta| if config.betas == Betas::ScaledLinear { beta * beta } else { beta });
        let abar = betas.scan(1.0, |product, beta| {
            *product *= 1.0 - beta;
            Some(*product)
        });
        Self { sigmas: abar.map(|abar: f64| ((1.0 - abar) / abar).sqrt()).collect() }
    }

    pub fn len(&self) -> usize {
        self.sigmas.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sigmas.is_empty()
    }

    /// Lowest and highest level.
    pub fn range(&self) -> (f64, f64) {
        (self.sigmas[0], self.sigmas[self.sigmas.len() - 1])
    }

    /// The level of a timestep.
    pub fn sigma(&self, step: usize) -> f64 {
        self.sigmas[step]
    }

    /// The timestep whose level is nearest, on a logarithmic scale.
    pub fn nearest(&self, sigma: f64) -> usize {
        let above = self.sigmas.partition_point(|&known| known < sigma).clamp(1, self.sigmas.len() - 1);
        let (low, high) = (self.sigmas[above - 1], self.sigmas[above]);
        if sigma * sigma < low * high { above - 1 } else { above }
    }

    /// The timesteps of levels of any shape: a whole number for a level of the schedule, in between (evenly in ln sigma)
    /// for a level in between. Levels outside the schedule count as its ends.
    pub(crate) fn of(&self, sigma: &Tensor) -> Tensor {
        // Both sides are rounded alike, so that a level of the schedule is found exactly.
        let known = self.known(sigma);
        let last = self.sigmas.len() as i64 - 1;
        let above = sigma.bucketize(&known, false, false).clamp(1, last);
        let below = &above - 1;
        let at = |index: &Tensor| known.take(index).log();
        let part = (sigma.log() - at(&below)) / (at(&above) - at(&below));
        below.to_kind(sigma.kind()) + part.clamp(0.0, 1.0)
    }

    /// A level of the schedule with timestep in `least..end`, for each uniform number in (0, 1).
    pub(crate) fn draw(&self, uniform: &Tensor, least: usize, end: usize) -> Tensor {
        let count = (end - least) as i64;
        let step = (uniform * count as f64).to_kind(Kind::Int64).clamp(0, count - 1) + least as i64;
        self.known(uniform).take(&step)
    }

    /// All levels, of the kind and on the device of another tensor.
    fn known(&self, like: &Tensor) -> Tensor {
        upload(&Tensor::from_slice(&self.sigmas).to_kind(like.kind()), like.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear() -> Timesteps {
        Timesteps::new(&DiscreteConfig::default())
    }

    fn scaled() -> Timesteps {
        let (betas, beta_start, beta_end) = (Betas::ScaledLinear, 0.00085, 0.012);
        Timesteps::new(&DiscreteConfig { betas, beta_start, beta_end, ..DiscreteConfig::default() })
    }

    fn close(value: f64, expected: f64, tolerance: f64) {
        assert!((value - expected).abs() < tolerance, "{value} is not {expected}");
    }

    #[test]
    fn levels_are_the_published_ones() {
        let linear = linear();
        let abar = |sigma: f64| 1.0 / (1.0 + sigma * sigma);
        close(linear.sigma(440), 2.50233, 5e-6);
        close(abar(linear.sigma(440)), 0.13771, 5e-6);
        close(linear.sigma(38), 0.13726, 5e-6);
        close(linear.sigma(712), 13.10728, 5e-6);
        let scaled = scaled();
        close(scaled.sigma(625), 2.50170, 5e-6);
        close(scaled.sigma(20), 0.13799, 5e-6);
        close(scaled.sigma(980), 13.04308, 5e-6);
    }

    #[test]
    fn the_timesteps_of_sfd_are_found_from_its_levels() {
        let found = |steps: Timesteps, levels: [f64; 3]| levels.map(|sigma| steps.nearest(sigma));
        let window = [0.137, 2.5, DiscreteConfig::default().training_max];
        assert_eq!(found(linear(), window), [38, 440, 712]);
        // The same window ends a timestep later on Stable Diffusion's schedule, whose own upper end is a little lower.
        assert_eq!(found(scaled(), window), [20, 625, 981]);
        assert_eq!(found(scaled(), [0.138, 2.5, 13.04]), [20, 625, 980]);
    }

    #[test]
    fn levels_outside_the_schedule_count_as_its_ends() {
        let steps = linear();
        assert_eq!((steps.nearest(1e-9), steps.nearest(1e9)), (0, 999));
        let found = steps.of(&Tensor::from_slice(&[1e-9, 1e9]));
        assert_eq!(Vec::<f64>::try_from(&found).unwrap(), [0.0, 999.0]);
    }

    #[test]
    fn every_level_leads_back_to_its_timestep_exactly() {
        for steps in [linear(), scaled()] {
            for kind in [Kind::Float, Kind::Double] {
                let sigmas = Tensor::from_slice(&steps.sigmas).to_kind(kind);
                let expected = Tensor::arange(1000, (kind, sigmas.device()));
                assert!(steps.of(&sigmas.view([-1, 1])).view([-1]).equal(&expected));
            }
            assert!((0..1000).all(|step| steps.nearest(steps.sigma(step)) == step));
        }
    }

    #[test]
    fn a_level_in_between_has_a_timestep_in_between() {
        let steps = linear();
        let middle = (steps.sigma(440) * steps.sigma(441)).sqrt();
        close(steps.of(&Tensor::from_slice(&[middle])).double_value(&[0]), 440.5, 1e-9);
    }

    #[test]
    fn draws_cover_their_window_and_nothing_else() {
        let steps = linear();
        let uniform = Tensor::arange(1000, (Kind::Double, tch::Device::Cpu)) / 1000.0;
        let drawn = Vec::<f64>::try_from(steps.of(&steps.draw(&uniform, 38, 712))).unwrap();
        assert_eq!((drawn[0], drawn[999]), (38.0, 711.0));
        assert_eq!(steps.draw(&Tensor::from_slice(&[1.0]), 38, 712).double_value(&[0]), steps.sigma(711));
    }
}
