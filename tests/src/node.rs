//! The node that all scenarios of the node tier share: real images, the real charts, and a base model that was
//! taught once.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kube::{Client, config::Kubeconfig};
use lethe_api::Digest;
use tempfile::TempDir;
use tokio::{runtime::Handle, sync::OnceCell};
use xtask::{
    cache::{self, Lock},
    cluster::{self, Cluster, Options},
    cmd, host, image, setup,
};

use crate::{
    Tier,
    keys::Key,
    server::{client, repository},
    studio::Studio,
};

/// The cluster of this tier. What a killed run left of it is removed by the next one.
const CLUSTER: &str = "lethe-tests";
/// The namespace with the operator, and with the model that most scenarios share.
pub const STUDIO: &str = "studio";
/// Where the base lies in the store.
pub const BASE: &str = "base/digits";

/// A running cluster with Lethe in it.
pub struct Node {
    pub client: Client,
    pub cluster: Cluster,
    pub base: Digest,
    /// With which the operator signs.
    pub key: Key,
    /// The shared model is prepared once.
    pub(crate) prepared: OnceCell<()>,
    _keys: TempDir,
    _lock: Lock,
}

impl Tier for Node {
    type World = Studio;

    /// They share a model, and one trainer keeps this machine busy.
    const PARALLEL: usize = 1;
    const PATIENCE: Duration = Duration::from_secs(900);

    fn start() -> Result<Self> {
        host::can_run_nodes().map_err(anyhow::Error::msg)?;
        let helm = setup::helm::binary()?;
        let images = [image::operator()?, image::trainer()?];
        let lock = Lock::acquire(&cache::root()?.join(CLUSTER))?;
        cluster::down(CLUSTER)?;
        let cluster = Cluster::up(&Options { name: CLUSTER.into(), ..Options::default() })?;
        // From here on, dropping this ends the cluster.
        let cluster = Ended(Some(cluster));
        let running = cluster.running()?;
        for image in &images {
            running.load(&image.file)?;
        }
        let kubeconfig = Kubeconfig::from_yaml(&running.kubeconfig_outside()?)?;
        let client = Handle::current().block_on(client(kubeconfig))?;
        let keys = tempfile::tempdir()?;
        let key = Key::make(keys.path(), "signing-key")?;
        install(running, &helm, &key)?;
        let base = base(running, &images[1].identity.digest)?;
        let prepared = OnceCell::new();
        Ok(Self { client, cluster: cluster.keep()?, base, key, prepared, _keys: keys, _lock: lock })
    }

    async fn world(self: &Arc<Self>, _name: &str) -> Result<Studio> {
        Ok(Studio::new(self.clone()))
    }

    async fn diagnose(world: &Studio) -> String {
        world.diagnose_all().await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        end();
    }
}

fn end() {
    if let Err(error) = cluster::down(CLUSTER) {
        eprintln!("cannot remove the cluster {CLUSTER}: {error:#}");
    }
}

/// A cluster that ends with this, unless it is kept.
struct Ended(Option<Cluster>);

impl Ended {
    fn running(&self) -> Result<&Cluster> {
        self.0.as_ref().context("the cluster was given away")
    }

    fn keep(mut self) -> Result<Cluster> {
        self.0.take().context("the cluster was given away")
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if self.0.is_some() {
            end();
        }
    }
}

/// Both charts, with the store of the node. What is measured is signed, and what is done is in an audit log.
fn install(cluster: &Cluster, helm: &Path, key: &Key) -> Result<()> {
    cluster.kubectl(&["create", "namespace", STUDIO])?;
    add_volume(cluster, STUDIO, "")?;
    let file = |name: &str, path: &Path| format!("--from-file={name}={}", path.display());
    let private = file("signing-key.pem", &key.private);
    cluster.kubectl(&["create", "secret", "generic", "lethe-signing-key", "-n", STUDIO, &private])?;
    let public = file("trusted-keys.pem", &key.public);
    cluster.kubectl(&["create", "configmap", "lethe-trusted-keys", "-n", STUDIO, &public])?;
    let values = [
        "--set=image.tag=dev",
        "--set=log.level=info\\,lethe_operator=debug",
        "--set=evidence.signingKeySecret=lethe-signing-key",
        "--set=evidence.trustedKeysConfigMap=lethe-trusted-keys",
        "--set=auditLog.enabled=true",
    ];
    let chart = |name: &str| repository("charts").join(name).display().to_string();
    run_helm(cluster, helm, &["install", "lethe-crds", &chart("lethe-crds")])?;
    let chart = chart("lethe");
    let install = ["install", "lethe", &chart, "--wait", "--timeout=3m"];
    run_helm(cluster, helm, &[&install[..], &values].concat())
}

fn run_helm(cluster: &Cluster, helm: &Path, words: &[&str]) -> Result<()> {
    let mut command = cluster.exec_command(&[helm]);
    command.args(["--namespace", STUDIO]).args(words);
    cmd::output(&mut command).map(|_| ())
}

/// The claim `lethe-store` in a namespace, on the folder `sub` of the node's store.
///
/// # Errors
/// If the API server refuses.
pub fn add_volume(cluster: &Cluster, namespace: &str, sub: &str) -> Result<()> {
    let path = Path::new(cluster::layout::STORE).join(sub);
    let path = path.display();
    let manifest = format!(
        r#"
{{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {{"name": "{namespace}"}}, "spec": {{
  "capacity": {{"storage": "2Gi"}}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
  "persistentVolumeReclaimPolicy": "Retain", "hostPath": {{"path": "{path}", "type": "Directory"}}}}}}
---
{{"apiVersion": "v1", "kind": "PersistentVolumeClaim",
  "metadata": {{"name": "lethe-store", "namespace": "{namespace}"}}, "spec": {{
  "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": "{namespace}",
  "resources": {{"requests": {{"storage": "2Gi"}}}}}}}}
"#
    );
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), manifest)?;
    let file = file.path().to_string_lossy();
    cluster.kubectl(&["apply", "-f", &file]).map(|_| ())
}

/// The base model: taught on the node as in `examples/`, or by an earlier run with the same trainer.
fn base(cluster: &Cluster, trainer: &str) -> Result<Digest> {
    let key = cache::Key::new("taught base 1").text("trainer", trainer).finish();
    let entry = cache::root()?.join("bases").join(key);
    if !entry.is_dir() {
        teach(cluster)?;
        cache::publish(&entry, |folder| copy(&cluster.store().join(BASE), folder))?;
    }
    let folder = cluster.store().join(BASE);
    if !folder.is_dir() {
        fs::create_dir_all(&folder)?;
        copy(&entry, &folder)?;
    }
    Ok(Digest::of(fs::read(folder.join("manifest.json")).context("the base has no manifest")?))
}

fn teach(cluster: &Cluster) -> Result<()> {
    let images = repository("trainer/data/optical-digits.csv.gz");
    let images = format!("--from-file={}", images.display());
    let job = repository("examples/teach-job.yaml").display().to_string();
    cluster.kubectl(&["create", "configmap", "digits-images", "-n", STUDIO, &images])?;
    cluster.kubectl(&["apply", "-n", STUDIO, "-f", &job])?;
    let wait = ["wait", "-n", STUDIO, "--for=condition=Complete", "job/teach-digits", "--timeout=15m"];
    if let Err(error) = cluster.kubectl(&wait) {
        let log = cluster.kubectl(&["logs", "-n", STUDIO, "job/teach-digits", "--tail=20"]);
        bail!("the base model was not taught: {error:#}\n{}", log.unwrap_or_default());
    }
    Ok(())
}

/// Copies the files of a folder, readable for everybody.
///
/// # Errors
/// Of the file system.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut files = 0;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644))?;
        files += 1;
    }
    ensure!(files > 0, "{} is empty", from.display());
    Ok(())
}

impl Node {
    /// A folder of the store, as this machine sees it.
    pub fn store(&self, sub: &str) -> PathBuf {
        self.cluster.store().join(sub)
    }

    /// The folder of the base, as this machine sees it.
    pub fn base_folder(&self) -> PathBuf {
        self.store(BASE)
    }

    /// A command that shows why, if it fails.
    ///
    /// # Errors
    /// If it fails.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.cluster.kubectl(words)
    }
}
