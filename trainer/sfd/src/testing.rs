//! Models small enough to check by hand or by finite differences.

use crate::config::{ImageShape, MlpConfig, ModelConfig, NoiseConfig, Parametrisation};
use crate::denoiser::Denoiser;
use crate::judge::Judge;
use crate::measure::Reference;
use crate::noise::{Noise, Stream};
use crate::settings::{DistilSettings, JudgeSettings, ReferenceSettings, TeachSettings};
use crate::sfd::{Baseline, Distillation};
use crate::teach::{Teaching, TrainingImages};
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

pub(crate) fn never() -> bool {
    false
}

/// A teacher and all that is prepared from it.
pub(crate) struct Models {
    pub(crate) teacher: Denoiser,
    pub(crate) judge: Judge,
    pub(crate) baseline: Baseline,
    pub(crate) reference: Reference,
}

pub(crate) const REFERENCE: ReferenceSettings = ReferenceSettings { samples_per_label: 60, sampler_steps: 8 };

pub(crate) fn judge_settings() -> JudgeSettings {
    JudgeSettings {
        samples_per_label: 50,
        steps: 200,
        batch: 32,
        learning_rate: 1e-2,
        hidden: 16,
        features: 8,
        ..Default::default()
    }
}

/// Four one-pixel labels, learnt, judged and distilled in a second.
pub(crate) fn models() -> Models {
    models_of(&tiny())
}

/// The same with a network of another kind.
pub(crate) fn models_of(config: &ModelConfig) -> Models {
    let settings =
        TeachSettings { steps: 600, batch: 32, learning_rate: 1e-2, ema_decay: 0.95, ..Default::default() };
    let mut teaching = Teaching::new(config, images(), settings, 1, Device::Cpu).unwrap();
    run(&mut teaching, 600);
    let teacher = teaching.finish().unwrap();
    let judge = Judge::train(&teacher, &judge_settings(), REFERENCE.sampler_steps, 1, &never).unwrap();
    let settings = DistilSettings { steps: 60, batch: 32, ..Default::default() };
    let mut distillation = Distillation::new(teacher.duplicate(), settings, 1).unwrap();
    run(&mut distillation, 60);
    let reference = Reference::measure(&teacher, &judge, &REFERENCE, 1, &never).unwrap();
    Models { teacher, judge, baseline: distillation.finish().unwrap(), reference }
}
