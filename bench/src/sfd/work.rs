//! One measurement of ours, in a process of its own: what it needs lies in files, what it finds is one line of JSON.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Subcommand;
use lethe_sfd::{ForgetSettings, Training};
use serde_json::json;
use tch::Tensor;

use super::{gemm, start};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    threads: i32,
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Make the models
    Start { net: start::Net, dir: PathBuf },
    /// Write the batches of the first steps and print their losses
    Parity { dir: PathBuf, steps: u64 },
    /// Time some steps after others
    Steps { dir: PathBuf, targets: i64, warm: u64, timed: u64 },
    /// Time products of matrices in the shapes of a network
    Gemm { net: start::Net },
}

pub fn run(args: &Args) -> Result<()> {
    tch::set_num_interop_threads(1);
    tch::set_num_threads(args.threads);
    let found = match &args.work {
        Work::Start { net, dir } => start::write(dir, *net).map(|()| json!({}))?,
        Work::Parity { dir, steps } => parity(dir, *steps)?,
        Work::Steps { dir, targets, warm, timed } => steps(dir, *targets, *warm, *timed)?,
        Work::Gemm { net } => json!({ "flopPerSecond": gemm::rate(&net.config()) }),
    };
    println!("{found}");
    Ok(())
}

fn parity(dir: &std::path::Path, steps: u64) -> Result<serde_json::Value> {
    let mut forgetting = start::forgetting(dir, 1, start::settings())?;
    let (mut batches, mut losses) = (Vec::<(String, Tensor)>::new(), Vec::<Vec<f64>>::new());
    for step in 0..steps {
        let batch = forgetting.next_batch();
        batches.extend(batch.into_iter().map(|(name, tensor)| (format!("{step:02}.{name}"), tensor)));
        forgetting.advance();
        losses.push(forgetting.report()?.losses.into_iter().map(|(_, loss)| loss).collect());
    }
    Tensor::write_safetensors(&batches, dir.join("batches.safetensors"))
        .context("cannot write the batches")?;
    Ok(json!({ "losses": losses }))
}

fn steps(dir: &std::path::Path, targets: i64, warm: u64, timed: u64) -> Result<serde_json::Value> {
    // The schedule must not end in between.
    let settings = ForgetSettings { steps: 100_000, ..start::settings() };
    let mut forgetting = start::forgetting(dir, targets, settings)?;
    (0..warm).for_each(|_| forgetting.advance());
    forgetting.report()?;
    let began = Instant::now();
    (0..timed).for_each(|_| forgetting.advance());
    forgetting.report()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds, "peakBytes": peak_bytes()? }))
}

/// Most memory that this process has held so far.
fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix("kB")).and_then(|text| text.trim().parse().ok());
    kilobytes.map(|kilobytes: u64| kilobytes * 1024).context("/proc/self/status has no VmHWM in kB")
}
