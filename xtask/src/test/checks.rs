//! Everything that can be said about the repository without running it.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};

use super::{count::Counts, dependencies, links, named, tidy};
use crate::cargo::{self, Build};
use crate::{cache, cmd, codegen, progress, setup};

type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 12] = [
    ("format", format),
    ("tidy", tidy::run),
    ("links between documents", links::run),
    ("tests that documents name", named::run),
    ("licences", dependencies::licences),
    ("duplicate versions", dependencies::duplicates),
    ("lints of the operator", lints),
    ("lints of the trainer, without libtorch", trainer_lints),
    ("pages of the library", pages),
    ("generated files", || codegen::generate(true)),
    ("import of checkpoints", import),
    ("charts", charts),
];

/// Runs every check, also after one that failed.
pub(super) fn run() -> Result<Counts> {
    let mut counts = Counts::default();
    for (name, check) in CHECKS {
        match progress::step(name, check) {
            Ok(()) => counts.passed += 1,
            Err(error) => {
                eprintln!("{error:#}");
                counts.failed += 1;
            }
        }
    }
    Ok(counts)
}

fn format() -> Result<()> {
    cargo_check(&["fmt", "--all", "--check"])?;
    cargo_check(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"])
}

fn lints() -> Result<()> {
    cargo_check(&[
        "clippy",
        "--locked",
        "--quiet",
        "--workspace",
        "--exclude",
        "lethe-sfd",
        "--exclude",
        "lethe-trainer",
        "--exclude",
        "lethe-bench",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])
}

/// The bindings are type-checked without the library: a machine without libtorch can lint everything, also what is built for
/// a GPU.
fn trainer_lints() -> Result<()> {
    let without_library = "lethe-sfd/doc-only,lethe-trainer/doc-only,lethe-bench/doc-only";
    lint_trainer(without_library, "--all-targets")?;
    lint_trainer(&format!("{without_library},lethe-trainer/cuda,lethe-bench/cuda"), "--bins")
}

fn lint_trainer(features: &str, targets: &str) -> Result<()> {
    cargo_check(&[
        "clippy",
        "--locked",
        "--quiet",
        "-p",
        "lethe-sfd",
        "-p",
        "lethe-trainer",
        "-p",
        "lethe-bench",
        "--features",
        features,
        targets,
        "--",
        "-D",
        "warnings",
    ])
}

/// What a reader of the library's documentation would find broken.
fn pages() -> Result<()> {
    let mut command = cargo::command(&Build::default())?;
    command.env("RUSTDOCFLAGS", "-Dwarnings");
    let args = ["doc", "--locked", "--quiet", "--no-deps", "-p", "lethe-sfd", "--features", "doc-only"];
    succeed(&mut command, &args)
}

fn cargo_check(args: &[&str]) -> Result<()> {
    succeed(&mut cargo::command(&Build::default())?, args)
}

fn succeed(command: &mut Command, args: &[&str]) -> Result<()> {
    if !command.args(args).status()?.success() {
        bail!("`cargo {}` found something", args.join(" "));
    }
    Ok(())
}

fn charts() -> Result<()> {
    let helm = setup::helm::binary()?;
    for chart in ["charts/lethe-crds", "charts/lethe"] {
        let mut command = Command::new(&helm);
        command.current_dir(cache::workspace()).args(["lint", "--strict", chart]);
        cmd::run_logged(&mut command, &cache::log("helm-lint")?)?;
    }
    Ok(())
}

/// The tool in Python has its tests in Python.
fn import() -> Result<()> {
    setup::apt::ensure(setup::apt::PYTHON)?;
    let mut command = Command::new("python3");
    command.current_dir(cache::workspace().join("tools/import")).args(["-B", "-m", "unittest"]);
    let log = cache::log("import")?;
    cmd::run_logged(&mut command, &log)?;
    // Python is content with none.
    let said = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    match tests_run(&said) {
        Some(1..) => Ok(()),
        _ => bail!("no test of tools/import ran; see {}", log.display()),
    }
}

/// From `Ran 18 tests in 1.2s`.
fn tests_run(said: &str) -> Option<u32> {
    said.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::tests_run;

    #[test]
    fn the_number_of_tests_that_python_ran_is_read() {
        assert_eq!(tests_run("....\n-----\nRan 18 tests in 1.234s\n\nOK\n"), Some(18));
        assert_eq!(tests_run("\nRan 0 tests in 0.000s\n"), Some(0));
        assert_eq!(tests_run("Traceback"), None);
    }
}
