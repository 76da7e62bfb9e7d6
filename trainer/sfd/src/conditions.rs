//! The table in which a model keeps one condition row per label, and copies of a model with another row in it.
//!
//! An attacker who holds the weights may put any row there: a row of zeros (no label at all), a mixture of rows, or one
//! that was optimised.

use crate::config::config;
use crate::denoiser::Denoiser;
use crate::error::Result;
use tch::{Kind, Tensor, no_grad};

/// Parameters that hold condition rows, and the axis along which the labels lie.
const NAMES: [(&str, i64); 3] =
    [("labels.weight", 0), ("classes_emb.weight", 0), ("model.map_label.weight", 1)];

#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// Place among the parameters.
    index: usize,
    axis: i64,
}

impl Table {
    /// # Errors
    /// If no parameter of the model is known to hold condition rows.
    pub(crate) fn of(model: &Denoiser) -> Result<Self> {
        let entries = model.params().layout().entries();
        for (name, axis) in NAMES {
            if let Some(index) = entries.iter().position(|entry| entry.name == name) {
                return Ok(Self { index, axis });
            }
        }
        Err(config("network", "without a condition table", "a probe cannot replace its conditions"))
    }

    /// All rows: [classes, row].
    pub(crate) fn rows(&self, model: &Denoiser) -> Tensor {
        model.params().frozen()[self.index].detach().transpose(0, self.axis).copy()
    }

    /// The same model, not a copy, with `more` rows [N, row] after those of its labels. The labels of more rows than its
    /// own are for networks that have no null label.
    pub(crate) fn extended(&self, model: &Denoiser, more: &Tensor) -> Denoiser {
        let more = more.transpose(0, self.axis);
        model.with_parameter(self.index, |rows| Tensor::cat(&[rows, &more.to_kind(rows.kind())], self.axis))
    }

    /// Writes a row [row] in place of a label's.
    pub(crate) fn set(&self, model: &Denoiser, label: i64, row: &Tensor) {
        let table = &model.params().frozen()[self.index];
        no_grad(|| table.detach().select(self.axis, label).copy_(row));
    }

    /// The gradient of a scalar loss with respect to a label's row: [row].
    pub(crate) fn gradient(&self, model: &Denoiser, label: i64, loss: &Tensor) -> Tensor {
        let table = &model.params().trainable()[self.index];
        Tensor::run_backward(&[loss], &[table], false, false).remove(0).select(self.axis, label)
    }

    /// Half the smallest distance between the rows of two labels: within it, a row is nearer to its label than to any
    /// other.
    pub(crate) fn half_gap(&self, model: &Denoiser) -> f64 {
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
    use crate::config::{
        AdmUnetConfig, DdpmUnetConfig, ImageShape, MlpConfig, ModelConfig, NetworkConfig, SongUnetConfig,
    };
    use crate::noise::{Noise, Stream};
    use crate::testing::{largest, tiny};
    use tch::Device;

    fn labels(model: &Denoiser, label: i64, n: i64) -> Tensor {
        Tensor::full([n], label, (Kind::Int64, model.device()))
    }

    /// A small model of a network, all of whose weights are random.
    fn model(network: NetworkConfig) -> Denoiser {
        let image = ImageShape { channels: 1, height: 4, width: 4 };
        let fresh = Denoiser::init(&ModelConfig { image, network, ..tiny() }, 1, Device::Cpu).unwrap();
        let count = fresh.params().flat().size()[0];
        let noise = Noise::new(1, Stream::FakeNoise).normal(0, 1, count, Device::Cpu).view([-1]);
        fresh.with_flat((fresh.params().flat() + noise * 0.1).to_kind(Kind::Double))
    }

    fn networks() -> [NetworkConfig; 4] {
        let (multipliers, attention) = (vec![1], vec![4]);
        let (m, a) = (multipliers.clone(), attention.clone());
        let song = SongUnetConfig { channels: 32, multipliers: m, blocks: 1, attention: a, augmentations: 0 };
        let (m, a) = (multipliers.clone(), attention.clone());
        let adm = AdmUnetConfig {
            channels: 32,
            multipliers: m,
            blocks: 1,
            attention: a,
            augmentations: 0,
            head_channels: 32,
        };
        [
            MlpConfig { width: 6, blocks: 2, embedding: 5, frequencies: 3 }.into(),
            NetworkConfig::DdpmUnet(DdpmUnetConfig { channels: 32, multipliers, blocks: 1, attention }),
            NetworkConfig::SongUnet(song),
            NetworkConfig::AdmUnet(adm),
        ]
    }

    #[test]
    fn in_every_network_a_row_is_what_its_label_means() {
        for network in networks() {
            let model = model(network);
            let table = Table::of(&model).unwrap();
            let rows = table.rows(&model);
            assert_eq!(rows.size()[0], 4);
            let x = Noise::new(1, Stream::MeasureLatent).normal(0, 3, 16, Device::Cpu).to_kind(Kind::Double);
            let sigma = Tensor::full([3, 1], 2.5, (Kind::Double, Device::Cpu));
            let ask = |model: &Denoiser, label| model.denoise(&x, &sigma, &labels(model, label, 3));
            let (copy, name) = (model.duplicate(), &model.config().network);
            table.set(&copy, 2, &rows.get(1));
            assert!(ask(&copy, 2).equal(&ask(&model, 1)), "{name:?}");
            assert!(ask(&copy, 1).equal(&ask(&model, 1)), "{name:?}");
            assert!(!ask(&model, 2).equal(&ask(&model, 1)), "the original must not change: {name:?}");
            // The gradient of one label's row leads to that label's images.
            let loss = model.denoise_trainable(&x, &sigma, &labels(&model, 3, 3)).square().sum(None::<Kind>);
            assert!(largest(&table.gradient(&model, 3, &loss)) > 0.0, "{name:?}");
        }
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
