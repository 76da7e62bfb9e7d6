//! The U-Net of DDPM++ as in EDM (arXiv 2206.00364, appendix F): the condition is added, sums are scaled by sqrt(1/2).
//!
//! Dropout and augmentation, which belong to training a teacher, are left out.

use super::edm_block::{Style, dense, group_norm};
use super::edm_unet::{Direction, Plan, Skeleton};
use crate::config::{ModelConfig, SongUnetConfig};
use crate::layers::{Conv, GroupNorm, Start, frequencies, one_hot, waves};
use crate::params::{Init, Layout, Linear};
use std::f64::consts::FRAC_1_SQRT_2;
use tch::Tensor;

const EPSILON: f64 = 1e-6;

#[derive(Debug, Clone)]
pub(crate) struct SongUnet {
    classes: i64,
    frequencies: Vec<f32>,
    label: Linear,
    augmentation: Option<(Linear, i64)>,
    mapping: [Linear; 2],
    skeleton: Skeleton,
    norm: GroupNorm,
    output: Conv,
}

impl SongUnet {
    pub(crate) fn new(config: &ModelConfig, net: &SongUnetConfig, layout: &mut Layout) -> Self {
        let (channels, image) = (net.channels, config.image);
        let style = Style {
            condition: 4 * channels,
            modulates: false,
            residual_scale: FRAC_1_SQRT_2,
            epsilon: EPSILON,
            projects_resampled: true,
            head_channels: None,
            start,
            start_last,
            start_attention: |fan_in, fan_out| Start::balanced(fan_in, fan_out, 0.2_f64.sqrt()),
        };
        let label = dense(layout, "model.map_label", config.classes(), channels, start);
        let augmentation = (net.augmentations > 0).then(|| {
            let bound = Init::Uniform(start(net.augmentations, channels).weight);
            let name = "model.map_augment";
            (Linear::without_bias(layout, name, net.augmentations, channels, bound), net.augmentations)
        });
        let mapping = [("model.map_layer0", channels), ("model.map_layer1", style.condition)]
            .map(|(name, inputs)| dense(layout, name, inputs, style.condition, start));
        let widths: Vec<i64> = net.multipliers.iter().map(|multiplier| multiplier * channels).collect();
        let attends = |side: i64, direction: Direction| {
            net.attention.contains(&side) && direction != Direction::Up { last: false }
        };
        let plan = Plan {
            image_channels: image.channels,
            side: image.height,
            first: channels,
            widths: &widths,
            blocks: net.blocks,
            attends: &attends,
            style,
        };
        let skeleton = Skeleton::new(plan, layout);
        let end = format!("model.dec.{0}x{0}_aux", image.height);
        Self {
            classes: config.classes(),
            frequencies: frequencies(channels / 2, true),
            label,
            augmentation,
            mapping,
            norm: group_norm(layout, &format!("{end}_norm"), skeleton.width, EPSILON),
            output: Conv::new(
                layout,
                &format!("{end}_conv"),
                (skeleton.width, image.channels),
                3,
                start_last,
            ),
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
        let [cosines, sines] = waves(c_noise, &self.frequencies);
        let label = one_hot(label, self.classes, c_noise.kind()) * (self.classes as f64).sqrt();
        let mut told = Tensor::cat(&[sines, cosines], 1) + self.label.forward(weights, &label);
        if let Some((augmentation, inputs)) = &self.augmentation {
            let none = Tensor::zeros([1, *inputs], (told.kind(), told.device()));
            told += augmentation.forward(weights, &none);
        }
        self.mapping.iter().fold(told, |h, layer| layer.forward(weights, &h).silu())
    }
}

fn start(fan_in: i64, fan_out: i64) -> Start {
    Start::balanced(fan_in, fan_out, 1.0)
}

fn start_last(fan_in: i64, fan_out: i64) -> Start {
    Start::balanced(fan_in, fan_out, 1e-5)
}
