//! Where the parts of a cluster lie and under which addresses they are reached.
//!
//! All clusters use the same addresses: each has a network of its own. They differ in their directory, which
//! is also how the processes of one are told from those of another.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::cache::{self, Key};

pub const NODE: &str = "n1";
pub const NODE_IP: &str = "10.99.0.1";
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The first address of [`SERVICE_RANGE`]: the API server as pods see it.
pub const SERVICE_IP: &str = "10.96.0.1";
pub const POD_RANGE: &str = "10.244.0.0/16";
/// The part of [`POD_RANGE`] that the one node hands out.
pub const NODE_POD_RANGE: &str = "10.244.0.0/24";
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The user that the name server is.
pub const DNS_USER: &str = "lethe:dns";
pub const API_PORT: u16 = 6443;

/// The cluster's directory as its own processes see it. Short, because socket paths end at 108 bytes.
pub const INSIDE: &str = "/run/lethe";
/// The Kubernetes binaries as the cluster's own processes see them.
pub const INSIDE_BIN: &str = "/run/lethe-bin";
/// The container runtime's socket, inside.
pub const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// The directory on the node that stands for shared storage, inside: for `hostPath` volumes.
pub const STORE: &str = "/var/lib/lethe-store";

/// The files of one cluster, seen from outside.
#[derive(Debug, Clone)]
pub struct Layout {
    pub name: String,
    pub dir: PathBuf,
}

impl Layout {
    /// The layout of the cluster `name`, whether it exists or not.
    ///
    /// # Errors
    /// If the name is not a DNS label, or there is no place for the cache.
    pub fn of(name: &str) -> Result<Self> {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let edges = |c: char| c == '-';
        ensure!(
            (1..=40).contains(&name.len())
                && name.chars().all(label)
                && !name.starts_with(edges)
                && !name.ends_with(edges),
            "cluster name {name:?} is not usable: 1 to 40 of a-z, 0-9 and '-', not at the ends"
        );
        let root = cache::root()?;
        let root = std::path::absolute(&root)?;
        Ok(Self { name: name.to_owned(), dir: root.join("clusters").join(name) })
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub fn log(&self, component: &str) -> PathBuf {
        self.logs().join(format!("{component}.log"))
    }

    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// The first process of the cluster's namespaces: a copy, so that a rebuild does not change a running cluster.
    pub fn init(&self) -> PathBuf {
        self.dir.join("node-init")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// The name of the cluster's cgroup in every hierarchy. Tells apart clusters of the same name in two caches.
    pub fn cgroup(&self) -> String {
        let place = Key::new("cgroup").text("dir", &self.dir.to_string_lossy()).finish();
        format!("lethe-{}-{}", self.name, &place[..8])
    }
}

/// A file of the cluster's directory as the cluster's own processes see it.
pub fn inside(file: &str) -> String {
    Path::new(INSIDE).join(file).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_or_clash_are_refused() {
        for bad in ["", "..", "a/b", "-a", "a-", "Lethe", &"a".repeat(41)] {
            assert!(Layout::of(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(Layout::of("lethe").unwrap().cgroup().starts_with("lethe-lethe-"));
    }
}
