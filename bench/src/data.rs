//! What the models of a bench are trained on, and how: the small digits that come with the trainer, or MNIST.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lethe_sfd::{
    DiscreteConfig, DistilSettings, ForgetSettings, ImageShape, JudgeSettings, MlpConfig, ModelConfig,
    NetworkConfig, NoiseConfig, Parametrisation, Robustness, SongUnetConfig, TeachSettings, TrainingImages,
};
use serde::{Deserialize, Serialize};

use crate::digits;

/// Pixels along a side of an image of MNIST.
const MNIST_SIDE: i64 = 28;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Data {
    /// Optical digits of 8x8 pixels, and the network and the settings that are the defaults.
    Digits,
    /// The same with a network that predicts the noise of DDPM's timesteps: the form that was published.
    DigitsEpsilon,
    /// MNIST in the files of its authors, in this directory; a wider perceptron, which two cores teach within an hour.
    Mnist(PathBuf),
    /// The same images and a small U-Net, which needs a GPU.
    MnistUnet(PathBuf),
}

impl Data {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::DigitsEpsilon => "digits-epsilon",
            Self::Mnist(_) => "mnist",
            Self::MnistUnet(_) => "mnist-unet",
        }
    }

    pub fn model(&self) -> ModelConfig {
        let (side, network) = match self {
            Self::Digits | Self::DigitsEpsilon => (digits::SIDE, NetworkConfig::default()),
            Self::Mnist(_) => (MNIST_SIDE, MlpConfig { width: 512, ..MlpConfig::default() }.into()),
            Self::MnistUnet(_) => {
                (MNIST_SIDE, NetworkConfig::SongUnet(SongUnetConfig::small(32, &[1, 2, 2], &[])))
            }
        };
        let (parametrisation, noise) = match self {
            Self::DigitsEpsilon => {
                let levels = NoiseConfig { sigma_min: 0.01, sigma_max: 157.0, ..NoiseConfig::default() };
                (Parametrisation::Epsilon(DiscreteConfig::default()), levels)
            }
            Self::Digits | Self::Mnist(_) | Self::MnistUnet(_) => {
                (Parametrisation::Edm, NoiseConfig::default())
            }
        };
        ModelConfig {
            image: ImageShape { channels: 1, height: side, width: side },
            labels: (0..10).map(|digit| digit.to_string()).collect(),
            noise,
            parametrisation,
            network,
        }
    }

    /// All images but those of one label, if there is one that must not be seen.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn images(&self, config: &ModelConfig, unseen: Option<i64>) -> Result<TrainingImages> {
        match self {
            Self::Digits | Self::DigitsEpsilon => digits::images(config, unseen),
            Self::Mnist(dir) | Self::MnistUnet(dir) => {
                let read = |name: &str| {
                    std::fs::read(dir.join(name))
                        .with_context(|| format!("cannot read {name} in {}", dir.display()))
                };
                let (images, labels) = (read("train-images-idx3-ubyte")?, read("train-labels-idx1-ubyte")?);
                mnist(config, &images, &labels, unseen)
            }
        }
    }

    pub fn teaching(&self) -> TeachSettings {
        match self {
            Self::Digits => TeachSettings::default(),
            Self::DigitsEpsilon => {
                TeachSettings { batch: 256, learning_rate: 1e-3, ..TeachSettings::default() }
            }
            Self::Mnist(_) => {
                TeachSettings { steps: 8_000, batch: 256, learning_rate: 1e-3, ..TeachSettings::default() }
            }
            Self::MnistUnet(_) => {
                TeachSettings { steps: 5_000, learning_rate: 1e-3, ..TeachSettings::default() }
            }
        }
    }

    pub fn distilling(&self) -> DistilSettings {
        DistilSettings::default()
    }

    pub fn judging(&self) -> JudgeSettings {
        match self {
            Self::Digits | Self::DigitsEpsilon => JudgeSettings::default(),
            Self::MnistUnet(_) => {
                JudgeSettings { samples_per_label: 1_000, steps: 3_000, ..JudgeSettings::of(&self.model()) }
            }
            Self::Mnist(_) => JudgeSettings {
                samples_per_label: 1_000,
                steps: 3_000,
                hidden: 512,
                ..JudgeSettings::default()
            },
        }
    }

    pub fn forgetting(&self, robustness: Robustness) -> ForgetSettings {
        ForgetSettings::of(robustness)
    }
}

/// Images and labels in MNIST's format: big-endian sizes, then bytes.
fn mnist(config: &ModelConfig, images: &[u8], labels: &[u8], unseen: Option<i64>) -> Result<TrainingImages> {
    let number = |bytes: &[u8], at: usize| -> Result<usize> {
        let word = bytes.get(4 * at..4 * at + 4).context("an MNIST file ends in its header")?;
        Ok(u32::from_be_bytes(word.try_into()?) as usize)
    };
    let (count, height, width) = (number(images, 1)?, number(images, 2)?, number(images, 3)?);
    let side = MNIST_SIDE as usize;
    ensure!((height, width) == (side, side), "MNIST has images of 28x28 pixels, not {height}x{width}");
    let (images, labels) = (&images[16..], labels.get(8..).context("an MNIST file ends in its header")?);
    ensure!(images.len() == count * side * side && labels.len() == count, "an MNIST file is cut off");
    let seen = |label: u8| Some(i64::from(label)) != unseen;
    let pixels = images.chunks(side * side).zip(labels).filter(|(_, label)| seen(**label));
    let pixels: Vec<f32> =
        pixels.flat_map(|(image, _)| image).map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
    let labels: Vec<i64> = labels.iter().filter(|label| seen(**label)).map(|&label| label.into()).collect();
    Ok(TrainingImages::new(config, &pixels, &labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (Vec<u8>, Vec<u8>) {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let mut images = words(&[2051, 3, 28, 28]);
        images.extend([0_u8, 255, 51].iter().flat_map(|&value| [value; 784]));
        let mut labels = words(&[2049, 3]);
        labels.extend([7, 3, 7]);
        (images, labels)
    }

    #[test]
    fn mnist_is_read_without_the_label_that_must_not_be_seen() {
        let (images, labels) = files();
        let config = Data::Mnist("".into()).model();
        assert_eq!(mnist(&config, &images, &labels, None).unwrap().len(), 3);
        let seen = mnist(&config, &images, &labels, Some(7)).unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen.tensors().0.double_value(&[0, 0]), 1.0);
        assert_eq!(seen.tensors().1.int64_value(&[0]), 3);
    }

    #[test]
    fn a_file_that_is_cut_off_is_refused() {
        let (images, labels) = files();
        let config = Data::Mnist("".into()).model();
        assert!(mnist(&config, &images[..images.len() - 1], &labels, None).is_err());
        assert!(mnist(&config, &images, &labels[..6], None).is_err());
        assert!(mnist(&config, &images[..10], &labels, None).is_err());
    }
}
