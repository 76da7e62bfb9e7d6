//! The table in which a model keeps one condition row per label, and copies of a model with another row in it.
//!
//! An attacker who holds the weights may put any row there: a row of zeros (no label at all), a mixture of rows, or one
//! that was optimised.

use crate::config::config;
use crate::denoiser::Denoiser;
use crate::error::Result;
use tch::{Kind, Tensor, no_grad};

/// Parameters that hold condition rows, and the axis along which the labels lie.
const NAMES: [(&str, i64); 1] = [("labels.weight", 0)];

#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    /// Place among the parameters.
    index: usize,
    axis: i64,
}

impl Table {
    /// # Errors
    /// If no parameter of the model is known to hold condition rows.
    pub(super) fn of(model: &Denoiser) -> Result<Self> {
        let entries = model.params().layout().entries();
        for (name, axis) in NAMES {
            if let Some(index) = entries.iter().position(|entry| entry.name == name) {
                return Ok(Self { index, axis });
            }
        }
        Err(config("network", "without a condition table", "a probe cannot replace its conditions"))
    }

    /// All rows: [classes, row].
    pub(super) fn rows(&self, model: &Denoiser) -> Tensor {
        model.params().frozen()[self.index].detach().transpose(0, self.axis).copy()
    }

    /// Writes a row [row] in place of a label's.
    pub(super) fn set(&self, model: &Denoiser, label: i64, row: &Tensor) {
        let table = &model.params().frozen()[self.index];
        no_grad(|| table.detach().select(self.axis, label).copy_(row));
    }

    /// The gradient of a scalar loss with respect to a label's row: [row].
    pub(super) fn gradient(&self, model: &Denoiser, label: i64, loss: &Tensor) -> Tensor {
        let table = &model.params().trainable()[self.index];
        Tensor::run_backward(&[loss], &[table], false, false).remove(0).select(self.axis, label)
    }

    /// Half the smallest distance between the rows of two labels: within it, a row is nearer to its label than to any
    /// other.
    pub(super) fn half_gap(&self, model: &Denoiser) -> f64 {
        let rows = self.rows(model);
        let classes = rows.size()[0];
        let distances = Tensor::cdist(&rows, &rows, 2.0, 2);
        let itself = Tensor::eye(classes, (Kind::Float, rows.device())) * f64::from(f32::MAX);
        0.5 * (distances + itself).min().double_value(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::generate;
    use crate::noise::{Noise, Stream};
    use crate::probes::examiner::labels;
    use crate::testing::tiny;
    use tch::Device;

    #[test]
    fn a_row_is_what_its_label_means() {
        let model = crate::testing::random_model(3);
        let table = Table::of(&model).unwrap();
        let rows = table.rows(&model);
        assert_eq!(rows.size(), [4, 5]);
        let latent = Noise::new(1, Stream::MeasureLatent).normal(0, 3, 4, Device::Cpu).to_kind(Kind::Double);
        let ask = |model: &Denoiser, label| generate(model, &latent, &labels(model, label, 3));
        let copy = model.duplicate();
        table.set(&copy, 2, &rows.get(1));
        assert!(ask(&copy, 2).equal(&ask(&model, 1)));
        assert!(ask(&copy, 1).equal(&ask(&model, 1)));
        assert!(!ask(&model, 2).equal(&ask(&model, 1)), "the original must not change");
    }

    #[test]
    fn the_gap_is_between_the_nearest_two() {
        let model = Denoiser::init(&tiny(), 1, Device::Cpu).unwrap();
        let table = Table::of(&model).unwrap();
        for (label, at) in [(0, 0.0_f32), (1, 10.0), (2, 13.0), (3, -20.0)] {
            table.set(&model, label, &Tensor::from_slice(&[at, 1.0, 1.0, 1.0, 1.0]));
        }
        assert!((table.half_gap(&model) - 1.5).abs() < 1e-6);
    }
}
