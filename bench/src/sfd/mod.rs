//! `sfd`: how fast the trainer is, side by side with a plain PyTorch loop in the order of the authors' program.
//!
//! Both start from the same weights with the same settings, alternate in blocks of a process each, and never run at the
//! same time. Before anything is timed, both compute the losses of the same steps.

mod gemm;
mod parity;
mod row;
mod sampling;
mod start;
mod steps;
pub mod work;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

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
    /// Numbers of threads; one is measured in processor time, which a busy machine does not distort much
    #[arg(long, value_delimiter = ',', default_value = "2,1")]
    threads: Vec<u8>,
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
    let steps = [("mlp-steps", Net::LargeMlp), ("mlp-small-steps", Net::Mlp), ("unet-steps", Net::Unet)];
    for (name, net) in steps.into_iter().filter(|(name, _)| bench.wants(name)) {
        rows.extend(steps::beside_the_peer(&bench, name, net)?);
    }
    if bench.wants("five-targets") {
        rows.push(steps::five_targets(&bench)?);
    }
    if bench.wants("one-step-sampling") {
        rows.push(sampling::measure(&bench)?);
    }
    row::publish(out, &rows)
}

impl Bench<'_> {
    fn wants(&self, name: &str) -> bool {
        name.contains(&self.args.only)
    }

    /// Makes the models of a network and returns their directory.
    fn start(&self, net: Net) -> Result<String> {
        let dir = self.work.join(net.word());
        let dir = dir.to_str().context("the path of the results is not UTF-8")?;
        self.ours(&["start", net.word(), dir], 1)?;
        Ok(dir.to_owned())
    }

    /// Blocks of one thing and the other in turn: what they printed.
    fn pairs(
        &self,
        name: &str,
        mut pair: impl FnMut() -> Result<(Value, Value)>,
    ) -> Result<Vec<(Value, Value)>> {
        let mut pairs = Vec::new();
        for number in 1..=self.args.pairs.max(1) {
            pairs.push(pair()?);
            eprintln!("{name}: pair {number} of {}", self.args.pairs);
        }
        Ok(pairs)
    }

    /// One block of ours: what it printed.
    fn ours(&self, arguments: &[&str], threads: u8) -> Result<Value> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("--out").arg(&self.work).arg("sfd-work").arg("--threads").arg(threads.to_string());
        answer(command.args(arguments).env("OMP_NUM_THREADS", threads.to_string()))
    }

    /// One block of the peer: what it printed.
    fn peer(&self, arguments: &[&str], threads: u8) -> Result<Value> {
        let mut command = Command::new("python3");
        command.arg(self.args.peer.join("sfd.py")).arg(threads.to_string()).args(arguments);
        // The networks are those that the trainer's tests are checked against.
        let networks = self.args.peer.join("../../trainer/sfd/tests/golden");
        let path = std::env::join_paths([&self.args.pytorch, &networks]).context("a path has a colon")?;
        command.env("PYTHONPATH", path).env("OMP_NUM_THREADS", threads.to_string());
        // It brings its own libtorch.
        answer(command.env_remove("LD_LIBRARY_PATH").env("PYTHONDONTWRITEBYTECODE", "1"))
    }
}

/// Runs a program to its end; its last line is JSON.
fn answer(command: &mut Command) -> Result<Value> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{command:?} printed {last:?}, which is not JSON"))
}
