//! Helm 3, which installs the chart in the demo and the tests.

use std::path::PathBuf;

use anyhow::Result;

use super::golang::Family;

/// The same as in `xtask/tools/helm/go.mod`.
pub const VERSION: &str = "v3.22.0";

/// The `helm` binary.
///
/// # Errors
/// If it is not cached and cannot be built.
pub fn binary() -> Result<PathBuf> {
    let family = Family {
        name: "helm",
        title: format!("Helm {VERSION}"),
        ldflags: format!("-s -w -X helm.sh/helm/v3/internal/version.version={VERSION}"),
        programs: &[("helm", "helm.sh/helm/v3/cmd/helm")],
        minutes: 2,
    };
    Ok(family.build()?.join("helm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_helm_reports_is_the_one_that_is_built() {
        let module =
            std::fs::read_to_string(crate::cache::workspace().join("xtask/tools/helm/go.mod")).unwrap();
        assert!(module.contains(&format!("helm.sh/helm/v3 {VERSION}")), "go.mod pins another version");
    }
}
