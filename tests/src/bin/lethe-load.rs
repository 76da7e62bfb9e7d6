//! What `cargo xtask bench operator` runs.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use lethe_tests::load;

fn main() -> Result<ExitCode> {
    load::run(&load::Args::parse())
}
