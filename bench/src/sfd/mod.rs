//! `sfd`: how fast the trainer is, side by side with a plain PyTorch loop in the order of the authors' program.
//!
//! Both start from the same weights with the same settings, alternate in blocks of a process each, and never run at the
//! same time. Before anything is timed, both compute the losses of the same steps.

mod evaluate;
mod gates;
mod gemm;
mod parity;
mod row;
mod sampling;
mod start;
mod steps;
pub mod work;
mod worker;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use lethe_sfd::process;
use serde_json::Value;

use self::start::Net;
use self::worker::Worker;

/// Speed beside a plain PyTorch loop
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory to find PyTorch in, if python3 does not find it anyhow
    #[arg(long)]
    pytorch: Option<PathBuf>,
    /// Directory of the loop
    #[arg(long)]
    peer: PathBuf,
    /// Pairs of blocks per comparison; a third of them for the U-Net, whose steps take seconds
    #[arg(long, default_value_t = 12)]
    pairs: usize,
    /// Numbers of threads; one is measured in processor time, which a busy machine does not distort much
    #[arg(long, value_delimiter = ',', default_value = "2,1")]
    threads: Vec<u8>,
    /// The trainer, for the row that times it
    #[arg(long)]
    trainer: Option<PathBuf>,
    /// Directory in which trained models of digits lie, or shall lie: the first seed's, as `results --kept` leaves them
    #[arg(long)]
    kept: Option<PathBuf>,
    /// Only rows whose name contains one of these
    #[arg(long, value_delimiter = ',', default_value = "")]
    only: Vec<String>,
}

/// A directory of both programs' inputs, and how to start either.
struct Bench<'a> {
    args: &'a Args,
    work: PathBuf,
    /// Networks whose models have been made.
    made: RefCell<Vec<Net>>,
}

/// # Errors
/// If a program fails, or the two disagree about a loss.
pub fn run(args: &Args, out: &Path) -> Result<()> {
    let bench = Bench { args, work: out.join("sfd-work"), made: RefCell::default() };
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
    if bench.wants("time-to-gates") {
        rows.push(gates::measure(&bench)?);
    }
    match &args.trainer {
        Some(trainer) if bench.wants("evaluate-fast") => rows.push(evaluate::measure(&bench, trainer)?),
        _ => {}
    }
    row::publish(out, &rows)
}

impl Bench<'_> {
    fn wants(&self, name: &str) -> bool {
        self.args.only.iter().any(|part| name.contains(part))
    }

    /// Makes the models of a network, if they are not made yet, and returns their directory.
    fn start(&self, net: Net) -> Result<String> {
        let dir = self.text(&self.work.join(net.word()))?;
        if !self.made.borrow().contains(&net) {
            self.ours(&["start", net.word(), &dir], net.threads())?;
            self.made.borrow_mut().push(net);
        }
        Ok(dir)
    }

    fn text(&self, path: &Path) -> Result<String> {
        Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
    }

    /// Blocks of one thing and the other in turn, the order changing from pair to pair: what they printed.
    ///
    /// # Errors
    /// If a program fails.
    fn pairs(&self, name: &str, net: Net, mut both: [Worker; 2]) -> Result<Vec<[Value; 2]>> {
        let (warm, block) = net.steps();
        for worker in &mut both {
            worker.work(warm)?;
        }
        let pairs = if net == Net::Unet { self.args.pairs.div_ceil(3) } else { self.args.pairs.max(1) };
        let pair = |number: usize| {
            let [ours, peer] = &mut both;
            let pair = if number.is_multiple_of(2) {
                [ours.work(block)?, peer.work(block)?]
            } else {
                let peer = peer.work(block)?;
                [ours.work(block)?, peer]
            };
            eprintln!("{name}: pair {} of {pairs}", number + 1);
            Ok(pair)
        };
        (0..pairs).map(pair).collect()
    }

    /// One measurement of ours: what it printed.
    fn ours(&self, arguments: &[&str], threads: u8) -> Result<Value> {
        answer(&mut self.our_program(arguments, threads)?)
    }

    fn our_program(&self, arguments: &[&str], threads: u8) -> Result<Command> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("--out").arg(&self.work).arg("sfd-work").arg("--threads").arg(threads.to_string());
        command.args(arguments).env("OMP_NUM_THREADS", threads.to_string());
        Ok(command)
    }

    fn peer_program(&self, arguments: &[&str], threads: u8) -> Result<Command> {
        let mut command = Command::new("python3");
        command.args(["-W", "ignore"]).arg(self.args.peer.join("sfd.py")).arg(threads.to_string());
        // The networks are those that the trainer's tests are checked against.
        let networks = self.args.peer.join("../../trainer/sfd/tests/golden");
        let path: Vec<_> = self.args.pytorch.iter().cloned().chain([networks]).collect();
        let path = std::env::join_paths(path).context("a path has a colon")?;
        command.args(arguments).env("PYTHONPATH", path).env("OMP_NUM_THREADS", threads.to_string());
        // It brings its own libtorch, and people start it as it is.
        process::VARIABLES.into_iter().chain(["LD_LIBRARY_PATH"]).for_each(|name| {
            command.env_remove(name);
        });
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(command)
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
