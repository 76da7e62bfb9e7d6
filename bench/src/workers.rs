//! Work that is split between processes: each has one thread and is told what to do in JSON; what it finds is JSON too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a process that works for a bench is given.
#[derive(Debug, clap::Args)]
pub struct Task {
    json: String,
    #[arg(long)]
    kept: PathBuf,
}

impl Task {
    /// The task, and the directory of what is kept.
    ///
    /// # Errors
    /// If it is none of this bench.
    pub fn read<T: DeserializeOwned>(&self) -> Result<(T, PathBuf)> {
        Ok((serde_json::from_str(&self.json).context("no task of this bench")?, self.kept.clone()))
    }
}

/// How work is split, and where results are kept.
#[derive(Debug, Clone, clap::Args)]
pub struct Workers {
    /// Processes at a time, each with one thread [default: one for every core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Keep models and results in this directory, and do not make again what is there: a bench that was ended goes on
    /// where it was. Remove it when the trainer has changed
    #[arg(long)]
    kept: Option<PathBuf>,
}

/// The directory in which a bench keeps what it has made: removed at the end unless somebody asked for it.
#[derive(Debug)]
pub enum Kept {
    For(PathBuf),
    Until(tempfile::TempDir),
}

impl Kept {
    pub fn path(&self) -> &Path {
        match self {
            Self::For(dir) => dir,
            Self::Until(dir) => dir.path(),
        }
    }
}

impl Workers {
    /// # Errors
    /// If there is no place for a temporary directory.
    pub fn keep(&self) -> Result<Kept> {
        Ok(match &self.kept {
            Some(dir) => Kept::For(dir.clone()),
            None => Kept::Until(tempfile::tempdir().context("cannot make a temporary directory")?),
        })
    }

    /// Has every task done by `lethe-bench COMMAND TASK`, and calls `found` with what each has found, in the order in
    /// which they end.
    ///
    /// # Errors
    /// Of the first task that fails, or of `found`; the others that run are waited for.
    pub fn run<T: Serialize + Sync, R: DeserializeOwned + Send>(
        &self,
        command: &str,
        kept: &Path,
        tasks: &[T],
        found: impl FnMut(usize, R) -> Result<()> + Send,
    ) -> Result<()> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.unwrap_or(cores).clamp(1, tasks.len().max(1));
        let (next, found) = (AtomicUsize::new(0), Mutex::new(found));
        let work = || -> Result<()> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(task) = tasks.get(index) else { return Ok(()) };
                let result = one(command, kept, task).inspect_err(|_| {
                    next.store(tasks.len(), Ordering::Relaxed);
                })?;
                found.lock().expect("no worker panics")(index, serde_json::from_str(&result)?)?;
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
        })
    }
}

/// What a process of its own makes of a task, or what one made of it before.
fn one(command: &str, kept: &Path, task: &impl Serialize) -> Result<String> {
    let task = serde_json::to_string(task)?;
    let file = kept.join(format!("{command}-{:016x}.json", name(&task)));
    if let Ok(text) = fs::read_to_string(&file)
        && let Some((of, result)) = text.split_once('\n')
        && of == task
    {
        return Ok(result.to_owned());
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new(program)
        .args(["--out", ".", command, &task, "--kept"])
        .arg(kept)
        .env("OMP_NUM_THREADS", "1")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start a worker")?;
    if !output.status.success() {
        bail!("{command} {task} failed: {}", output.status);
    }
    let result = String::from_utf8(output.stdout).context("a worker printed what is no text")?;
    fs::create_dir_all(kept).with_context(|| format!("cannot create {}", kept.display()))?;
    fs::write(&file, format!("{task}\n{result}"))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(result)
}

/// FNV-1a: only keeps file names apart; the file says which task it is of.
fn name(task: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    task.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}
