//! The folder and the shell of whoever reads a page.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::PathBuf, process::Stdio};

use anyhow::{Context, Result};
use kube::config::{Context as KubeContext, Kubeconfig, NamedAuthInfo, NamedContext};
use tempfile::TempDir;
use tokio::process::Command;
use xtask::setup;

use crate::{World, server::repository};

/// Whoever may do everything.
const ADMIN: &str = "admin";
/// Others who type commands, as contexts of one kubeconfig: a privacy engineer, somebody who approves, an auditor.
const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
/// Longer than any block needs, in seconds: what hangs is to be named by its line.
const PATIENCE: &str = "150";
/// What a checkout has, and pages use.
const CHECKOUT: [&str; 4] = ["charts", "docs", "crds", "trainer"];

/// What a block came to.
#[derive(Debug)]
pub struct Said {
    pub ended_well: bool,
    /// Both outputs, as one sees them.
    pub text: String,
    /// The line of the block, from 1, at which it failed.
    pub failed_at: Option<usize>,
}

/// A fresh folder with what a checkout of this repository has, and the programs that pages need.
pub struct Desk {
    files: TempDir,
}

impl Desk {
    /// # Errors
    /// If a program is missing and cannot be had, or the folder cannot be written.
    pub fn new(world: &World) -> Result<Self> {
        setup::page_packages()?;
        let desk = Self { files: tempfile::tempdir().context("cannot create a directory")? };
        for folder in [desk.bin(), desk.checkout(), desk.home()] {
            fs::create_dir(folder)?;
        }
        let server = &world.server;
        for (name, program) in [
            ("kubectl", setup::kubernetes::binaries()?.join("kubectl")),
            ("kubectl-lethe", server.cli()?),
            ("helm", server.helm.clone()),
            ("promtool", setup::prometheus::promtool()?),
        ] {
            symlink(program, desk.bin().join(name))?;
        }
        for folder in CHECKOUT {
            symlink(repository(folder), desk.checkout().join(folder))?;
        }
        desk.copy_examples(world.kubelet.port())?;
        symlink(world.store_folder(), desk.checkout().join("store"))?;
        fs::write(desk.kubeconfig(), serde_json::to_vec(&people(world)?)?)?;
        Ok(desk)
    }

    /// Runs one block.
    ///
    /// # Errors
    /// If no shell can be started.
    pub async fn run(&self, commands: &str) -> Result<Said> {
        let note = self.files.path().join("failed-at");
        let _ = fs::remove_file(&note);
        let script = format!("exec 2>&1; trap 'echo $LINENO > {}' ERR; {commands}", note.display());
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.bin().display());
        // Ends what the shell has started, too.
        let output = Command::new("timeout")
            .args(["--kill-after=5", PATIENCE, "bash", "-E", "-euo", "pipefail", "-c", &script])
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home())
            .env("KUBECONFIG", self.kubeconfig())
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.checkout())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot start bash")?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(124) {
            text += &format!("(ended after {PATIENCE} s)\n");
        }
        let failed_at = fs::read_to_string(note).ok().and_then(|line| line.trim().parse().ok());
        Ok(Said { ended_well: output.status.success(), text, failed_at })
    }

    /// As they stand, but for the port of servers: here each has an address of its own, and this port at all of them.
    fn copy_examples(&self, port: u16) -> Result<()> {
        let folder = self.checkout().join("examples");
        fs::create_dir(&folder)?;
        for entry in fs::read_dir(repository("examples")).context("cannot list examples/")? {
            let (from, to) = entry.map(|entry| (entry.path(), folder.join(entry.file_name())))?;
            if from.is_dir() {
                symlink(from, to)?;
                continue;
            }
            let text = fs::read_to_string(&from)?;
            let is_model = from.file_name().is_some_and(|name| name == "model.yaml");
            fs::write(
                to,
                if is_model { text.replace("port: 8080", &format!("port: {port}")) } else { text },
            )?;
        }
        Ok(())
    }

    fn bin(&self) -> PathBuf {
        self.files.path().join("bin")
    }

    fn home(&self) -> PathBuf {
        self.files.path().join("home")
    }

    fn checkout(&self) -> PathBuf {
        self.files.path().join("lethe")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.files.path().join("kubeconfig")
    }
}

/// One kubeconfig with a context for each person.
fn people(world: &World) -> Result<Kubeconfig> {
    let mut all = Kubeconfig::read_from(world.server.api.kubeconfig_path())?;
    let admin = all.auth_infos.first().and_then(|named| named.auth_info.clone());
    let admin = admin.context("the administrator's kubeconfig has no user")?;
    let cluster = all.clusters.first().context("the administrator's kubeconfig has no cluster")?.name.clone();
    let context = |name: &str| NamedContext {
        name: name.into(),
        other: BTreeMap::new(),
        context: Some(KubeContext {
            cluster: cluster.clone(),
            user: Some(name.into()),
            // A new cluster is looked at from here, and whoever comes later has been told where to look.
            namespace: (name != ADMIN).then(|| world.namespace.clone()),
            ..KubeContext::default()
        }),
    };
    let names = || [ADMIN].into_iter().chain(PEOPLE);
    all.contexts = names().map(context).collect();
    all.auth_infos = names()
        .map(|name| {
            let mut user = admin.clone();
            user.impersonate = (name != ADMIN).then(|| name.into());
            NamedAuthInfo { name: name.into(), auth_info: Some(user), ..NamedAuthInfo::default() }
        })
        .collect();
    all.current_context = Some(ADMIN.into());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A desk without a cluster.
    fn desk() -> Desk {
        let desk = Desk { files: tempfile::tempdir().unwrap() };
        for folder in [desk.bin(), desk.checkout(), desk.home()] {
            fs::create_dir(folder).unwrap();
        }
        desk
    }

    #[tokio::test]
    async fn a_block_that_fails_says_at_which_line() {
        let said = desk().run("echo one\necho two >&2\n\nls /nowhere | cat\necho three\n").await.unwrap();
        assert!(!said.ended_well && said.failed_at == Some(4), "{said:?}");
        assert!(said.text.starts_with("one\ntwo\n") && !said.text.contains("three"), "{said:?}");
    }

    #[tokio::test]
    async fn what_a_block_leaves_is_there_for_the_next() {
        let desk = desk();
        assert!(desk.run("echo one > file\n").await.unwrap().ended_well);
        let said = desk.run("cat file\n").await.unwrap();
        assert!(said.ended_well && said.failed_at.is_none() && said.text == "one\n", "{said:?}");
        assert!(!desk.run("echo \"$unset\"\n").await.unwrap().ended_well);
    }
}
