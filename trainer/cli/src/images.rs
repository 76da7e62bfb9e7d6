//! The optical digits: the only file of images that this program can read. `teach` does, and `membership`, which measures.

use std::{collections::BTreeSet, fs::File, io::Read, path::Path};

use flate2::read::GzDecoder;
use lethe_api::contract::Digest;
use lethe_sfd::{ImageShape, MlpConfig, ModelConfig, NoiseConfig, Parametrisation, TrainingImages};
use tch::Tensor;

use crate::failure::{Failed, Result};

/// More is not read, however much a small file unpacks to.
const MAX_BYTES: u64 = 64 << 20;
const SIDE: i64 = 8;
/// Pixels are whole numbers from 0 to this.
const INK: f32 = 16.0;

/// Reads a gzip-compressed CSV: 64 pixels and the digit in each line.
pub(crate) fn read(path: &Path) -> Result<(ModelConfig, TrainingImages)> {
    let (pixels, labels) = unpack(path, &load(path)?)?;
    let known: BTreeSet<i64> = labels.iter().copied().collect();
    let config = ModelConfig {
        image: ImageShape { channels: 1, height: SIDE, width: SIDE },
        labels: known.iter().map(ToString::to_string).collect(),
        noise: NoiseConfig::default(),
        parametrisation: Parametrisation::Edm,
        network: MlpConfig::default().into(),
    };
    let index = |label: &i64| known.range(..label).count() as i64;
    let labels: Vec<i64> = labels.iter().map(index).collect();
    let images = config.validate().and_then(|()| TrainingImages::new(&config, &pixels, &labels));
    Ok((config, images.map_err(|error| failed(path, error.to_string()))?))
}

/// The same file as images `[N, pixels]` and labels `[N]` of this model, and its digest.
pub(crate) fn of(path: &Path, config: &ModelConfig) -> Result<(Tensor, Tensor, Digest)> {
    let file = load(path)?;
    let (pixels, digits) = unpack(path, &file)?;
    let label = |digit: &i64| {
        config
            .label(&digit.to_string())
            .ok_or_else(|| failed(path, format!("the model has no label {digit}")))
    };
    let labels = digits.iter().map(label).collect::<Result<Vec<i64>>>()?;
    let images = TrainingImages::new(config, &pixels, &labels);
    let images = images.map_err(|error| failed(path, error.to_string()))?;
    let (images, labels) = images.tensors();
    Ok((images.shallow_clone(), labels.shallow_clone(), Digest::of(file)))
}

fn failed(path: &Path, problem: String) -> Failed {
    Failed::bad_artifact(format!("images {}: {problem}", path.display()))
}

/// The file as it lies there.
fn load(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    file.map_err(|error| failed(path, error.to_string()))?;
    within(path, bytes.len())?;
    Ok(bytes)
}

fn within(path: &Path, bytes: usize) -> Result<()> {
    match bytes as u64 > MAX_BYTES {
        true => Err(failed(path, format!("larger than {MAX_BYTES} bytes"))),
        false => Ok(()),
    }
}

/// Pixels in [-1, 1], image after image, and the digits.
fn unpack(path: &Path, file: &[u8]) -> Result<(Vec<f32>, Vec<i64>)> {
    let mut text = String::new();
    let mut unpacked = GzDecoder::new(file).take(MAX_BYTES + 1);
    unpacked.read_to_string(&mut text).map_err(|error| failed(path, error.to_string()))?;
    within(path, text.len())?;
    parse(&text).map_err(|problem| failed(path, problem))
}

/// Pixels in [-1, 1], image after image, and the labels.
fn parse(text: &str) -> Result<(Vec<f32>, Vec<i64>), String> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("line {}: {what}", number + 1);
        let values: Result<Vec<i64>, _> = line.split(',').map(|value| value.trim().parse::<i64>()).collect();
        let values = values.map_err(|_| wrong("not a list of whole numbers"))?;
        let Some((&label, image)) = values.split_last() else { return Err(wrong("empty")) };
        if image.len() as i64 != SIDE * SIDE {
            return Err(wrong(&format!("{} pixels, expected {}", image.len(), SIDE * SIDE)));
        }
        if !(0..=9).contains(&label) || image.iter().any(|pixel| !(0..=INK as i64).contains(pixel)) {
            return Err(wrong("a pixel is not in 0 to 16, or the label not in 0 to 9"));
        }
        pixels.extend(image.iter().map(|&pixel| pixel as f32 / (INK / 2.0) - 1.0));
        labels.push(label);
    }
    Ok((pixels, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_of_ink_is_one_and_of_paper_minus_one() {
        let line = |first: i64| format!("{first}{},7\n", ",0".repeat(63));
        let (pixels, labels) = parse(&line(16)).unwrap();
        assert_eq!((pixels[0], pixels[1], labels), (1.0, -1.0, vec![7]));
        assert!(parse(&line(17)).unwrap_err().contains("line 1"));
        assert!(parse("1,2,3\n").unwrap_err().contains("2 pixels"));
    }
}
