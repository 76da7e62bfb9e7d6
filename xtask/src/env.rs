//! `cargo xtask env`.

use anyhow::Result;

use crate::{cargo, progress, setup};

/// Print the environment for plain cargo with the trainer crates, and kubectl: eval "$(cargo xtask env)"
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For the trainer's crates alone: Kubernetes is neither built nor named
    #[arg(long)]
    trainer: bool,
}

/// # Errors
/// If libtorch or Kubernetes is not there and cannot be had.
pub fn run(args: &Args) -> Result<()> {
    for (name, value) in cargo::libtorch_env(&setup::libtorch::directory()?) {
        progress::say(format_args!("export {name}={}", quote(&value)))?;
    }
    if args.trainer {
        return Ok(());
    }
    let bin = setup::kubernetes::binaries()?;
    progress::say(format_args!("export PATH={}:\"$PATH\"", quote(&bin.to_string_lossy())))?;
    Ok(())
}

/// For a POSIX shell.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_shell() {
        let value = "a b'c$d";
        let said = crate::cmd::output(
            std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quote(value))]),
        );
        assert_eq!(said.unwrap(), value);
    }
}
