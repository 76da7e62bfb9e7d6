//! Checkpoints that other programs wrote.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use lethe_api::contract::{Digest, Manifest, exit};
use lethe_sfd::{
    AdmUnetConfig, DdpmUnetConfig, Denoiser, Device, DiscreteConfig, ModelConfig, NetworkConfig, NoiseConfig,
    Parametrisation, SongUnetConfig,
};
use tempfile::TempDir;

use crate::world::{tiny, trainer};

/// DDPM's timesteps, and the levels that they cover.
fn discrete() -> (Parametrisation, NoiseConfig) {
    let noise = NoiseConfig { sigma_min: 0.01, sigma_max: 157.0, ..NoiseConfig::default() };
    (Parametrisation::Epsilon(DiscreteConfig::default()), noise)
}

fn tiny_ddpm() -> ModelConfig {
    let (parametrisation, noise) = discrete();
    let (multipliers, attention) = (vec![1, 2], vec![4]);
    let ddpm = DdpmUnetConfig { channels: 32, multipliers, blocks: 1, attention };
    ModelConfig { parametrisation, noise, network: NetworkConfig::DdpmUnet(ddpm), ..tiny() }
}

#[test]
fn an_imported_checkpoint_has_every_weight_to_the_bit() {
    let ddpm = tiny_ddpm();
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

/// `import` of the trainer, as somebody types it who has the sources of the tool, or has not.
fn import(arguments: &[&str], path: Option<&str>, tool: bool) -> Output {
    let mut command = trainer();
    command.arg("import").args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").env_remove("PYTHONPATH");
    if tool {
        command.env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/import"));
    }
    if let Some(path) = path {
        command.env("PATH", path);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_trainer_imports_by_the_tool_and_has_its_exit_code() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let original = Denoiser::init(&tiny_ddpm(), 5, Device::Cpu).unwrap().to_bytes();
    fs::write(at("weights"), &original).unwrap();
    python(&["tests.from_safetensors", &at("weights"), "pth", &at("checkpoint")]);
    let arguments = [&at("checkpoint"), "--out", &at("base"), "--labels", "a,b,c,d", "--image-size", "8"];
    let imported = import(&arguments, None, true);
    assert_eq!(imported.status.code(), Some(exit::DONE), "{}", said(&imported));
    let manifest = fs::read(Path::new(&at("base")).join(Manifest::FILE)).unwrap();
    assert_eq!(String::from_utf8(imported.stdout).unwrap().trim(), Digest::of(&manifest).as_str());

    fs::write(at("broken"), b"not a checkpoint").unwrap();
    for (arguments, code) in [
        (&[&*at("broken"), "--out", &at("other")][..], exit::BAD_ARTIFACT),
        (&[&*at("absent"), "--out", &at("other")], exit::BAD_CONFIGURATION),
        (&["--nonsense"], exit::BAD_PLAN),
    ] {
        let refused = import(arguments, None, true);
        let message = said(&refused);
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{arguments:?}: {message}");
    }
    let help = import(&["--help"], None, true);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--image-size"));
}

#[test]
fn an_import_without_python_or_the_tool_says_what_is_missing() {
    let empty = TempDir::new().unwrap();
    let without_tool = import(&["checkpoint", "--out", "base"], None, false);
    let without_python = import(&["checkpoint", "--out", "base"], empty.path().to_str(), true);
    for (ended, words) in [
        (without_tool, "set PYTHONPATH to tools/import"),
        (without_python, "install it, and import where the checkpoint is; the trainer's image has no Python"),
    ] {
        assert_eq!(ended.status.code(), Some(exit::BAD_CONFIGURATION), "{}", said(&ended));
        assert!(
            said(&ended).contains(words) && said(&ended).trim_end().lines().count() == 1,
            "{}",
            said(&ended)
        );
    }
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
