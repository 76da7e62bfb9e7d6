//! Which network a model has, and how large it is.

use super::{ImageShape, config, within};
use crate::error::Result;
use serde::{Deserialize, Serialize};

const MOST_CHANNELS: i64 = 2048;
const MOST_LEVELS: i64 = 8;
const MOST_BLOCKS: i64 = 16;
const MOST_AUGMENTATIONS: i64 = 64;
/// Channels of a DDPM U-Net are normalised in this many groups, whatever their number.
const GROUPS: i64 = 32;
/// Up to here an EDM network has groups of four channels, beyond it `GROUPS` groups.
const SMALL: i64 = 64;

/// The raw network, by kind. The names of its tensors are those of the checkpoints that people have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum NetworkConfig {
    /// A residual multi-layer perceptron for images of a few pixels.
    Mlp(MlpConfig),
    /// The class-conditional U-Net of DDPM, as in the code published with SFD (arXiv 2409.11219).
    DdpmUnet(DdpmUnetConfig),
    /// The U-Net of DDPM++, as in EDM (arXiv 2206.00364). Few channels make it the small U-Net for small images.
    SongUnet(SongUnetConfig),
    /// The U-Net of ADM (arXiv 2105.05233), as in EDM.
    AdmUnet(AdmUnetConfig),
}

/// The residual network that stands in for a U-Net on small images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct MlpConfig {
    /// Hidden units of the residual stream.
    pub width: i64,
    /// Residual blocks.
    pub blocks: i64,
    /// Units of the condition (noise level plus label) that modulates every block.
    pub embedding: i64,
    /// Sine and cosine pairs that describe the noise level.
    pub frequencies: i64,
}

/// Defaults: the published model for CIFAR-10 at 32x32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DdpmUnetConfig {
    /// Channels that the multipliers multiply.
    pub channels: i64,
    /// One per resolution, from the image's own down; each next one is half as wide and high.
    pub multipliers: Vec<i64>,
    /// Residual blocks per resolution on the way down; one more on the way up.
    pub blocks: i64,
    /// Resolutions with attention, in pixels of one side. The lowest has one in the middle in any case.
    pub attention: Vec<i64>,
}

/// Defaults: the published class-conditional model for CIFAR-10 at 32x32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SongUnetConfig {
    pub channels: i64,
    /// As in [`DdpmUnetConfig`].
    pub multipliers: Vec<i64>,
    pub blocks: i64,
    pub attention: Vec<i64>,
    /// Inputs that told the network how a training image was augmented. Their weights are kept; the inputs are zero here.
    pub augmentations: i64,
}

/// Defaults: the published class-conditional model for ImageNet at 64x64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct AdmUnetConfig {
    pub channels: i64,
    /// As in [`DdpmUnetConfig`].
    pub multipliers: Vec<i64>,
    pub blocks: i64,
    pub attention: Vec<i64>,
    /// As in [`SongUnetConfig`].
    pub augmentations: i64,
    /// Channels of one attention head.
    pub head_channels: i64,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self::Mlp(MlpConfig::default())
    }
}

impl From<MlpConfig> for NetworkConfig {
    fn from(config: MlpConfig) -> Self {
        Self::Mlp(config)
    }
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self { width: 192, blocks: 3, embedding: 64, frequencies: 32 }
    }
}

impl Default for DdpmUnetConfig {
    fn default() -> Self {
        Self { channels: 128, multipliers: vec![1, 2, 2, 2], blocks: 2, attention: vec![16] }
    }
}

impl Default for SongUnetConfig {
    fn default() -> Self {
        Self { channels: 128, multipliers: vec![2, 2, 2], blocks: 4, attention: vec![16], augmentations: 9 }
    }
}

impl Default for AdmUnetConfig {
    fn default() -> Self {
        Self {
            channels: 192,
            multipliers: vec![1, 2, 3, 4],
            blocks: 3,
            attention: vec![32, 16, 8],
            augmentations: 0,
            head_channels: 64,
        }
    }
}

impl SongUnetConfig {
    /// A network that a CPU can train: about 0.7 million weights at 32 channels and two resolutions.
    pub fn small(channels: i64, multipliers: &[i64], attention: &[i64]) -> Self {
        let (multipliers, attention) = (multipliers.to_vec(), attention.to_vec());
        Self { channels, multipliers, blocks: 1, attention, augmentations: 0 }
    }
}

impl NetworkConfig {
    /// Values of the widest tensor that a sample becomes between two layers.
    pub(crate) fn widest(&self, image: ImageShape) -> i64 {
        let of = |channels: i64, multipliers: &[i64]| {
            let resolutions = Shape::new(channels, multipliers, 0, &[]).resolutions(image);
            resolutions.map(|(side, channels)| side * side * channels).max().unwrap_or(1)
        };
        match self {
            Self::Mlp(mlp) => mlp.width,
            Self::DdpmUnet(net) => of(net.channels, &net.multipliers),
            Self::SongUnet(net) => of(net.channels, &net.multipliers),
            Self::AdmUnet(net) => of(net.channels, &net.multipliers),
        }
    }

    pub(super) fn validate(&self, image: ImageShape) -> Result<()> {
        match self {
            Self::Mlp(mlp) => mlp.validate(),
            Self::DdpmUnet(net) => {
                let shape = Shape::new(net.channels, &net.multipliers, net.blocks, &net.attention);
                shape.validate(image)?;
                multiple("network.channels", net.channels, GROUPS)
            }
            Self::SongUnet(net) => {
                let shape = Shape::new(net.channels, &net.multipliers, net.blocks, &net.attention);
                shape.validate(image)?;
                within("network.augmentations", net.augmentations, 0, MOST_AUGMENTATIONS)?;
                shape.validate_edm_groups()
            }
            Self::AdmUnet(net) => {
                let shape = Shape::new(net.channels, &net.multipliers, net.blocks, &net.attention);
                shape.validate(image)?;
                within("network.augmentations", net.augmentations, 0, MOST_AUGMENTATIONS)?;
                shape.validate_edm_groups()?;
                shape.validate_heads(image, net.head_channels)
            }
        }
    }
}

impl MlpConfig {
    fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("network.width", self.width),
            ("network.blocks", self.blocks),
            ("network.embedding", self.embedding),
            ("network.frequencies", self.frequencies),
        ] {
            within(field, value, 1, 1 << 14)?;
        }
        Ok(())
    }
}

/// What the U-Nets have in common.
struct Shape<'a> {
    channels: i64,
    multipliers: &'a [i64],
    blocks: i64,
    attention: &'a [i64],
}

impl<'a> Shape<'a> {
    fn new(channels: i64, multipliers: &'a [i64], blocks: i64, attention: &'a [i64]) -> Self {
        Self { channels, multipliers, blocks, attention }
    }

    fn validate(&self, image: ImageShape) -> Result<()> {
        within("network.channels", self.channels, 4, MOST_CHANNELS)?;
        within("number of network.multipliers", self.multipliers.len() as i64, 1, MOST_LEVELS)?;
        for &multiplier in self.multipliers {
            within("network.multipliers", multiplier, 1, MOST_CHANNELS)?;
            within(
                "network.multipliers times network.channels",
                multiplier * self.channels,
                4,
                4 * MOST_CHANNELS,
            )?;
        }
        within("network.blocks", self.blocks, 1, MOST_BLOCKS)?;
        if image.height != image.width {
            let size = format!("{}x{}", image.height, image.width);
            return Err(config("image", size, "this network needs images as wide as high"));
        }
        let halvings = self.multipliers.len() as u32 - 1;
        if image.height % (1 << halvings) != 0 {
            let problem = "must be a multiple of 2 to the number of network.multipliers less one";
            return Err(config("image.height", image.height, problem));
        }
        let known = |side: &&i64| !self.resolutions(image).any(|(known, _)| known == **side);
        match self.attention.iter().find(known) {
            Some(side) => Err(config("network.attention", side, "the network has no such resolution")),
            None => Ok(()),
        }
    }

    /// Side in pixels and channels of each resolution.
    fn resolutions(&self, image: ImageShape) -> impl Iterator<Item = (i64, i64)> + use<'a> {
        let channels = self.channels;
        let multipliers = self.multipliers.iter().enumerate();
        multipliers.map(move |(level, multiplier)| (image.height >> level, multiplier * channels))
    }

    /// Every normalised number of channels, also of two concatenated tensors, must be divisible by its groups.
    fn validate_edm_groups(&self) -> Result<()> {
        let widest = self.multipliers.iter().max().map_or(0, |most| most * self.channels);
        multiple("network.channels", self.channels, if widest <= SMALL { 4 } else { GROUPS })
    }

    fn validate_heads(&self, image: ImageShape, head_channels: i64) -> Result<()> {
        within("network.headChannels", head_channels, 1, MOST_CHANNELS)?;
        let lowest = image.height >> (self.multipliers.len() - 1);
        let attends = |side: i64| side == lowest || self.attention.contains(&side);
        let odd =
            self.resolutions(image).find(|(side, channels)| attends(*side) && channels % head_channels != 0);
        match odd {
            Some(_) => {
                let problem =
                    "must divide the channels of every resolution with attention, and of the lowest";
                Err(config("network.headChannels", head_channels, problem))
            }
            None => Ok(()),
        }
    }
}

fn multiple(field: &'static str, value: i64, of: i64) -> Result<()> {
    match value % of {
        0 => Ok(()),
        _ if of == 4 => Err(config(field, value, "must be a multiple of 4")),
        _ => Err(config(field, value, "must be a multiple of 32")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use serde_json::{Value, json};

    fn parse(network: Value, side: i64) -> Result<NetworkConfig, String> {
        let image = ImageShape { channels: 3, height: side, width: side };
        let network: NetworkConfig = serde_json::from_value(network).map_err(|error| error.to_string())?;
        network.validate(image).map_err(|error| error.to_string())?;
        Ok(network)
    }

    #[test]
    fn the_kind_alone_is_the_published_network() {
        let ddpm = NetworkConfig::DdpmUnet(DdpmUnetConfig::default());
        assert_eq!(parse(json!({"kind": "ddpmUnet"}), 32), Ok(ddpm));
        assert_eq!(
            parse(json!({"kind": "songUnet"}), 32),
            Ok(NetworkConfig::SongUnet(SongUnetConfig::default()))
        );
        assert_eq!(
            parse(json!({"kind": "admUnet"}), 64),
            Ok(NetworkConfig::AdmUnet(AdmUnetConfig::default()))
        );
        assert_eq!(parse(json!({"kind": "mlp"}), 8), Ok(NetworkConfig::default()));
    }

    #[test]
    fn what_no_network_can_be_is_refused_by_name() {
        let refusal = |network: Value, side: i64| parse(network, side).unwrap_err();
        assert!(refusal(json!({"kind": "vit"}), 8).contains("vit"));
        assert!(refusal(json!({"width": 8}), 8).contains("kind"));
        assert!(refusal(json!({"kind": "mlp", "channels": 8}), 8).contains("channels"));
        assert!(refusal(json!({"kind": "ddpmUnet", "augmentations": 9}), 32).contains("augmentations"));
        let song = |change: Value| {
            let mut network = json!({"kind": "songUnet"});
            network.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            refusal(network, 32)
        };
        assert_eq!(song(json!({"channels": 0})), "network.channels is 0: too small");
        assert_eq!(song(json!({"channels": 100})), "network.channels is 100: must be a multiple of 32");
        assert_eq!(song(json!({"multipliers": []})), "number of network.multipliers is 0: too small");
        assert_eq!(song(json!({"multipliers": [1, 0, 1]})), "network.multipliers is 0: too small");
        assert!(song(json!({"multipliers": [1, 1, 1, 1, 1, 1, 1]})).contains("image.height is 32"));
        assert!(song(json!({"multipliers": [i64::MAX, 1, 1]})).contains("too large"));
        assert_eq!(
            song(json!({"attention": [15]})),
            "network.attention is 15: the network has no such resolution"
        );
        assert_eq!(song(json!({"blocks": 17})), "network.blocks is 17: too large");
        assert_eq!(song(json!({"augmentations": -1})), "network.augmentations is -1: too small");
        let odd = refusal(json!({"kind": "ddpmUnet", "channels": 48}), 32);
        assert_eq!(odd, "network.channels is 48: must be a multiple of 32");
        let heads = refusal(json!({"kind": "admUnet", "headChannels": 80}), 64);
        assert!(heads.contains("network.headChannels is 80"), "{heads}");
    }

    #[test]
    fn a_u_net_is_widest_where_channels_outgrow_pixels() {
        let widest = |network: Value, side: i64| {
            parse(network, side).unwrap().widest(ImageShape { channels: 3, height: side, width: side })
        };
        assert_eq!(widest(json!({"kind": "ddpmUnet"}), 32), 128 * 32 * 32);
        assert_eq!(widest(json!({"kind": "songUnet", "multipliers": [1, 5]}), 32), 5 * 128 * 16 * 16);
        assert_eq!(widest(json!({"kind": "mlp"}), 8), 192);
    }

    #[test]
    fn a_u_net_needs_square_images() {
        let config = ModelConfig {
            image: ImageShape { channels: 1, height: 8, width: 4 },
            network: NetworkConfig::SongUnet(SongUnetConfig::small(8, &[1, 2], &[])),
            ..crate::testing::tiny()
        };
        assert!(config.validate().unwrap_err().to_string().contains("image is 8x4"));
    }
}
