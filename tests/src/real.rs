//! The real trainer in the place of a pod's container: there is no node, but the program is the one that pods run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use lethe_api::{Digest, contract::TaskKind};
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    task::block_in_place,
};
use xtask::image;

use crate::{Task, World, operator::signal_process, server::repository};

/// `lethe-trainer`, and the environment that its pods would have.
pub struct Trainer {
    program: PathBuf,
    pub env: BTreeMap<String, String>,
    files: TempDir,
}

impl Trainer {
    /// # Errors
    /// If it cannot be built.
    pub fn new(env: BTreeMap<String, String>) -> Result<Self> {
        let program = block_in_place(image::trainer_program)?;
        Ok(Self { program, env, files: tempfile::tempdir().context("cannot create a directory")? })
    }

    /// Teaches a model of digits, into a folder of any store, and says its digest.
    ///
    /// # Errors
    /// If that fails.
    pub async fn teach(&self, out: &str) -> Result<Digest> {
        self.teach_of(&repository("trainer/data/optical-digits.csv.gz"), out, &[]).await
    }

    /// The same of these images, with further flags.
    ///
    /// # Errors
    /// If that fails.
    pub async fn teach_of(&self, images: &Path, out: &str, flags: &[&str]) -> Result<Digest> {
        #[derive(Deserialize)]
        struct Taught {
            digest: Digest,
        }
        let report = self.files.path().join("taught.json");
        let mut command = self.command();
        command.args(["teach", "--seed=0", "--threads=2", "--out", out, "--images"]).arg(images).args(flags);
        let code = self.run(command.arg("--report").arg(&report)).await?;
        ensure!(code == 0, "teach ended with {code}: {}", self.log());
        Ok(serde_json::from_slice::<Taught>(&fs::read(report)?)?.digest)
    }

    /// Does what a pod is told, and ends the pod as it ended.
    ///
    /// # Errors
    /// If it cannot be started, or the pod's status cannot be written.
    pub async fn carry_out(&self, world: &World, task: &Task) -> Result<i32> {
        let (code, _) = self.begin(task)?.end(world, task).await?;
        Ok(code)
    }

    /// Begins to do what a pod is told.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn begin(&self, task: &Task) -> Result<Working> {
        let plan = self.files.path().join("plan.json");
        let words = self.files.path().join("words.json");
        fs::write(&plan, &task.text)?;
        fs::write(&words, "")?;
        let verb = match task.plan.task.kind() {
            TaskKind::Prepare => "prepare",
            TaskKind::Forget => "forget",
            TaskKind::Evaluate => "evaluate",
            TaskKind::Audit => "audit",
        };
        let mut command = self.command();
        command.args([verb, "--no-port", "--plan"]).arg(&plan).arg("--termination-log").arg(&words);
        Ok(Working { process: self.start(&mut command)?, words })
    }

    /// A server of this bundle. It ends when what this returns is dropped.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn serve(&self, store: &str, bundle: &Digest, port: u16) -> Result<Child> {
        let log = self.open_log()?;
        let mut command = self.command();
        command.args(["serve", "--name=digits", "--store", store, "--bundle", bundle.as_str()]);
        command.arg(format!("--port={port}")).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.kill_on_drop(true).spawn().with_context(|| format!("cannot start {}", show(&self.program)))
    }

    /// All that it said.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn whole_log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.log_file())?)
    }

    /// What it said last.
    pub fn log(&self) -> String {
        xtask::cmd::tail(&self.log_file())
    }

    fn log_file(&self) -> PathBuf {
        self.files.path().join("log")
    }

    fn open_log(&self) -> Result<fs::File> {
        Ok(fs::File::options().create(true).append(true).open(self.log_file())?)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(&self.env).current_dir(self.files.path());
        command
    }

    async fn run(&self, command: &mut Command) -> Result<i32> {
        self.start(command)?.wait().await?.code().context("the trainer was killed by a signal")
    }

    fn start(&self, command: &mut Command) -> Result<Child> {
        let log = self.open_log()?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        command.spawn().with_context(|| format!("cannot start {}", show(&self.program)))
    }
}

/// A trainer at work. Killed when this is dropped.
pub struct Working {
    process: Child,
    /// Where its last words will be.
    words: PathBuf,
}

impl Working {
    /// Tells it to stop, as a kubelet does.
    ///
    /// # Errors
    /// If it is over.
    pub fn stop(&self) -> Result<()> {
        signal_process(self.process.id().context("it has ended")?, Signal::TERM)
    }

    /// Waits for its end, and ends the pod as it ended. Returns its exit code and its last words.
    ///
    /// # Errors
    /// If it was killed, or the pod's status cannot be written.
    pub async fn end(mut self, world: &World, task: &Task) -> Result<(i32, String)> {
        let code = self.process.wait().await?.code().context("the trainer was killed by a signal")?;
        let words = fs::read_to_string(self.words)?;
        world.exit(task, code, &words).await?;
        Ok((code, words))
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
