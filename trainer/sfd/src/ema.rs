//! Moving average of weights.

use crate::settings::Averaging;
use tch::{Tensor, no_grad};

/// Decay at `step`, counted from zero: with a ramp, min(most, (1 + step) / (10 + step)).
pub(crate) fn decay(averaging: Averaging, step: u64, most: f64) -> f64 {
    match averaging {
        Averaging::Ramped => most.min((1.0 + step as f64) / (10.0 + step as f64)),
        Averaging::Constant => most,
    }
}

/// average = decay * average + (1 - decay) * current.
pub(crate) fn update(average: &Tensor, current: &Tensor, decay: f64) {
    no_grad(|| {
        let _ = average.shallow_clone().lerp_(current, 1.0 - decay);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn the_ramp_meets_the_ceiling() {
        let ramped = |step| decay(Averaging::Ramped, step, 0.99);
        assert_eq!((ramped(0), ramped(10), ramped(100_000)), (0.1, 11.0 / 20.0, 0.99));
        assert_eq!(decay(Averaging::Constant, 0, 0.99), 0.99);
    }

    /// With the published decay of 0.9999 a thousand steps leave nine tenths of the start in an average without a ramp.
    #[test]
    fn with_a_ramp_a_short_training_leaves_its_start_behind() {
        let left = |averaging| (0..1000).map(|step| decay(averaging, step, 0.9999)).product::<f64>();
        assert!(left(Averaging::Constant) > 0.9);
        assert!(left(Averaging::Ramped) < 1e-6);
    }

    #[test]
    fn without_a_ramp_the_start_fades_geometrically() {
        let average = Tensor::ones([3], (Kind::Double, Device::Cpu));
        let current = Tensor::zeros([3], (Kind::Double, Device::Cpu));
        (0..50).for_each(|_| update(&average, &current, 0.9));
        assert!((average.double_value(&[1]) - 0.9_f64.powi(50)).abs() < 1e-12);
    }
}
