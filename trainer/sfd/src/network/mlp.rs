//! A residual multi-layer perceptron for small images.
//!
//! Every block normalises its stream and lets the condition (noise level plus label) scale and shift it. There is no
//! null label: a condition that training never overrides could still show what was forgotten.

use crate::config::{MlpConfig, ModelConfig};
use crate::device::upload;
use crate::params::{Init, Layout, Linear};
use tch::Tensor;

/// Lowest and highest frequency by which a noise level is described, in radians per unit of c_noise.
const FREQUENCIES: (f64, f64) = (0.5, 64.0);
const NORM_EPSILON: f64 = 1e-5;
/// Most labels whose modulations are computed although a batch may not show them all.
const MOST_TABLED: i64 = 64;
/// Bound of the uniform distribution from which label embeddings start: standard deviation one.
const LABEL_BOUND: f64 = 1.732_050_8;

#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    width: i64,
    frequencies: Vec<f64>,
    input: Linear,
    noise: Linear,
    labels: usize,
    modulation: Linear,
    blocks: Vec<Block>,
    output: Linear,
}

#[derive(Debug, Clone)]
struct Block {
    inner: Linear,
    outer: Linear,
}

impl Mlp {
    pub(crate) fn new(config: &ModelConfig, net: &MlpConfig, layout: &mut Layout) -> Self {
        let pixels = config.image.pixels();
        let block = |layout: &mut Layout, index: i64| Block {
            inner: Linear::new(layout, &format!("blocks.{index}.inner"), net.width, net.width),
            outer: Linear::zeros(layout, &format!("blocks.{index}.outer"), net.width, net.width),
        };
        let shape = [config.classes(), net.embedding];
        Self {
            width: net.width,
            frequencies: frequencies(net.frequencies),
            input: Linear::new(layout, "input", pixels, net.width),
            noise: Linear::new(layout, "noise", 2 * net.frequencies, net.embedding),
            labels: layout.add("labels.weight".to_owned(), &shape, Init::Uniform(LABEL_BOUND)),
            modulation: Linear::new(layout, "modulation", net.embedding, 2 * net.width * (net.blocks + 1)),
            blocks: (0..net.blocks).map(|index| block(layout, index)).collect(),
            output: Linear::zeros(layout, "output", net.width, pixels),
        }
    }

    /// # Shapes
    /// x: [B, pixels]; c_noise: [B, 1], or [1, 1] for all; label: [B] whole numbers -> [B, pixels]
    pub(crate) fn forward(&self, weights: &[Tensor], x: &Tensor, c_noise: &Tensor, label: &Tensor) -> Tensor {
        // Norms and what modulates them are in the kind of the condition, whatever the kind of the weights.
        let exact = c_noise.kind();
        let modulations = self.modulations(weights, c_noise, label).to_kind(exact);
        let mut parts = modulations.chunk(2 * (self.blocks.len() as i64 + 1), 1).into_iter();
        let mut modulated = |h: &Tensor| {
            let (scale, shift) = parts.next().zip(parts.next()).expect("one scale and shift per block");
            let normed = h.to_kind(exact).layer_norm(
                [self.width],
                None::<&Tensor>,
                None::<&Tensor>,
                NORM_EPSILON,
                false,
            );
            shift.addcmul(&normed, &(scale + 1.0))
        };
        let h = self.blocks.iter().fold(self.input.forward(weights, x), |h, block| {
            let inner = block.inner.forward(weights, &modulated(&h)).silu();
            &h + block.outer.forward(weights, &inner)
        });
        self.output.forward(weights, &modulated(&h))
    }

    /// Scale (from one) and shift of every block, one after the other: [B, 2 width (blocks + 1)].
    fn modulations(&self, weights: &[Tensor], c_noise: &Tensor, label: &Tensor) -> Tensor {
        let table = &weights[self.labels];
        let classes = table.size()[0];
        // A product with one-hot rows instead of a look-up: its backward pass is deterministic on every device.
        let one_hot = label.one_hot(classes).to_kind(table.kind());
        let noise = self.noise_embedding(weights, c_noise);
        let modulate = |condition: Tensor| self.modulation.forward(weights, &condition.silu());
        // A generator has one noise level, and so one modulation for each label.
        if c_noise.size()[0] == 1 && classes <= MOST_TABLED {
            return one_hot.matmul(&modulate(noise + table));
        }
        modulate(noise + one_hot.matmul(table))
    }

    /// # Shapes
    /// c_noise: [N, 1] -> [N, embedding]
    fn noise_embedding(&self, weights: &[Tensor], c_noise: &Tensor) -> Tensor {
        let frequencies = Tensor::from_slice(&self.frequencies).to_kind(c_noise.kind());
        let frequencies = upload(&frequencies, c_noise.device());
        let phase = c_noise * frequencies;
        self.noise.forward(weights, &Tensor::cat(&[phase.cos(), phase.sin()], 1))
    }
}

/// `count` frequencies, evenly spaced on a logarithmic scale.
fn frequencies(count: i64) -> Vec<f64> {
    let (low, high) = FREQUENCIES;
    let step = (high / low).ln() / (count - 1).max(1) as f64;
    (0..count).map(|i| low * (step * i as f64).exp()).collect()
}
