//! Networks with random weights: fresh ones end in layers of zeros, and would agree whatever is in front of them.

use anyhow::{Context, Result};
use lethe_sfd::noise::{Noise, Stream};
use lethe_sfd::{
    AdmUnetConfig, Baseline, Concept, DdpmUnetConfig, Denoiser, Device, DiscreteConfig, ForgetSettings,
    Forgetting, ImageShape, MlpConfig, ModelConfig, NetworkConfig, NoiseConfig, Override, Parametrisation,
    Precision, SfdOptimiser, SongUnetConfig, Target,
};
use serde_json::{Map, Value};
use tch::Tensor;

/// Deviation of the noise on weights that have no fan-in: biases and norms.
const DEVIATION: f64 = 0.05;

/// As published, or so small that a CPU takes a step of it in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Size {
    Full,
    Reduced,
}

/// A network of each kind, by name.
pub fn kinds(size: Size) -> [(&'static str, ModelConfig); 4] {
    let mlp = model(8, Parametrisation::Edm, MlpConfig::default().into());
    let (side, channels) = if size == Size::Full { (32, 64) } else { (8, 32) };
    let adm = AdmUnetConfig { channels, head_channels: 32, attention: vec![side / 2], ..Default::default() };
    let adm = AdmUnetConfig { blocks: 1, multipliers: vec![1, 2], ..adm };
    [
        ("MLP", mlp),
        ("DDPM U-Net", ddpm(size)),
        ("SongUNet", song(size)),
        ("ADM U-Net, small", model(side, Parametrisation::Edm, NetworkConfig::AdmUnet(adm))),
    ]
}

/// The published network of DDPM for CIFAR-10.
pub fn ddpm(size: Size) -> ModelConfig {
    let reduced = DdpmUnetConfig { channels: 32, multipliers: vec![1, 2], blocks: 1, attention: vec![4] };
    let (side, net) = match size {
        Size::Full => (32, DdpmUnetConfig::default()),
        Size::Reduced => (8, reduced),
    };
    model(side, Parametrisation::Epsilon(DiscreteConfig::default()), NetworkConfig::DdpmUnet(net))
}

/// The published network of EDM for CIFAR-10.
pub fn song(size: Size) -> ModelConfig {
    let (side, net) = match size {
        Size::Full => (32, SongUnetConfig::default()),
        Size::Reduced => (8, SongUnetConfig::small(32, &[1, 2], &[4])),
    };
    model(side, Parametrisation::Edm, NetworkConfig::SongUnet(net))
}

fn model(side: i64, parametrisation: Parametrisation, network: NetworkConfig) -> ModelConfig {
    let mut noise = NoiseConfig::default();
    if parametrisation != Parametrisation::Edm {
        // What the timesteps reach.
        (noise.sigma_min, noise.sigma_max) = (0.01, 157.0);
    }
    ModelConfig {
        image: ImageShape { channels: 3, height: side, width: side },
        labels: (0..10).map(|label| label.to_string()).collect(),
        noise,
        parametrisation,
        network,
    }
}

/// The bytes of a model, every weight of which is random.
pub fn random(config: &ModelConfig, seed: u64) -> Result<Vec<u8>> {
    let mut bytes = Denoiser::init(config, seed, Device::Cpu)?.to_bytes();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..start])?;
    for (index, (name, entry)) in header.iter().enumerate() {
        let Some(shape) = entry["shape"].as_array() else { continue };
        // These belong to the architecture.
        if name.ends_with("resample_filter") {
            continue;
        }
        let shape: Vec<f64> = shape.iter().filter_map(Value::as_f64).collect();
        let deviation = match &shape[..] {
            [_, fan_in @ ..] if !fan_in.is_empty() => fan_in.iter().product::<f64>().powf(-0.5),
            _ => DEVIATION,
        };
        let at = |end: usize| entry["data_offsets"][end].as_u64().context("a tensor has two ends");
        add(&mut bytes[start + at(0)? as usize..start + at(1)? as usize], seed, index as u64, deviation);
    }
    Ok(bytes)
}

/// Adds normal noise to the f32 of one tensor.
fn add(data: &mut [u8], seed: u64, index: u64, deviation: f64) {
    let len = data.len() as i64 / 4;
    let noise =
        Noise::new(seed, Stream::ProbeNoise).normal(index, 1, len, Device::Cpu).view([-1]) * deviation;
    let mut values = vec![0.0_f32; data.len() / 4];
    noise.copy_data(&mut values, data.len() / 4);
    for (bytes, more) in data.chunks_exact_mut(4).zip(values) {
        let value = f32::from_le_bytes((&*bytes).try_into().expect("four bytes")) + more;
        bytes.copy_from_slice(&value.to_le_bytes());
    }
}

/// A training of three models with random weights: as many samples under a forgotten label as under kept ones.
///
/// # Errors
/// If the configuration is not valid.
pub fn forgetting(
    config: &ModelConfig,
    batch: i64,
    precision: Precision,
    device: Device,
) -> Result<Forgetting> {
    let model =
        |seed| -> Result<Denoiser> { Ok(Denoiser::from_bytes(config, &random(config, seed)?, device)?) };
    from(model(1)?, Baseline { generator: model(2)?, fake_score: model(3)? }, batch, precision)
}

/// The same from fresh weights: quicker to make, and as much work.
///
/// # Errors
/// If the configuration is not valid.
pub fn fresh_forgetting(
    config: &ModelConfig,
    batch: i64,
    precision: Precision,
    device: Device,
) -> Result<Forgetting> {
    let model = Denoiser::init(config, 1, device)?;
    let baseline = Baseline { generator: model.duplicate(), fake_score: model.duplicate() };
    from(model, baseline, batch, precision)
}

fn from(teacher: Denoiser, baseline: Baseline, batch: i64, precision: Precision) -> Result<Forgetting> {
    let target = Target { label: 3, replacement: Override::Fixed(8) };
    let settings = ForgetSettings {
        steps: 100_000,
        remain_batch: batch / 2,
        forget_batch: batch / 2,
        optimiser: SfdOptimiser { precision, ..SfdOptimiser::default() },
        ..ForgetSettings::default()
    };
    Ok(Forgetting::new(teacher, baseline, Concept::new(10, &[target], None)?, settings, 1)?)
}

/// Largest difference, relative to the largest value.
pub fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    largest(&(found - expected)) / largest(expected)
}
