//! A real Kueue beside the API server, which reaches its webhooks on the loopback interface.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{batch::v1::Job, core::v1::Namespace};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    task::{block_in_place, spawn_blocking},
};
use xtask::{cmd, host, setup::kueue};

use crate::{
    Server, World, examples,
    operator::{Operator, free_port},
    place::{Place, apply},
    rights, wait,
};

/// Where Kueue lives.
const NAMESPACE: &str = "kueue-system";
/// The folder of the examples.
const EXAMPLES: &str = "queues";
/// The policy in it.
pub const POLICY: &str = "queued";
/// Whose webhooks are applied: those of the frameworks that are not there would be asked about every pod.
const GROUPS: [&str; 2] = ["kueue.x-k8s.io", "batch"];

/// All of it. Ends when it is dropped.
pub struct Kueue {
    process: Option<Child>,
    program: PathBuf,
    kubeconfig: PathBuf,
    webhooks: u16,
    health: u16,
    files: TempDir,
}

impl Kueue {
    /// With what its installation brings. Returns once its webhooks answer.
    ///
    /// # Errors
    /// If it cannot be had, or the API server refuses what it needs.
    pub async fn install(server: &Server) -> Result<Self> {
        let (program, manifests) =
            spawn_blocking(|| Ok::<_, anyhow::Error>((kueue::binary()?, kueue::manifests()?))).await??;
        server.define(&[manifests.custom_resources])?;
        let namespaces: Api<Namespace> = Api::all(server.client.clone());
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
        let files = tempfile::tempdir().context("cannot create a directory")?;
        let kubeconfig = server.api.kubeconfig_path();
        let (webhooks, health) = (free_port()?, free_port()?);
        let mut kueue = Self { process: None, program, kubeconfig, webhooks, health, files };
        let authority = kueue.write_files(server)?;
        kueue.start().await?;
        for manifest in examples::documents(&fs::read_to_string(manifests.webhooks)?)? {
            apply(&server.client, None, &at_port(manifest, webhooks, &authority)?).await?;
        }
        Ok(kueue)
    }

    /// Starts it, after [`Kueue::stop`].
    ///
    /// # Errors
    /// If it does not come to answer.
    pub async fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        // Without a certificate for its metrics it does not start, and where that lies is written into it: it gets an /etc of its
        // own, with nothing else in it.
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if !host::is_root() {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", r#"mount --bind "$0" /etc && exec "$@""#]);
        command.arg(self.files.path().join("etc")).arg(&self.program);
        command.arg(format!("--config={}", self.files.path().join("config.yaml").display()));
        command.arg("--feature-gates=VisibilityOnDemand=false");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.files.path());
        command.env("USER", "kueue").env("KUBECONFIG", &self.kubeconfig);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.kill_on_drop(true).spawn().context("cannot start Kueue")?);
        let url = format!("http://127.0.0.1:{}/readyz", self.health);
        let ask = async || {
            let url = url.clone();
            let answer =
                spawn_blocking(move || ureq::get(&url).call().map(|answer| answer.status().as_u16()));
            Ok(answer.await??)
        };
        let ready = wait::until_answer("Kueue is ready", ask, |status| *status == 200).await;
        ready.with_context(|| self.log_tail()).map(|_| ())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.take().context("Kueue does not run")?.kill().await.context("cannot kill Kueue")
    }

    pub fn log_tail(&self) -> String {
        format!("--- Kueue's log\n{}", cmd::tail(&self.log()))
    }

    fn log(&self) -> PathBuf {
        self.files.path().join("kueue.log")
    }

    /// Its configuration and certificates. Returns the authority that vouches for it.
    fn write_files(&self, server: &Server) -> Result<Vec<u8>> {
        let [certificate, key, authority] = server.api.certificate_for("kueue")?;
        let folder = self.files.path();
        for place in ["certs", "etc/kueue/metrics/certs"] {
            let place = folder.join(place);
            fs::create_dir_all(&place)?;
            fs::copy(&certificate, place.join("tls.crt"))?;
            fs::copy(&key, place.join("tls.key"))?;
        }
        let config = json!({
            "apiVersion": "config.kueue.x-k8s.io/v1beta2", "kind": "Configuration", "namespace": NAMESPACE,
            "health": {"healthProbeBindAddress": format!("127.0.0.1:{}", self.health)},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": "127.0.0.1", "port": self.webhooks, "certDir": folder.join("certs")},
            "leaderElection": {"leaderElect": false},
            "internalCertManagement": {"enable": false},
            "integrations": {"frameworks": ["batch/job"]},
        });
        fs::write(folder.join("config.yaml"), config.to_string())?;
        Ok(fs::read(authority)?)
    }
}

/// Webhooks as they are installed, but at a port of this machine instead of a Service.
fn at_port(mut manifest: Value, port: u16, authority: &[u8]) -> Result<Value> {
    let webhooks = manifest["webhooks"].as_array_mut().context("the manifest has no webhooks")?;
    webhooks.retain(|webhook| GROUPS.iter().any(|group| webhook["rules"][0]["apiGroups"][0] == *group));
    ensure!(!webhooks.is_empty(), "no webhook is about Jobs or queues");
    for webhook in webhooks {
        let path = webhook["clientConfig"]["service"]["path"].as_str().context("a webhook without a path")?;
        let url = format!("https://127.0.0.1:{port}{path}");
        let authority = k8s_openapi::ByteString(authority.to_vec());
        webhook["clientConfig"] = json!({"url": url, "caBundle": authority});
    }
    Ok(manifest)
}

/// A server of its own with an operator that reads Workloads: Kueue is the whole cluster's, and is stopped here.
///
/// # Errors
/// If something does not start.
pub async fn alone() -> Result<World> {
    let world =
        World::of_all_namespaces(Arc::new(block_in_place(|| Server::start_with(Vec::new()))?)).await?;
    start_operator(&world).await?;
    world.await_service_account().await?;
    Ok(world)
}

/// Starts the operator as the chart does with `kueue.enabled`.
///
/// # Errors
/// If it cannot be started.
pub async fn start_operator(world: &World) -> Result<()> {
    let mut launch = world.launch().await?;
    rights::grant_with(&world.server, &world.home, world.reach, &["kueue.enabled=true"]).await?;
    launch.flags.push("--kueue".into());
    world.keep_operator(Operator::start(&launch)?).await;
    Ok(())
}

/// Makes the API server know Workloads, as Kueue does; nobody writes any.
///
/// # Errors
/// If it refuses.
pub async fn define_workloads(world: &World) -> Result<()> {
    let anything =
        json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = json!({"name": "v1beta2", "served": true, "storage": true, "schema": anything});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "workloads.kueue.x-k8s.io"},
        "spec": {
            "group": "kueue.x-k8s.io", "scope": "Namespaced", "versions": [version],
            "names": {"kind": "Workload", "plural": "workloads", "singular": "workload"},
        },
    });
    apply(&world.client, None, &definition).await?;
    Ok(())
}

/// Applies `examples/queues/FILE`, as it stands.
///
/// # Errors
/// If the API server refuses something.
pub async fn apply_examples(place: &Place, file: &str, is_wanted: impl Fn(&Value) -> bool) -> Result<()> {
    for manifest in examples::read(&Path::new(EXAMPLES).join(file).to_string_lossy())? {
        if is_wanted(&manifest) {
            let is_local =
                ["LocalQueue", "UnlearnPolicy"].contains(&manifest["kind"].as_str().unwrap_or_default());
            apply(&place.client, is_local.then_some(&*place.namespace), &manifest).await?;
        }
    }
    Ok(())
}

/// Somebody else's Job in the queue of the examples, with so many GPUs.
///
/// # Errors
/// If the API server refuses it.
pub async fn another_job(place: &Place, name: &str, class: &str, gpus: u32) -> Result<()> {
    let limits = json!({"nvidia.com/gpu": gpus.to_string()});
    let container = json!({"name": "main", "image": "other", "resources": {"limits": limits}});
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name,
            "labels": {"kueue.x-k8s.io/queue-name": "training", "kueue.x-k8s.io/priority-class": class},
        },
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    });
    place.create(&job).await?;
    Ok(())
}

/// Whether Kueue has let the Job begin.
pub fn is_admitted(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(false))
}

/// What Kueue says of the quota of a Job: a condition, once it has one.
///
/// # Errors
/// If Workloads cannot be listed.
pub async fn quota(place: &Place, job: &str) -> Result<Option<Value>> {
    let kind = GroupVersionKind::gvk("kueue.x-k8s.io", "v1beta2", "Workload");
    let api: Api<DynamicObject> =
        Api::namespaced_with(place.client.clone(), &place.namespace, &ApiResource::from_gvk(&kind));
    let all = api.list(&ListParams::default()).await?;
    let about = all
        .items
        .into_iter()
        .find(|workload| workload.owner_references().iter().any(|owner| owner.name == job));
    let conditions = about.and_then(|workload| workload.data["status"]["conditions"].as_array().cloned());
    Ok(conditions.into_iter().flatten().find(|condition| condition["type"] == "QuotaReserved"))
}
