//! What the chart's monitoring is tested with: promtool, and the custom resources of the Prometheus operator.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{apt, golang};
use crate::cache::{self, Key};
use crate::{cmd, progress};

const OPERATOR: (&str, &str, &str) = (
    "github.com/prometheus-operator/prometheus-operator",
    "v0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
);

/// The `promtool` binary: the installed one, or that of the distribution's package, which is unpacked into the cache
/// since its installation would start a Prometheus.
///
/// # Errors
/// If there is none and it cannot be had.
pub fn promtool() -> Result<PathBuf> {
    if let Some(installed) = cmd::find_program("promtool") {
        return Ok(installed);
    }
    // Its libraries are those of the distribution's release.
    let key = Key::new("promtool 1").file("release", Path::new("/etc/os-release"))?.finish();
    let entry = cache::root()?.join("promtool").join(key);
    if !entry.exists() {
        progress::step("fetch promtool (20 MB)", || {
            cache::publish(&entry, |into| apt::unpack("prometheus", into))
        })?;
    }
    let promtool = entry.join("usr/bin/promtool");
    if !promtool.is_file() {
        bail!("the package prometheus has no {}: install promtool yourself", promtool.display());
    }
    Ok(promtool)
}

/// The definitions of ServiceMonitor and PrometheusRule.
///
/// # Errors
/// If they cannot be had.
pub fn custom_resources() -> Result<[PathBuf; 2]> {
    let (module, version, sum) = OPERATOR;
    let source =
        golang::source(module, version, sum).context("cannot get the Prometheus operator's resources")?;
    let folder = source.join("example/prometheus-operator-crd");
    Ok(["servicemonitors", "prometheusrules"]
        .map(|kind| folder.join(format!("monitoring.coreos.com_{kind}.yaml"))))
}
