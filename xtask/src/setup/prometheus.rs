//! What the chart's monitoring is tested with: Prometheus with its promtool, Alertmanager, and the custom resources of
//! the Prometheus operator.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{apt, golang};
use crate::{cmd, host};

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
    program("prometheus", "promtool")
}

/// The `prometheus` binary, as [`promtool`].
///
/// # Errors
/// If there is none and it cannot be had.
pub fn prometheus() -> Result<PathBuf> {
    program("prometheus", "prometheus")
}

/// How to start an Alertmanager: the installed one, or that of the distribution's package. Debian's looks for its templates
/// under /usr/share, so that one which is only unpacked gets its own, in a mount namespace of its own.
///
/// # Errors
/// If there is none and it cannot be had.
pub fn alertmanager() -> Result<Command> {
    if let Some(installed) =
        ["prometheus-alertmanager", "alertmanager"].into_iter().find_map(cmd::find_program)
    {
        return Ok(Command::new(installed));
    }
    let package = apt::unpacked(&["prometheus-alertmanager"])?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !host::is_root() {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-c", r#"mount --bind "$0" /usr/share && exec "$@""#]);
    command.arg(package.join("usr/share")).arg(package.join("usr/bin/prometheus-alertmanager"));
    Ok(command)
}

/// The installed program, or that of the package.
fn program(package: &str, name: &str) -> Result<PathBuf> {
    if let Some(installed) = cmd::find_program(name) {
        return Ok(installed);
    }
    let program = apt::unpacked(&[package])?.join("usr/bin").join(name);
    if !program.is_file() {
        bail!("the package {package} has no {}: install {name} yourself", program.display());
    }
    Ok(program)
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
