//! `lethe-operator`: see the library.

use std::{fmt::Display, process::ExitCode};

use clap::{Parser, Subcommand};
use lethe_operator::{Args, CollectArgs, SignAgainArgs, shutdown_signal, telemetry};

/// The Lethe operator: keeps diffusion models compliant with what they had to forget.
#[derive(Debug, Parser)]
#[command(name = "lethe-operator", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    operator: Args,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name what nothing refers to any more in the store, and remove it with --delete
    Collect(CollectArgs),
    /// After a change of keys: have --signing-key sign what another of --trusted-keys has signed
    SignAgain(SignAgainArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => operate(cli.operator).await,
        Some(Command::Collect(args)) => {
            telemetry::init(args.operator.log_format);
            ended("nothing more is removed", lethe_operator::collect(args).await)
        }
        Some(Command::SignAgain(args)) => {
            telemetry::init(args.operator.log_format);
            ended("nothing more is signed", lethe_operator::sign_again(args).await)
        }
    }
}

async fn operate(args: Args) -> ExitCode {
    let telemetry = match telemetry::init_with_traces(args.log_format, &args.traces, &args.identity) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            telemetry::init(args.log_format);
            return ended("no trace can be sent: see --trace-endpoint", Err(error));
        }
    };
    let code = ended("the operator stops", lethe_operator::run(args, shutdown_signal()).await);
    telemetry.end();
    code
}

fn ended(what: &'static str, result: Result<(), impl Display>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    tracing::error!(%error, "{what}");
    ExitCode::FAILURE
}
