//! An OpenTelemetry Collector, which the operator's traces are tested with: a `main` of our own with what that needs.

use std::path::PathBuf;

use anyhow::Result;

use super::golang::Family;

/// The same as in `xtask/tools/otelcol/go.mod`.
pub const VERSION: &str = "v0.165.0";

/// The `otelcol` binary.
///
/// # Errors
/// If it is not cached and cannot be built.
pub fn binary() -> Result<PathBuf> {
    let family = Family {
        name: "otelcol",
        title: format!("the OpenTelemetry Collector {VERSION}"),
        ldflags: "-s -w".into(),
        programs: &[("otelcol", ".")],
        minutes: 1,
    };
    Ok(family.build()?.join("otelcol"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_is_shown_is_the_one_that_is_built() {
        let module =
            std::fs::read_to_string(crate::cache::workspace().join("xtask/tools/otelcol/go.mod")).unwrap();
        assert!(
            module.contains(&format!("go.opentelemetry.io/collector/otelcol {VERSION}")),
            "go.mod pins another version"
        );
    }
}
