//! The U-Net of ADM (arXiv 2105.05233) as in EDM (arXiv 2206.00364, appendix F): the condition scales and shifts.
//!
//! Dropout and augmentation, which belong to training a teacher, are left out.

use super::edm_block::{Style, dense, group_norm};
use super::edm_unet::{Plan, Skeleton};
use crate::config::{AdmUnetConfig, ModelConfig};
use crate::layers::{Conv, GroupNorm, Start, frequencies, one_hot, waves};
use crate::params::{Init, Layout, Linear};
use tch::Tensor;

const EPSILON: f64 = 1e-5;
/// Bound of a uniform distribution of standard deviation one, from which label embeddings start.
const LABEL_BOUND: f64 = 1.732_050_8;

#[derive(Debug, Clone)]
pub(crate) struct AdmUnet {
    classes: i64,
    frequencies: Vec<f32>,
    label: Linear,
    augmentation: Option<(Linear, i64)>,
    mapping: [Linear; 2],
    skeleton: Skeleton,
    norm: GroupNorm,
    output: Conv,
}

impl AdmUnet {
    pub(crate) fn new(config: &ModelConfig, net: &AdmUnetConfig, layout: &mut Layout) -> Self {
        let (channels, image) = (net.channels, config.image);
        let zero = |_, _| Start::ZERO;
        let style = Style {
            condition: 4 * channels,
            modulates: true,
            residual_scale: 1.0,
            epsilon: EPSILON,
            projects_resampled: false,
            head_channels: Some(net.head_channels),
            start,
            start_last: zero,
            start_attention: start,
        };
        let augmentation = (net.augmentations > 0).then(|| {
            let name = "model.map_augment";
            (Linear::without_bias(layout, name, net.augmentations, channels, Init::Zeros), net.augmentations)
        });
        let mapping = [("model.map_layer0", channels), ("model.map_layer1", style.condition)]
            .map(|(name, inputs)| dense(layout, name, inputs, style.condition, start));
        let bound = Init::Uniform(LABEL_BOUND);
        let label = Linear::without_bias(layout, "model.map_label", config.classes(), style.condition, bound);
        let widths: Vec<i64> = net.multipliers.iter().map(|multiplier| multiplier * channels).collect();
        let plan = Plan {
            image_channels: image.channels,
            side: image.height,
            first: widths[0],
            widths: &widths,
            blocks: net.blocks,
            attends: &|side, _| net.attention.contains(&side),
            style,
        };
        let skeleton = Skeleton::new(plan, layout);
        Self {
            classes: config.classes(),
            frequencies: frequencies(channels / 2, false),
            label,
            augmentation,
            mapping,
            norm: group_norm(layout, "model.out_norm", skeleton.width, EPSILON),
            output: Conv::new(layout, "model.out_conv", (skeleton.width, image.channels), 3, zero),
            skeleton,
        }
    }

    /// # Shapes
    /// x: [B, C, H, W]; c_noise: [B, 1]; label: [B] whole numbers -> [B, C, H, W]
    pub(crate) fn forward(&self, weights: &[Tensor], x: &Tensor, c_noise: &Tensor, label: &Tensor) -> Tensor {
        let condition = self.condition(weights, c_noise, label);
        let h = self.skeleton.forward(weights, x, &condition);
        self.output.forward(weights, &self.norm.forward(weights, &h).silu())
    }

    /// What the noise level and the label say together: [B, 4 channels].
    fn condition(&self, weights: &[Tensor], c_noise: &Tensor, label: &Tensor) -> Tensor {
        let mut told = Tensor::cat(&waves(c_noise, &self.frequencies), 1);
        if let Some((augmentation, inputs)) = &self.augmentation {
            let none = Tensor::zeros([1, *inputs], (told.kind(), told.device()));
            told += augmentation.forward(weights, &none);
        }
        let [first, second] = &self.mapping;
        let level = second.forward(weights, &first.forward(weights, &told).silu());
        (level + self.label.forward(weights, &one_hot(label, self.classes, c_noise.kind()))).silu()
    }
}

fn start(fan_in: i64, _: i64) -> Start {
    Start::usual(fan_in)
}
