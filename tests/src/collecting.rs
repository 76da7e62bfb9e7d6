//! The collector of what nothing refers to, run as the chart's CronJob runs it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use tokio::process::Command;

use crate::{
    operator::said_by,
    rights::{self, Reach},
    world::World,
};

/// The account of the chart's CronJob.
pub const ACCOUNT: &str = "lethe-collect";

impl World {
    /// Runs the collector with the rights that the chart gives it and these variables, for what is older than an hour.
    /// Returns what it says.
    ///
    /// # Errors
    /// If it fails; the message has what it said.
    pub async fn collect(&self, variables: BTreeMap<String, String>, flags: &[&str]) -> Result<String> {
        let values = ["store.collect.schedule=@weekly"];
        rights::grant_with(&self.server, &self.home, self.reach, &values).await?;
        let kubeconfig = rights::kubeconfig_of(&self.server, &self.home, ACCOUNT).await?;
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(&self.server.operator);
        command
            .env_clear()
            .envs(variables)
            .env("KUBECONFIG", rights::write(&kubeconfig, folder.path(), "kubeconfig")?)
            .args(["collect", "--log-format=text", "--older-than-hours=1"])
            .arg(format!("--store={}", self.store.uri()))
            .args(flags);
        if self.reach == Reach::Namespace {
            command.arg(format!("--watch-namespaces={}", self.namespace));
        }
        said_by(&mut command).await
    }
}

/// Everything in a folder but one file was written two hours ago.
///
/// # Errors
/// If it cannot be said so.
pub fn make_old(folder: &Path, but: &Path) -> Result<()> {
    let then = SystemTime::now() - Duration::from_secs(7200);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            make_old(&path, but)?;
        } else if path != but {
            File::options().write(true).open(&path)?.set_modified(then)?;
        }
    }
    Ok(())
}
