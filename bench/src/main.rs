//! What `cargo xtask bench` runs: one module per bench, one line here. A bench measures on this machine, says what it
//! found on standard output and leaves `NAME.json` and `NAME.svg`.

mod data;
mod device;
mod digits;
mod figure;
mod probes;
mod report;
mod results;
mod sfd;
mod studio;
mod workers;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures the trainer
#[derive(Debug, Parser)]
#[command(name = "lethe-bench", version)]
struct Cli {
    /// Directory for the results
    #[arg(long)]
    out: PathBuf,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    Device(device::Args),
    /// One measurement in a process of its own; started by `device`
    #[command(hide = true)]
    DeviceWork(device::WorkArgs),
    Probes(probes::Args),
    Results(results::Args),
    Sfd(sfd::Args),
    /// One measurement in a process of its own; started by `sfd`
    #[command(hide = true)]
    SfdWork(sfd::work::Args),
    /// Parts of `results` and `probes`, each in a process of its own
    #[command(hide = true)]
    ResultsPrepare(workers::Task),
    #[command(hide = true)]
    ResultsRow(workers::Task),
    #[command(hide = true)]
    ProbesRows(workers::Task),
}

fn main() -> Result<()> {
    lethe_sfd::process::settle();
    let Cli { out, bench } = Cli::parse();
    match bench {
        Bench::Device(args) => device::run(&args, &out),
        Bench::DeviceWork(args) => device::work(&args),
        Bench::Probes(args) => probes::run(&args, &out),
        Bench::Results(args) => results::run(&args, &out),
        Bench::Sfd(args) => sfd::run(&args, &out),
        Bench::SfdWork(args) => sfd::work::run(&args),
        Bench::ResultsPrepare(task) => results::prepare(&task),
        Bench::ResultsRow(task) => results::work(&task),
        Bench::ProbesRows(task) => probes::work(&task),
    }
}
