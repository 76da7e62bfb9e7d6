//! What a node would do for the pods of a page: the operator is its real program with the arguments and the rights that the
//! chart gives it; trainers end well, and leave bundles of a few bytes and records behind; the servers are those of [`Kubelet`].
//!
//! [`Kubelet`]: crate::kubelet::Kubelet

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{
    ResourceExt,
    runtime::watcher::{self, watcher},
};
use lethe_api::{
    Digest,
    contract::{BundleKind, RecordBody},
};
use lethe_store::{Folder, Store};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    Task, World,
    kubelet::patch,
    load::play::Player,
    operator::{Launch, Operator},
    rights, trainer,
};

/// Where the chart has the store mounted, and `examples/` the base.
const MOUNTED: &str = "/artifacts";

const READY_WITHIN: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// All of it. Ends when it is dropped.
pub struct StandIn {
    _trainers: Player,
    others: JoinHandle<()>,
}

impl StandIn {
    pub fn start(world: Arc<World>) -> Self {
        let trainers = Player::with(world.clone(), |world, task| Box::pin(work(world, task)));
        Self { _trainers: trainers, others: tokio::spawn(look_after(world)) }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.others.abort();
    }
}

/// The pods that are neither a trainer's nor a server's.
async fn look_after(world: Arc<World>) {
    let mut pods = watcher(world.api::<Pod>(), watcher::Config::default()).boxed();
    let mut operators: HashMap<String, Operator> = HashMap::new();
    while let Some(event) = pods.next().await {
        let result = match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                begun(&world, pod, &mut operators).await
            }
            Ok(watcher::Event::Delete(pod)) => match operators.remove(&pod.name_any()) {
                Some(operator) => operator.stop().await.map(|_| ()),
                None => Ok(()),
            },
            _ => Ok(()),
        };
        if let Err(error) = result {
            eprintln!("the stand-in of a node: {error:#}");
        }
    }
}

async fn begun(world: &World, pod: Pod, operators: &mut HashMap<String, Operator>) -> Result<()> {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).cloned();
    let container = container.context("a pod without a container")?;
    let name = pod.name_any();
    match container.name.as_str() {
        "operator" if !operators.contains_key(&name) => {
            operators.insert(name, operator(world, pod, container).await?);
        }
        "teach" if !trainer::has_ended(&pod) => taught(world, &name).await?,
        _ => {}
    }
    Ok(())
}

/// The operator, as the chart has it started, once it says that it is ready.
async fn operator(world: &World, pod: Pod, container: Container) -> Result<Operator> {
    let name = pod.name_any();
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    let account = account.context("the operator's pod has no account")?;
    let kubeconfig = rights::kubeconfig_of(&world.server, &world.namespace, &account).await?;
    let folder = world.store_folder();
    let launch = Launch {
        kubeconfig: rights::write(&kubeconfig, folder.parent().context("no folder")?, &name)?,
        identity: name.clone(),
        ..world.bare_launch().await
    };
    let folder = folder.display().to_string();
    let arguments = container.args.iter().flatten().filter(|one| !one.starts_with("--metrics-bind="));
    let arguments = arguments.map(|one| {
        let one = one.replace("$(POD_NAME)", &name).replace("$(POD_NAMESPACE)", &world.namespace);
        if one.starts_with("--store") { one.replace(MOUNTED, &folder) } else { one }
    });
    let operator = Operator::start_with(&launch, &arguments.collect::<Vec<_>>())?;
    tokio::time::timeout(READY_WITHIN, is_ready(&operator))
        .await
        .context("the operator does not get ready")?;
    let conditions = json!([
        {"type": "Ready", "status": "True"},
        {"type": "ContainersReady", "status": "True"},
    ]);
    let status = json!({"phase": "Running", "conditions": conditions});
    patch(&world.api(), &name, status).await?;
    Ok(operator)
}

/// Asked as the kubelet does, again and again.
async fn is_ready(operator: &Operator) {
    while !matches!(operator.get("/readyz").await, Ok((200, _))) {
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

/// The Job of `examples/` that teaches a base: it lies where the Job says, and the pod's last words name it.
async fn taught(world: &World, pod: &str) -> Result<()> {
    let base = trainer::bundle(BundleKind::Teacher, "a teacher")?;
    let folder = lethe_store::folder_uri(&world.store_folder().join("base/digits"))?;
    Folder::open(&folder)?.write(&base).await?;
    // What is prepared from a base imports it.
    world.store.put_bundle(&base).await?;
    let words = json!({
        "digest": base.digest(), "uri": "file:///artifacts/base/digits", "images": 5620, "steps": 6000,
        "teachSeconds": 61.2, "imagesPerSecond": 4100.5,
    });
    patch(&world.api(), pod, trainer::ended_as("teach", 0, "Completed", &words.to_string())).await
}

/// What a good trainer does, with bundles and pictures that are there.
async fn work(world: &World, task: &Task) -> Result<()> {
    let store = &world.store;
    let mut body = trainer::honest(&task.plan, &task.digest);
    match &mut body {
        RecordBody::Prepare(record) => {
            record.baseline = keep(store, BundleKind::Generator, "a baseline").await?;
            record.distillation = keep(store, BundleKind::Distillation, "a distillation").await?;
            record.judge = keep(store, BundleKind::Judge, "a judge").await?;
            record.reference = keep(store, BundleKind::Reference, "a reference").await?;
        }
        RecordBody::Forget(record) => {
            record.candidate = keep(store, BundleKind::Generator, task.digest.as_str()).await?;
        }
        RecordBody::Evaluate(record) => {
            record.before = store.put_blob(b"before".to_vec()).await?;
            record.after = store.put_blob(b"after".to_vec()).await?;
        }
        RecordBody::Audit(_) => {}
    }
    world.succeed_with(task, body).await
}

async fn keep(store: &Store, kind: BundleKind, what: &str) -> Result<Digest> {
    let bundle = trainer::bundle(kind, what)?;
    store.put_bundle(&bundle).await?;
    Ok(bundle.digest().clone())
}
