//! One-step sampling beside the teacher's sampler.

use anyhow::Result;

use super::Bench;
use super::row::Row;
use super::start::Net;
use super::steps::number;
use super::work::HEUN_STEPS;

const IMAGES: f64 = 1000.0;
const ROUNDS: &str = "7";

/// Time per image of the generator, beside the teacher's.
///
/// # Errors
/// If the program fails.
pub fn measure(bench: &Bench<'_>) -> Result<Row> {
    let dir = bench.start(Net::LargeMlp)?;
    let answer = bench.ours(&["sampling", &dir, &IMAGES.to_string(), ROUNDS], 1)?;
    let each = |field| Ok::<_, anyhow::Error>(1e6 * number(&answer, field)? / IMAGES);
    let (ours, peer) = (each("oneStep")?, each("manySteps")?);
    let mut row = Row::of_pairs("one-step-sampling", vec![ours], vec![peer], "CPU us/image", 1);
    row.what = format!("beside the teacher's {HEUN_STEPS} steps of Heun");
    Ok(row)
}
