//! The skeleton that EDM's two U-Nets share: resolutions on the way down and up, and what waits in between.

use super::edm_block::{Block, Resample, Style};
use crate::layers::Conv;
use crate::params::Layout;
use tch::Tensor;

/// Sizes of a network.
#[derive(Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) image_channels: i64,
    /// Pixels of one side.
    pub(crate) side: i64,
    /// Channels after the first convolution.
    pub(crate) first: i64,
    /// Channels of each resolution, from the image's down.
    pub(crate) widths: &'a [i64],
    pub(crate) blocks: i64,
    /// Whether a block attends: its resolution, and whether it is the last of its resolution on the way up.
    pub(crate) attends: &'a dyn Fn(i64, Direction) -> bool,
    pub(crate) style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Down,
    Up { last: bool },
}

#[derive(Debug, Clone)]
pub(crate) struct Skeleton {
    input: Conv,
    down: Vec<Block>,
    up: Vec<(Block, Skip)>,
    /// Channels at the end.
    pub(crate) width: i64,
}

/// Whether a block on the way up takes what a block on the way down left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    Takes,
    Leaves,
}

impl Skeleton {
    pub(crate) fn new(plan: Plan<'_>, layout: &mut Layout) -> Self {
        let top = plan.side;
        let input = Conv::new(
            layout,
            &format!("model.enc.{top}x{top}_conv"),
            (plan.image_channels, plan.first),
            3,
            plan.style.start,
        );
        let mut build = Builder { plan, layout, width: plan.first, skips: vec![plan.first] };
        let levels = plan.widths.len();
        let down = (0..levels).flat_map(|level| build.down(level)).collect();
        let up = (0..levels).rev().flat_map(|level| build.up(level)).collect();
        Self { input, down, up, width: build.width }
    }

    /// # Shapes
    /// x: [B, image channels, H, W]; condition: [B, style.condition] -> [B, width, H, W]
    pub(crate) fn forward(&self, weights: &[Tensor], x: &Tensor, condition: &Tensor) -> Tensor {
        let mut h = self.input.forward(weights, x);
        let mut skips = vec![h.shallow_clone()];
        for block in &self.down {
            h = block.forward(weights, &h, condition);
            skips.push(h.shallow_clone());
        }
        for (block, skip) in &self.up {
            if *skip == Skip::Takes {
                h = Tensor::cat(&[h, skips.pop().expect("as many blocks take a skip as left one")], 1);
            }
            h = block.forward(weights, &h, condition);
        }
        h
    }
}

/// Adds level after level; keeps what the next one continues from.
struct Builder<'a, 'b> {
    plan: Plan<'a>,
    layout: &'b mut Layout,
    /// Channels of the tensor that goes through the network.
    width: i64,
    /// Channels of each tensor that waits for the way up.
    skips: Vec<i64>,
}

impl Builder<'_, '_> {
    fn down(&mut self, level: usize) -> Vec<Block> {
        let side = self.plan.side >> level;
        let mut blocks = Vec::new();
        if level > 0 {
            blocks.push(self.block(
                &format!("enc.{side}x{side}_down"),
                0,
                self.width,
                Resample::Halve,
                false,
            ));
            self.skips.push(self.width);
        }
        for index in 0..self.plan.blocks {
            let attends = (self.plan.attends)(side, Direction::Down);
            let name = format!("enc.{side}x{side}_block{index}");
            blocks.push(self.block(&name, 0, self.plan.widths[level], Resample::None, attends));
            self.skips.push(self.width);
        }
        blocks
    }

    fn up(&mut self, level: usize) -> Vec<(Block, Skip)> {
        let side = self.plan.side >> level;
        let name = |part: &str| format!("dec.{side}x{side}_{part}");
        let mut blocks = Vec::new();
        if level + 1 == self.plan.widths.len() {
            for (part, attends) in [("in0", true), ("in1", false)] {
                let block = self.block(&name(part), 0, self.width, Resample::None, attends);
                blocks.push((block, Skip::Leaves));
            }
        } else {
            blocks.push((self.block(&name("up"), 0, self.width, Resample::Double, false), Skip::Leaves));
        }
        for index in 0..=self.plan.blocks {
            let skip = self.skips.pop().expect("as many blocks take a skip as left one");
            let attends = (self.plan.attends)(side, Direction::Up { last: index == self.plan.blocks });
            let (name, width) = (name(&format!("block{index}")), self.plan.widths[level]);
            blocks.push((self.block(&name, skip, width, Resample::None, attends), Skip::Takes));
        }
        blocks
    }

    /// A block from what goes through the network plus `skip` channels to `outputs`.
    fn block(&mut self, name: &str, skip: i64, outputs: i64, resample: Resample, attends: bool) -> Block {
        let channels = (self.width + skip, outputs);
        self.width = outputs;
        Block::new(self.layout, &format!("model.{name}"), channels, resample, attends, self.plan.style)
    }
}
