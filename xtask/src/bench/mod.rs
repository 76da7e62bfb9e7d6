//! `cargo xtask bench NAME`: what this machine makes of the trainer and of the operator. The benches of the trainer are in
//! the crate `lethe-bench`, that of the operator, which needs no libtorch, is in `lethe-tests`; their list is here.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo::{self, Build};
use crate::{cache, image, progress, setup};

/// Measure the trainer, or the operator, on this machine
///
/// Prints a table and leaves target/bench/NAME.json and target/bench/NAME.svg. Nothing else should run meanwhile.
#[derive(Debug, clap::Args)]
pub struct Args {
    name: Name,
    /// Arguments of the bench: `cargo xtask bench NAME -- --help` lists them
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Name {
    /// A CUDA device beside the CPU: the same results, speed and memory; on the CPU alone where there is none: minutes
    Device,
    /// Each digit of MNIST forgotten alone (fetches MNIST once): an hour or more on two cores for each of three seeds
    Mnist,
    /// The operator with 10,000 requests for 100 models (more numbers with `-- --requests 1000,3000,10000`), on nodes of kwok
    /// (builds it once): half an hour, ten minutes of it idle
    Operator,
    /// Forgetting under attack: what each robustness leaves behind, beside a model that never saw the label: a quarter of
    /// an hour
    Probes,
    /// What forgetting comes to: each digit alone and five in sequence, for three seeds: an hour
    Results,
    /// Speed, side by side with a plain PyTorch loop (fetches PyTorch once): half an hour
    Sfd,
}

impl Name {
    /// The subcommand of `lethe-bench`.
    fn word(self) -> &'static str {
        match self {
            Name::Device => "device",
            Name::Operator => "operator",
            Name::Probes => "probes",
            Name::Results | Name::Mnist => "results",
            Name::Sfd => "sfd",
        }
    }

    /// Whether it compares with PyTorch.
    fn has_peer(self) -> bool {
        matches!(self, Name::Sfd)
    }
}

/// # Errors
/// If the bench cannot be built or started. What it finds wrong is in its exit code.
pub fn run(args: &Args) -> Result<ExitCode> {
    if matches!(args.name, Name::Operator) {
        return operator(args);
    }
    let program = build("lethe-bench")?;
    let mut bench = Command::new(program);
    bench.arg("--out").arg(cache::workspace().join("target/bench")).arg(args.name.word());
    if matches!(args.name, Name::Mnist) {
        bench.arg("--alone").arg("--mnist").arg(setup::mnist::directory()?);
    }
    if args.name.has_peer() {
        bench.arg("--pytorch").arg(setup::pytorch::directory()?);
        bench.arg("--peer").arg(cache::workspace().join("bench/peer"));
        bench.arg("--trainer").arg(build("lethe-trainer")?);
    }
    measure(bench, args)
}

/// The operator as it is released, in the hands of a program that plays everybody else.
fn operator(args: &Args) -> Result<ExitCode> {
    setup::golang::check()?;
    let operator = image::operator_program()?;
    let args_of_cargo = ["--locked", "--package", "lethe-tests", "--bin", "lethe-load"];
    let mut bench = Command::new(program("lethe-load", &Build { args: &args_of_cargo, ..Build::default() })?);
    bench.env("LETHE_OPERATOR_BIN", operator).arg("--out").arg(cache::workspace().join("target/bench"));
    measure(bench, args)
}

/// Runs a program to its end, with the arguments that it was given here.
fn measure(mut bench: Command, args: &Args) -> Result<ExitCode> {
    let status = bench.args(&args.arguments).status();
    let status = status.with_context(|| format!("cannot start {}", bench.get_program().display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds a program that has the name of its package.
fn build(name: &str) -> Result<PathBuf> {
    setup::build_packages()?;
    let libtorch = setup::libtorch::directory()?;
    let args = ["--release", "--locked", "--package", name, "--bin", name];
    program(name, &Build { args: &args, rustflags: None, libtorch: Some(&libtorch) })
}

/// What cargo builds under this name.
fn program(name: &str, build: &Build<'_>) -> Result<PathBuf> {
    let built = progress::step(&format!("build {name}"), || cargo::build(build))?;
    let found = built.into_iter().find(|(built, _)| built == name);
    found.map(|(_, path)| path).with_context(|| format!("cargo built no {name}"))
}
