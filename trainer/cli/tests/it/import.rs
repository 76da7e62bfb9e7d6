//! Checkpoints that other programs wrote.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use lethe_api::contract::{Digest, Manifest};
use lethe_sfd::{
    AdmUnetConfig, DdpmUnetConfig, Denoiser, Device, DiscreteConfig, ModelConfig, NetworkConfig, NoiseConfig,
    Parametrisation, SongUnetConfig,
};
use tempfile::TempDir;

use crate::world::tiny;

/// DDPM's timesteps, and the levels that they cover.
fn discrete() -> (Parametrisation, NoiseConfig) {
    let noise = NoiseConfig { sigma_min: 0.01, sigma_max: 157.0, ..NoiseConfig::default() };
    (Parametrisation::Epsilon(DiscreteConfig::default()), noise)
}

#[test]
fn an_imported_checkpoint_has_every_weight_to_the_bit() {
    let (parametrisation, noise) = discrete();
    let attention = vec![4];
    let multipliers = vec![1, 2];
    let ddpm = DdpmUnetConfig { channels: 32, multipliers, blocks: 1, attention };
    let ddpm = ModelConfig { parametrisation, noise, network: NetworkConfig::DdpmUnet(ddpm), ..tiny() };
    let song = SongUnetConfig { augmentations: 9, ..SongUnetConfig::small(8, &[1, 2], &[4]) };
    let song = ModelConfig { network: NetworkConfig::SongUnet(song), ..tiny() };
    let adm = AdmUnetConfig {
        channels: 64,
        multipliers: vec![1, 1],
        blocks: 1,
        attention: vec![8],
        ..AdmUnetConfig::default()
    };
    let adm = ModelConfig { network: NetworkConfig::AdmUnet(adm), ..tiny() };
    for (config, form) in [(&ddpm, "pth"), (&ddpm, "legacy"), (&song, "edm"), (&adm, "edm")] {
        assert_imported(config, form);
    }
}

fn assert_imported(config: &ModelConfig, form: &str) {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let original = Denoiser::init(config, 5, Device::Cpu).unwrap().to_bytes();
    fs::write(at("weights"), &original).unwrap();
    python(&["tests.from_safetensors", &at("weights"), form, &at("checkpoint")]);
    let labels = config.labels.join(",");
    let arguments = ["lethe_import", &at("checkpoint"), "--out", &at("base"), "--labels", &labels];
    let digest = python(&[&arguments[..], &["--image-size", "8"]].concat());

    let read = |name: &str| fs::read(folder.path().join("base").join(name)).unwrap();
    let manifest = read(Manifest::FILE);
    assert_eq!(digest.trim(), Digest::of(&manifest).as_str());
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest.files[Manifest::WEIGHTS].digest, Digest::of(read(Manifest::WEIGHTS)));
    let model: serde_json::Value = serde_json::from_slice(&read(Manifest::MODEL)).unwrap();
    let model: ModelConfig = serde_json::from_value(model["model"].clone()).unwrap();
    assert_eq!(model, *config, "{form}");
    let imported = Denoiser::from_bytes(&model, &read(Manifest::WEIGHTS), Device::Cpu).unwrap();
    assert!(imported.to_bytes() == original, "{form}");
}

/// Runs a module of the import tool; what it printed.
fn python(arguments: &[&str]) -> String {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/import");
    let mut command = Command::new("python3");
    let output = command.current_dir(tool).args(["-B", "-m"]).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
