//! A tensor that an attack optimises.

use crate::adam::Adam;
use crate::params::{Init, Layout, Params};
use std::sync::Arc;
use tch::{Tensor, no_grad};

const BETA1: f64 = 0.9;

/// Starts somewhere, follows gradients with Adam, and may be put back into its bounds after each step.
#[derive(Debug)]
pub(crate) struct Variable {
    params: Params,
    adam: Adam,
    step: u64,
}

impl Variable {
    pub(crate) fn new(start: &Tensor) -> Self {
        let mut layout = Layout::default();
        layout.add("variable".to_owned(), &start.size(), Init::Zeros);
        let params = Params::from_flat(Arc::new(layout), start.detach().flatten(0, -1).copy());
        Self { adam: Adam::new(&params, BETA1), params, step: 0 }
    }

    /// The current value, without a gradient.
    pub(crate) fn value(&self) -> &Tensor {
        &self.params.frozen()[0]
    }

    /// The current value as a leaf of a graph.
    pub(crate) fn leaf(&self) -> &Tensor {
        &self.params.trainable()[0]
    }

    /// The gradient of a scalar loss with respect to the leaf, in its shape.
    pub(crate) fn gradient(&self, loss: &Tensor) -> Tensor {
        self.params.gradient(loss).view_as(self.value())
    }

    pub(crate) fn descend(&mut self, gradient: &Tensor, learning_rate: f64) {
        self.adam.step(&self.params, &gradient.flatten(0, -1), learning_rate, self.step);
        self.step += 1;
    }

    /// Puts another value in place of the current one.
    pub(crate) fn replace(&self, value: &Tensor) {
        no_grad(|| self.params.flat().shallow_clone().copy_(&value.flatten(0, -1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::largest;

    #[test]
    fn it_goes_where_the_loss_is_least_and_stays_within_bounds() {
        let goal = Tensor::from_slice(&[1.0_f32, -2.0, 0.5, 0.0]).view([2, 2]);
        let mut variable = Variable::new(&goal.zeros_like());
        for _ in 0..400 {
            let loss = (variable.leaf() - &goal).square().sum(None::<tch::Kind>);
            let gradient = variable.gradient(&loss);
            variable.descend(&gradient, 0.05);
        }
        assert!(largest(&(variable.value() - &goal)) < 0.02);
        variable.replace(&variable.value().clamp(-1.0, 1.0));
        assert_eq!(variable.leaf().double_value(&[0, 1]), -1.0);
    }
}
