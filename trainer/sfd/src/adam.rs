//! Adam over a flat buffer (Kingma and Ba, arXiv 1412.6980). Its state is plain tensors, so that a training can be saved.

use crate::params::Params;
use tch::{Tensor, no_grad};

const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

#[derive(Debug)]
pub(crate) struct Adam {
    beta1: f64,
    /// Mean gradient; absent if beta1 is zero, where it would be the gradient itself.
    first: Option<Tensor>,
    /// Mean squared gradient.
    second: Tensor,
}

impl Adam {
    pub(crate) fn new(params: &Params, beta1: f64) -> Self {
        let first = (beta1 > 0.0).then(|| params.flat().zeros_like());
        Self { beta1, first, second: params.flat().zeros_like() }
    }

    /// One step along `gradient` [P]; `step` counts from zero.
    pub(crate) fn step(&mut self, params: &Params, gradient: &Tensor, learning_rate: f64, step: u64) {
        let unbiased = |beta: f64| 1.0 - beta.powi(i32::try_from(step + 1).unwrap_or(i32::MAX));
        // weight -= rate m / (sqrt(v) + e), with everything that is one number gathered before the buffer is touched.
        let root = unbiased(BETA2).sqrt();
        let per_rate = -unbiased(self.beta1) / (learning_rate * root);
        no_grad(|| {
            let _ = self.second.lerp_(&gradient.square(), 1.0 - BETA2);
            let mean = match &mut self.first {
                Some(first) => first.lerp_(gradient, 1.0 - self.beta1),
                None => gradient.shallow_clone(),
            };
            let mut divisor = self.second.sqrt();
            let divisor = divisor.g_add_scalar_(EPSILON * root).g_mul_scalar_(per_rate);
            let _ = params.flat().shallow_clone().addcdiv_(&mean, &divisor);
        });
    }

    /// The state's tensors, by name.
    pub(crate) fn state(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.first.iter().map(|first| ("first", first)).chain([("second", &self.second)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Init, Layout};
    use std::sync::Arc;
    use tch::Device;

    /// Ten steps of one weight against the paper's algorithm 1, written for a scalar.
    fn assert_follows_the_paper(beta1: f64) {
        let mut layout = Layout::default();
        layout.add("weight".into(), &[2], Init::Zeros);
        let params = Params::init(Arc::new(layout), 0, Device::Cpu);
        let mut adam = Adam::new(&params, beta1);
        let (mut weight, mut first, mut second) = (0.0_f64, 0.0, 0.0);
        for step in 0..10 {
            let gradient = (f64::from(step) * 1.7).sin();
            first = beta1 * first + (1.0 - beta1) * gradient;
            second = BETA2 * second + (1.0 - BETA2) * gradient * gradient;
            let unbiased = |moment: f64, beta: f64| moment / (1.0 - beta.powi(step + 1));
            weight -= 0.01 * unbiased(first, beta1) / (unbiased(second, BETA2).sqrt() + EPSILON);
            adam.step(&params, &Tensor::from_slice(&[gradient as f32, 0.0]), 0.01, step as u64);
        }
        assert!((params.flat().double_value(&[0]) - weight).abs() < 1e-6);
        assert_eq!(params.flat().double_value(&[1]), 0.0);
    }

    #[test]
    fn steps_follow_the_paper() {
        assert_follows_the_paper(0.9);
        assert_follows_the_paper(0.0);
    }

    #[test]
    fn without_a_first_moment_there_is_no_buffer_for_it() {
        let mut layout = Layout::default();
        layout.add("weight".into(), &[2], Init::Zeros);
        let params = Params::init(Arc::new(layout), 0, Device::Cpu);
        let names = |beta1| Adam::new(&params, beta1).state().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(0.0), ["second"]);
        assert_eq!(names(0.9), ["first", "second"]);
    }
}
