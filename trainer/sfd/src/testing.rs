//! Models small enough to check by hand or by finite differences.

use crate::config::{ImageShape, MlpConfig, ModelConfig, NoiseConfig, Parametrisation};
use crate::denoiser::Denoiser;
use crate::noise::{Noise, Stream};
use crate::teach::TrainingImages;
use crate::training::Training;
use tch::{Device, Kind, Tensor};

/// Four labels, 2x2 images, a few hundred weights.
pub(crate) fn tiny() -> ModelConfig {
    ModelConfig {
        image: ImageShape { channels: 1, height: 2, width: 2 },
        labels: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
        noise: NoiseConfig::default(),
        parametrisation: Parametrisation::Edm,
        network: MlpConfig { width: 6, blocks: 2, embedding: 5, frequencies: 3 }.into(),
    }
}

/// A model all of whose weights are random, in double precision; fresh ones start with zero output layers.
pub(crate) fn random_model(seed: u64) -> Denoiser {
    let fresh = Denoiser::init(&tiny(), seed, Device::Cpu).expect("the configuration is valid");
    let len = fresh.params().flat().size()[0];
    let noise = Noise::new(seed, Stream::FakeNoise).normal(0, 1, len, Device::Cpu).view([-1]) * 0.3;
    fresh.with_flat((fresh.params().flat() + noise).to_kind(Kind::Double))
}

/// Eight images of four labels that differ in one pixel each.
pub(crate) fn images() -> TrainingImages {
    let labels: Vec<i64> = (0..8).map(|image| image % 4).collect();
    let pixels: Vec<f32> =
        labels.iter().flat_map(|&l| (0..4).map(move |p| if p == l { 0.9 } else { -0.5 })).collect();
    TrainingImages::new(&tiny(), &pixels, &labels).expect("the images fit")
}

/// Largest absolute value.
pub(crate) fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

/// Advances `steps` times.
pub(crate) fn run(training: &mut dyn Training, steps: u64) {
    (0..steps).for_each(|_| training.advance());
}
