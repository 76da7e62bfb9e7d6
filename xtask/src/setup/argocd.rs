//! What the charts and the examples are synced with by tests: Argo CD, the Redis that it keeps its cache in, and its custom
//! resources.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::apt;
use super::golang::{self, Family};
use crate::cmd;

/// The release of Argo CD; the same as in `xtask/tools/argocd/go.mod`.
pub const VERSION: &str = "v3.1.16";
/// As in `xtask/tools/argocd/go.sum`.
const SUM: &str = "h1:ufzj0c7CWKoMW03lOV8F6jwIW6YDPPZWI4PTHxz8Qq0=";

/// The program of `xtask/tools/argocd/main.go`.
///
/// # Errors
/// If it is not cached and cannot be built.
pub fn binary() -> Result<PathBuf> {
    let family = Family {
        name: "argocd",
        title: format!("Argo CD {VERSION}"),
        ldflags: "-s -w".into(),
        programs: &[("argocd", ".")],
        minutes: 3,
    };
    Ok(family.build()?.join("argocd"))
}

/// The definitions of Application and AppProject.
///
/// # Errors
/// If they cannot be had.
pub fn custom_resources() -> Result<[PathBuf; 2]> {
    let source = golang::source("github.com/argoproj/argo-cd/v3", VERSION, SUM)
        .context("cannot get the custom resources of Argo CD")?;
    Ok(["application", "appproject"].map(|kind| source.join(format!("manifests/crds/{kind}-crd.yaml"))))
}

/// How to start a Redis: the installed one, or that of the distribution's packages, which are unpacked into the cache with the
/// libraries that few systems have, since their installation would start one.
///
/// # Errors
/// If there is none and it cannot be had.
pub fn redis() -> Result<Command> {
    if let Some(installed) = cmd::find_program("redis-server") {
        return Ok(Command::new(installed));
    }
    let folder = apt::unpacked(&["redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1"])?;
    let mut command = Command::new(folder.join("usr/bin/redis-server"));
    command.env("LD_LIBRARY_PATH", folder.join("usr/lib/x86_64-linux-gnu"));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache;

    #[test]
    fn the_custom_resources_are_those_of_the_version_that_is_built() {
        let module = cache::workspace().join("xtask/tools/argocd");
        let pinned = std::fs::read_to_string(module.join("go.mod")).unwrap();
        assert!(
            pinned.contains(&format!("github.com/argoproj/argo-cd/v3 {VERSION}")),
            "go.mod pins another version"
        );
        let sums = std::fs::read_to_string(module.join("go.sum")).unwrap();
        assert!(
            sums.contains(&format!("github.com/argoproj/argo-cd/v3 {VERSION} {SUM}")),
            "go.sum has another sum"
        );
    }
}
