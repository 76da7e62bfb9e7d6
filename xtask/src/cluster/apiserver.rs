//! A bare API server for tests that need no node: etcd and kube-apiserver (and the controller manager if asked
//! for) on free loopback ports, without root and without namespaces, ready in about 2.5 s.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use super::config::{apiserver_identity, client_flags, flag};
use super::pki::{ADMIN, Authority, Subject, write_secret};
use super::prepare::APISERVER_NAMES;
use crate::{cmd, setup};

const READY_WITHIN: Duration = Duration::from_secs(60);
/// Of the temporary directories; the process id follows.
const PREFIX: &str = "lethe-api-";

/// What to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Also start the controller manager: garbage collection, namespaces, Jobs, service accounts. There is no
    /// node, and no scheduler until one is started: no pod ever runs.
    pub controller_manager: bool,
    /// Further flags of the API server, after the usual ones: audit log, feature gates, watch timeouts.
    pub apiserver_args: Vec<String>,
    /// Further flags of the controller manager.
    pub manager_args: Vec<String>,
}

/// A running API server. Ended, with its files, when this is dropped or when the process ends in any way.
#[derive(Debug)]
pub struct ApiServer {
    processes: Vec<Process>,
    authority: Authority,
    bin: PathBuf,
    url: String,
    // Last: removed after the processes are gone.
    dir: TempDir,
}

/// A program beside the API server. Ended when this is dropped or when the process ends in any way.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Process {
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log_tail(&self) -> String {
        cmd::tail(&self.log)
    }

    /// # Errors
    /// If it has ended; the message has its last log lines.
    fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => {
                bail!("{} has ended ({status}); its last lines:\n{}", self.name, self.log_tail())
            }
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // There is nobody to tell if it is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ApiServer {
    /// Starts the servers and returns when they answer.
    ///
    /// # Errors
    /// If one does not start; the message names it and shows its last log lines.
    pub fn start(options: &Options) -> Result<Self> {
        let bin = setup::kubernetes::binaries()?;
        remove_orphans();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().context("cannot create a directory")?;
        let authority = Authority::create(&dir.path().join("pki"))?;
        let [etcd, peer, port] = free_ports()?;
        let url = format!("https://127.0.0.1:{port}");
        let mut server = Self { processes: Vec::new(), authority, bin, url, dir };
        server.write_identities()?;
        server.spawn("etcd", &etcd_args(server.dir.path(), etcd, peer))?;
        let mut args = apiserver_args(&server.file("pki"), etcd, port);
        args.extend(options.apiserver_args.iter().cloned());
        server.spawn("kube-apiserver", &args)?;
        server.wait_until_ready()?;
        if options.controller_manager {
            let mut args = server.manager_args()?;
            args.extend(options.manager_args.iter().cloned());
            server.spawn("kube-controller-manager", &args)?;
        }
        Ok(server)
    }

    /// Where it listens: `https://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A kubeconfig for another user, whose rights are what RBAC gives to this user or group.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn kubeconfig_for(&self, user: &str, group: Option<&str>) -> Result<String> {
        self.authority.kubeconfig(&self.url, &Subject { user, group })
    }

    /// Files with the certificate and the key of a server on the loopback interface that the API server calls, and with the
    /// authority that it is to be known by.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn certificate_for(&self, name: &str) -> Result<[PathBuf; 3]> {
        self.authority.server(name, &Subject { user: name, group: None }, &["127.0.0.1"])?;
        Ok([format!("{name}.crt"), format!("{name}.key"), "ca.crt".into()]
            .map(|file| self.dir.path().join("pki").join(file)))
    }

    /// A directory that lives as long as the server, for audit policies, logs and the like.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs `kubectl` as the administrator and returns what it printed.
    ///
    /// # Errors
    /// If it fails; the message holds what it wrote to standard error.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut kubectl = Command::new(self.bin.join("kubectl"));
        cmd::output(kubectl.arg("--kubeconfig").arg(self.kubeconfig_path()).args(args))
    }

    /// Starts a scheduler, with further flags. Without one no pod is bound to a node.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_scheduler(&self, args: &[String]) -> Result<Process> {
        let name = "kube-scheduler";
        let kubeconfig = self.file("scheduler.kubeconfig");
        let identity = self.kubeconfig_for("system:kube-scheduler", None)?;
        write_secret(Path::new(&kubeconfig), &identity)?;
        let mut all = client_flags(&kubeconfig);
        // Nobody asks it anything, and its port would clash with the next one's.
        all.extend([flag("leader-elect", "false"), flag("secure-port", "0")]);
        all.extend(args.iter().cloned());
        self.start_beside(name, &self.bin.join(name), &all)
    }

    /// Starts a program in the directory of the server, where it finds nothing of this machine's own and leaves its log.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_beside(&self, name: &'static str, program: &Path, args: &[String]) -> Result<Process> {
        let log = self.log(name);
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_clear().env("HOME", self.dir.path()).stdout(file.try_clone()?).stderr(file);
        let child = spawn_bound(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Process { name, log, child })
    }

    /// Stops the API server in the middle of whatever it does: connections stay open and nothing answers.
    ///
    /// # Errors
    /// If it has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal("kube-apiserver", Signal::STOP)
    }

    /// Lets it go on after [`ApiServer::pause`].
    ///
    /// # Errors
    /// If it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal("kube-apiserver", Signal::CONT)
    }

    /// The last lines of a component's log, for a failed test.
    pub fn log_tail(&self, component: &str) -> String {
        cmd::tail(&self.log(component))
    }

    fn write_identities(&self) -> Result<()> {
        self.authority.server(
            "apiserver",
            &Subject { user: "kube-apiserver", group: None },
            &APISERVER_NAMES,
        )?;
        write_secret(&self.kubeconfig_path(), &self.authority.kubeconfig(&self.url, &ADMIN)?)
    }

    fn manager_args(&self) -> Result<Vec<String>> {
        let kubeconfig = self.file("controller-manager.kubeconfig");
        // As an administrator instead of one service account per controller: making those takes it four seconds.
        write_secret(Path::new(&kubeconfig), &self.authority.kubeconfig(&self.url, &ADMIN)?)?;
        let mut args = client_flags(&kubeconfig);
        args.extend([
            flag("service-account-private-key-file", self.file("pki/sa.key")),
            flag("root-ca-file", self.file("pki/ca.crt")),
            flag("leader-elect", "false"),
            // Nobody asks it anything, and its port would clash with the next one's.
            flag("secure-port", "0"),
            flag("flex-volume-plugin-dir", self.file("volume-plugins")),
        ]);
        Ok(args)
    }

    fn spawn(&mut self, name: &'static str, args: &[String]) -> Result<()> {
        let process = self.start_beside(name, &self.bin.join(name), args)?;
        self.processes.push(process);
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            for process in &mut self.processes {
                process.check()?;
            }
            if self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"]).is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = self.log_tail("kube-apiserver");
                bail!(
                    "kube-apiserver is not ready after {} s; its last lines:\n{log}",
                    READY_WITHIN.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let process = self.processes.iter().find(|process| process.name == name);
        let process = process.with_context(|| format!("{name} was not started"))?;
        let pid = i32::try_from(process.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {name}"))
    }

    fn log(&self, component: &str) -> PathBuf {
        self.dir.path().join(format!("{component}.log"))
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // Clients first, so that none logs its distress.
        while self.processes.pop().is_some() {}
    }
}

/// Removes the directories of processes that were killed before they could do it themselves.
fn remove_orphans() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse().ok())
            .and_then(Pid::from_raw);
        let gone = owner.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH));
        // Another test may be doing the same: whoever comes second finds nothing.
        if gone {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn etcd_args(dir: &Path, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    vec![
        flag("data-dir", dir.join("etcd").to_string_lossy()),
        "--unsafe-no-fsync".into(),
        flag("listen-client-urls", &client),
        flag("advertise-client-urls", &client),
        flag("listen-peer-urls", &peer),
        flag("initial-advertise-peer-urls", &peer),
        flag("initial-cluster", format!("default={peer}")),
    ]
}

fn apiserver_args(pki: &str, etcd: u16, port: u16) -> Vec<String> {
    let mut args = vec![
        flag("etcd-servers", format!("http://127.0.0.1:{etcd}")),
        flag("secure-port", port.to_string()),
        flag("bind-address", "127.0.0.1"),
        flag("authorization-mode", "RBAC"),
    ];
    args.extend(apiserver_identity(pki));
    args
}

/// Ports that were free a moment ago, all different.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    for _ in 0..N {
        listeners.push(
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on the loopback interface")?,
        );
    }
    let ports = listeners.iter().map(|one| Ok(one.local_addr()?.port())).collect::<Result<Vec<_>>>()?;
    ports.try_into().map_err(|_| anyhow!("fewer ports than asked for"))
}

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts a process that ends with this one, even if this one is killed.
///
/// The kernel binds a child to the *thread* that started it, and a test's thread ends with its test: one thread
/// that lives as long as the process starts them all.
fn spawn_bound(command: Command) -> Result<Child> {
    static SPAWNER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);
    let (reply, answer) = mpsc::channel();
    SPAWNER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_with(|| {
            let (orders, inbox) = mpsc::channel::<Order>();
            std::thread::spawn(move || {
                for (mut command, reply) in inbox {
                    bind_to_parent(&mut command);
                    let _ = reply.send(command.spawn());
                }
            });
            orders
        })
        .send((command, reply))
        .context("the thread that starts processes has ended")?;
    Ok(answer.recv().context("the thread that starts processes has ended")??)
}

#[cfg(target_os = "linux")]
fn bind_to_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    let parent = rustix::process::getpid();
    let bind = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the line above.
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: runs between fork and exec, where only async-signal-safe work is allowed: it makes two system
    // calls, allocates nothing and takes no lock.
    #[expect(unsafe_code, reason = "std offers no safe way to set a parent death signal")]
    unsafe {
        command.pre_exec(bind);
    }
}

/// Elsewhere only dropping ends the process.
#[cfg(not(target_os = "linux"))]
fn bind_to_parent(_command: &mut Command) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
    }

    #[test]
    fn a_bound_process_outlives_the_thread_that_asked_for_it() {
        let asked = std::thread::spawn(|| {
            let mut sleep = Command::new("sleep");
            sleep.arg("60");
            spawn_bound(sleep).unwrap()
        });
        let mut child = asked.join().unwrap();
        assert!(child.try_wait().unwrap().is_none(), "ended with the thread");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
