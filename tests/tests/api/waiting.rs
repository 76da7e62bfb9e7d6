//! What is not there yet is waited for, and the request says what it is.

use std::fs;

use anyhow::{Result, ensure};
use axum::{Json, Router, routing::get};
use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    coordination::v1::Lease,
    core::v1::{Pod, ResourceQuota},
};
use kube::ResourceExt;
use lethe_api::v1alpha1::{ConditionType, DiffusionModel, Reason, RequestPhase, Stage, UnlearnRequest};
use lethe_tests::{World, examples, kubelet, place::HasConditions, trainer, wait, world::policy};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use crate::crash::one_job_per_stage;

pub async fn an_image_that_cannot_be_pulled_is_shown_and_waited_for(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("waits", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    world.hold_up(&task, "ImagePullBackOff", "manifest for lethe/trainer:dev not found").await?;
    world
        .request_waits("waits", Reason::ImageUnavailable, "manifest for lethe/trainer:dev not found")
        .await?;
    world.request_until("waits", RequestPhase::Training).await?;
    // Somebody pushes it.
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("waits", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_container_that_cannot_be_created_is_shown_and_waited_for(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("waits", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    let words = "configmap \"settings\" not found";
    world.hold_up(&task, "CreateContainerConfigError", words).await?;
    world.request_waits("waits", Reason::BadConfiguration, words).await?;
    world.request_until("waits", RequestPhase::Training).await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("waits", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_job_that_a_queue_takes_back_is_shown_and_waited_for(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("waits", "3", "8").await?;
    let first = world.task(Stage::Forget).await?;
    let job = format!("{}-forget", first.plan.run);
    world.patch::<Job>(&job, json!({"spec": {"suspend": true}})).await?;
    world.request_waits("waits", Reason::Suspended, "").await?;
    wait::until_gone(&world.api::<Pod>(), &first.pod.name_any(), None).await?;
    world.patch::<Job>(&job, json!({"spec": {"suspend": false}})).await?;
    let second = world.task(Stage::Forget).await?;
    ensure!(first.digest == second.digest, "another plan");
    world.succeed(&second).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("waits", RequestPhase::Fulfilled).await?;
    one_job_per_stage(world).await
}

pub async fn a_pod_that_a_quota_forbids_is_shown_and_waited_for(world: &World) -> Result<()> {
    world.begin_ready().await?;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}},
    });
    world.apply(&quota).await?;
    world.request("waits", "3", "8").await?;
    world.request_waits("waits", Reason::PodNotCreated, "FailedCreate: Error creating: pods").await?;
    world.request_until("waits", RequestPhase::Training).await?;
    // Somebody asks for more.
    world.delete::<ResourceQuota>("none").await?;
    world.forget(|_| {}).await?;
    world.request_until("waits", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_volume_that_cannot_be_mounted_is_shown_and_waited_for(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("waits", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    let words = "MountVolume.SetUp failed for volume \"store\" : claim \"artifacts\" not found";
    world.hold_up_silently(&task, "FailedMount", words).await?;
    world.request_waits("waits", Reason::PodNotStarted, words).await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("waits", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_gpu_that_never_comes_is_shown_and_not_waited_for_beyond_the_deadline(
    world: &World,
) -> Result<()> {
    let mut hasty = policy()?;
    hasty["spec"]["trainer"]["activeDeadlineSeconds"] = json!(12);
    world.begin_with(hasty, world.model()?).await?;
    world.prepare().await?;
    world.request("waits", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    let limits =
        task.pod.spec.as_ref().and_then(|spec| spec.containers[0].resources.as_ref()?.limits.clone());
    let gpus = limits.unwrap_or_default().get("nvidia.com/gpu").map(|quantity| quantity.0.clone());
    ensure!(gpus.as_deref() == Some("1"), "the pod asks for {gpus:?} GPUs");
    let words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
    let unschedulable = json!({"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words,
        "lastTransitionTime": Timestamp::now(),
    }]});
    kubelet::patch(&world.api(), &task.pod.name_any(), unschedulable).await?;
    world.request_waits("waits", Reason::Unschedulable, words).await?;
    world.request_until("waits", RequestPhase::Failed).await?;
    world.request_says("waits", Reason::DeadlineExceeded, "did not end in time").await?;
    world.assert_serves(&trainer::baseline()).await
}

pub async fn a_request_may_come_before_everything_that_it_needs(world: &World) -> Result<()> {
    world.await_service_account().await?;
    world.start_operator().await?;
    world.request("early", "3", "8").await?;
    world
        .request_says(
            "early",
            Reason::ModelNotFound,
            "\"digits\" does not exist in this namespace; create it",
        )
        .await?;
    world.apply(&world.model()?).await?;
    world.request_says("early", Reason::WaitingForModel, "not prepared yet").await?;
    let lacks_policy = |m: &DiffusionModel| {
        let conditions = m.conditions();
        ConditionType::Prepared.find(conditions).is_some_and(|c| {
            c.reason == Reason::PolicyNotFound.to_string()
                && c.message.contains("\"standard\" of model \"digits\" does not exist")
        })
    };
    world.model_until("it lacks its policy", lacks_policy).await?;
    world.apply(&policy()?).await?;
    let task = world.task(Stage::Prepare).await?;
    world.succeed(&task).await?;
    let lacks_target = |m: &DiffusionModel| {
        let conditions = m.conditions();
        ConditionType::Serving.find(conditions).is_some_and(|c| {
            c.reason == Reason::ServingTargetNotFound.to_string()
                && c.message.contains("\"digits\" does not exist")
        })
    };
    world.model_until("it lacks its Deployment", lacks_target).await?;
    world.apply(&examples::first("serving.yaml")?).await?;
    world.forget(|_| {}).await?;
    world.request_until("early", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_store_that_is_not_there_is_waited_for(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("waits", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    let bring_back = world.succeed_and_lose_the_store(&task).await?;
    world.request_waits("waits", Reason::RecordUnavailable, "the store").await?;
    bring_back()?;
    world.evaluate(|_| {}).await?;
    world.request_until("waits", RequestPhase::Fulfilled).await?;
    Ok(())
}

/// A pipe that nobody writes to answers as a network file system does whose server is gone: not at all.
pub async fn a_store_that_hangs_is_asked_again_and_costs_nobody_else_anything(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("waits", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    let record = trainer::record(&task, trainer::honest(&task.plan, &task.digest));
    let record = world.put_record(&record).await?;
    let file = world.store_folder().join("records").join(format!("{}.json", record.hex()));
    let there = file.with_extension("there");
    fs::rename(&file, &there)?;
    mknodat(CWD, &file, FileType::Fifo, Mode::RWXU, 0)?;
    world.exit(&task, 0, &trainer::outcome(&task, record).to_message()).await?;
    world.request_waits("waits", Reason::RecordUnavailable, "did not answer within 30 s").await?;
    world.request("next", "7", "1").await?;
    world.request_until("next", RequestPhase::Queued).await?;
    fs::rename(&there, &file)?;
    world.evaluate(|_| {}).await?;
    world.request_until("waits", RequestPhase::Fulfilled).await?;
    let lease = world.api::<Lease>().get("lethe").await?.spec;
    ensure!(lease.as_ref().and_then(|spec| spec.lease_transitions) == Some(1), "it was lost: {lease:?}");
    Ok(())
}

pub async fn a_policy_that_is_deleted_holds_up_the_next_run_only(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    world.delete::<lethe_api::v1alpha1::UnlearnPolicy>("standard").await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    world.request("second", "7", "1").await?;
    world
        .request_says("second", Reason::PolicyNotFound, "\"standard\" of model \"digits\" does not exist")
        .await?;
    world.apply(&policy()?).await?;
    world.forget(|_| {}).await?;
    world.request_until("second", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_trainer_that_says_how_far_it_is_is_repeated(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("slow", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    let address = kubelet::next_address();
    let listener = tokio::net::TcpListener::bind((address, lethe_api::contract::Progress::PORT)).await?;
    let mut progress = trainer::progress(&task.plan.run, 320, 500);
    progress.stage = "forget\u{1b}[2J".into();
    let router = Router::new().route("/progress", get(move || async move { Json(progress) }));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    kubelet::patch(&world.api(), &task.pod.name_any(), kubelet::running("trainer", address, true)).await?;
    let told = |r: &UnlearnRequest| {
        let progress = r.status.as_ref().and_then(|status| status.progress.clone());
        progress.is_some_and(|p| {
            (p.stage.as_str(), p.step, p.total, p.eta_seconds) == ("forget [2J", 320, 500, Some(7))
        })
    };
    wait::until(&world.api::<UnlearnRequest>(), "slow", "it says 320 of 500", told).await?;
    server.abort();
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    let done = world.request_until("slow", RequestPhase::Fulfilled).await?;
    ensure!(done.status.is_some_and(|status| status.progress.is_none()), "it still says how far it is");
    Ok(())
}
