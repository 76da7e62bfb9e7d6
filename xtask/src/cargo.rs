//! Cargo started by xtask: what a clone builds goes into a directory of its own outside of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cache::{self, Key, Lock};
use crate::cmd;

/// One nested build.
#[derive(Debug, Default, Clone)]
pub struct Build<'a> {
    /// Arguments of `cargo build`: packages, profile, target.
    pub args: &'a [&'a str],
    /// `RUSTFLAGS`. Builds with other flags get another target directory, so that they do not evict each other.
    pub rustflags: Option<&'a str>,
    /// The directory with libtorch's `include` and `lib`, for crates that link it.
    pub libtorch: Option<&'a Path>,
}

/// Runs `cargo build` and returns the name and path of every executable, copied into this clone.
///
/// Cargo calls an executable by its name alone: without the copy, another build of this clone could replace it before it is used.
///
/// # Errors
/// If the build fails; compiler messages go to standard error as they are.
pub fn build(build: &Build<'_>) -> Result<Vec<(String, PathBuf)>> {
    let target = target_dir(build)?;
    let _lock = Lock::acquire(&target)?;
    let own = cache::workspace().join("target/bin");
    fs::create_dir_all(&own).with_context(|| format!("cannot create {}", own.display()))?;
    run(build)?.into_iter().map(|(name, path)| Ok((name.clone(), adopt(&path, &own.join(name))?))).collect()
}

/// Copies an executable beside its place first, so that nobody starts half of it.
fn adopt(built: &Path, own: &Path) -> Result<PathBuf> {
    let partial = own.with_extension("partial");
    fs::copy(built, &partial)
        .and_then(|_| fs::rename(&partial, own))
        .with_context(|| format!("cannot copy {} to {}", built.display(), own.display()))?;
    Ok(own.to_owned())
}

fn run(build: &Build<'_>) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = command(build)?;
    cargo
        .arg("build")
        .args(build.args)
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let output = cargo
        .stderr(Stdio::inherit())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed ({})", cmd::line(&cargo), output.status);
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// A cargo command with the environment of [`Build`], for other subcommands (`test`, `clippy`, `doc`).
///
/// # Errors
/// If there is no place for the cache.
pub fn command(build: &Build<'_>) -> Result<Command> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(cache::workspace()).env("CARGO_TARGET_DIR", target_dir(build)?);
    // Set by `cargo run` for xtask itself; inherited, they would make cargo rebuild what reads them.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "RUSTFLAGS" {
            cargo.env_remove(&*name);
        }
    }
    if let Some(flags) = build.rustflags {
        cargo.env("RUSTFLAGS", flags);
    }
    if let Some(libtorch) = build.libtorch {
        cargo.envs(libtorch_env(libtorch));
    }
    Ok(cargo)
}

/// What a program or build that uses libtorch needs in its environment.
pub fn libtorch_env(libtorch: &Path) -> [(&'static str, String); 3] {
    let lib = libtorch.join("lib").to_string_lossy().into_owned();
    let search = match std::env::var("LD_LIBRARY_PATH") {
        Ok(others) if !others.is_empty() && !others.split(':').any(|one| one == lib) => {
            format!("{lib}:{others}")
        }
        Ok(others) if !others.is_empty() => others,
        _ => lib,
    };
    [
        ("LIBTORCH", libtorch.to_string_lossy().into_owned()),
        ("LD_LIBRARY_PATH", search),
        // The wheel's version file says 2.11.0+cu130, which the check of torch-sys does not expect.
        ("LIBTORCH_BYPASS_VERSION_CHECK", "1".into()),
    ]
}

/// In the cache, by compiler and clone. Cargo knows the crates of two clones by the same names and tells old from new by the times of
/// their files: in one directory it would take the other clone's for this one's. A directory that the user chose is respected,
/// with a subdirectory for builds with flags of their own.
fn target_dir(build: &Build<'_>) -> Result<PathBuf> {
    let flags = build.rustflags.map(|flags| Key::new("rustflags").text("flags", flags).finish());
    let base = match std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(chosen) => cache::workspace().join(chosen),
        None => {
            let version = cmd::output(Command::new("rustc").arg("-vV").current_dir(cache::workspace()))?;
            cache::root()?.join("cargo").join(key(&version, cache::workspace()))
        }
    };
    Ok(match flags {
        Some(flags) => base.join(format!("flags-{flags}")),
        None => base,
    })
}

fn key(rustc: &str, clone: &Path) -> String {
    Key::new("target 2").text("rustc", rustc).text("clone", &clone.to_string_lossy()).finish()
}

/// The executables in cargo's JSON messages.
pub fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executable = |message: Value| {
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
    };
    messages.filter_map(executable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clones_do_not_build_into_one_directory() {
        let clone = Path::new("/home/alice/lethe");
        assert_eq!(key("rustc 1", clone), key("rustc 1", clone));
        assert_ne!(key("rustc 1", clone), key("rustc 1", Path::new("/home/alice/lethe-2")));
        assert_ne!(key("rustc 1", clone), key("rustc 2", clone));
    }

    #[test]
    fn executables_are_found_among_other_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"lethe-operator"},"executable":"/t/release/lethe-operator"}
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found, [("lethe-operator".to_owned(), PathBuf::from("/t/release/lethe-operator"))]);
    }
}
