//! The operator as a process that can be killed.

use std::{
    collections::BTreeMap,
    fs::File,
    net::TcpListener,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::wait;

/// Longer than the operator allows itself for stopping.
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// How to start one.
#[derive(Clone, Debug)]
pub struct Launch {
    pub binary: PathBuf,
    pub kubeconfig: PathBuf,
    /// The namespace that it runs in.
    pub home: String,
    /// The namespace that it works in; none for all.
    pub watch: Option<String>,
    /// Who it is in the lease.
    pub identity: String,
    pub store: String,
    /// What it logs, as RUST_LOG says it.
    pub verbosity: &'static str,
    /// Further flags.
    pub flags: Vec<String>,
    /// Further variables of its environment.
    pub env: BTreeMap<String, String>,
    /// Its log; several processes may write to it one after the other.
    pub log: PathBuf,
}

/// What a command of the operator's says that ends by itself, on both outputs.
///
/// # Errors
/// If it fails; the message has what it said.
pub async fn said_by(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().await?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "it ended with {}: {said}", output.status);
    Ok(said)
}

/// A running operator. Killed when this is dropped.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    launch: Launch,
    metrics: String,
}

impl Operator {
    /// # Errors
    /// If the process cannot be started.
    pub fn start(launch: &Launch) -> Result<Self> {
        let mut arguments = vec![
            format!("--store={}", launch.store),
            r#"--store-volume={"persistentVolumeClaim":{"claimName":"lethe-store"}}"#.into(),
            "--approvals-are-protected".into(),
        ];
        arguments.extend(launch.watch.iter().map(|namespace| format!("--watch-namespaces={namespace}")));
        arguments.extend([
            format!("--lease-namespace={}", launch.home),
            "--lease-name=lethe".into(),
            format!("--identity={}", launch.identity),
            "--log-format=text".into(),
        ]);
        arguments.extend(launch.flags.iter().cloned());
        Self::start_with(launch, &arguments)
    }

    /// The same with these arguments, and of `launch` nothing but program, rights, environment and log.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start_with(launch: &Launch, arguments: &[String]) -> Result<Self> {
        let port = free_port()?;
        let log = File::options().create(true).append(true).open(&launch.log)?;
        let child = Command::new(&launch.binary)
            .env_clear()
            .env("KUBECONFIG", &launch.kubeconfig)
            .env("RUST_LOG", launch.verbosity)
            .envs(&launch.env)
            .args(arguments)
            .arg(format!("--metrics-bind=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", launch.binary.display()))?;
        Ok(Self { child, launch: launch.clone(), metrics: format!("http://127.0.0.1:{port}") })
    }

    /// Host and port of `/metrics`.
    pub fn address(&self) -> &str {
        self.metrics.trim_start_matches("http://")
    }

    pub fn identity(&self) -> &str {
        &self.launch.identity
    }

    /// `kill -9`, and the process is gone.
    ///
    /// # Errors
    /// If there is nothing to kill.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("cannot kill the operator")
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// How it ended.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        match tokio::time::timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("the operator still runs after {} s", STOP_WITHIN.as_secs()),
        }
    }

    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_process(self.id()?, signal)
    }

    /// # Errors
    /// If it has ended.
    pub fn id(&self) -> Result<u32> {
        self.child.id().context("the operator has ended")
    }

    /// What it answers at `path`: the status and the text.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let url = format!("{}{path}", self.metrics);
        let get = move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let mut answer = agent.get(&url).call()?;
            Ok::<_, anyhow::Error>((answer.status().as_u16(), answer.body_mut().read_to_string()?))
        };
        tokio::task::spawn_blocking(get).await?
    }

    /// The text of `/metrics` as soon as it `is` as described by `what`.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn metrics_until(&self, what: &str, is: impl Fn(&str) -> bool) -> Result<String> {
        let ask = async || Ok(self.get("/metrics").await?.1);
        wait::until_answer(what, ask, |text| is(text)).await
    }

    /// Returns once the operator says that it is ready.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn ready(&self) -> Result<()> {
        wait::until_answer("the operator is ready", || self.get("/readyz"), |(status, _)| *status == 200)
            .await?;
        Ok(())
    }
}

/// # Errors
/// If there is no such process.
pub fn signal_process(id: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, signal).context("cannot signal the operator")
}

/// A port that was free a moment ago.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on the loopback interface")?;
    Ok(listener.local_addr()?.port())
}
