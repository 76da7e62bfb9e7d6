//! The queue that Jobs wait in, in tests: Kueue, its custom resources and its webhooks.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::golang::{self, Family};

/// The same as in `xtask/tools/kueue/go.mod`.
pub const VERSION: &str = "v0.19.2";
/// As in `xtask/tools/kueue/go.sum`.
const SUM: &str = "h1:mPNzr37u0nwI7ikST5QQl5gg6EgtYOAvC9ZbTgywdN8=";

/// The `kueue` binary, which is its controller, scheduler and webhooks.
///
/// # Errors
/// If it is not cached and cannot be built.
pub fn binary() -> Result<PathBuf> {
    let family = Family {
        name: "kueue",
        title: format!("Kueue {VERSION}"),
        ldflags: format!("-s -w -X sigs.k8s.io/kueue/pkg/version.GitVersion={VERSION}"),
        programs: &[("kueue", "sigs.k8s.io/kueue/cmd/kueue")],
        minutes: 5,
    };
    Ok(family.build()?.join("kueue"))
}

/// What its installation applies to a cluster.
pub struct Manifests {
    /// A folder with its CustomResourceDefinitions.
    pub custom_resources: PathBuf,
    /// A file with its webhooks, which name a Service.
    pub webhooks: PathBuf,
}

/// The manifests of the version that is built.
///
/// # Errors
/// If they cannot be had.
pub fn manifests() -> Result<Manifests> {
    let source =
        golang::source("sigs.k8s.io/kueue", VERSION, SUM).context("cannot get what Kueue applies")?;
    let components = source.join("config/components");
    Ok(Manifests {
        custom_resources: components.join("crd/bases"),
        webhooks: components.join("webhook/manifests.yaml"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache;

    #[test]
    fn what_is_applied_is_of_the_version_that_is_built() {
        let module = cache::workspace().join("xtask/tools/kueue");
        let pinned = std::fs::read_to_string(module.join("go.mod")).unwrap();
        assert!(pinned.contains(&format!("sigs.k8s.io/kueue {VERSION}")), "go.mod pins another version");
        let sums = std::fs::read_to_string(module.join("go.sum")).unwrap();
        assert!(sums.contains(&format!("sigs.k8s.io/kueue {VERSION} {SUM}")), "go.sum has another sum");
    }
}
