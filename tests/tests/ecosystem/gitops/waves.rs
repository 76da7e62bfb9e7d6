//! One Application holds the others, and creates them in waves.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::ResourceExt;
use lethe_api::v1alpha1::Stage;
use lethe_tests::{
    World,
    gitops::{ArgoCd, NAMESPACE, Repository, applications},
    kubelet,
    operator::Operator,
    place::apply,
    rights, wait,
};
use serde_json::{Value, json};

use super::{CRDS, MODELS, OPERATOR, REQUESTS, STUDIO, of_gitops};

/// Writes the Applications into the folder that the one above them reads, as they stand but for the address of the repository.
pub fn lay_out(git: &Repository) -> Result<()> {
    for application in of_gitops("applications.yaml")? {
        write(git, application)?;
    }
    Ok(())
}

/// The same for one of them.
pub fn write(git: &Repository, mut application: Value) -> Result<()> {
    application["spec"]["source"]["repoURL"] = json!(git.url());
    let name = application["metadata"]["name"].as_str().context("an Application has a name")?;
    git.write(&format!("applications/{name}.yaml"), &application)
}

/// From nothing at all to a model that is served and a request that waits for people: nothing is there before what it needs.
pub async fn each_wave_waits_for_the_one_before(
    world: &World,
    git: &Repository,
    argo: &ArgoCd,
) -> Result<()> {
    let mut all = of_gitops("all.yaml")?.remove(0);
    all["spec"]["source"]["repoURL"] = json!(git.url());
    apply(&world.client, NAMESPACE, &all).await?;
    apply(&world.client, None, &volume()).await?;
    argo.is(CRDS, "Healthy").await?;
    argo.is(OPERATOR, "Progressing").await?;
    ensure!(!argo.has(MODELS).await?, "there is a model before an operator");
    the_operator_runs(world).await?;
    argo.is(OPERATOR, "Healthy").await?;
    argo.is(MODELS, "Progressing").await?;
    let task = world.task(Stage::Prepare).await?;
    ensure!(!argo.has(REQUESTS).await?, "there is a request before its model is served");
    world.succeed(&task).await?;
    argo.is(MODELS, "Healthy").await?;
    argo.is(REQUESTS, "Suspended").await?;
    in_order(world).await
}

/// For the claim of the chart, as an administrator without a provisioner would have one. No pod here mounts it.
fn volume() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "lethe-store"},
        "spec": {
            "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/srv/lethe"},
        },
    })
}

/// By the clock of the API server as well: each was created after the one before had been synced.
async fn in_order(world: &World) -> Result<()> {
    let mut before: Option<String> = None;
    for name in [CRDS, OPERATOR, MODELS, REQUESTS] {
        let application = applications(&world.client).get(name).await?;
        let created = application.creation_timestamp().context("when was it created?")?.0.to_string();
        let history = application.data["status"]["history"][0]["deployedAt"].as_str();
        let synced = history.context("when was it synced?")?.to_owned();
        ensure!(before.as_ref().is_none_or(|before| *before <= created), "{name}: {created}, {before:?}");
        before = Some(synced);
    }
    Ok(())
}

/// There is no node here for the pod that the chart starts. The operator runs beside the cluster, with the rights that the chart
/// gave it when it was synced, and once that is ready, its pod says so.
async fn the_operator_runs(world: &World) -> Result<()> {
    wait::until(&world.api::<ServiceAccount>(), rights::ACCOUNT, "it exists", |_| true).await?;
    let folder = world.store_folder();
    let folder = folder.parent().context("the store has no parent")?;
    let kubeconfig = rights::kubeconfig(&world.server, STUDIO).await?;
    let mut launch = world.bare_launch().await;
    launch.kubeconfig = rights::write(&kubeconfig, folder, "kubeconfig")?;
    let operator = Operator::start(&launch)?;
    operator.ready().await?;
    world.keep_operator(operator).await;
    let pods = world.api::<Pod>();
    let pod = wait::until_any(&pods, "app.kubernetes.io/name=lethe", "is there", |_| true).await?;
    let status = kubelet::running("operator", kubelet::next_address(), true);
    kubelet::patch(&pods, &pod.name_any(), status).await
}

/// All that the chart renders is there, and another sync leaves it as it is.
pub async fn the_operators_chart_is_synced_once(world: &World, argo: &ArgoCd) -> Result<()> {
    let named = |kind: &Value, name: &Value| format!("{} {}", kind.as_str().unwrap_or_default(), name);
    let values = ["image.tag=dev", "store.persistence.create=true"];
    let rendered = rights::render_with(&world.server, STUDIO, rights::Reach::Namespace, &values)?;
    let mut rendered: Vec<_> =
        rendered.iter().map(|one| named(&one["kind"], &one["metadata"]["name"])).collect();
    let before = contents(argo).await?;
    let mut applied: Vec<_> =
        before.iter().map(|one| named(&one["kind"], &one["metadata"]["name"])).collect();
    rendered.sort();
    applied.sort();
    ensure!(applied == rendered && applied.len() > 5, "{applied:?} was applied of {rendered:?}");
    argo.sync(OPERATOR).await?;
    argo.is(OPERATOR, "Healthy").await?;
    let after = contents(argo).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

/// Of everything that the chart brings: what a sync could change. Server-side apply notes in an object each time that it was there.
async fn contents(argo: &ArgoCd) -> Result<Vec<Value>> {
    let mut objects = argo.objects(OPERATOR).await?;
    objects.sort_by_key(|object| (object.types.clone().map(|types| types.kind), object.name_any()));
    let content = |object| {
        let mut content = serde_json::to_value(object)?;
        for noted in ["managedFields", "resourceVersion"] {
            content["metadata"].as_object_mut().context("metadata")?.remove(noted);
        }
        content.as_object_mut().context("an object")?.remove("status");
        Ok(content)
    };
    objects.iter().map(content).collect()
}
