//! The class-conditional U-Net of DDPM (arXiv 2006.11239) as published with SFD (arXiv 2409.11219).
//!
//! Dropout, which belongs to training a teacher, is left out.

use crate::config::{DdpmUnetConfig, ModelConfig};
use crate::layers::{Conv, GroupNorm, Start, attend, double, waves};
use crate::params::{Init, Layout, Linear};
use tch::{Kind, Tensor};

const GROUPS: i64 = 32;
const EPSILON: f64 = 1e-6;
/// Bound of the uniform distribution from which label embeddings start: standard deviation one.
const LABEL_BOUND: f64 = 1.732_050_8;

#[derive(Debug, Clone)]
pub(crate) struct DdpmUnet {
    classes: i64,
    frequencies: Vec<f32>,
    time: [Linear; 2],
    labels: usize,
    no_label: usize,
    label: [Linear; 2],
    input: Conv,
    down: Vec<Level>,
    middle: (Block, Attention, Block),
    /// From the lowest resolution up.
    up: Vec<Level>,
    norm: GroupNorm,
    output: Conv,
}

/// One resolution.
#[derive(Debug, Clone)]
struct Level {
    blocks: Vec<(Block, Option<Attention>)>,
    /// Leads to the next resolution, if there is one.
    resample: Option<Conv>,
}

#[derive(Debug, Clone)]
struct Block {
    norm: [GroupNorm; 2],
    conv: [Conv; 2],
    condition: Linear,
    shortcut: Option<Conv>,
}

#[derive(Debug, Clone)]
struct Attention {
    norm: GroupNorm,
    query: Conv,
    key: Conv,
    value: Conv,
    output: Conv,
}

impl DdpmUnet {
    pub(crate) fn new(config: &ModelConfig, net: &DdpmUnetConfig, layout: &mut Layout) -> Self {
        let (channels, classes) = (net.channels, config.classes());
        let embedding = 4 * channels;
        let mut dense = |name: &str, index: usize, inputs: i64| {
            Linear::new(layout, &format!("{name}.dense.{index}"), inputs, embedding)
        };
        let time = [dense("temb", 0, channels), dense("temb", 1, embedding)];
        let label = [dense("cemb", 0, channels), dense("cemb", 1, embedding)];
        let bound = Init::Uniform(LABEL_BOUND);
        let labels = layout.add("classes_emb.weight".to_owned(), &[classes, channels], bound);
        let no_label = layout.add("null_classes_emb".to_owned(), &[channels], bound);
        let input = conv(layout, "conv_in", (config.image.channels, channels), 3);

        let mut build =
            Builder { net, layout, side: config.image.height, width: channels, skips: vec![channels] };
        let levels = net.multipliers.len();
        let down: Vec<Level> = (0..levels).map(|level| build.down(level)).collect();
        let middle = build.middle();
        let up: Vec<Level> = (0..levels).rev().map(|level| build.up(level)).collect();
        let width = build.width;
        let norm = group_norm(layout, "norm_out", width);
        let output = conv(layout, "conv_out", (width, config.image.channels), 3);
        let frequencies = frequencies(channels / 2);
        Self { classes, frequencies, time, labels, no_label, label, input, down, middle, up, norm, output }
    }

    /// # Shapes
    /// x: [B, C, H, W]; timestep: [B, 1]; label: [B] whole numbers -> [B, C, H, W]
    pub(crate) fn forward(
        &self,
        weights: &[Tensor],
        x: &Tensor,
        timestep: &Tensor,
        label: &Tensor,
    ) -> Tensor {
        let condition = self.condition(weights, timestep, label);
        let mut skips = vec![self.input.forward(weights, x)];
        for level in &self.down {
            for (block, attention) in &level.blocks {
                let h =
                    block.forward(weights, skips.last().expect("never empty on the way down"), &condition);
                skips.push(attention.as_ref().map_or_else(|| h.shallow_clone(), |a| a.forward(weights, &h)));
            }
            if let Some(resample) = &level.resample {
                skips.push(resample.halve(weights, skips.last().expect("never empty on the way down")));
            }
        }
        let (first, attention, second) = &self.middle;
        let h = first.forward(weights, skips.last().expect("never empty on the way down"), &condition);
        let mut h = second.forward(weights, &attention.forward(weights, &h), &condition);
        for level in &self.up {
            for (block, attention) in &level.blocks {
                let skip = skips.pop().expect("as many blocks take a skip as left one");
                h = block.forward(weights, &Tensor::cat(&[h, skip], 1), &condition);
                if let Some(attention) = attention {
                    h = attention.forward(weights, &h);
                }
            }
            if let Some(resample) = &level.resample {
                h = resample.forward(weights, &double(&h));
            }
        }
        self.output.forward(weights, &self.norm.forward(weights, &h).silu())
    }

    /// What the timestep and the label say together, ready for the blocks: [B, 8 channels].
    fn condition(&self, weights: &[Tensor], timestep: &Tensor, label: &Tensor) -> Tensor {
        let two = |[first, second]: &[Linear; 2], x: &Tensor| {
            second.forward(weights, &first.forward(weights, x).silu())
        };
        let [cosines, sines] = waves(timestep, &self.frequencies);
        let time = two(&self.time, &Tensor::cat(&[sines, cosines], 1));
        // A product with one-hot rows instead of a look-up: its backward pass is deterministic on every device.
        let table = Tensor::cat(&[&weights[self.labels], &weights[self.no_label].unsqueeze(0)], 0);
        let label = two(&self.label, &label.one_hot(self.classes + 1).to_kind(table.kind()).matmul(&table));
        Tensor::cat(&[time, label], 1).silu()
    }
}

impl Block {
    fn new(layout: &mut Layout, name: &str, channels: (i64, i64), condition: i64) -> Self {
        let (inputs, outputs) = channels;
        Self {
            norm: [
                group_norm(layout, &format!("{name}.norm1"), inputs),
                group_norm(layout, &format!("{name}.norm2"), outputs),
            ],
            conv: [
                conv(layout, &format!("{name}.conv1"), channels, 3),
                conv(layout, &format!("{name}.conv2"), (outputs, outputs), 3),
            ],
            condition: Linear::new(layout, &format!("{name}.temb_cemb_proj"), condition, outputs),
            shortcut: (inputs != outputs).then(|| conv(layout, &format!("{name}.nin_shortcut"), channels, 1)),
        }
    }

    fn forward(&self, weights: &[Tensor], x: &Tensor, condition: &Tensor) -> Tensor {
        let h = self.conv[0].forward(weights, &self.norm[0].forward(weights, x).silu());
        let h = h + self.condition.forward(weights, condition).unsqueeze(-1).unsqueeze(-1);
        let h = self.conv[1].forward(weights, &self.norm[1].forward(weights, &h).silu());
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(weights, x) + h,
            None => x + h,
        }
    }
}

impl Attention {
    fn new(layout: &mut Layout, name: &str, channels: i64) -> Self {
        let norm = group_norm(layout, &format!("{name}.norm"), channels);
        let mut projection = |part: &str| conv(layout, &format!("{name}.{part}"), (channels, channels), 1);
        let [query, key, value, output] = ["q", "k", "v", "proj_out"].map(&mut projection);
        Self { norm, query, key, value, output }
    }

    fn forward(&self, weights: &[Tensor], x: &Tensor) -> Tensor {
        let h = self.norm.forward(weights, x);
        let flat = |projection: &Conv| projection.forward(weights, &h).flatten(2, 3);
        let attended = attend(&flat(&self.query), &flat(&self.key), &flat(&self.value));
        x + self.output.forward(weights, &attended.view_as(x))
    }
}

/// Adds level after level; keeps what the next one continues from.
struct Builder<'a> {
    net: &'a DdpmUnetConfig,
    layout: &'a mut Layout,
    /// Pixels of one side.
    side: i64,
    /// Channels of the tensor that goes through the network.
    width: i64,
    /// Channels of each tensor that waits for the way up.
    skips: Vec<i64>,
}

impl Builder<'_> {
    fn down(&mut self, level: usize) -> Level {
        let blocks = (0..self.net.blocks).map(|index| {
            let entry = self.block(&format!("down.{level}"), index, self.width, level);
            self.skips.push(self.width);
            entry
        });
        let blocks = blocks.collect();
        let resample = (level + 1 < self.net.multipliers.len()).then(|| {
            self.side /= 2;
            self.skips.push(self.width);
            conv(self.layout, &format!("down.{level}.downsample.conv"), (self.width, self.width), 3)
        });
        Level { blocks, resample }
    }

    fn middle(&mut self) -> (Block, Attention, Block) {
        let (width, condition) = (self.width, self.condition());
        let first = Block::new(self.layout, "mid.block_1", (width, width), condition);
        let attention = Attention::new(self.layout, "mid.attn_1", width);
        (first, attention, Block::new(self.layout, "mid.block_2", (width, width), condition))
    }

    fn up(&mut self, level: usize) -> Level {
        let blocks = (0..=self.net.blocks).map(|index| {
            let skip = self.skips.pop().expect("as many blocks take a skip as left one");
            self.block(&format!("up.{level}"), index, self.width + skip, level)
        });
        let blocks = blocks.collect();
        let resample = (level > 0).then(|| {
            self.side *= 2;
            conv(self.layout, &format!("up.{level}.upsample.conv"), (self.width, self.width), 3)
        });
        Level { blocks, resample }
    }

    fn block(&mut self, name: &str, index: i64, inputs: i64, level: usize) -> (Block, Option<Attention>) {
        let (width, condition) = (self.net.channels * self.net.multipliers[level], self.condition());
        self.width = width;
        let block = Block::new(self.layout, &format!("{name}.block.{index}"), (inputs, width), condition);
        let attends = self.net.attention.contains(&self.side);
        (block, attends.then(|| Attention::new(self.layout, &format!("{name}.attn.{index}"), width)))
    }

    /// Width of what the blocks are told.
    fn condition(&self) -> i64 {
        8 * self.net.channels
    }
}

fn conv(layout: &mut Layout, name: &str, channels: (i64, i64), kernel: i64) -> Conv {
    Conv::new(layout, name, channels, kernel, |fan_in, _| Start::usual(fan_in))
}

fn group_norm(layout: &mut Layout, name: &str, channels: i64) -> GroupNorm {
    GroupNorm::new(layout, name, channels, GROUPS, EPSILON)
}

/// From one down to 1 / 10,000. The arithmetic is that of PyTorch in f32: at a thousand radians the last bit of a
/// frequency is visible.
fn frequencies(count: i64) -> Vec<f32> {
    let step = 10_000_f64.ln() / (count - 1) as f64;
    let index = Tensor::arange(count, (Kind::Float, tch::Device::Cpu));
    Vec::try_from((index * -step).exp()).expect("a vector of floats")
}
