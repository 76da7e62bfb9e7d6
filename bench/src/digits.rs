//! The optical digits that come with the trainer.

use std::io::Read;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use lethe_sfd::{ImageShape, ModelConfig, TrainingImages};

/// Gzip-compressed CSV: 64 pixels of 0 to 16 and a digit per line.
pub const DIGITS: &[u8] = include_bytes!("../../trainer/data/optical-digits.csv.gz");
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
