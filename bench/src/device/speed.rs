//! Steps per second and peak memory, each case in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lethe_sfd::{Device, Precision, Training};
use serde_json::{Value, json};

use super::models::{self, Size};
use super::row::Row;

/// What is timed.
pub const CASES: [(Net, Computing); 6] = [
    (Net::Ddpm, Computing::F32),
    (Net::Ddpm, Computing::Bf16),
    (Net::Song, Computing::F32),
    (Net::Song, Computing::Bf16),
    (Net::Ddpm, Computing::Tf32),
    (Net::Ddpm, Computing::Bf16Searched),
];
/// Seconds on the clock, at least this many steps.
const SECONDS: f64 = 1.5;
const LEAST_STEPS: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Net {
    Ddpm,
    Song,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Computing {
    F32,
    /// F32 as libraries compute it if they are not told otherwise.
    Tf32,
    Bf16,
    /// Bf16 with the quickest of cuDNN's convolutions instead of the one that it guesses.
    Bf16Searched,
}

#[derive(Debug, clap::Args)]
pub struct WorkArgs {
    net: Net,
    computing: Computing,
    size: Size,
}

impl Net {
    fn word(self) -> &'static str {
        match self {
            Net::Ddpm => "ddpm",
            Net::Song => "song",
        }
    }

    /// Samples of a step: half of them under kept labels.
    fn batch(self, size: Size) -> i64 {
        match (self, size) {
            (Net::Ddpm, Size::Full) => 64,
            (Net::Song, Size::Full) => 32,
            (_, Size::Reduced) => 16,
        }
    }
}

impl Computing {
    fn word(self) -> &'static str {
        match self {
            Computing::F32 => "f32",
            Computing::Tf32 => "tf32",
            Computing::Bf16 => "bf16",
            Computing::Bf16Searched => "bf16-searched",
        }
    }
}

/// Runs [`work`] in a process of its own.
///
/// # Errors
/// If it fails.
pub fn measure(out: &Path, net: Net, computing: Computing, size: Size) -> Result<Vec<Row>> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let words = [net.word(), computing.word(), if size == Size::Full { "full" } else { "reduced" }];
    let mut command = Command::new(program);
    if computing == Computing::Tf32 {
        command.env_remove(super::TF32);
    }
    let output = command.arg("--out").arg(out).arg("device-work").args(words).output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", output.status, words.lines().next().unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let found: Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
    let name = format!("{} {}", net.word(), computing.word());
    let number = |field: &str| found[field].as_f64().unwrap_or(f64::NAN);
    let what = format!(
        "batch {}, {:.1} million weights, the host was done after {:.0} % of the time",
        net.batch(size),
        number("weights") / 1e6,
        100.0 * number("queued") / number("seconds"),
    );
    let speed = Row::figure(format!("{name} speed"), number("steps") / number("seconds"), "steps/s", what);
    let memory = number("megabytes");
    let memory = Row::figure(format!("{name} memory"), memory, "MB", "of the device, CUDA's own included");
    Ok(vec![speed, memory])
}

/// Times some steps and prints what was found as one line of JSON.
///
/// # Errors
/// If the training diverges.
pub fn work(args: &WorkArgs) -> Result<()> {
    let before = used_megabytes();
    let device = Device::cuda_if_available();
    tch::Cuda::cudnn_set_benchmark(args.computing == Computing::Bf16Searched);
    let config = match args.net {
        Net::Ddpm => models::ddpm(args.size),
        Net::Song => models::song(args.size),
    };
    let precision = match args.computing {
        Computing::F32 | Computing::Tf32 => Precision::F32,
        Computing::Bf16 | Computing::Bf16Searched => Precision::Bf16,
    };
    let mut training = models::fresh_forgetting(&config, args.net.batch(args.size), precision, device)?;
    (0..3).for_each(|_| training.advance());
    training.report()?;
    // How long a step takes, roughly.
    let began = Instant::now();
    training.advance();
    training.report()?;
    let steps = (SECONDS / began.elapsed().as_secs_f64()) as u32;
    let steps = steps.clamp(LEAST_STEPS, 1000);
    let began = Instant::now();
    (0..steps).for_each(|_| training.advance());
    let queued = began.elapsed().as_secs_f64();
    training.report()?;
    let seconds = began.elapsed().as_secs_f64();
    let used = used_megabytes().zip(before).map(|(after, before)| after - before);
    let weights = training.finish()?.weights();
    let found = json!({
        "steps": steps,
        "seconds": seconds,
        "queued": queued,
        "megabytes": used,
        "weights": weights,
    });
    println!("{found}");
    Ok(())
}

fn used_megabytes() -> Option<f64> {
    nvidia_smi("memory.used")?.split_whitespace().next()?.parse().ok()
}

/// What the driver says about the first device.
pub fn nvidia_smi(query: &str) -> Option<String> {
    let mut command = Command::new("nvidia-smi");
    command.arg(format!("--query-gpu={query}")).arg("--format=csv,noheader").env_remove("LD_PRELOAD");
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(|line| line.trim().to_owned())
}
