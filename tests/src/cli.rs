//! `kubectl lethe` as a process, in the hands of a person.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use crate::{World, rights};

/// Somebody with a kubeconfig and some rights in a world's namespace.
pub struct Person {
    binary: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

/// A command that has not ended yet.
pub struct Running {
    child: Child,
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl World {
    /// A person who has the chart's roles that are named, and no other right.
    ///
    /// # Errors
    /// If the API server refuses, or the program cannot be built.
    pub async fn person(&self, name: &str, roles: &[&str]) -> Result<Person> {
        let kubeconfig = rights::person_kubeconfig(&self.server, &self.namespace, name, roles).await?;
        let folder = self.store_folder();
        let folder = folder.parent().context("the store has no parent")?;
        let server = self.server.clone();
        Ok(Person {
            binary: tokio::task::spawn_blocking(move || server.cli()).await??,
            kubeconfig: rights::write(&kubeconfig, folder, &format!("{name}.person"))?,
            namespace: self.namespace.clone(),
        })
    }
}

impl Person {
    /// Starts `kubectl lethe` with these arguments.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Running> {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;
        Ok(Running { child })
    }

    /// The same on a terminal of 100 columns, which `script` makes.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_on_a_terminal(&self, arguments: &str) -> Result<Running> {
        let line = format!(
            "stty cols 100 rows 40; exec {} --kubeconfig {} --namespace {} {arguments}",
            self.binary.display(),
            self.kubeconfig.display(),
            self.namespace
        );
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(Running { child: command.spawn().context("cannot start script")? })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// If it cannot be started, or was killed.
    pub async fn says(&self, arguments: &[&str]) -> Result<Said> {
        self.says_to(arguments, "").await
    }

    /// The same with something on its standard input.
    ///
    /// # Errors
    /// As [`Person::says`].
    pub async fn says_to(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut running = self.start(arguments)?;
        let mut stdin = running.child.stdin.take().context("no standard input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        running.ended().await
    }

    /// Runs it, and it ends with this code and these words, on either output.
    ///
    /// # Errors
    /// If it does not.
    pub async fn says_that(&self, arguments: &[&str], code: i32, words: &str) -> Result<Said> {
        let said = self.says(arguments).await?;
        let whole = format!("{}{}", said.out, said.err);
        ensure!(
            said.code == code && whole.contains(words),
            "expected {code} and {words:?} of {arguments:?}: {said:#?}"
        );
        Ok(said)
    }
}

impl Running {
    /// The first line that it writes.
    ///
    /// # Errors
    /// If it ends without one.
    pub async fn first_line(&mut self) -> Result<String> {
        let out = self.child.stdout.as_mut().context("no standard output")?;
        let mut line = Vec::new();
        // Byte by byte: what follows is read by whoever waits for the end.
        while line.last() != Some(&b'\n') {
            line.push(out.read_u8().await.context("it ended without a line")?);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it was killed.
    pub async fn ended(self) -> Result<Said> {
        let output = self.child.wait_with_output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().context("the command was killed")?;
        Ok(Said { code, out: text(&output.stdout), err: text(&output.stderr) })
    }
}

impl Said {
    /// What was written for programs.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {self:#?}"))
    }
}
