//! What a person looks at: the page, and the pictures on it.

use lethe_report::gallery::{Model, html};

use super::{Loaded, routes::Failure};
use crate::grid;

const MAX_SAMPLES: u64 = 64;
const SCALE: usize = 6;

/// The page about this model.
pub(super) fn page(name: &str, model: &Loaded, seed: u64) -> String {
    let Loaded { digest, config, forgotten, .. } = model;
    html(name, &Model { digest, labels: &config.labels, forgotten }, seed)
}

/// A PNG of `n` samples of a label, with the seeds from `seed` on.
pub(super) async fn row(model: &Loaded, label: i64, seed: u64, n: u64) -> Result<Vec<u8>, Failure> {
    let seeds = (0..n.clamp(1, MAX_SAMPLES)).map(|i| (label, seed.wrapping_add(i)));
    let images = model.queue.draw(seeds.collect()).await?;
    Ok(grid::png(&[images], model.config.image, SCALE)?)
}
