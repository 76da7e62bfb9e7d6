//! Readers of what others wrote, fed with anything for a while: the targets of `fuzz/`, as `cargo fuzz` would run them, but
//! on the stable compiler and without a tool to install.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::count::Counts;
use crate::cargo::{self, Build};
use crate::{cache, cmd, progress};

/// How long each target runs: all of them a minute.
const SECONDS: u32 = 12;
/// The build scripts and macros of the dependencies must not be instrumented: with a target of its own, they are not.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What makes the fuzzer see which branches were taken, and what was compared with what.
const FLAGS: &str = "-Dwarnings --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Builds the targets and runs those whose name contains `filter`.
///
/// # Errors
/// If they cannot be built. An input that breaks a target is in the counts, and kept.
pub(super) fn run(filter: Option<&str>) -> Result<Counts> {
    let chosen: Vec<String> = targets()?.into_iter().filter(|name| is_chosen(name, filter)).collect();
    let mut counts = Counts::default();
    if chosen.is_empty() {
        return Ok(counts);
    }
    let programs = cargo::build(&Build {
        args: &["--locked", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", TARGET],
        rustflags: Some(FLAGS),
        libtorch: None,
    })?;
    for name in chosen {
        let Some((_, program)) = programs.iter().find(|(built, _)| *built == name) else {
            bail!("fuzz/Cargo.toml does not name the target {name}");
        };
        match progress::step(&format!("fuzz {name}, {SECONDS} s"), || fuzz(&name, program)) {
            Ok(()) => counts.passed += 1,
            Err(error) => {
                eprintln!("{error:#}");
                counts.failed += 1;
            }
        }
    }
    Ok(counts)
}

/// One for each file in `fuzz/fuzz_targets`.
fn targets() -> Result<Vec<String>> {
    let folder = cache::workspace().join("fuzz/fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        if path.extension() == Some(OsStr::new("rs")) {
            names.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

fn is_chosen(name: &str, filter: Option<&str>) -> bool {
    filter.is_none_or(|filter| format!("fuzz {name}").contains(filter))
}

/// Runs one target on the seeds and on what it makes of them. An input that breaks it is left in `target/fuzz`.
fn fuzz(name: &str, program: &Path) -> Result<()> {
    let found = cache::workspace().join("target/fuzz").join(name);
    // What an earlier run found only lengthens the start of this one.
    let _ = fs::remove_dir_all(&found);
    fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
    let seeds = cache::workspace().join("fuzz/corpus").join(name);
    cmd::run_logged(&mut command(program, &found, &seeds), &cache::log(&format!("fuzz-{name}"))?)
}

fn command(program: &Path, found: &Path, seeds: &Path) -> Command {
    let mut broken = PathBuf::from(found).into_os_string();
    broken.push("-broken-by-");
    let mut prefix = std::ffi::OsString::from("-artifact_prefix=");
    prefix.push(broken);
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={SECONDS}"))
        .args(["-timeout=10", "-rss_limit_mb=1024", "-max_len=16384", "-print_final_stats=1"])
        .arg(prefix)
        .arg(found)
        .arg(seeds);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds() {
        let targets = targets().unwrap();
        assert!(targets.len() >= 3, "{targets:?}");
        for name in targets {
            let seeds = cache::workspace().join("fuzz/corpus").join(&name);
            assert!(fs::read_dir(&seeds).unwrap().next().is_some(), "{name}");
        }
    }

    #[test]
    fn a_filter_chooses_all_or_one() {
        assert!(
            is_chosen("plan", None) && is_chosen("plan", Some("fuzz")) && is_chosen("plan", Some("plan"))
        );
        assert!(!is_chosen("plan", Some("manifest")));
    }
}
