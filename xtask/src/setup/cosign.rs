//! What others verify signatures with, which verifies evidence in tests.

use std::path::PathBuf;

use anyhow::Result;

use super::golang::Family;

/// The same as in `xtask/tools/cosign/go.mod`.
pub const VERSION: &str = "v3.1.2";

/// The `cosign` binary.
///
/// # Errors
/// If it is not cached and cannot be built.
pub fn binary() -> Result<PathBuf> {
    let family = Family {
        name: "cosign",
        title: format!("cosign {VERSION}"),
        ldflags: format!("-s -w -X sigs.k8s.io/release-utils/version.gitVersion={VERSION}"),
        programs: &[("cosign", "github.com/sigstore/cosign/v3/cmd/cosign")],
        minutes: 3,
    };
    Ok(family.build()?.join("cosign"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_is_named_is_the_one_that_is_built() {
        let module =
            std::fs::read_to_string(crate::cache::workspace().join("xtask/tools/cosign/go.mod")).unwrap();
        assert!(module.contains(&format!("sigstore/cosign/v3 {VERSION}")), "go.mod pins another version");
    }
}
