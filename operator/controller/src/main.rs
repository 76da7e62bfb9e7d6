//! `lethe-operator`: see the library.

use std::process::ExitCode;

use clap::Parser;
use lethe_operator::{Args, shutdown_signal, telemetry};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    telemetry::init(args.log_format);
    match lethe_operator::run(args, shutdown_signal()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator stops");
            ExitCode::FAILURE
        }
    }
}
