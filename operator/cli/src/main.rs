//! `kubectl lethe`: what a model had to forget, where it stands, and what to do next.

use std::process::ExitCode;

use clap::Parser;
use kubectl_lethe::{args::Args, exit::Exit};

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            return Exit::Unreachable.into();
        }
    };
    match runtime.block_on(kubectl_lethe::run(args)) {
        Ok(exit) => exit.into(),
        Err(trouble) => {
            if !trouble.message.is_empty() {
                eprintln!("error: {}", trouble.message);
            }
            trouble.exit.into()
        }
    }
}
