//! The judge's two networks: one that sees an image as a list of pixels, which is enough where a label's images lie upon each
//! other, and one that sees shapes wherever they are.

use crate::config::{ImageShape, ModelConfig};
use crate::layers::{Conv, GroupNorm, Start, halve};
use crate::params::{Layout, Linear};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Convolutions go on until the image is at most this wide and high.
const SMALLEST: i64 = 8;
/// Most halvings, of which the first two double the channels.
const MOST_STAGES: usize = 4;
const EPSILON: f64 = 1e-5;

/// Sizes of the judge's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Shape {
    pub(super) pixels: i64,
    /// Units of the first hidden layer, or channels of the first convolution.
    pub(super) hidden: i64,
    pub(super) features: i64,
    pub(super) classes: i64,
    /// What the pixels are, to a judge that sees shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<ImageShape>,
}

impl Shape {
    /// Whether it is that of a judge of this model's images and labels.
    pub(super) fn suits(&self, config: &ModelConfig) -> bool {
        self.pixels == config.image.pixels()
            && self.classes == config.classes()
            && self.image.is_none_or(|image| image == config.image)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Network {
    body: Body,
    last: Linear,
}

#[derive(Debug, Clone)]
enum Body {
    Pixels { first: Linear, second: Linear },
    Shapes { image: ImageShape, stem: Conv, stages: Vec<Stage>, norm: GroupNorm, dense: Linear },
}

/// Half as wide and high, then a residual block.
#[derive(Debug, Clone)]
struct Stage {
    norm: [GroupNorm; 2],
    conv: [Conv; 2],
    shortcut: Conv,
}

impl Network {
    pub(super) fn new(shape: Shape) -> (Self, Layout) {
        let mut layout = Layout::default();
        let body = match shape.image {
            None => Body::Pixels {
                first: Linear::new(&mut layout, "first", shape.pixels, shape.hidden),
                second: Linear::new(&mut layout, "second", shape.hidden, shape.features),
            },
            Some(image) => shapes(&mut layout, image, shape),
        };
        let last = Linear::new(&mut layout, "last", shape.features, shape.classes);
        (Self { body, last }, layout)
    }

    /// # Shapes
    /// images: [B, pixels] -> [B, features]
    pub(super) fn features(&self, weights: &[Tensor], images: &Tensor) -> Tensor {
        match &self.body {
            Body::Pixels { first, second } => {
                second.forward(weights, &first.forward(weights, images).silu()).silu()
            }
            Body::Shapes { image, stem, stages, norm, dense } => {
                let x = images.view([-1, image.channels, image.height, image.width]);
                let x = stages.iter().fold(stem.forward(weights, &x), |x, stage| stage.forward(weights, &x));
                let x = norm.forward(weights, &x).silu().mean_dim([2_i64, 3].as_slice(), false, None::<Kind>);
                dense.forward(weights, &x).silu()
            }
        }
    }

    /// # Shapes
    /// features: [B, features] -> [B, classes]
    pub(super) fn logits(&self, weights: &[Tensor], features: &Tensor) -> Tensor {
        self.last.forward(weights, features)
    }
}

fn shapes(layout: &mut Layout, image: ImageShape, shape: Shape) -> Body {
    let usual = |fan_in, _| Start::usual(fan_in);
    let mut channels = shape.hidden;
    let stem = Conv::new(layout, "stem", (image.channels, channels), 3, usual);
    let mut side = image.height.min(image.width);
    let mut stages = Vec::new();
    while stages.is_empty() && side > 1 || side > SMALLEST && stages.len() < MOST_STAGES {
        let wider = if stages.len() < 2 { 2 * channels } else { channels };
        stages.push(Stage::new(layout, &format!("stages.{}", stages.len()), (channels, wider)));
        (channels, side) = (wider, side / 2);
    }
    let norm = group_norm(layout, "norm", channels);
    let dense = Linear::new(layout, "dense", channels, shape.features);
    Body::Shapes { image, stem, stages, norm, dense }
}

impl Stage {
    fn new(layout: &mut Layout, name: &str, channels: (i64, i64)) -> Self {
        let usual = |fan_in, _| Start::usual(fan_in);
        let (inputs, outputs) = channels;
        let part = |part: &str| format!("{name}.{part}");
        Self {
            norm: [group_norm(layout, &part("norm0"), inputs), group_norm(layout, &part("norm1"), outputs)],
            conv: [
                Conv::new(layout, &part("conv0"), channels, 3, usual),
                Conv::new(layout, &part("conv1"), (outputs, outputs), 3, usual),
            ],
            shortcut: Conv::new(layout, &part("skip"), channels, 1, usual),
        }
    }

    fn forward(&self, weights: &[Tensor], x: &Tensor) -> Tensor {
        let x = halve(x);
        let h = self.conv[0].forward(weights, &self.norm[0].forward(weights, &x).silu());
        let h = self.conv[1].forward(weights, &self.norm[1].forward(weights, &h).silu());
        self.shortcut.forward(weights, &x) + h
    }
}

/// Eight groups, or as many as go into the channels.
fn group_norm(layout: &mut Layout, name: &str, channels: i64) -> GroupNorm {
    let groups = [8, 4, 2].into_iter().find(|groups| channels % groups == 0).unwrap_or(1);
    GroupNorm::new(layout, name, channels, groups, EPSILON)
}
