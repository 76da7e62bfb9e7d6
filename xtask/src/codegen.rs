//! `cargo xtask codegen`: CRDs, contract schemas and the CRD reference, from the types of `operator/api`.

use anyhow::{Result, bail};

use crate::cargo;

/// Generate crds/, charts/lethe-crds/templates/, docs/contract/ and docs/crd-reference.md from operator/api
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write nothing; fail if a file is not what the types say
    #[arg(long)]
    check: bool,
}

/// # Errors
/// If a file cannot be written, or with `--check` if one has drifted.
pub fn run(args: &Args) -> Result<()> {
    generate(args.check)
}

/// Generates, or with `check` compares.
///
/// # Errors
/// As [`run`].
pub fn generate(check: bool) -> Result<()> {
    let mut command = cargo::command(&cargo::Build::default())?;
    command.args(["run", "--quiet", "--locked", "--package", "lethe-api", "--features", "kubernetes"]);
    command.args(["--bin", "lethe-codegen", "--"]).args(check.then_some("--check"));
    if !command.status()?.success() {
        bail!("generated files have drifted from operator/api, or could not be written");
    }
    Ok(())
}
