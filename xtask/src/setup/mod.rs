//! `cargo xtask setup`: everything that the other verbs need and that this machine lacks. Every part is a
//! function of its own, called by whoever needs it, and does nothing when there is nothing to do.

pub mod apt;
pub mod argocd;
pub mod chromium;
pub mod coredns;
pub mod cosign;
pub mod golang;
pub mod grafana;
pub mod helm;
pub mod kubernetes;
pub mod kueue;
pub mod kwok;
pub mod libtorch;
pub mod mnist;
pub mod otelcol;
mod pip;
pub mod prometheus;
pub mod pytorch;
pub mod versitygw;

use anyhow::Result;

use crate::{host, progress};

/// Install or build what is missing: Debian packages, libtorch, Kubernetes, Helm, promtool
///
/// Does nothing that is already done, and may be run at any time. Debian packages are installed with apt-get
/// (with sudo when not root); everything else goes to the cache: $LETHE_CACHE, $XDG_CACHE_HOME/lethe or
/// ~/.cache/lethe. The other verbs call the parts they need themselves.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// # Errors
/// Of the first part that fails.
pub fn run(_args: &Args) -> Result<()> {
    build_packages()?;
    golang::check()?;
    match host::can_run_nodes() {
        Ok(()) => {
            cluster_packages()?;
            progress::note("packages");
        }
        Err(reason) => progress::skip("packages for a local node", &reason),
    }
    let libtorch = libtorch::directory()?;
    progress::note(&format!("libtorch {}: {}", libtorch::VERSION, libtorch.display()));
    progress::note(&format!("Kubernetes {}: {}", kubernetes::VERSION, kubernetes::binaries()?.display()));
    progress::note(&format!("CoreDNS {}: {}", coredns::VERSION, coredns::binary()?.display()));
    progress::note(&format!("Helm {}: {}", helm::VERSION, helm::binary()?.display()));
    progress::note(&format!("promtool: {}", prometheus::promtool()?.display()));
    Ok(())
}

/// What building the workspace needs.
///
/// # Errors
/// If something is missing and cannot be installed.
pub fn build_packages() -> Result<()> {
    apt::ensure(apt::BUILD)
}

/// What the trainer's tests need: they watch which files it opens.
///
/// # Errors
/// If something is missing and cannot be installed.
pub fn trainer_test_packages() -> Result<()> {
    apt::ensure(apt::TRAINER_TESTS)
}

/// What the commands on the pages for people need, beside what is built.
///
/// # Errors
/// If something is missing and cannot be installed.
pub fn page_packages() -> Result<()> {
    apt::ensure(apt::PAGES)
}

/// What running nodes needs.
///
/// # Errors
/// If something is missing and cannot be installed.
pub fn cluster_packages() -> Result<()> {
    apt::ensure(apt::CLUSTER)
}
