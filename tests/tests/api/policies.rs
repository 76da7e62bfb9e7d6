//! Policies that are the cluster's.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use lethe_api::v1alpha1::{
    ClusterUnlearnPolicy, ConditionType, DiffusionModel, PolicyKind, Reason, RequestPhase,
};
use lethe_tests::{
    Server, Tier, World, examples,
    place::{self, HasConditions, MODEL},
    world::{POLICY, policy},
};
use serde_json::{Value, json};

/// The example's policy, as one of the cluster.
pub fn of_the_cluster() -> Result<Value> {
    let mut shared = policy()?;
    shared["kind"] = json!("ClusterUnlearnPolicy");
    Ok(shared)
}

fn named() -> Value {
    json!({"kind": "ClusterUnlearnPolicy", "name": POLICY})
}

fn says(model: &DiffusionModel, reason: Reason) -> bool {
    let ready = ConditionType::Ready.find(model.conditions());
    ready.is_some_and(|ready| ready.status == "Unknown" && ready.reason == reason.to_string())
}

pub async fn a_model_anywhere_may_name_a_policy_of_the_cluster(_: &World) -> Result<()> {
    // A policy of the cluster is every scenario's: this one has a server of its own.
    let server = Arc::new(tokio::task::block_in_place(Server::start)?);
    let world = World::of_all_namespaces(server).await?;
    goes_on_as_it_changes(&world).await.with_context(|| xtask::cmd::tail(&world.operator_log()))
}

async fn goes_on_as_it_changes(world: &World) -> Result<()> {
    world.start_operator().await?;
    world.await_service_account().await?;
    world.apply(&examples::first("serving.yaml")?).await?;
    let mut model = world.model()?;
    model["spec"]["policyRef"] = named();
    world.apply(&model).await?;
    world.model_until("it lacks its policy", |model| says(model, Reason::PolicyNotFound)).await?;
    place::apply(&world.client, None, &of_the_cluster()?).await?;
    world.prepare().await?;

    world.request("first", "3", "8").await?;
    let policies: Api<ClusterUnlearnPolicy> = Api::all(world.client.clone());
    let task = world.task(lethe_api::v1alpha1::Stage::Forget).await?;
    let edit = Patch::Merge(json!({"spec": {"training": {"forgetSteps": 77}}}));
    policies.patch(POLICY, &PatchParams::default(), &edit).await?;
    // Nothing else wakes the model at this time.
    let generation = |model: &DiffusionModel| {
        let source = model.status.as_ref()?.policy.clone()?;
        (source.kind == PolicyKind::ClusterUnlearnPolicy).then_some(source.generation?)
    };
    world.model_until("it has seen the edit", |model| generation(model) == Some(2)).await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    let runs = world.runs().await?;
    let run = runs.iter().find(|run| !run.spec.requests.is_empty()).context("no run")?;
    let source = run.spec.policy_source.as_ref().and_then(|source| source.generation);
    ensure!(source == Some(1) && run.spec.policy.training.forget_steps != Some(77), "{:?}", run.spec);

    policies.delete(POLICY, &DeleteParams::default()).await?;
    world.request("second", "7", "1").await?;
    world
        .request_says("second", Reason::PolicyNotFound, "ClusterUnlearnPolicy \"standard\" of model")
        .await?;
    place::apply(&world.client, None, &of_the_cluster()?).await?;
    world.forget(|_| {}).await?;
    world.request_until("second", RequestPhase::Fulfilled).await?;
    world.take_operator().await?.stop().await.map(|_| ())
}

pub async fn an_operator_of_one_namespace_says_what_to_do_about_a_policy_of_the_cluster(
    world: &World,
) -> Result<()> {
    let mut model = world.model()?;
    model["spec"]["policyRef"] = named();
    world.begin_with(policy()?, model).await?;
    let found = world.model_until("it says so", |model| says(model, Reason::PolicyNotWatched)).await?;
    let message = ConditionType::Ready.find(found.conditions()).map(|ready| ready.message.clone());
    ensure!(
        message.is_some_and(|message| message.contains("name an UnlearnPolicy of this namespace")),
        "how?"
    );
    world.patch::<DiffusionModel>(MODEL, json!({"spec": {"policyRef": {"kind": "UnlearnPolicy"}}})).await?;
    world.prepare().await
}
