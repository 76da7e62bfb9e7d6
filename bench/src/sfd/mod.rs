//! `sfd`: how fast the trainer is, side by side with a plain PyTorch loop in the order of the authors' program.
//!
//! Both start from the same weights with the same settings, alternate in blocks of a process each, and never run at the
//! same time. Before anything is timed, both compute the losses of the same steps.

mod gemm;
mod parity;
mod row;
mod start;
mod steps;
pub mod work;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::start::Net;

/// Speed beside a plain PyTorch loop
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory to find PyTorch in
    #[arg(long)]
    pytorch: PathBuf,
    /// Directory of the loop
    #[arg(long)]
    peer: PathBuf,
    /// Pairs of blocks per comparison
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Only rows whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

/// A directory of both programs' inputs, and how to start either.
struct Bench<'a> {
    args: &'a Args,
    work: PathBuf,
}

/// # Errors
/// If a program fails, or the two disagree about a loss.
pub fn run(args: &Args, out: &Path) -> Result<()> {
    let bench = Bench { args, work: out.join("sfd-work") };
    let mut rows = Vec::new();
    for (name, net) in [("mlp-steps", Net::Mlp), ("mlp-large-steps", Net::LargeMlp)] {
        if name.contains(&args.only) {
            rows.extend(steps::measure(&bench, name, net)?);
        }
    }
    row::publish(out, &rows)
}

impl Bench<'_> {
    /// One block of ours: what it printed.
    fn ours(&self, arguments: &[&str], threads: u8) -> Result<serde_json::Value> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("--out").arg(&self.work).arg("sfd-work").arg("--threads").arg(threads.to_string());
        answer(command.args(arguments).env("OMP_NUM_THREADS", threads.to_string()))
    }

    /// One block of the peer: what it printed.
    fn peer(&self, arguments: &[&str], threads: u8) -> Result<serde_json::Value> {
        let mut command = Command::new("python3");
        command.arg(self.args.peer.join("sfd.py")).arg(threads.to_string()).args(arguments);
        command.env("PYTHONPATH", &self.args.pytorch).env("OMP_NUM_THREADS", threads.to_string());
        // It brings its own libtorch.
        answer(command.env_remove("LD_LIBRARY_PATH").env("PYTHONDONTWRITEBYTECODE", "1"))
    }
}

/// Runs a program to its end; its last line is JSON.
fn answer(command: &mut Command) -> Result<serde_json::Value> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{command:?} printed {last:?}, which is not JSON"))
}
