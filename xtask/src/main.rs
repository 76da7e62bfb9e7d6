//! `cargo xtask VERB`: one module per verb, one line here.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{bench, cluster, codegen, demo, env, image, setup, test};

/// Set up, build, run and test Lethe on this machine
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Setup(setup::Args),
    Cluster(cluster::cli::Args),
    Image(image::Args),
    Env(env::Args),
    Codegen(codegen::Args),
    Demo(demo::Args),
    Test(test::Args),
    Bench(bench::Args),
    /// The first process inside a cluster's namespaces; started by `cluster up`
    #[command(hide = true)]
    NodeInit {
        dir: PathBuf,
        bin: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(code) => code,
        // `cargo xtask ... | head`: the reader has what it wanted.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup(args) => setup::run(&args)?,
        Verb::Cluster(args) => return cluster::cli::run(&args),
        Verb::Image(args) => image::run(&args)?,
        Verb::Env(args) => env::run(&args)?,
        Verb::Demo(args) => return demo::run(&args),
        Verb::Codegen(args) => codegen::run(&args)?,
        Verb::Test(args) => return test::run(&args),
        Verb::Bench(args) => return bench::run(&args),
        Verb::NodeInit { dir, bin } => cluster::init::run(&dir, &bin)?,
    }
    Ok(ExitCode::SUCCESS)
}
