//! Where both programs start from: models that have been trained for a while. No layer is zero then, and the training is
//! steady: near the initial weights a difference of rounding grows tenfold with every step.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use lethe_sfd::{
    Baseline, Concept, Denoiser, Device, DistilSettings, Distillation, ForgetSettings, Forgetting,
    ImageShape, MlpConfig, ModelConfig, NetworkConfig, NoiseConfig, Override, Parametrisation, Replacement,
    SongUnetConfig, Target, TeachSettings, Teaching, Training,
};

use crate::digits::{self, SIDE};

const SEED: u64 = 1;

/// A network that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Net {
    /// The digits' default network.
    Mlp,
    /// The same with 0.9 million weights.
    LargeMlp,
    /// A small U-Net of DDPM++ for digits of 28x28 pixels.
    Unet,
}

impl Net {
    pub fn config(self) -> ModelConfig {
        let (side, network) = match self {
            Net::Mlp => (SIDE, MlpConfig::default().into()),
            Net::LargeMlp => {
                let net = MlpConfig { width: 256, blocks: 4, embedding: 128, frequencies: 32 };
                (SIDE, net.into())
            }
            Net::Unet => (28, NetworkConfig::SongUnet(SongUnetConfig::small(32, &[1, 2, 2], &[]))),
        };
        ModelConfig {
            image: ImageShape { channels: 1, height: side, width: side },
            labels: (0..10).map(|digit| digit.to_string()).collect(),
            noise: NoiseConfig::default(),
            parametrisation: Parametrisation::default(),
            network,
        }
    }

    /// The word that the command line has for it.
    pub fn word(self) -> &'static str {
        match self {
            Net::Mlp => "mlp",
            Net::LargeMlp => "large-mlp",
            Net::Unet => "unet",
        }
    }

    /// Threads for what is not timed. What takes long may have the whole machine.
    pub fn threads(self) -> u8 {
        match self {
            Net::Mlp | Net::LargeMlp => 1,
            Net::Unet => thread::available_parallelism()
                .map_or(1, |count| u8::try_from(count.get()).unwrap_or(u8::MAX)),
        }
    }

    /// Steps of teaching and of distilling that the models have behind them.
    fn training(self) -> (u64, u64) {
        match self {
            Net::Mlp | Net::LargeMlp => (400, 100),
            Net::Unet => (40, 10),
        }
    }

    /// Steps before the clock starts, and steps of a block.
    pub fn steps(self) -> (u64, u64) {
        match self {
            Net::Mlp | Net::LargeMlp => (5, 10),
            Net::Unet => (1, 1),
        }
    }
}

/// Steps of which both programs must compute the same losses.
pub const COMPARED: u64 = 20;

/// The published recipe's batch: as many samples under forgotten labels as under kept ones.
pub fn settings() -> ForgetSettings {
    ForgetSettings {
        remain_batch: 128,
        forget_batch: 128,
        null_share: 0.0,
        early_stop: None,
        ..ForgetSettings::default()
    }
}

/// The digits 0.. are forgotten, each replaced by the digit `targets` further on.
pub fn concept(targets: i64) -> Result<Concept> {
    let target = |label| Target { label, replacement: Override::Fixed(label + targets) };
    Ok(Concept::new(10, &(0..targets).map(target).collect::<Vec<_>>(), None)?)
}

/// Makes the models of `net` and writes all that the peer needs.
pub fn write(dir: &Path, net: Net) -> Result<()> {
    let config = net.config();
    let (teach, distil) = net.training();
    let teach = TeachSettings { steps: teach, batch: 64, ..TeachSettings::default() };
    let mut teaching = Teaching::new(&config, digits::images(&config, None)?, teach, SEED, Device::Cpu)?;
    finish(&mut teaching);
    let teacher = teaching.finish()?;
    let distil = DistilSettings { steps: distil, batch: 64, ..DistilSettings::default() };
    let mut distillation = Distillation::new(teacher.duplicate(), distil, SEED)?;
    finish(&mut distillation);
    leave(dir, &teacher, &distillation.finish()?, &settings(), &concept(1)?)
}

/// Writes models, settings and labels for both programs.
///
/// # Errors
/// If a file cannot be written.
pub fn leave(
    dir: &Path,
    teacher: &Denoiser,
    baseline: &Baseline,
    settings: &ForgetSettings,
    concept: &Concept,
) -> Result<()> {
    let Baseline { generator, fake_score } = baseline;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for (name, model) in [("teacher", teacher), ("generator", generator), ("fake_score", fake_score)] {
        put(&dir.join(name).with_extension("safetensors"), &model.to_bytes())?;
    }
    put(&dir.join("model.json"), &serde_json::to_vec(teacher.config())?)?;
    put(&dir.join("settings.json"), &serde_json::to_vec(&peer_settings(settings, concept)?)?)
}

/// The settings, and the labels kept and forgotten.
fn peer_settings(settings: &ForgetSettings, concept: &Concept) -> Result<serde_json::Value> {
    let forgotten = concept.forgotten().iter().map(|&(label, replacement)| match replacement {
        Replacement::Label(instead) => [label, instead],
        Replacement::AnyKept | Replacement::Judged(_) => unreachable!("every replacement is fixed"),
    });
    let mut settings = serde_json::to_value(settings)?;
    settings["kept"] = concept.kept().into();
    settings["forgotten"] = serde_json::json!(forgotten.collect::<Vec<_>>());
    Ok(settings)
}

/// One of the models that [`write`] left in `dir`.
pub fn model(dir: &Path, name: &str) -> Result<Denoiser> {
    let config: ModelConfig = serde_json::from_slice(&get(&dir.join("model.json"))?)?;
    let bytes = get(&dir.join(name).with_extension("safetensors"))?;
    Ok(Denoiser::from_bytes(&config, &bytes, Device::Cpu)?)
}

/// The training that is compared, from what [`write`] left in `dir`.
pub fn forgetting(dir: &Path, targets: i64, settings: ForgetSettings) -> Result<Forgetting> {
    let baseline = Baseline { generator: model(dir, "generator")?, fake_score: model(dir, "fake_score")? };
    Ok(Forgetting::new(model(dir, "teacher")?, baseline, concept(targets)?, settings, SEED)?)
}

fn finish(training: &mut dyn Training) {
    while !training.done() {
        training.advance();
    }
}

fn put(file: &Path, content: &[u8]) -> Result<()> {
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}

fn get(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
