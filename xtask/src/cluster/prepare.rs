//! Writes the directory of a cluster that is about to start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::layout::{API_PORT, DNS_USER, Layout, NODE, NODE_IP, SERVICE_IP};
use super::pki::{ADMIN, Authority, Subject, write_secret};
use super::{config, init};
use crate::{cache, cmd, progress, setup};

/// Makes everything that the first process and the components read; `binary` is [`own_binary`].
///
/// # Errors
/// Of the file system.
pub(super) fn files(layout: &Layout, binary: &Path) -> Result<()> {
    for dir in init::node_dirs().chain(["logs", "etcd", "cni", "sysctl"]) {
        let dir = layout.dir.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    // Keys lie here; the store is for every pod, whatever its user.
    fs::set_permissions(&layout.dir, fs::Permissions::from_mode(0o700))?;
    fs::set_permissions(layout.store(), fs::Permissions::from_mode(0o777))?;
    certificates(layout)?;
    let write = |file: &str, text: String| {
        fs::write(layout.dir.join(file), text).with_context(|| format!("cannot write {file}"))
    };
    write("kubelet.json", format!("{:#}\n", config::kubelet(&layout.cgroup())))?;
    write("containerd.toml", config::containerd(cni_plugins()?))?;
    write("cni/10-lethe.conflist", format!("{:#}\n", config::cni()))?;
    write("Corefile", config::corefile())?;
    write("resolv.conf", config::resolv_conf())?;
    for (file, value) in config::SYSCTLS {
        write(&format!("sysctl/{}", file.replace('/', ".")), format!("{value}\n"))?;
    }
    cache::copy(binary, &layout.init())?;
    cache::copy(&setup::coredns::binary()?, &layout.dir.join("coredns"))
}

fn certificates(layout: &Layout) -> Result<()> {
    let authority = Authority::create(&layout.pki())?;
    let node_user = format!("system:node:{NODE}");
    let node = Subject { user: &node_user, group: Some("system:nodes") };
    authority.server("apiserver", &Subject { user: "kube-apiserver", group: None }, &APISERVER_NAMES)?;
    authority.server("kubelet-server", &node, &[NODE, NODE_IP])?;
    authority
        .client("kubelet-client", &Subject { user: "kube-apiserver-kubelet-client", group: ADMIN.group })?;
    authority.client("front-proxy", &Subject { user: "front-proxy", group: None })?;

    let server = format!("https://{NODE_IP}:{API_PORT}");
    let component = |user| Subject { user, group: None };
    for (file, subject) in [
        ("kubeconfig", ADMIN),
        ("kubelet.kubeconfig", node),
        ("controller-manager.kubeconfig", component("system:kube-controller-manager")),
        ("scheduler.kubeconfig", component("system:kube-scheduler")),
        ("dns.kubeconfig", component(DNS_USER)),
        ("proxy.kubeconfig", component("system:kube-proxy")),
    ] {
        write_secret(&layout.dir.join(file), &authority.kubeconfig(&server, &subject)?)?;
    }
    Ok(())
}

/// Every name and address under which the API server is called, also from outside through a forwarded port.
pub(super) const APISERVER_NAMES: [&str; 8] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "127.0.0.1",
    NODE_IP,
    SERVICE_IP,
];

/// Debian and Fedora put the plugins into different places.
fn cni_plugins() -> Result<&'static str> {
    let places = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];
    places.into_iter().find(|dir| Path::new(dir).join("bridge").is_file()).with_context(|| {
        format!("no CNI plugins in {}: install containernetworking-plugins", places.join(", "))
    })
}

/// The `xtask` binary. A test that starts a cluster is another program and has it built.
///
/// # Errors
/// If it does not build.
pub(super) fn own_binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    if own.file_stem().is_some_and(|name| name == "xtask") {
        return Ok(own);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut build = Command::new(cargo);
    build
        .args(["build", "--quiet", "--bin", "xtask", "--message-format=json", "--manifest-path"])
        .arg(manifest);
    let messages = progress::step("build xtask, which runs in the node", || cmd::output(&mut build))?;
    match crate::cargo::executables(&messages).into_iter().find(|(name, _)| name == "xtask") {
        Some((_, path)) => Ok(path),
        None => bail!("`{}` reported no executable", cmd::line(&build)),
    }
}
