//! Programs built from Go modules: each family has a folder with a committed `go.mod` and `go.sum`, and its
//! binaries are cached by the hash of both and of the toolchain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{self, Key};
use crate::{cmd, progress};

/// The toolchain that the modules ask for.
const NEEDED: (u32, u32) = (1, 26);
/// From here on a toolchain can fetch a newer one through the module proxy.
const SELF_UPDATING: (u32, u32) = (1, 21);

/// A family of programs from one Go module.
pub struct Family {
    /// Also the folder in the cache and the folder under `xtask/tools/` with `go.mod` and `go.sum`.
    pub name: &'static str,
    /// For people: what and which version.
    pub title: String,
    /// Arguments of `-ldflags`: versions that the programs report.
    pub ldflags: String,
    /// Name of the program and import path of its main package.
    pub programs: &'static [(&'static str, &'static str)],
    /// For people: about how long a build with an empty cache takes on two cores.
    pub minutes: u32,
}

impl Family {
    /// The directory with the programs; builds them when they are not cached.
    ///
    /// # Errors
    /// If there is no usable Go toolchain, or the build fails.
    pub fn build(&self) -> Result<PathBuf> {
        let module = cache::workspace().join("xtask/tools").join(self.name);
        let go = Go::find()?;
        let mut key = Key::new("go build 2");
        for file in ["go.mod", "go.sum", "main.go"] {
            // Most families are built as their authors wrote them, without a file of ours.
            if module.join(file).exists() {
                key = key.file(file, &module.join(file))?;
            }
        }
        let key = key.text("ldflags", &self.ldflags).text("go", &go.version).finish();
        let entry = cache::root()?.join(self.name).join(key);
        if !entry.exists() {
            let label =
                format!("build {} from Go modules (once; about {} min on 2 cores)", self.title, self.minutes);
            progress::step(&label, || cache::publish(&entry, |bin| self.compile(&go, &module, bin)))?;
        }
        Ok(entry)
    }

    fn compile(&self, go: &Go, module: &Path, bin: &Path) -> Result<()> {
        for (name, package) in self.programs {
            let mut build = go.command();
            build
                .current_dir(module)
                .args([
                    "build",
                    "-mod=readonly",
                    "-trimpath",
                    "-buildvcs=false",
                    "-ldflags",
                    &self.ldflags,
                    "-o",
                ])
                .arg(bin.join(name))
                .arg(package);
            cmd::run_logged(&mut build, &cache::log(&format!("go-build-{name}"))?)?;
        }
        // A build that was told to write elsewhere would otherwise be cached as an empty directory.
        for (name, _) in self.programs {
            fs::metadata(bin.join(name)).with_context(|| format!("`go build` left no {name}"))?;
        }
        Ok(())
    }
}

/// A Go toolchain that is new enough, or can make itself new enough.
struct Go {
    program: PathBuf,
    version: String,
    fetches_newer: bool,
}

impl Go {
    fn find() -> Result<Self> {
        let Some(program) = installed().or_else(from_debian) else { bail!("Go is not installed. {ADVICE}") };
        let text = cmd::output(Command::new(&program).arg("version").env("GOTOOLCHAIN", "local"))?;
        let Some(version) = parse_version(&text) else {
            bail!("`{} version` says {text:?}, which names no version. {ADVICE}", program.display());
        };
        if version < SELF_UPDATING {
            bail!("{} is Go {}.{}, too old. {ADVICE}", program.display(), version.0, version.1);
        }
        Ok(Self { program, version: text, fetches_newer: version < NEEDED })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("CGO_ENABLED", "0");
        if self.fetches_newer {
            command.env("GOTOOLCHAIN", "auto");
        }
        command
    }
}

/// The folder with the source of a module, for files in it that are no program. `sum` is what `go.sum` would say.
///
/// # Errors
/// If it cannot be had, or is not what `sum` says.
pub fn source(module: &str, version: &str, sum: &str) -> Result<PathBuf> {
    let mut download = Go::find()?.command();
    // No go.mod is meant, whatever lies above.
    download
        .args(["mod", "download", "-json", &format!("{module}@{version}")])
        .current_dir(std::env::temp_dir());
    let answer = cmd::output(&mut download)?;
    let answer: Download = serde_json::from_str(&answer)
        .with_context(|| format!("cannot read what `go mod download` says of {module}"))?;
    if answer.sum != sum {
        bail!(
            "{module} {version} has the checksum {}, not {sum}: it is not the one that was reviewed",
            answer.sum
        );
    }
    Ok(answer.dir)
}

/// Of `go mod download -json`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Download {
    dir: PathBuf,
    sum: String,
}

/// Whether Kubernetes and Helm can be built here. Asked first, before anything large is fetched.
///
/// # Errors
/// If not, with what to do.
pub fn check() -> Result<()> {
    Go::find().map(|_| ())
}

fn installed() -> Option<PathBuf> {
    let usual = PathBuf::from("/usr/local/go/bin/go");
    cmd::find_program("go").or_else(|| usual.is_file().then_some(usual))
}

/// Debian's package, where it is new enough to fetch the rest itself.
fn from_debian() -> Option<PathBuf> {
    let policy = cmd::output(Command::new("apt-cache").args(["policy", "golang-go"])).ok()?;
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    // `2:1.24~2`: an epoch, then the version.
    let version = candidate.split_once(':').map_or(candidate, |(_, version)| version);
    let version = parse_version(&format!("go version go{version}"))?;
    (version >= SELF_UPDATING).then(|| super::apt::install(&["golang-go"]).ok()).flatten()?;
    installed()
}

const ADVICE: &str = "Kubernetes is built with Go 1.26: install it from https://go.dev/dl/ into /usr/local/go \
     (any Go from 1.21 on also does: it fetches 1.26 itself), then run this again.";

/// `go version go1.26.8 linux/amd64` to `(1, 26)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_whitespace().nth(2)?.strip_prefix("go")?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_read_and_compared() {
        assert_eq!(parse_version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(parse_version("go version go1.27rc1 linux/amd64"), Some((1, 27)));
        assert_eq!(parse_version("go version devel +abc linux/amd64"), None);
        assert!(parse_version("go version go1.9 linux/amd64").unwrap() < SELF_UPDATING);
    }
}
