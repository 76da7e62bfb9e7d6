//! A real one-node Kubernetes cluster in private namespaces: etcd, the control plane, kubelet, kube-proxy and
//! containerd, without Docker, systemd or a registry.
//!
//! Names, pod addresses and Service addresses exist only in the cluster's network; [`Cluster::exec_command`] runs a program there and [`Cluster::forward`] brings one
//! address out.

pub mod apiserver;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod forward;
#[cfg(target_os = "linux")]
pub mod init;
pub mod layout;
pub mod pki;
mod prepare;
mod process;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal};

use self::cgroup::Hierarchies;
use self::layout::{INSIDE_BIN, Layout, NODE, inside};
use self::process::Processes;
use crate::cache::{self, Lock};
use crate::{cmd, host, progress, setup};

/// The API server and the node are ready in 4 s; a loaded machine may need a multiple of that.
const READY_WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names the cluster: its directory, its cgroup and the argument of every other verb.
    pub name: String,
    /// How many `nvidia.com/gpu` the node says it has. The scheduler counts them; nothing is injected into pods.
    pub gpus: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: "lethe".into(), gpus: 8 }
    }
}

/// A running cluster. Dropping this leaves it running: end it with [`Cluster::down`].
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    bin: PathBuf,
    init: Pid,
}

impl Cluster {
    /// Starts a cluster and returns when its node is ready for pods. What a crashed start of the same name left
    /// is removed first.
    ///
    /// # Errors
    /// If this machine cannot run nodes, the cluster is already running, or a component does not start; the
    /// message then names the component and shows its last log lines, and nothing is left running.
    pub fn up(options: &Options) -> Result<Self> {
        host::can_run_nodes().map_err(|reason| anyhow!(reason))?;
        setup::cluster_packages()?;
        let bin = setup::kubernetes::binaries()?;
        setup::coredns::binary()?;
        let pause = crate::image::pause()?;
        let binary = prepare::own_binary()?;
        let layout = Layout::of(&options.name)?;
        let _lock = Lock::acquire(&layout.dir)?;
        if is_up(&layout) {
            bail!(
                "the cluster {name} is already running; stop it with `cargo xtask cluster down --name {name}`",
                name = layout.name
            );
        }
        remove(&layout).context("cannot remove what an earlier start left")?;
        let started =
            progress::step(&format!("start cluster {}", layout.name), || start(&layout, &bin, &binary));
        let ready = started.and_then(|cluster| {
            progress::step("node ready", || {
                // What a dead component's callers say is worth less than why it died.
                let cause = |error| if has_failed(&layout) { failure(&layout) } else { error };
                cluster.make_ready(&pause, options.gpus).map_err(cause)
            })?;
            fs::write(layout.dir.join(init::READY), "").context("cannot note that the cluster is up")?;
            Ok(cluster)
        });
        if ready.is_err() {
            remove(&layout).context("cannot remove what the failed start left")?;
        }
        ready
    }

    /// A cluster that is already running.
    ///
    /// # Errors
    /// If no cluster of this name is running.
    pub fn find(name: &str) -> Result<Self> {
        let layout = Layout::of(name)?;
        if !is_up(&layout) {
            bail!("no cluster {name} is running; start it with `cargo xtask cluster up --name {name}`");
        }
        let init =
            Processes::find(&layout).init().with_context(|| format!("the cluster {name} is just ending"))?;
        Ok(Self { layout, bin: setup::kubernetes::binaries()?, init })
    }

    /// The administrator's kubeconfig. Its server address is reached only inside the cluster's network: see
    /// [`Cluster::exec_command`], or [`Cluster::forward`] and [`Cluster::kubeconfig_for_port`].
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// The directory with `kubectl` and the rest.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The directory that is [`layout::STORE`] on the node.
    pub fn store(&self) -> PathBuf {
        self.layout.store()
    }

    /// The directory with one log per component.
    pub fn logs(&self) -> PathBuf {
        self.layout.logs()
    }

    /// A command that runs `words` in the cluster's network, mount and process namespaces, in the caller's
    /// directory, with `KUBECONFIG` and `PATH` set. `/run` and `/var` are the node's own.
    pub fn exec_command(&self, words: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.init.as_raw_nonzero().to_string(),
            "--net",
            "--mount",
            "--pid",
            "--",
        ]);
        let path = std::env::var("PATH").unwrap_or_default();
        command.arg("env");
        if let Ok(dir) = std::env::current_dir() {
            command.arg("-C").arg(dir);
        }
        command.arg(format!("KUBECONFIG={}", inside("kubeconfig")));
        command.arg(format!("PATH={INSIDE_BIN}:{path}:/usr/sbin:/sbin"));
        command.args(words);
        command
    }

    /// Runs `kubectl` inside and returns what it printed.
    ///
    /// # Errors
    /// If it fails; the message holds what it wrote to standard error.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut words = vec!["kubectl"];
        words.extend(args);
        cmd::output(&mut self.exec_command(&words))
    }

    /// Loads an image tar (OCI layout or `docker save`) into the node; does nothing if the node has the same
    /// digest under the same name. Returns whether it was loaded.
    ///
    /// # Errors
    /// If the file is no image tar or the container runtime refuses it.
    pub fn load(&self, tar: &Path) -> Result<bool> {
        let named = crate::image::oci::identify(tar)?;
        let present = cmd::output(&mut self.ctr(&["images", "ls"]))?;
        if let Some(image) = &named
            && present.lines().any(|line| line.starts_with(&image.name) && line.contains(&image.digest))
        {
            return Ok(false);
        }
        let file = File::open(tar).with_context(|| format!("cannot open {}", tar.display()))?;
        let output = self
            .ctr(&["images", "import", "-"])
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .and_then(Child::wait_with_output)
            .context("cannot start ctr")?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            bail!("the node does not take {}: {}", tar.display(), reason.trim());
        }
        Ok(true)
    }

    /// Makes the node say it has `gpus` GPUs, now and until the next call.
    ///
    /// # Errors
    /// If the API server refuses.
    pub fn set_gpus(&self, gpus: u32) -> Result<()> {
        let patch = |place: &str| serde_json::json!({"op": "add", "path": format!("/status/{place}/nvidia.com~1gpu"), "value": gpus.to_string()});
        let patch = serde_json::json!([patch("capacity"), patch("allocatable")]).to_string();
        self.kubectl(&["patch", "node", NODE, "--subresource=status", "--type=json", "-p", &patch])
            .map(|_| ())
    }

    /// Kills a component of the node, which starts it again.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self, component: &str) -> Result<()> {
        process::signal(self.init, component, Signal::KILL)
    }

    /// Stops a component where it is, until [`Cluster::resume`].
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self, component: &str) -> Result<()> {
        process::signal(self.init, component, Signal::STOP)
    }

    /// Lets a paused component go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self, component: &str) -> Result<()> {
        process::signal(self.init, component, Signal::CONT)
    }

    /// Ends the cluster and removes every process, mount, cgroup and file of it.
    ///
    /// # Errors
    /// If something does not go away; the message says what.
    pub fn down(self) -> Result<()> {
        down(&self.layout.name)
    }

    fn ctr(&self, args: &[&str]) -> Command {
        let mut words = vec!["ctr", "--address", layout::CONTAINERD, "--namespace", "k8s.io"];
        words.extend(args);
        self.exec_command(&words)
    }

    fn make_ready(&self, pause: &Path, gpus: u32) -> Result<()> {
        self.load(pause)?;
        let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        self.wait_for("kubelet", "node to become ready", &["get", "node", NODE, "-o", ready], "True")?;
        self.set_gpus(gpus)?;
        let user = format!("--user={}", layout::DNS_USER);
        self.kubectl(&["create", "clusterrolebinding", "lethe-dns", "--clusterrole=view", &user])?;
        // Pods of a namespace are refused until it has its service account.
        let account = ["get", "serviceaccount", "default", "-o", "name"];
        self.wait_for(
            "kube-controller-manager",
            "default service account",
            &account,
            "serviceaccount/default",
        )
    }

    fn wait_for(&self, component: &str, what: &str, question: &[&str], answer: &str) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let said = self.kubectl(question);
            match said {
                Ok(said) if said == answer => return Ok(()),
                _ if has_failed(&self.layout) => return Err(failure(&self.layout)),
                said if Instant::now() > deadline => bail!(
                    "waited {} s for the {what}, got {said:?}; last lines of {component}:\n{}",
                    READY_WITHIN.as_secs(),
                    cmd::tail(&self.layout.log(component))
                ),
                _ => std::thread::sleep(POLL),
            }
        }
    }
}

/// Ends the cluster `name` and removes every trace of it. Nothing there is fine.
///
/// # Errors
/// If something does not go away; the message says what.
pub fn down(name: &str) -> Result<()> {
    let layout = Layout::of(name)?;
    let _lock = Lock::acquire(&layout.dir)?;
    remove(&layout)
}

/// The names of the clusters that have left anything here, and whether each is running.
///
/// # Errors
/// If the cache cannot be read.
pub fn list() -> Result<Vec<(String, bool)>> {
    let dir = cache::root()?.join("clusters");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Ok(layout) = Layout::of(&name) {
            found.push((name, is_up(&layout)));
        }
    }
    found.sort();
    Ok(found)
}

/// A start that died half way is not up.
fn is_up(layout: &Layout) -> bool {
    layout.dir.join(init::READY).exists() && Processes::find(layout).init().is_some()
}

/// Ends everything, then removes everything, in the order in which one holds the other.
fn remove(layout: &Layout) -> Result<()> {
    Processes::kill(layout)?;
    if let Ok(hierarchies) = Hierarchies::find() {
        hierarchies.remove(&layout.cgroup())?;
    }
    cache::remove(&layout.dir)
}

fn start(layout: &Layout, bin: &Path, binary: &Path) -> Result<Cluster> {
    prepare::files(layout, binary)?;
    Hierarchies::find()?.create(&layout.cgroup())?;
    let mut outside = spawn(layout, bin)?;
    let deadline = Instant::now() + READY_WITHIN;
    while !layout.dir.join(init::API_READY).exists() {
        if outside.try_wait()?.is_some() {
            return Err(failure(layout));
        }
        if Instant::now() > deadline {
            let log = cmd::tail(&layout.log("kube-apiserver"));
            bail!("kube-apiserver is not ready after {} s; its last lines:\n{log}", READY_WITHIN.as_secs());
        }
        std::thread::sleep(POLL);
    }
    // Waited for, so that a long-lived caller keeps no zombie when the cluster ends.
    std::thread::spawn(move || outside.wait());
    let init = Processes::find(layout).init().ok_or_else(|| failure(layout))?;
    Ok(Cluster { layout: layout.clone(), bin: bin.to_owned(), init })
}

/// Starts the first process in new namespaces and a session of its own: Ctrl-C at the terminal is not for it.
fn spawn(layout: &Layout, bin: &Path) -> Result<Child> {
    let log = File::create(layout.log("node-init")).context("cannot create the log of the first process")?;
    let mut command = Command::new("setsid");
    command
        .args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private"])
        .arg(layout.init())
        .arg("node-init")
        .arg(&layout.dir)
        .arg(bin)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn().context("cannot start `setsid unshare` (package util-linux)")
}

fn has_failed(layout: &Layout) -> bool {
    layout.dir.join(init::FAILURE).exists()
}

/// Why the first process gave up, with the last lines of the component that made it.
fn failure(layout: &Layout) -> anyhow::Error {
    let reason = fs::read_to_string(layout.dir.join(init::FAILURE)).unwrap_or_default();
    let (component, reason) = match reason.split_once('\n') {
        Some((name, why)) if layout.log(name).is_file() => (name, why.trim()),
        _ => ("node-init", reason.trim()),
    };
    anyhow!("{component}: {reason}; its last lines:\n{}", cmd::tail(&layout.log(component)))
}
