//! What the API server does not let the operator do: it says so, in the API server's words, and goes on once it may.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingAdmissionPolicyBinding,
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModel, RequestPhase, Stage, UnlearnRun},
};
use lethe_tests::{
    Server, World,
    operator::Operator,
    place::{MODEL, apply, bundle},
    rights,
    server::repository,
    trainer, wait,
    world::policy,
};
use serde_json::json;

use crate::crash::one_job_per_stage;

/// A `CannotApply` event with these words, and an error of this category.
async fn complains(world: &World, category: &str, words: &str) -> Result<()> {
    let says = |events: &String| {
        events
            .lines()
            .any(|line| line.starts_with("event Warning CannotApply UnlearnRun/") && line.contains(words))
    };
    wait::until_answer("an event says why", async || Ok(world.events().await), says).await?;
    let counted = format!("lethe_reconcile_errors_total{{category=\"{category}\",controller=\"run\"}}");
    world.metrics_until("it is counted", |text| is_above_zero(text, &counted)).await?;
    Ok(())
}

/// Every series is there from the start.
fn is_above_zero(metrics: &str, series: &str) -> bool {
    metrics.lines().any(|line| line.strip_prefix(series).is_some_and(|value| value.trim() != "0"))
}

/// The request that waited is worked for, once.
async fn goes_on(world: &World) -> Result<()> {
    world.forget(|_| {}).await?;
    world.request_until("waits", RequestPhase::Fulfilled).await?;
    one_job_per_stage(world).await
}

pub async fn a_right_that_was_taken_away_is_named_and_work_goes_on_once_it_is_back(
    world: &World,
) -> Result<()> {
    world.begin_ready().await?;
    rights::take_away(&world.server, &world.home, ("create", "batch", "jobs")).await?;
    world.request("waits", "3", "8").await?;
    complains(world, "forbidden", "cannot create resource \"jobs\"").await?;
    world.request_until("waits", RequestPhase::Training).await?;
    rights::grant(&world.server, &world.home, world.reach).await?;
    goes_on(world).await
}

/// In every decision about a model without a finalizer, adding one comes before what is served.
pub async fn what_may_not_be_written_keeps_no_target_from_being_set_back(world: &World) -> Result<()> {
    world.begin_ready().await?;
    rights::take_away(&world.server, &world.home, ("patch", "lethe.dev", "diffusionmodels")).await?;
    world.patch::<DiffusionModel>(MODEL, json!({"metadata": {"finalizers": null}})).await?;
    world.drift(Some(&Digest::of("something else"))).await?;
    let baseline = trainer::baseline();
    let is_back = |target: &Deployment| bundle(target).as_deref() == Some(baseline.as_str());
    wait::until(&world.api::<Deployment>(), MODEL, "what is served is set back", is_back).await?;
    let complained = |events: &String| events.contains("event Warning CannotApply DiffusionModel/digits");
    wait::until_answer("an event says why", async || Ok(world.events().await), complained).await?;
    ensure!(world.api::<DiffusionModel>().get(MODEL).await?.finalizers().is_empty(), "it was allowed to");
    rights::grant(&world.server, &world.home, world.reach).await?;
    let has_one = |model: &DiffusionModel| !model.finalizers().is_empty();
    world.model_until("it has its finalizer again", has_one).await?;
    Ok(())
}

/// A model goes only once its ledger is where the next one of its name will find it.
pub async fn a_model_whose_ledger_may_not_be_archived_stays_until_it_may(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    rights::take_away(&world.server, &world.home, ("create", "", "configmaps")).await?;
    let archive = format!("{MODEL}-lethe-ledger");
    world.delete::<ConfigMap>(&archive).await?;
    wait::until_gone(&world.api::<ConfigMap>(), &archive, None).await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    let says = |events: &String| {
        let is_it = |line: &str| {
            line.starts_with("event Warning CannotApply DiffusionModel/digits") && line.contains(&archive)
        };
        events.lines().any(is_it)
    };
    wait::until_answer("an event says why", async || Ok(world.events().await), says).await?;
    let stays = world.api::<DiffusionModel>().get(MODEL).await?;
    ensure!(stays.metadata.deletion_timestamp.is_some() && !stays.finalizers().is_empty(), "{stays:?}");
    rights::grant(&world.server, &world.home, world.reach).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    let kept = world.api::<ConfigMap>().get(&archive).await?.data.unwrap_or_default();
    ensure!(kept.values().any(|text| text.contains("forget-three")), "{kept:?}");
    Ok(())
}

pub async fn what_admission_refuses_is_told_in_its_own_words_and_tried_again(world: &World) -> Result<()> {
    world.begin_ready().await?;
    let name = format!("no-jobs.{}", world.namespace);
    let version = "admissionregistration.k8s.io/v1";
    let jobs = json!({
        "apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"],
    });
    let rule = json!({
        "apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [jobs]},
            "validations": [{"expression": "false", "message": "no work on Sundays"}],
        },
    });
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": world.namespace}});
    let binding = json!({
        "apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {
            "policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": here},
        },
    });
    for manifest in [rule, binding] {
        apply(&world.client, None, &manifest).await?;
    }
    is_refused(world).await?;
    world.request("waits", "3", "8").await?;
    complains(world, "invalid", "no work on Sundays").await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(world.client.clone());
    bindings.delete(&name, &DeleteParams::default()).await?;
    goes_on(world).await
}

/// Returns once no Job can be created in this namespace.
async fn is_refused(world: &World) -> Result<()> {
    let container = json!({"name": "c", "image": "none"});
    let pod = json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
    let job: Job = serde_json::from_value(json!({"metadata": {"name": "tried"}, "spec": {"template": pod}}))?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let tried = async || Ok(world.api::<Job>().create(&dry, &job).await.is_err());
    wait::until_answer("admission goes by the new rule", tried, |refused| *refused).await?;
    Ok(())
}

pub async fn what_somebody_else_has_under_a_name_that_is_needed_is_not_overwritten(
    world: &World,
) -> Result<()> {
    world.begin_ready().await?;
    world.request("waits", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    // The same plan has the same names: those of a run that is deleted are known in advance.
    let plan = format!("{}-forget", task.plan.run);
    world.take_operator().await?.kill().await?;
    world.delete::<UnlearnRun>(&task.plan.run).await?;
    wait::until_gone(&world.api::<UnlearnRun>(), &task.plan.run, None).await?;
    wait::until_gone(&world.api::<Pod>(), &task.pod.name_any(), None).await?;
    wait::until_gone(&world.api::<ConfigMap>(), &plan, None).await?;
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": plan}, "data": {"plan.json": "of somebody else"},
    });
    world.apply(&theirs).await?;
    world.start_operator().await?;
    complains(world, "foreign", "another one is there, of another owner or content; delete it").await?;
    let there = world.api::<ConfigMap>().get(&plan).await?;
    let kept = there.data.as_ref().and_then(|data| data.get("plan.json")).context("it has no plan.json")?;
    ensure!(kept == "of somebody else" && there.owner_references().is_empty(), "{there:?}");
    ensure!(!world.jobs().await?.contains(&plan), "a trainer was given what somebody else wrote");
    world.delete::<ConfigMap>(&plan).await?;
    goes_on(world).await
}

pub async fn an_event_that_cannot_be_published_is_counted_and_holds_up_nothing(world: &World) -> Result<()> {
    world.begin().await?;
    rights::take_away(&world.server, &world.home, ("create", "events.k8s.io", "events")).await?;
    world.prepare().await?;
    world.request("waits", "3", "8").await?;
    goes_on(world).await?;
    let counted = |controller: &str| format!("lethe_event_errors_total{{controller=\"{controller}\"}}");
    let all = |text: &str| ["model", "request", "run"].iter().all(|name| is_above_zero(text, &counted(name)));
    world.metrics_until("what is lost is counted", all).await?;
    ensure!(!world.events().await.contains("Fulfilled UnlearnRequest/"), "an event was published");
    Ok(())
}

pub async fn an_operator_that_is_there_before_its_definitions_names_them_and_begins_once_they_are(
    _: &World,
) -> Result<()> {
    let server =
        Arc::new(tokio::task::block_in_place(|| Server::without_definitions(Vec::new(), Vec::new()))?);
    let world = World::of_all_namespaces(server).await?;
    let operator = Operator::start(&world.launch().await?)?;
    let kinds = ["diffusionmodels", "unlearnpolicies", "unlearnrequests", "unlearnruns", "unlearnapprovals"];
    let unready = |what, is: fn(&str) -> bool| {
        let is = move |(status, why): &(u16, String)| *status == 503 && is(why);
        wait::until_answer(what, || operator.get("/readyz"), is)
    };
    let (_, why) =
        unready("it names what is missing", |why| why.contains("CustomResourceDefinitions of")).await?;
    ensure!(kinds.iter().all(|kind| why.contains(kind)), "{why}");
    ensure!(operator.get("/healthz").await?.0 == 200, "it would be started again for what it waits for");
    let files = std::fs::read_dir(repository("crds"))?.map(|entry| Ok(entry?.path()));
    let files = files.collect::<Result<Vec<_>>>()?;
    let (last, others): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.ends_with("unlearnapprovals.yaml"));
    tokio::task::block_in_place(|| world.server.define(&others))?;
    let only_approvals =
        |why: &str| why.trim_end().ends_with("CustomResourceDefinitions of unlearnapprovals");
    unready("it names the last one", only_approvals).await?;
    tokio::task::block_in_place(|| world.server.define(&last))?;
    operator.ready().await?;
    world.keep_operator(operator).await;
    world.lay_out(policy()?, world.model()?).await?;
    world.prepare().await.with_context(|| xtask::cmd::tail(&world.operator_log()))
}

pub async fn a_namespace_that_is_deleted_goes_with_everything_in_it(_: &World) -> Result<()> {
    // An operator whose rights are in that namespace would lose them with it.
    let server = Arc::new(tokio::task::block_in_place(|| Server::start_with(Vec::new()))?);
    let world = World::of_all_namespaces(server).await?;
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    // There is a ledger to archive, and a run at work.
    world.request("second", "7", "1").await?;
    world.task(Stage::Forget).await?;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.client.clone());
    namespaces.delete(&world.namespace, &DeleteParams::default()).await?;
    let gone = wait::until_gone(&namespaces, &world.namespace, None).await;
    gone.with_context(|| xtask::cmd::tail(&world.operator_log()))?;
    // It is whole, and goes on elsewhere.
    world.metrics_until("it leads", |text| text.contains("lethe_leader 1\n")).await?;
    Ok(())
}
