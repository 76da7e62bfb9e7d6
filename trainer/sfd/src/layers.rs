//! Layers of the U-Nets, as places among a network's parameters. Tensors are [B, C, H, W] unless said otherwise.
//!
//! A layer computes in the kind of its weights, whatever it is given. In bf16 those are bf16 but for the norms, which
//! are exact; the softmax of attention is too.

use crate::device::upload;
use crate::params::{Init, Layout};
use tch::{Kind, Tensor};

/// Start of a layer's weight and bias, as bounds of uniform distributions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) weight: f64,
    pub(crate) bias: f64,
}

impl Start {
    pub(crate) const ZERO: Self = Self { weight: 0.0, bias: 0.0 };

    /// Weight and bias in plus or minus 1 / sqrt(inputs of one output).
    pub(crate) fn usual(fan_in: i64) -> Self {
        let bound = 1.0 / (fan_in as f64).sqrt();
        Self { weight: bound, bias: bound }
    }

    /// As much variance on the way forward as on the way back (Glorot and Bengio, 2010), times `gain`; no bias.
    pub(crate) fn balanced(fan_in: i64, fan_out: i64, gain: f64) -> Self {
        Self { weight: gain * (6.0 / (fan_in + fan_out) as f64).sqrt(), bias: 0.0 }
    }
}

/// A convolution with zero padding that keeps the size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv {
    weight: usize,
    bias: usize,
    padding: i64,
}

impl Conv {
    /// `kernel` is odd.
    pub(crate) fn new(
        layout: &mut Layout,
        name: &str,
        channels: (i64, i64),
        kernel: i64,
        start: impl Fn(i64, i64) -> Start,
    ) -> Self {
        let ((inputs, outputs), area) = (channels, kernel * kernel);
        let start = start(inputs * area, outputs * area);
        let shape = [outputs, inputs, kernel, kernel];
        let weight = layout.add(format!("{name}.weight"), &shape, Init::Uniform(start.weight));
        let bias = layout.add(format!("{name}.bias"), &[outputs], Init::Uniform(start.bias));
        Self { weight, bias, padding: kernel / 2 }
    }

    pub(crate) fn forward(&self, weights: &[Tensor], x: &Tensor) -> Tensor {
        self.stride(weights, x, 1, self.padding)
    }

    /// Halves the size: pads one row and column at the bottom right only, and takes every second pixel.
    pub(crate) fn halve(&self, weights: &[Tensor], x: &Tensor) -> Tensor {
        self.stride(weights, &x.constant_pad_nd([0, 1, 0, 1]), 2, 0)
    }

    fn stride(&self, weights: &[Tensor], x: &Tensor, stride: i64, padding: i64) -> Tensor {
        let (weight, bias) = (&weights[self.weight], Some(&weights[self.bias]));
        x.to_kind(weight.kind()).conv2d(weight, bias, [stride, stride], [padding, padding], [1, 1], 1)
    }
}

/// Group normalisation with a scale and a shift for each channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupNorm {
    weight: usize,
    bias: usize,
    groups: i64,
    epsilon: f64,
}

impl GroupNorm {
    pub(crate) fn new(layout: &mut Layout, name: &str, channels: i64, groups: i64, epsilon: f64) -> Self {
        let weight = layout.add_exact(format!("{name}.weight"), &[channels], Init::Ones);
        let bias = layout.add_exact(format!("{name}.bias"), &[channels], Init::Zeros);
        Self { weight, bias, groups, epsilon }
    }

    pub(crate) fn forward(&self, weights: &[Tensor], x: &Tensor) -> Tensor {
        let (weight, bias) = (&weights[self.weight], &weights[self.bias]);
        x.to_kind(weight.kind()).group_norm(self.groups, Some(weight), Some(bias), self.epsilon, false)
    }
}

/// Every pixel looks at every pixel.
///
/// # Shapes
/// query, key, value: [B, C, N] -> [B, C, N]
pub(crate) fn attend(query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
    let scale = 1.0 / (query.size()[1] as f64).sqrt();
    let exact = if value.kind() == Kind::BFloat16 { Kind::Float } else { value.kind() };
    let (query, key) = (query.to_kind(exact), key.to_kind(exact));
    // An explicit softmax: its backward pass is deterministic on every device.
    let weight = (query.transpose(1, 2).bmm(&key) * scale).softmax(-1, None::<Kind>);
    value.bmm(&weight.transpose(1, 2).to_kind(value.kind()))
}

/// Twice as wide and high, each pixel four times.
pub(crate) fn double(x: &Tensor) -> Tensor {
    let size = x.size();
    x.upsample_nearest2d([2 * size[2], 2 * size[3]], None, None)
}

/// Half as wide and high, four pixels' mean.
pub(crate) fn halve(x: &Tensor) -> Tensor {
    x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)
}

/// One row per label, with a one in its column: [B, labels]. The label `labels`, which is none of them, has no one.
pub(crate) fn one_hot(label: &Tensor, labels: i64, kind: Kind) -> Tensor {
    label.one_hot(labels + 1).narrow(1, 0, labels).to_kind(kind)
}

/// Cosines and sines of a number per sample times each frequency: two tensors [B, frequencies].
pub(crate) fn waves(value: &Tensor, frequencies: &[f32]) -> [Tensor; 2] {
    let frequencies = upload(&Tensor::from_slice(frequencies).to_kind(value.kind()), value.device());
    let phase = value * frequencies;
    [phase.cos(), phase.sin()]
}

/// `count` frequencies from one down to 1 / 10,000, evenly spaced on a logarithmic scale; the lowest is left out unless
/// `endpoint`.
///
/// The arithmetic is that of PyTorch in f32: at a thousand radians the last bit of a frequency is visible.
pub(crate) fn frequencies(count: i64, endpoint: bool) -> Vec<f32> {
    let index = Tensor::arange(count, (Kind::Float, tch::Device::Cpu));
    let exponent = index / (count - i64::from(endpoint)) as f64;
    Vec::try_from(Tensor::pow_scalar(1e-4, &exponent)).expect("a vector of floats")
}
