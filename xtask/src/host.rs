//! What this machine can do.

/// Whether a node (kubelet, container runtime, private namespaces) can run here; if not, why.
///
/// # Errors
/// The reason, as one sentence for a person.
pub fn can_run_nodes() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Err(format!("a node needs Linux, this is {}", std::env::consts::OS));
    }
    if !cfg!(target_arch = "x86_64") {
        return Err(format!("images are built for x86_64, this is {}", std::env::consts::ARCH));
    }
    if !is_root() {
        return Err("a node needs root for namespaces, mounts and cgroups; run it with sudo".into());
    }
    can_unshare()?;
    crate::cluster::cgroup::Hierarchies::find().map(|_| ()).map_err(|error| format!("{error:#}"))
}

/// Whether this process has the rights of root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Root inside an unprivileged container may do less than root: try it.
fn can_unshare() -> Result<(), String> {
    let attempt = std::process::Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private", "true"])
        .output();
    match attempt {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "this root may not create network, mount and pid namespaces ({})",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("`unshare` (package util-linux) cannot be started: {error}")),
    }
}
