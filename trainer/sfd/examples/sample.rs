//! Images of a bundle, drawn with characters: four of each label that is named, or of every label.
//!
//! `cargo run --release -p lethe-sfd --example sample -- FOLDER [LABEL...]`

use lethe_sfd::{
    Denoiser, Device, ImageShape, ModelConfig, generator,
    noise::{Noise, Stream},
    sampler,
};
use std::{error::Error, fs, path::Path};
use tch::{Kind, Tensor};

/// Images of each label, side by side.
const EACH: u64 = 4;
/// A teacher's noise levels: as many as its samples are measured with.
const STEPS: i64 = 18;
/// From dark to bright.
const SHADES: &[u8] = b" .:-=+*#%@";

fn main() -> Result<(), Box<dyn Error>> {
    lethe_sfd::process::settle();
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name the folder of a bundle")?;
    let read = |file: &str| {
        let path = Path::new(&folder).join(file);
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let manifest: serde_json::Value = serde_json::from_slice(&read("manifest.json")?)?;
    let config = ModelConfig::read(&read("model.json")?)?;
    let model = Denoiser::from_bytes(&config, &read("model.safetensors")?, Device::Cpu)?;

    let mut names: Vec<String> = arguments.collect();
    if names.is_empty() {
        names.clone_from(&config.labels);
    }
    for name in &names {
        let label = config.label(name).ok_or_else(|| format!("there is no label {name:?}"))?;
        // A teacher draws in many steps; what was distilled from it in one.
        let images = match manifest["kind"].as_str() {
            Some("Teacher") => in_many_steps(&model, label),
            _ => generator::serve(&model, &(0..EACH).map(|seed| (label, seed)).collect::<Vec<_>>())?,
        };
        println!("{name}:\n{}", side_by_side(&images, config.image));
    }
    Ok(())
}

fn in_many_steps(teacher: &Denoiser, label: i64) -> Vec<Vec<f32>> {
    let (pixels, device) = (teacher.config().image.pixels(), teacher.device());
    let latent = Noise::new(0, Stream::ServeLatent).normal(0, EACH as i64, pixels, device);
    let labels = Tensor::full([EACH as i64], label, (Kind::Int64, device));
    let images = sampler::heun(teacher, &latent, &labels, STEPS).to_kind(Kind::Double);
    let image = |index| (0..pixels).map(|pixel| images.double_value(&[index, pixel]) as f32).collect();
    (0..EACH as i64).map(image).collect()
}

/// Rows of characters, two for each pixel. Of several channels their mean is shown.
fn side_by_side(images: &[Vec<f32>], shape: ImageShape) -> String {
    let (height, width) = (shape.height as usize, shape.width as usize);
    let shade = |image: &[f32], row: usize, column: usize| {
        let channels = image.chunks(height * width).map(|channel| channel[row * width + column]);
        let mean = channels.sum::<f32>() / shape.channels as f32;
        let brightness = (mean + 1.0) / 2.0 * (SHADES.len() - 1) as f32;
        char::from(SHADES[(brightness.round() as usize).min(SHADES.len() - 1)])
    };
    let line = |row: usize| {
        let of_image = |image: &Vec<f32>| {
            (0..width).flat_map(|column| [shade(image, row, column); 2]).collect::<String>()
        };
        images.iter().map(of_image).collect::<Vec<_>>().join("  ") + "\n"
    };
    (0..height).map(line).collect()
}
