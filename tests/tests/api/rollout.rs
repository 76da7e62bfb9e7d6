//! Changing what is served: only what is confirmed counts, and there is a way back.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job};
use kube::{ResourceExt, api::ListParams};
use lethe_api::{
    Digest,
    v1alpha1::{
        ConditionType, DiffusionModel, Reason, RequestPhase, RolloutState, Stage, UnlearnRequest, annotations,
    },
};
use lethe_tests::{
    World, examples,
    kubelet::Conduct,
    place::{HasConditions, MODEL, bundle},
    trainer, wait,
    world::policy,
};
use serde_json::json;

pub async fn pods_that_do_not_become_available_bring_the_previous_digest_back(world: &World) -> Result<()> {
    impatient(world).await?;
    world.kubelet.set(Conduct::Stuck);
    world.request("stuck", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    names(world, &candidate).await?;
    names(world, &trainer::baseline()).await?;
    world.kubelet.set(Conduct::Honest);
    went_back(world, "stuck", "of the old template still run").await
}

pub async fn pods_that_report_another_digest_are_never_confirmed(world: &World) -> Result<()> {
    impatient(world).await?;
    let wrong = Digest::of("something else");
    world.kubelet.set(Conduct::Reports(wrong.clone()));
    world.request("impostor", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    names(world, &candidate).await?;
    names(world, &trainer::baseline()).await?;
    world.kubelet.set(Conduct::Honest);
    went_back(world, "impostor", &format!("serves {}, not {}", wrong.short(), candidate.short())).await
}

pub async fn a_roll_out_that_was_turned_back_is_tried_again_without_another_training(
    world: &World,
) -> Result<()> {
    impatient(world).await?;
    world.kubelet.set(Conduct::Stuck);
    world.request("stuck", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("stuck", RequestPhase::Failed).await?;
    world.kubelet.set(Conduct::Honest);
    let patch = json!({"metadata": {"annotations": {annotations::RETRY: "the nodes are back"}}});
    world.patch::<UnlearnRequest>("stuck", patch).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("stuck", RequestPhase::Fulfilled).await?;
    world.assert_serves(&candidate).await?;
    let jobs = world.api::<Job>().list(&ListParams::default()).await?.items;
    let trained = jobs.iter().filter(|job| job.name_any().ends_with("-forget")).count();
    ensure!(trained == 1, "{:?}", jobs.iter().map(ResourceExt::name_any).collect::<Vec<_>>());
    Ok(())
}

pub async fn a_target_that_disappears_during_the_roll_out_is_not_a_success(world: &World) -> Result<()> {
    impatient(world).await?;
    world.kubelet.set(Conduct::Stuck);
    world.request("gone", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    names(world, &candidate).await?;
    world.delete::<Deployment>(MODEL).await?;
    world.request_until("gone", RequestPhase::Failed).await?;
    ensure!(world.ledger().await?.is_empty(), "the ledger was written");
    let missing =
        |m: &DiffusionModel| serving(m).is_some_and(|(_, reason)| reason == "ServingTargetNotFound");
    world.model_until("it says that its target is missing", missing).await?;
    // Back with what the manifest says, it serves what it should again.
    world.kubelet.set(Conduct::Honest);
    world.apply(&examples::first("serving.yaml")?).await?;
    names(world, &trainer::baseline()).await
}

pub async fn a_target_without_the_container_is_never_touched(world: &World) -> Result<()> {
    let mut model = world.model()?;
    model["spec"]["serving"]["container"] = json!("sidecar");
    world.begin_with(policy()?, model).await?;
    let task = world.task(Stage::Prepare).await?;
    world.succeed(&task).await?;
    let wrong = |m: &DiffusionModel| serving(m).is_some_and(|(_, reason)| reason == "ContainerNotFound");
    world.model_until("it says that the container is missing", wrong).await?;
    ensure!(world.named_bundle().await?.is_none(), "the Deployment was changed");
    // The person meant the other one.
    world.patch::<DiffusionModel>(MODEL, json!({"spec": {"serving": {"container": "server"}}})).await?;
    names(world, &trainer::baseline()).await
}

pub async fn what_is_published_is_served_once_somebody_names_it(world: &World) -> Result<()> {
    let mut model = world.model()?;
    model["spec"]["serving"]["promotion"] = json!("Publish");
    world.begin_with(policy()?, model).await?;
    let task = world.task(Stage::Prepare).await?;
    world.succeed(&task).await?;
    somebody_names(world, &trainer::baseline()).await?;
    world.model_until("it is Ready", ready).await?;
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    let waits = |m: &DiffusionModel| serving(m).is_some_and(|(_, reason)| reason == "WaitingForPromotion");
    world.model_until("it waits for somebody", waits).await?;
    ensure!(world.named_bundle().await?.as_deref() == Some(trainer::baseline().as_str()), "it was changed");
    somebody_names(world, &candidate).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.model_until("it is Ready again", ready).await?;
    // An older one is said to be wrong, and not touched.
    world.drift(Some(&trainer::baseline())).await?;
    world.request_until("forget-three", RequestPhase::Reexposed).await?;
    somebody_names(world, &candidate).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let deployment = world.api::<Deployment>().get(MODEL).await?;
    let managers = deployment.managed_fields().iter().filter_map(|it| it.manager.clone());
    let managers: Vec<_> = managers.collect();
    ensure!(!managers.iter().any(|it| it.starts_with("lethe")), "{managers:?}");
    Ok(())
}

/// Waits until the model says that this is to be served, and has the Deployment name it.
pub async fn somebody_names(world: &World, digest: &Digest) -> Result<()> {
    let is_published = |m: &DiffusionModel| {
        let published = m.status.as_ref().and_then(|status| status.published.as_ref());
        published.and_then(|published| published.bundle.as_ref()) == Some(digest)
    };
    world.model_until("it is published", is_published).await?;
    world.drift(Some(digest)).await
}

pub async fn drift_is_seen_said_and_healed(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.drift(Some(&trainer::baseline())).await?;
    names(world, &candidate).await?;
    world.model_until("it is Ready again", ready).await?;
    wait::until_answer(
        "events tell of the drift",
        async || Ok(world.events().await),
        |events| events.contains("event Warning Drifted DiffusionModel/digits"),
    )
    .await?;
    // An annotation that is removed is drift as well.
    world.drift(None).await?;
    names(world, &candidate).await
}

pub async fn what_others_own_in_the_deployment_is_left_alone(world: &World) -> Result<()> {
    world.begin_ready().await?;
    let mut manifest = examples::first("serving.yaml")?;
    manifest["spec"]["template"]["metadata"]["annotations"] = json!({"example.org/colour": "blue"});
    manifest["spec"]["replicas"] = json!(2);
    world.apply(&manifest).await?;
    world.assert_serves(&trainer::baseline()).await?;
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    // Applied once more, as Git does every few minutes: nothing is fought over.
    world.apply(&manifest).await?;
    world.assert_serves(&candidate).await?;
    let deployment = world.api::<Deployment>().get(MODEL).await?;
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    let annotations = template.and_then(|metadata| metadata.annotations.clone()).context("no annotations")?;
    ensure!(annotations.get("example.org/colour").is_some_and(|colour| colour == "blue"), "{annotations:?}");
    ensure!(annotations.len() == 2, "{annotations:?}");
    ensure!(deployment.spec.and_then(|spec| spec.replicas) == Some(2), "the replicas were changed");
    Ok(())
}

pub async fn every_replica_must_serve_the_candidate(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.patch::<Deployment>(MODEL, json!({"spec": {"replicas": 3}})).await?;
    world.model_until("it is Ready with three", ready).await?;
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let deployment = world.api::<Deployment>().get(MODEL).await?;
    let status = deployment.status.clone().unwrap_or_default();
    ensure!(bundle(&deployment).as_deref() == Some(candidate.as_str()));
    ensure!(
        status.updated_replicas == Some(3) && status.replicas == Some(3),
        "promoted too early: {status:?}"
    );
    Ok(())
}

/// A model that serves its baseline, and whose roll-outs have five seconds.
async fn impatient(world: &World) -> Result<()> {
    let mut policy = policy()?;
    policy["spec"]["rollout"]["progressDeadlineSeconds"] = json!(5);
    world.begin_with(policy, world.model()?).await?;
    world.prepare().await
}

/// Waits until the Deployment names a digest.
async fn names(world: &World, digest: &Digest) -> Result<()> {
    let what = format!("it names {}", digest.short());
    wait::until(&world.api::<Deployment>(), MODEL, &what, |d| bundle(d).as_deref() == Some(digest.as_str()))
        .await?;
    Ok(())
}

/// The request failed because serving went back, and everything is as it was.
async fn went_back(world: &World, request: &str, why: &str) -> Result<()> {
    world.request_says(request, Reason::RolloutTimedOut, "not in service within 5 s").await?;
    world.request_says(request, Reason::RolloutTimedOut, why).await?;
    world.request_until(request, RequestPhase::Failed).await?;
    let model = world.model_until("it is Ready again", ready).await?;
    let status = model.status.unwrap_or_default();
    ensure!(status.ledger.is_empty(), "the ledger was written: {:?}", status.ledger);
    ensure!(
        status.served.is_some_and(|served| served.digest == trainer::baseline()),
        "another digest is served"
    );
    ensure!(
        status.rollout.is_some_and(|rollout| rollout.state == RolloutState::RolledBack),
        "not rolled back"
    );
    let events = world.events().await;
    ensure!(
        events.contains("event Warning RolloutTimedOut DiffusionModel/digits"),
        "no event tells of it:{events}"
    );
    Ok(())
}

fn ready(model: &DiffusionModel) -> bool {
    let conditions = model.conditions();
    ConditionType::Ready.is_true(conditions) && ConditionType::Serving.is_true(conditions)
}

/// Status and reason of the model's Serving condition.
fn serving(model: &DiffusionModel) -> Option<(&str, &str)> {
    let conditions = &model.status.as_ref()?.conditions;
    ConditionType::Serving.find(conditions).map(|c| (c.status.as_str(), c.reason.as_str()))
}
