//! CoreDNS for the local cluster: a `main` of our own with the three plugins it needs.

use std::path::PathBuf;

use anyhow::Result;

use super::golang::Family;

/// The same as in `xtask/tools/dns/go.mod`.
pub const VERSION: &str = "v1.15.0";

/// The `coredns` binary.
///
/// # Errors
/// If it is not cached and cannot be built.
pub fn binary() -> Result<PathBuf> {
    let family = Family {
        name: "dns",
        title: format!("CoreDNS {VERSION}"),
        ldflags: "-s -w".into(),
        programs: &[("coredns", ".")],
        minutes: 2,
    };
    Ok(family.build()?.join("coredns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_is_shown_is_the_one_that_is_built() {
        let module =
            std::fs::read_to_string(crate::cache::workspace().join("xtask/tools/dns/go.mod")).unwrap();
        assert!(
            module.contains(&format!("github.com/coredns/coredns {VERSION}")),
            "go.mod pins another version"
        );
    }
}
