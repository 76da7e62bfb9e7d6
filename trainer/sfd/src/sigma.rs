//! Noise levels: where samplers stop and where training looks. Units: standard deviations of a pixel.

use crate::config::NoiseConfig;
use tch::Tensor;

/// Bends the sampler's and SiD's levels towards low noise (EDM, table 1).
const RHO: f64 = 7.0;
/// Mean and standard deviation of ln sigma when a score is trained (EDM, table 1).
const LN_SIGMA_MEAN: f64 = -1.2;
const LN_SIGMA_STD: f64 = 1.2;
/// Part of the levels, from the lowest up, at which the generator is trained if nobody says otherwise (SiD, section 5:
/// t_max = 800 of 1000).
pub const GENERATOR_RANGE: f64 = 0.8;
/// Part of the levels at either end that is left out where the range is widest (the program published with SFD).
pub const EDGE: f64 = 0.02;

/// The level at position `u`: sigma_min at 0, sigma_max at 1, evenly spaced in sigma^(1/rho).
pub fn at(noise: &NoiseConfig, u: f64) -> f64 {
    let (low, high) = (noise.sigma_min.powf(1.0 / RHO), noise.sigma_max.powf(1.0 / RHO));
    (low + u * (high - low)).powf(RHO)
}

/// Where a level lies: the `u` for which [`at`] gives it.
pub fn position(noise: &NoiseConfig, sigma: f64) -> f64 {
    let [low, high, sigma] = [noise.sigma_min, noise.sigma_max, sigma].map(|level| level.powf(1.0 / RHO));
    (sigma - low) / (high - low)
}

/// The levels of an EDM sampler, from sigma_max down to sigma_min and then 0 (EDM, equation 5): `steps` + 1 values.
pub fn sampler_levels(noise: &NoiseConfig, steps: i64) -> Vec<f64> {
    let last = (steps - 1).max(1) as f64;
    (0..steps).map(|i| at(noise, 1.0 - i as f64 / last)).chain([0.0]).collect()
}

/// A score's training levels from standard normal draws of any shape: log-normal (EDM, table 1).
pub fn score_levels(normal: &Tensor) -> Tensor {
    (normal * LN_SIGMA_STD + LN_SIGMA_MEAN).exp()
}

/// The generator's training level in the lowest `range` of all, from a uniform draw in (0, 1) (SiD, section 5).
pub fn generator_level(noise: &NoiseConfig, range: f64, uniform: f64) -> f64 {
    at(noise, range * uniform)
}

/// A level from nearly the whole range, from a uniform draw in (0, 1).
pub fn widest_level(noise: &NoiseConfig, uniform: f64) -> f64 {
    at(noise, EDGE + (1.0 - 2.0 * EDGE) * uniform)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) {
        assert!((value / expected - 1.0).abs() < 1e-4, "{value} is not {expected}");
    }

    #[test]
    fn levels_are_those_of_the_papers() {
        let noise = NoiseConfig::default();
        close(at(&noise, 0.0), 0.002);
        close(at(&noise, 0.5), 2.5152);
        close(at(&noise, 0.8), 24.408);
        close(at(&noise, 1.0), 80.0);
        close(position(&noise, at(&noise, 0.3)), 0.3);
        close(generator_level(&noise, GENERATOR_RANGE, 1.0), 24.408);
        close(generator_level(&noise, GENERATOR_RANGE, 0.0), 0.002);
        close(generator_level(&noise, 1.0, 1.0), 80.0);
        close(position(&noise, widest_level(&noise, 0.0)), 0.02);
        close(position(&noise, widest_level(&noise, 1.0)), 0.98);
        let levels = score_levels(&Tensor::from_slice(&[0.0, 1.0]));
        close(levels.double_value(&[0]), 0.301_194);
        close(levels.double_value(&[1]), 1.0);
    }

    #[test]
    fn a_sampler_goes_down_from_the_highest_level_to_zero() {
        let levels = sampler_levels(&NoiseConfig::default(), 18);
        assert_eq!(levels.len(), 19);
        close(levels[0], 80.0);
        close(levels[17], 0.002);
        assert_eq!(levels[18], 0.0);
        assert!(levels.windows(2).all(|pair| pair[0] > pair[1]), "{levels:?}");
    }
}
