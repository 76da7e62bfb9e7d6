//! Requests and models that are deleted, at every point of their life. What was forgotten stays forgotten.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::Task as Work,
    v1alpha1::{ConditionType, DiffusionModel, Reason, RequestPhase, Stage, UnlearnRequest, UnlearnRun},
};
use lethe_tests::{
    Task, World,
    kubelet::Conduct,
    place::{HasConditions, MODEL, bundle, condition, request},
    trainer, wait,
};
use serde_json::json;

/// Where the ledger of the model is kept.
const ARCHIVE: &str = "digits-lethe-ledger";

pub async fn a_request_that_is_deleted_while_it_waits_leaves_nothing(world: &World) -> Result<()> {
    world.begin().await?;
    world.request("pending", "3", "8").await?;
    world.request_until("pending", RequestPhase::Pending).await?;
    world.delete::<UnlearnRequest>("pending").await?;
    world.prepare().await?;
    let mut suspended = request("queued", &["5"], "6");
    suspended["spec"]["suspend"] = json!(true);
    world.apply(&suspended).await?;
    world.request_until("queued", RequestPhase::Queued).await?;
    world.delete::<UnlearnRequest>("queued").await?;
    wait::until_gone(&world.api::<UnlearnRequest>(), "queued", None).await?;
    // The next one is alone in its run.
    world.request("next", "7", "1").await?;
    let task = world.task(Stage::Forget).await?;
    ensure!(labels(&task) == ["7"], "{:?}", task.plan.task);
    Ok(())
}

pub async fn a_request_that_is_deleted_in_training_stops_it(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("withdrawn", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    withdraw(world, &task).await?;
    world.assert_serves(&trainer::baseline()).await
}

pub async fn a_request_that_is_deleted_in_evaluation_stops_it(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("withdrawn", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    world.succeed(&task).await?;
    let task = world.task(Stage::Evaluate).await?;
    withdraw(world, &task).await?;
    world.assert_serves(&trainer::baseline()).await
}

pub async fn of_two_requests_in_a_run_the_other_one_is_worked_for_again(world: &World) -> Result<()> {
    world.begin_ready().await?;
    // They come to share a run because both wait for the end of another one.
    world.request("first", "5", "8").await?;
    let first = world.task(Stage::Forget).await?;
    world.request("withdrawn", "3", "8").await?;
    world.request("stays", "7", "1").await?;
    world.request_until("withdrawn", RequestPhase::Queued).await?;
    world.request_until("stays", RequestPhase::Queued).await?;
    world.succeed(&first).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    let task = world.task(Stage::Forget).await?;
    ensure!(labels(&task) == ["3", "5", "7"], "{:?}", task.plan.task);
    world.delete::<UnlearnRequest>("withdrawn").await?;
    wait::until_gone(&world.api::<Pod>(), &task.pod.name_any(), None).await?;
    let task = world.task(Stage::Forget).await?;
    ensure!(labels(&task) == ["5", "7"], "{:?}", task.plan.task);
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("stays", RequestPhase::Fulfilled).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 2 && ledger[1].targets == ["7"], "{ledger:?}");
    Ok(())
}

pub async fn a_request_that_is_replaced_is_another_one(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("same-name", "3", "8").await?;
    let first = world.task(Stage::Forget).await?;
    world.delete::<UnlearnRequest>("same-name").await?;
    world.request("same-name", "7", "1").await?;
    wait::until_gone(&world.api::<Pod>(), &first.pod.name_any(), None).await?;
    let second = world.task(Stage::Forget).await?;
    ensure!(labels(&second) == ["7"], "{:?}", second.plan.task);
    world.succeed(&second).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("same-name", RequestPhase::Fulfilled).await?;
    world.assert_serves(&trainer::product(&second.digest)).await
}

pub async fn a_request_that_is_deleted_in_the_roll_out_is_in_the_ledger(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.kubelet.set(Conduct::Stuck);
    world.request("late", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    wait::until(&world.api::<Deployment>(), MODEL, "it names the candidate", |d| {
        bundle(d).as_deref() == Some(candidate.as_str())
    })
    .await?;
    world.delete::<UnlearnRequest>("late").await?;
    world.kubelet.set(Conduct::Honest);
    let written = |m: &DiffusionModel| m.status.as_ref().is_some_and(|status| status.ledger.len() == 1);
    world.model_until("its ledger has an entry", written).await?;
    world.assert_serves(&candidate).await
}

pub async fn a_fulfilled_request_that_is_deleted_stays_forgotten(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    world.delete::<UnlearnRequest>("first").await?;
    for run in world.runs().await? {
        world.delete::<UnlearnRun>(&run.name_any()).await?;
    }
    world.request("second", "7", "1").await?;
    let task = world.task(Stage::Forget).await?;
    ensure!(labels(&task) == ["3", "7"], "{:?}", task.plan.task);
    ensure!(world.ledger().await?.len() == 1, "the ledger lost an entry");
    Ok(())
}

pub async fn a_model_that_comes_back_has_its_ledger_back(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    let before = world.ledger().await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    let archive = world.api::<ConfigMap>().get(ARCHIVE).await?;
    ensure!(archive.owner_references().is_empty(), "the archive goes with its owner");
    wait::until_answer("its runs are collected", || world.runs(), |runs| runs.is_empty()).await?;

    world.apply(&world.model()?).await?;
    world.prepare().await?;
    let after = world.ledger().await?;
    ensure!(before == after, "before {before:?}, after {after:?}");
    world.assert_serves(&candidate).await?;
    world.request("second", "7", "1").await?;
    let task = world.task(Stage::Forget).await?;
    ensure!(labels(&task) == ["3", "7"], "{:?}", task.plan.task);
    ensure!(world.events().await.contains("LedgerRestored"), "no event tells of it");
    Ok(())
}

pub async fn an_archive_that_cannot_be_read_is_not_taken_for_an_empty_one(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    let before = world.ledger().await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    wait::until_answer("its runs are collected", || world.runs(), |runs| runs.is_empty()).await?;
    let whole = world.api::<ConfigMap>().get(ARCHIVE).await?.data.unwrap_or_default();
    let cut: BTreeMap<_, _> = whole.iter().map(|(key, text)| (key, &text[..text.len() / 2])).collect();
    world.patch::<ConfigMap>(ARCHIVE, json!({"data": cut})).await?;

    world.apply(&world.model()?).await?;
    let says = |m: &DiffusionModel| {
        let prepared = ConditionType::Prepared.find(m.conditions());
        prepared.is_some_and(|it| it.reason == "LedgerUnreadable" && it.message.contains(ARCHIVE))
    };
    world.model_until("it says that its archive cannot be read", says).await?;
    ensure!(world.runs().await?.is_empty(), "a run began without the ledger");
    ensure!(world.ledger().await?.is_empty(), "there is a ledger that was not read");
    world.patch::<ConfigMap>(ARCHIVE, json!({"data": whole})).await?;
    world.prepare().await?;
    let after = world.ledger().await?;
    ensure!(before == after, "before {before:?}, after {after:?}");
    Ok(())
}

pub async fn a_model_whose_archive_cannot_be_read_can_be_deleted(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    let maps = world.api::<ConfigMap>();
    let whole = maps.get(ARCHIVE).await?.data.context("a ledger is kept")?;
    world.patch::<ConfigMap>(ARCHIVE, json!({"data": {"ledger.json": "{"}})).await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    ensure!(world.events().await.contains("LedgerSetAside"), "nobody was told");
    let kept = maps.get(ARCHIVE).await?.data.context("nothing is kept")?;
    let (aside, ledger) = kept.iter().find(|(key, _)| key.starts_with("ledger-of-")).context("it is lost")?;
    ensure!(kept["ledger.json"] == "{" && *ledger == whole["ledger.json"], "{kept:?}");
    // As docs/operations.md says.
    let choice = json!({"data": {"ledger.json": ledger, (aside): null}});
    world.patch::<ConfigMap>(ARCHIVE, choice).await?;
    world.apply(&world.model()?).await?;
    world.prepare().await?;
    ensure!(world.ledger().await?.len() == 1, "its ledger did not come back");
    Ok(())
}

pub async fn a_model_that_was_lost_without_the_operator_has_its_ledger_back(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    let before = world.ledger().await?;
    wait::until(&world.api::<ConfigMap>(), ARCHIVE, "it is there while the model lives", |_| true).await?;
    world.take_operator().await?.kill().await?;
    world.patch::<DiffusionModel>(MODEL, json!({"metadata": {"finalizers": null}})).await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    wait::until_answer("its runs are collected", || world.runs(), |runs| runs.is_empty()).await?;
    // A repository restores what was applied, and nothing of the status.
    world.apply(&world.model()?).await?;
    world.start_operator().await?;
    world.prepare().await?;
    let after = world.ledger().await?;
    ensure!(before == after, "before {before:?}, after {after:?}");
    world.assert_serves(&candidate).await
}

pub async fn a_model_that_comes_back_with_another_base_forgets_its_ledger_first(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    let before = world.ledger().await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    wait::until_answer("its runs are collected", || world.runs(), |runs| runs.is_empty()).await?;
    let mut other = world.model()?;
    other["spec"]["base"]["digest"] = json!(Digest::of("another teacher"));
    world.apply(&other).await?;
    let task = world.task(Stage::Prepare).await?;
    world.succeed(&task).await?;
    let task = world.task(Stage::Forget).await?;
    world.assert_serves(&candidate).await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    let ready = |m: &DiffusionModel| ConditionType::Ready.is_true(m.conditions());
    world.model_until("it is Ready", ready).await?;
    let after = world.ledger().await?;
    ensure!(before == after, "before {before:?}, after {after:?}");
    world.assert_serves(&trainer::product(&task.digest)).await
}

pub async fn a_model_that_is_deleted_during_a_run_takes_the_run_with_it(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("orphan", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    wait::until_gone(&world.api::<UnlearnRun>(), &task.plan.run, None).await?;
    wait::until_gone(&world.api::<Pod>(), &task.pod.name_any(), None).await?;
    world.request_says("orphan", Reason::ModelNotFound, "does not exist").await?;
    world.assert_serves(&trainer::baseline()).await?;
    ensure!(world.api::<ConfigMap>().get_opt(ARCHIVE).await?.is_none(), "an empty ledger was archived");

    // It comes back, and the request has not lost its place.
    world.apply(&world.model()?).await?;
    world.prepare().await?;
    world.forget(|_| {}).await?;
    world.request_until("orphan", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_run_that_somebody_deletes_is_planned_again(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("stubborn", "3", "8").await?;
    let first = world.task(Stage::Forget).await?;
    world.delete::<UnlearnRun>(&first.plan.run).await?;
    wait::until_gone(&world.api::<Pod>(), &first.pod.name_any(), None).await?;
    let second = world.task(Stage::Forget).await?;
    ensure!(first.digest == second.digest, "another plan");
    world.succeed(&second).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("stubborn", RequestPhase::Fulfilled).await?;
    Ok(())
}

/// Deletes the only request of the pod's run, and waits until the run has stopped and the lineage is free.
async fn withdraw(world: &World, task: &Task) -> Result<()> {
    world.delete::<UnlearnRequest>("withdrawn").await?;
    wait::until_gone(&world.api::<Pod>(), &task.pod.name_any(), None).await?;
    let superseded = |run: &UnlearnRun| condition(run, ConditionType::Ready, "False");
    let run = wait::until(&world.api::<UnlearnRun>(), &task.plan.run, "it ended", superseded).await?;
    let conditions = run.status.map(|status| status.conditions).unwrap_or_default();
    let ready = ConditionType::Ready.find(&conditions).context("no Ready")?;
    ensure!(ready.reason == Reason::Superseded.to_string(), "{ready:?}");
    let owner = task.pod.owner_references().first().context("a pod without a Job")?.name.clone();
    wait::until_gone(&world.api::<Job>(), &owner, None).await?;
    world
        .model_until("it is free", |m| m.status.as_ref().is_some_and(|status| status.active_run.is_none()))
        .await?;
    ensure!(world.ledger().await?.is_empty(), "the ledger was written");
    Ok(())
}

fn labels(task: &Task) -> Vec<&str> {
    match &task.plan.task {
        Work::Forget(work) => work.targets.iter().map(|target| target.label.as_str()).collect(),
        Work::Evaluate(_) | Work::Prepare(_) | Work::Audit(_) => Vec::new(),
    }
}
