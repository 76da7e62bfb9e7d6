//! The pinned versions of everything built from Go modules.

use std::path::PathBuf;

use anyhow::Result;

use super::golang::Family;

/// The Kubernetes release of the local cluster; the same as in `xtask/tools/k8s/go.mod`.
pub const VERSION: &str = "v1.36.4";

/// The directory with etcd, the control plane, kubelet, kube-proxy and kubectl.
///
/// # Errors
/// If they are not cached and cannot be built.
pub fn binaries() -> Result<PathBuf> {
    family().build()
}

fn family() -> Family {
    // Without these every component calls itself v0.0.0-master and refuses its neighbours' version skew.
    let (major, minor) = ("1", "36");
    let set = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let ldflags = [
        "-s -w".to_owned(),
        set("gitVersion", VERSION),
        set("gitMajor", major),
        set("gitMinor", minor),
        set("gitTreeState", "clean"),
    ];
    Family {
        name: "k8s",
        title: format!("Kubernetes {VERSION} and etcd"),
        ldflags: ldflags.join(" "),
        programs: &[
            ("etcd", "go.etcd.io/etcd/server/v3"),
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
        minutes: 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_components_report_is_the_one_that_is_built() {
        let module =
            std::fs::read_to_string(crate::cache::workspace().join("xtask/tools/k8s/go.mod")).unwrap();
        assert!(module.contains(&format!("k8s.io/kubernetes {VERSION}")), "go.mod pins another version");
        assert!(VERSION.starts_with("v1.36."), "gitMajor and gitMinor above say 1.36");
    }
}
