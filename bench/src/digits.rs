//! The optical digits that come with the trainer, and the models that are made of them.

use std::io::Read;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use lethe_sfd::{
    Baseline, Denoiser, Device, DistilSettings, Distillation, ImageShape, MlpConfig, ModelConfig,
    NoiseConfig, Parametrisation, TeachSettings, Teaching, Training, TrainingImages,
};

const DIGITS: &[u8] = include_bytes!("../../trainer/data/optical-digits.csv.gz");
/// Pixels along a side of a digit.
pub const SIDE: i64 = 8;

/// The digits in the size of the model, each pixel repeated; without those of one label, if there is one that must not be
/// seen.
///
/// # Errors
/// If the file is damaged, or the model is not one of digits.
pub fn images(config: &ModelConfig, unseen: Option<i64>) -> Result<TrainingImages> {
    let mut csv = String::new();
    GzDecoder::new(DIGITS).read_to_string(&mut csv).context("cannot unpack the digits")?;
    let ImageShape { height, width, .. } = config.image;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for line in csv.lines() {
        let values = line.split(',').map(str::parse).collect::<Result<Vec<f32>, _>>()?;
        let label = values[(SIDE * SIDE) as usize] as i64;
        if Some(label) == unseen {
            continue;
        }
        let at = |y: i64, x: i64| values[(y * SIDE / height * SIDE + x * SIDE / width) as usize] / 8.0 - 1.0;
        pixels.extend((0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| at(y, x)));
        labels.push(label);
    }
    Ok(TrainingImages::new(config, &pixels, &labels)?)
}

/// A teacher with the default settings; it takes `shorter` times fewer steps, and never sees one of the labels if told so.
///
/// # Errors
/// If the training diverges.
pub fn teach(unseen: Option<i64>, seed: u64, shorter: u64) -> Result<Denoiser> {
    let config = ModelConfig {
        image: ImageShape { channels: 1, height: SIDE, width: SIDE },
        labels: (0..10).map(|digit| digit.to_string()).collect(),
        noise: NoiseConfig::default(),
        parametrisation: Parametrisation::Edm,
        network: MlpConfig::default().into(),
    };
    let mut settings = TeachSettings::default();
    settings.steps = settings.steps.div_ceil(shorter);
    let mut teaching = Teaching::new(&config, images(&config, unseen)?, settings, seed, Device::Cpu)?;
    finish(&mut teaching)?;
    Ok(teaching.finish()?)
}

/// Its baseline, likewise.
///
/// # Errors
/// If the training diverges.
pub fn distil(teacher: &Denoiser, seed: u64, shorter: u64) -> Result<Baseline> {
    let mut settings = DistilSettings::default();
    settings.steps = settings.steps.div_ceil(shorter);
    let mut distillation = Distillation::new(teacher.duplicate(), settings, seed)?;
    finish(&mut distillation)?;
    Ok(distillation.finish()?)
}

/// Trains to the end.
///
/// # Errors
/// If the training diverges.
pub fn finish(training: &mut dyn Training) -> Result<()> {
    while !training.done() {
        training.advance();
    }
    training.report()?;
    Ok(())
}
