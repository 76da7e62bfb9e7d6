//! The residual block that EDM's two U-Nets share (arXiv 2206.00364, appendix F), with attention and resampling where asked for.

use crate::layers::{Conv, GroupNorm, Start, attend, double, halve};
use crate::params::{Init, Layout, Linear};
use tch::Tensor;

/// What tells the two networks' blocks apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Units of the condition (noise level plus label).
    pub(crate) condition: i64,
    /// The condition scales and shifts a normalised tensor; otherwise it is added before the norm.
    pub(crate) modulates: bool,
    /// Factor of a block's output, so that a sum of two tensors keeps its size.
    pub(crate) residual_scale: f64,
    pub(crate) epsilon: f64,
    /// A resampled shortcut has weights of its own even if the number of channels stays.
    pub(crate) projects_resampled: bool,
    /// Channels of an attention head; `None` is one head.
    pub(crate) head_channels: Option<i64>,
    /// Start of a layer from its inputs and outputs, of a layer that ends a branch, and of queries, keys and values.
    pub(crate) start: fn(i64, i64) -> Start,
    pub(crate) start_last: fn(i64, i64) -> Start,
    pub(crate) start_attention: fn(i64, i64) -> Start,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resample {
    None,
    Double,
    Halve,
}

#[derive(Debug, Clone)]
pub(crate) struct Block {
    style: Style,
    resample: Resample,
    norm: [GroupNorm; 2],
    conv: [Conv; 2],
    condition: Linear,
    shortcut: Option<Conv>,
    attention: Option<Attention>,
}

#[derive(Debug, Clone)]
struct Attention {
    heads: i64,
    norm: GroupNorm,
    /// One convolution for all three: per head and channel a query, a key and a value, next to each other.
    projection: Conv,
    output: Conv,
}

impl Block {
    pub(crate) fn new(
        layout: &mut Layout,
        name: &str,
        channels: (i64, i64),
        resample: Resample,
        attends: bool,
        style: Style,
    ) -> Self {
        let (inputs, outputs) = channels;
        let part = |part: &str| format!("{name}.{part}");
        let norm0 = group_norm(layout, &part("norm0"), inputs, style.epsilon);
        let conv0 = Conv::new(layout, &part("conv0"), channels, 3, style.start);
        let told = if style.modulates { 2 * outputs } else { outputs };
        let condition = dense(layout, &part("affine"), style.condition, told, style.start);
        let norm1 = group_norm(layout, &part("norm1"), outputs, style.epsilon);
        let conv1 = Conv::new(layout, &part("conv1"), (outputs, outputs), 3, style.start_last);
        let resampled = resample != Resample::None;
        let shortcut = (inputs != outputs || resampled && style.projects_resampled)
            .then(|| Conv::new(layout, &part("skip"), channels, 1, style.start));
        if resampled {
            // Checkpoints keep the filter of each resampling: the mean of four pixels.
            for owner in ["conv0", "skip"] {
                layout.add_constant(part(&format!("{owner}.resample_filter")), &[1, 1, 2, 2], 0.25);
            }
        }
        let attention = attends.then(|| Attention::new(layout, name, outputs, style));
        Self { style, resample, norm: [norm0, norm1], conv: [conv0, conv1], condition, shortcut, attention }
    }

    /// # Shapes
    /// x: [B, inputs, H, W]; condition: [B, style.condition] -> [B, outputs, H', W']
    pub(crate) fn forward(&self, weights: &[Tensor], x: &Tensor, condition: &Tensor) -> Tensor {
        let h = self.resampled(&self.norm[0].forward(weights, x).silu());
        let h = self.conv[0].forward(weights, &h);
        let told = self.condition.forward(weights, condition).unsqueeze(-1).unsqueeze(-1);
        let h = if self.style.modulates {
            let h = self.norm[1].forward(weights, &h);
            let parts = told.to_kind(h.kind()).chunk(2, 1);
            parts[1].addcmul(&h, &(&parts[0] + 1.0))
        } else {
            self.norm[1].forward(weights, &(h + told))
        };
        let h = self.conv[1].forward(weights, &h.silu());
        let x = self.resampled(x);
        let x = self
            .shortcut
            .as_ref()
            .map_or_else(|| x.shallow_clone(), |shortcut| shortcut.forward(weights, &x));
        let h = (h + x) * self.style.residual_scale;
        match &self.attention {
            Some(attention) => (attention.forward(weights, &h) + &h) * self.style.residual_scale,
            None => h,
        }
    }

    fn resampled(&self, x: &Tensor) -> Tensor {
        match self.resample {
            Resample::None => x.shallow_clone(),
            Resample::Double => double(x),
            Resample::Halve => halve(x),
        }
    }
}

impl Attention {
    fn new(layout: &mut Layout, name: &str, channels: i64, style: Style) -> Self {
        Self {
            heads: style.head_channels.map_or(1, |width| channels / width),
            norm: group_norm(layout, &format!("{name}.norm2"), channels, style.epsilon),
            projection: Conv::new(
                layout,
                &format!("{name}.qkv"),
                (channels, 3 * channels),
                1,
                style.start_attention,
            ),
            output: Conv::new(layout, &format!("{name}.proj"), (channels, channels), 1, style.start_last),
        }
    }

    fn forward(&self, weights: &[Tensor], x: &Tensor) -> Tensor {
        let (batch, channels, height, width) = x.size4().expect("four dimensions");
        let projected = self.projection.forward(weights, &self.norm.forward(weights, x));
        let parts = projected.view([batch * self.heads, channels / self.heads, 3, height * width]).unbind(2);
        self.output.forward(weights, &attend(&parts[0], &parts[1], &parts[2]).view_as(x))
    }
}

/// Up to 32 groups of at least four channels.
pub(crate) fn group_norm(layout: &mut Layout, name: &str, channels: i64, epsilon: f64) -> GroupNorm {
    GroupNorm::new(layout, name, channels, (channels / 4).min(32), epsilon)
}

pub(crate) fn dense(
    layout: &mut Layout,
    name: &str,
    inputs: i64,
    outputs: i64,
    start: fn(i64, i64) -> Start,
) -> Linear {
    Linear::with_init(layout, name, inputs, outputs, Init::Uniform(start(inputs, outputs).weight))
}
