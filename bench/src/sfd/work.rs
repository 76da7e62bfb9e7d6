//! One measurement of ours, in a process of its own: what it needs lies in files, what it finds is one line of JSON.

use std::io::stdin;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Subcommand;
use lethe_sfd::noise::{Noise, Stream};
use lethe_sfd::{Device, ForgetSettings, Training, generator, sampler};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tch::{Kind, Tensor};

use super::row::median;
use super::{gates, gemm, start};

/// Noise levels of the teacher's sampler (EDM, table 1).
pub const HEUN_STEPS: i64 = 18;

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
    /// Do as many steps as each line of the input says, and print what they cost
    Steps { dir: PathBuf, targets: i64 },
    /// Time images by one step of the generator, and by the teacher's sampler
    Sampling { dir: PathBuf, images: i64, rounds: u32 },
    /// Make what forgetting starts from and is measured with, unless it is kept
    Prepare { kept: PathBuf },
    /// Have a digit forgotten until it is good
    Gates { kept: PathBuf, label: i64, dir: PathBuf },
    /// Seconds of a step's arithmetic, at the rate of this machine
    Floor { net: start::Net },
}

pub fn run(args: &Args) -> Result<()> {
    tch::set_num_interop_threads(1);
    tch::set_num_threads(args.threads);
    let found = match &args.work {
        Work::Start { net, dir } => start::write(dir, *net).map(|()| json!({}))?,
        Work::Parity { dir, steps } => parity(dir, *steps)?,
        Work::Steps { dir, targets } => return steps(dir, *targets),
        Work::Sampling { dir, images, rounds } => sampling(dir, *images, *rounds)?,
        Work::Prepare { kept } => gates::prepare(kept).map(|()| json!({}))?,
        Work::Gates { kept, label, dir } => gates::forget(kept, *label, dir)?,
        Work::Floor { net } => json!({ "seconds": gemm::floor(&net.config()) }),
    };
    println!("{found}");
    Ok(())
}

fn parity(dir: &Path, steps: u64) -> Result<serde_json::Value> {
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

fn steps(dir: &Path, targets: i64) -> Result<()> {
    // The schedule must not end in between.
    let settings = ForgetSettings { steps: 100_000, ..start::settings() };
    let mut forgetting = start::forgetting(dir, targets, settings)?;
    let weights = start::model(dir, "generator")?.weights();
    for line in stdin().lines() {
        let steps: u64 = line?.trim().parse().context("no number of steps")?;
        let (began, worked) = (Instant::now(), processor_seconds());
        (0..steps).for_each(|_| forgetting.advance());
        forgetting.report()?;
        let (seconds, worked) = (began.elapsed().as_secs_f64(), processor_seconds() - worked);
        let peak = peak_bytes()?;
        println!(
            "{}",
            json!({ "seconds": seconds, "processorSeconds": worked, "peakBytes": peak, "weights": weights })
        );
    }
    Ok(())
}

/// Median processor seconds for `images` images, by either way in turn.
fn sampling(dir: &Path, images: i64, rounds: u32) -> Result<serde_json::Value> {
    let (teacher, generator) = (start::model(dir, "teacher")?, start::model(dir, "generator")?);
    let latent =
        Noise::new(1, Stream::ServeLatent).normal(0, images, teacher.config().image.pixels(), Device::Cpu);
    let label = Tensor::full([images], 3, (Kind::Int64, Device::Cpu));
    let timed = |draw: &dyn Fn() -> Tensor| {
        let began = processor_seconds();
        drop(draw());
        processor_seconds() - began
    };
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        one.push(timed(&|| generator::generate(&generator, &latent, &label)));
        many.push(timed(&|| sampler::heun(&teacher, &latent, &label, HEUN_STEPS)));
    }
    Ok(json!({ "oneStep": median(one), "manySteps": median(many) }))
}

/// Time that this process has spent on processors, on all of its threads together.
pub fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Most memory that this process has held so far.
fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix("kB")).and_then(|text| text.trim().parse().ok());
    kilobytes.map(|kilobytes: u64| kilobytes * 1024).context("/proc/self/status has no VmHWM in kB")
}
