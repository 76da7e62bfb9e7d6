//! The kubelets of nodes that do not exist, in the bench of the operator: kwok.

use std::path::PathBuf;

use anyhow::Result;

use super::golang::Family;

/// The same as in `xtask/tools/kwok/go.mod`.
pub const VERSION: &str = "v0.7.0";

/// The `kwok` binary.
///
/// # Errors
/// If it is not cached and cannot be built.
pub fn binary() -> Result<PathBuf> {
    let family = Family {
        name: "kwok",
        title: format!("kwok {VERSION}"),
        ldflags: "-s -w".into(),
        programs: &[("kwok", "sigs.k8s.io/kwok/cmd/kwok")],
        minutes: 3,
    };
    Ok(family.build()?.join("kwok"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_is_named_is_the_one_that_is_built() {
        let module =
            std::fs::read_to_string(crate::cache::workspace().join("xtask/tools/kwok/go.mod")).unwrap();
        assert!(module.contains(&format!("sigs.k8s.io/kwok {VERSION}")), "go.mod pins another version");
    }
}
