//! Moving average of weights with a ramp, so that the first steps do not drag the start along.

use tch::{Tensor, no_grad};

/// Decay at `step`, counted from zero: min(most, (1 + step) / (10 + step)).
pub(crate) fn decay(step: u64, most: f64) -> f64 {
    most.min((1.0 + step as f64) / (10.0 + step as f64))
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
        assert_eq!(decay(0, 0.99), 0.1);
        assert_eq!(decay(10, 0.99), 11.0 / 20.0);
        assert_eq!(decay(100_000, 0.99), 0.99);
    }

    #[test]
    fn without_a_ramp_the_start_fades_geometrically() {
        let average = Tensor::ones([3], (Kind::Double, Device::Cpu));
        let current = Tensor::zeros([3], (Kind::Double, Device::Cpu));
        (0..50).for_each(|_| update(&average, &current, 0.9));
        assert!((average.double_value(&[1]) - 0.9_f64.powi(50)).abs() < 1e-12);
    }
}
