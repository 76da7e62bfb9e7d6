//! An S3 server, which the store is tested against.

use std::path::PathBuf;

use anyhow::Result;

use super::golang::Family;

/// The same as in `xtask/tools/versitygw/go.mod`.
pub const VERSION: &str = "v1.7.0";

/// The `versitygw` binary.
///
/// # Errors
/// If it is not cached and cannot be built.
pub fn binary() -> Result<PathBuf> {
    let family = Family {
        name: "versitygw",
        title: format!("versitygw {VERSION}"),
        ldflags: format!("-s -w -X main.Version={VERSION}"),
        programs: &[("versitygw", "github.com/versity/versitygw/cmd/versitygw")],
        minutes: 1,
    };
    Ok(family.build()?.join("versitygw"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_is_named_is_the_one_that_is_built() {
        let module =
            std::fs::read_to_string(crate::cache::workspace().join("xtask/tools/versitygw/go.mod")).unwrap();
        assert!(module.contains(&format!("versity/versitygw {VERSION}")), "go.mod pins another version");
    }
}
