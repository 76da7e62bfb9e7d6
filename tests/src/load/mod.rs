//! How much the operator needs, and how fast it is, with many requests: a real API server, a real scheduler, nodes of kwok,
//! the operator as it is released, and its whole life, in which this program plays the trainer and the servers. Every status
//! in it is one that the operator or one of these others decided.

mod figure;
mod life;
mod measure;
mod nodes;
pub mod play;
mod report;

use std::{borrow::Cow, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use xtask::setup;

use crate::wait;

/// A busy machine is slow, and ten thousand of anything take their time.
const PATIENCE: Duration = Duration::from_secs(1800);
/// As many requests as are sent at once by those who create objects.
const AT_ONCE: usize = 32;

/// Measures the operator with N requests over some models.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "cargo xtask bench operator --")]
pub struct Args {
    /// Directory for operator.json and operator.svg
    #[arg(long, hide = true)]
    out: PathBuf,
    /// How many requests; several numbers (1000,3000,10000,30000) show how it grows
    #[arg(long, value_delimiter = ',', default_value = "10000")]
    requests: Vec<usize>,
    #[arg(long, default_value_t = 100)]
    models: usize,
    /// How many labels are forgotten of each model, at most. Further requests ask for one of them again, and are fulfilled without
    /// a run
    #[arg(long, default_value_t = 250)]
    labels: usize,
    /// How many of the requests come at once, while nothing else happens
    #[arg(long, default_value_t = 1000)]
    burst: usize,
    /// How many nodes, of eight GPUs each, kwok is the kubelet of
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// For how many minutes nothing happens, while it is watched
    #[arg(long, default_value_t = 10.0)]
    idle: f64,
    /// Keep what the last runs have measured of other numbers: the large ones take half an hour each
    #[arg(long)]
    add: bool,
}

/// What was measured of one number of requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub name: Cow<'static, str>,
    /// Requests.
    pub n: usize,
    pub value: f64,
    /// What it should not exceed, where it is promised.
    pub limit: Option<f64>,
    pub unit: Cow<'static, str>,
}

impl Row {
    fn is_within(&self) -> bool {
        self.limit.is_none_or(|limit| self.value <= limit)
    }
}

/// # Errors
/// If something could not be measured. What exceeds its limit is in the exit code.
pub fn run(args: &Args) -> Result<ExitCode> {
    ensure!(args.models > 0 && !args.requests.is_empty(), "there is nothing to measure");
    ensure!(args.labels > 0 && args.labels <= 250, "a model's ledger has room for 250 labels, and some");
    ensure!(args.nodes > 0, "without a node no trainer ever runs");
    wait::set_patience(PATIENCE);
    let kwok = setup::kwok::binary()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let _guard = runtime.enter();
    let mut rows = if args.add { report::of_other_numbers(&args.out, &args.requests)? } else { Vec::new() };
    let known = rows.len();
    for &n in &args.requests {
        rows.extend(life::measure(&runtime, &kwok, args, n)?);
        // A later number may take long, or fail.
        report::write(&args.out, &rows)?;
    }
    report::print(&rows);
    let within = rows.iter().skip(known).all(Row::is_within);
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
