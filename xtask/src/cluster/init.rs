//! The first process inside a cluster's namespaces: builds the node's view of the machine, starts the
//! components, reaps what ends, and starts a component again as a service manager would.
//!
//! It is the `xtask` binary itself, copied to the cluster's directory. One thread, and one place that waits
//! for children: as process 1 it is also handed every orphan of the namespace.

use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use super::config::{self, Component, SYSCTLS};
use super::layout::{API_PORT, INSIDE, INSIDE_BIN, NODE_IP, STORE, inside};

/// Written to the cluster's directory when the API server answers.
pub const API_READY: &str = "api-ready";
/// Written from outside when the start has come to its end.
pub const READY: &str = "ready";
/// Written when this process gives up: the component's name on the first line, then the reason.
pub const FAILURE: &str = "failure";

/// Directories of the node that components have compiled in, and what of the cluster's directory is put there.
const NODE_DIRS: [(&str, &str); 6] = [
    ("node/kubelet", "/var/lib/kubelet"),
    ("node/containerd", "/var/lib/containerd"),
    ("node/cni", "/var/lib/cni"),
    ("node/pod-logs", "/var/log/pods"),
    ("node/container-logs", "/var/log/containers"),
    ("store", STORE),
];

/// Runs as process 1 of the new namespaces and never returns while the cluster lives.
///
/// `dir` is the cluster's directory and `bin` the one with the Kubernetes binaries.
///
/// # Errors
/// If the node cannot be set up or a component ends before the cluster is ready; the reason is also in the
/// file [`FAILURE`].
pub fn run(dir: &Path, bin: &Path) -> Result<()> {
    let mut node = Node { dir: dir.to_owned(), running: Vec::new() };
    let ended = node.set_up(bin).and_then(|()| node.start()).and_then(|()| node.keep_running());
    let Err(error) = ended;
    // From here on INSIDE may or may not exist: the directory under its own name may be hidden.
    let text = format!("{error:#}\n");
    if fs::write(inside(FAILURE), &text).is_err() {
        fs::write(node.dir.join(FAILURE), &text)?;
    }
    Err(error)
}

struct Node {
    dir: PathBuf,
    running: Vec<(Pid, Component)>,
}

impl Node {
    fn set_up(&mut self, bin: &Path) -> Result<()> {
        mount_node_view(&self.dir, bin)?;
        for (file, _) in SYSCTLS {
            let real = Path::new("/proc/sys").join(file);
            if real.exists() {
                bind(&inside(&format!("sysctl/{}", file.replace('/', "."))), &real)?;
            }
        }
        self.set_up_network()
    }

    fn set_up_network(&mut self) -> Result<()> {
        let address = format!("{NODE_IP}/24");
        // An empty bridge stands for the node's network card: it needs no module and no hardware.
        for words in [
            &["link", "set", "lo", "up"][..],
            &["link", "add", "node0", "type", "bridge"],
            &["addr", "add", &address, "dev", "node0"],
            &["link", "set", "node0", "up"],
            &["route", "add", "default", "via", NODE_IP, "dev", "node0"],
        ] {
            let status = self.run_to_end(Command::new("ip").args(words))?;
            if status.exit_status() != Some(0) {
                bail!("`ip {}` failed ({})", words.join(" "), describe(status));
            }
        }
        for setting in ["ipv4/ip_forward", "bridge/bridge-nf-call-iptables"] {
            let file = Path::new("/proc/sys/net").join(setting);
            fs::write(&file, "1").with_context(|| {
                format!("cannot set {} (kernel module br_netfilter loaded?)", file.display())
            })?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        for component in config::first_components() {
            self.spawn(component)?;
        }
        while !self.api_is_ready()? {
            if let Some((component, status)) = self.reap(WaitOptions::NOHANG)? {
                bail!("{}\nended before the cluster was ready ({})", component.name, describe(status));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for component in config::second_components() {
            self.spawn(component)?;
        }
        Ok(fs::write(inside(API_READY), "")?)
    }

    fn keep_running(&mut self) -> Result<Infallible> {
        loop {
            if let Some((component, status)) = self.reap(WaitOptions::empty())? {
                // Whoever waits for the cluster should hear of it now, not when patience ends.
                if !Path::new(&inside(READY)).exists() {
                    bail!("{}\nended before the cluster was ready ({})", component.name, describe(status));
                }
                eprintln!("{} ended ({}); starting it again", component.name, describe(status));
                // Not at once: what ends at once would otherwise keep the machine busy.
                std::thread::sleep(Duration::from_secs(1));
                self.spawn(component)?;
            }
        }
    }

    fn api_is_ready(&mut self) -> Result<bool> {
        if TcpStream::connect(("127.0.0.1", API_PORT)).is_err() {
            return Ok(false);
        }
        let kubectl = format!("{INSIDE_BIN}/kubectl");
        let mut ask = Command::new(kubectl);
        ask.args(["--kubeconfig", &inside("kubeconfig"), "get", "--raw", "/readyz", "--request-timeout=2s"]);
        ask.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(self.run_to_end(&mut ask)?.exit_status() == Some(0))
    }

    fn spawn(&mut self, component: Component) -> Result<()> {
        let name = component.name;
        let log = inside(&format!("logs/{name}.log"));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot open {log}"))?;
        let child = Command::new(&component.program)
            .args(&component.args)
            // The caller's environment may hold proxies and the like that mean another network.
            .env_clear()
            .envs([("PATH", PATH), ("HOME", "/root")])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| anyhow!("{name}\ncannot start {}: {error}", component.program))?;
        self.running.push((pid_of(&child)?, component));
        Ok(())
    }

    /// Runs a helper and waits for it. A component that ends meanwhile is an error: this is only for the start.
    fn run_to_end(&mut self, command: &mut Command) -> Result<WaitStatus> {
        let child =
            command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {command:?}"))?;
        let helper = pid_of(&child)?;
        loop {
            let Some((pid, status)) = wait(WaitOptions::empty())? else { continue };
            if pid == helper {
                return Ok(status);
            }
            if let Some(component) = self.take(pid) {
                bail!("{}\nended before the cluster was ready ({})", component.name, describe(status));
            }
        }
    }

    /// Waits for children until a component ends; without blocking if `options` says so.
    fn reap(&mut self, options: WaitOptions) -> Result<Option<(Component, WaitStatus)>> {
        while let Some((pid, status)) = wait(options)? {
            if let Some(component) = self.take(pid) {
                return Ok(Some((component, status)));
            }
        }
        Ok(None)
    }

    fn take(&mut self, pid: Pid) -> Option<Component> {
        let index = self.running.iter().position(|(running, _)| *running == pid)?;
        Some(self.running.swap_remove(index).1)
    }
}

/// What components find programs by (containerd, runc, iptables and their kin).
const PATH: &str = "/run/lethe-bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lays the cluster's directories over the compiled-in ones. Nothing is created on the machine itself: mount
/// points that it lacks exist only in an overlay that ends with the namespace.
fn mount_node_view(dir: &Path, bin: &Path) -> Result<()> {
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", shared).context("cannot share mounts inside the namespace")?;
    let resolv = fs::canonicalize("/etc/resolv.conf");
    // Taken before /run and /var are covered: the cache may lie there.
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let take = |path: &Path| {
        rustix::mount::open_tree(CWD, path, clone).with_context(|| format!("cannot take {}", path.display()))
    };
    let trees = [(take(dir)?, INSIDE), (take(bin)?, INSIDE_BIN)];

    rustix::mount::mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)
        .context("cannot mount a private /run")?;
    for (tree, target) in &trees {
        fs::create_dir(target)?;
        rustix::mount::move_mount(tree, "", CWD, *target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .with_context(|| format!("cannot mount {target}"))?;
    }
    for name in ["upper", "work"] {
        fs::create_dir_all(format!("/run/lethe-var/{name}"))?;
    }
    let options = c"lowerdir=/var,upperdir=/run/lethe-var/upper,workdir=/run/lethe-var/work";
    rustix::mount::mount("overlay", "/var", "overlay", MountFlags::empty(), Some(options))
        .context("cannot mount an overlay on /var")?;
    for (source, target) in NODE_DIRS {
        fs::create_dir_all(target).with_context(|| format!("cannot create {target}"))?;
        bind(&inside(source), Path::new(target))?;
    }
    // Where a service manager keeps it, the real file was in the /run that is now covered.
    let Ok(resolv) = resolv else { return Ok(()) };
    if !resolv.exists() {
        fs::create_dir_all(resolv.parent().unwrap_or(&resolv))?;
        fs::write(&resolv, "")?;
    }
    bind(&inside("resolv.conf"), &resolv)
}

/// The directories of [`NODE_DIRS`] that must exist in the cluster's directory.
pub fn node_dirs() -> impl Iterator<Item = &'static str> {
    NODE_DIRS.into_iter().map(|(source, _)| source)
}

fn bind(source: &str, target: &Path) -> Result<()> {
    rustix::mount::mount_bind(source, target)
        .with_context(|| format!("cannot put {source} at {}", target.display()))
}

fn pid_of(child: &std::process::Child) -> Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child without a process id")
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => format!("{status:?}"),
    }
}
