//! The processes of a cluster, found in the process table itself: a file with process ids would be wrong after
//! a crash and could name somebody else's process after a while.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::layout::Layout;

/// How long the kernel may take to end everything in the namespaces. It takes a second; on a machine with more to
/// do than it can, and pods with much memory, it took more than twenty.
const ENDING: Duration = Duration::from_secs(90);

/// How long what started the first process may take to notice that it ended; also what a start that was killed
/// before its first process existed costs.
const GRACE: Duration = Duration::from_secs(1);

/// The first process inside the namespaces and whatever started it outside.
pub struct Processes {
    init: Option<Pid>,
    all: Vec<Pid>,
}

impl Processes {
    /// Finds the processes that were started for this cluster.
    pub fn find(layout: &Layout) -> Self {
        let init = layout.init().to_string_lossy().into_owned();
        let mut found = Self { init: None, all: Vec::new() };
        for pid in process_ids() {
            let words = command_line(pid);
            if words.contains(&init) {
                found.all.push(pid);
                if words.first() == Some(&init) && is_first_of_its_namespace(pid) {
                    found.init = Some(pid);
                }
            }
        }
        found
    }

    /// The first process inside, by its number outside.
    pub fn init(&self) -> Option<Pid> {
        self.init
    }

    /// Ends the cluster: with the first process the kernel ends everything in its namespace. Returns when all
    /// of it is gone, and with it the mounts and the network.
    ///
    /// # Errors
    /// If a process may not be killed or does not end.
    pub fn kill(layout: &Layout) -> Result<()> {
        let start = Instant::now();
        loop {
            let found = Self::find(layout);
            if found.all.is_empty() {
                return Ok(());
            }
            // The first process alone: what started it outside then reaps it and ends by itself. Killed
            // together, they would leave a zombie wherever the machine's own process 1 does not reap.
            if let Some(init) = found.init {
                kill(init, layout)?;
            } else if start.elapsed() > GRACE {
                found.all.iter().try_for_each(|pid| kill(*pid, layout))?;
            }
            if start.elapsed() > ENDING {
                bail!("processes {:?} of cluster {} do not end", found.all, layout.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn kill(pid: Pid, layout: &Layout) -> Result<()> {
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => {
            let pid = pid.as_raw_nonzero();
            Err(error).with_context(|| format!("cannot end process {pid} of cluster {}", layout.name))
        }
    }
}

/// Sends a signal to the processes of this name that share the process namespace of `init`: not to those in pods.
///
/// # Errors
/// If there is none, or it may not be signalled.
pub fn signal(init: Pid, name: &str, signal: Signal) -> Result<()> {
    let of = |pid: Pid, file: &str| Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join(file);
    let home = fs::read_link(of(init, "ns/pid")).context("the cluster has ended")?;
    let is_it = |&pid: &Pid| {
        fs::read_to_string(of(pid, "comm")).is_ok_and(|comm| comm.trim_end() == name)
            && fs::read_link(of(pid, "ns/pid")).is_ok_and(|namespace| namespace == home)
    };
    let found: Vec<Pid> = process_ids().filter(is_it).collect();
    ensure!(!found.is_empty(), "no process {name} runs in the cluster");
    found.into_iter().try_for_each(|pid| {
        kill_process(pid, signal).with_context(|| format!("cannot signal {name} in the cluster"))
    })
}

fn process_ids() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// Empty for a process that has ended but was not yet waited for: it holds nothing any more.
fn command_line(pid: Pid) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn is_first_of_its_namespace(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().next_back() == Some("1"))
}
