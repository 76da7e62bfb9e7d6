//! Requests that are tried again, given up, or worked for without those that failed.

use anyhow::{Context, Result, ensure};
use k8s_openapi::{api::batch::v1::Job, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::api::PostParams;
use lethe_api::{
    contract::EvaluateRecord,
    v1alpha1::{Reason, RequestPhase, RunType, Stage, UnlearnRequest, annotations},
};
use lethe_tests::{World, wait, world::policy};
use serde_json::{Value, json};

/// The model is ready, under a policy with these fields as well.
async fn begin_under(world: &World, fields: Value) -> Result<()> {
    let mut policy = policy()?;
    for (name, value) in fields.as_object().context("fields are an object")? {
        policy["spec"][name] = value.clone();
    }
    world.begin_with(policy, world.model()?).await?;
    world.prepare().await
}

fn the_three_leaks(record: &mut EvaluateRecord) {
    for target in record.targets.iter_mut().filter(|target| target.label == "3") {
        target.leak.hits = 300;
    }
}

async fn annotate(world: &World, request: &str, annotation: &str, word: &str) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {annotation: word}}});
    world.patch::<UnlearnRequest>(request, patch).await?;
    Ok(())
}

/// A Job that was there, as it was sent when it was created.
fn as_sent(job: &Job) -> Result<Job> {
    let mut sent = job.clone();
    sent.status = None;
    sent.metadata = ObjectMeta {
        name: job.metadata.name.clone(),
        labels: job.metadata.labels.clone(),
        owner_references: job.metadata.owner_references.clone(),
        ..ObjectMeta::default()
    };
    let spec = sent.spec.as_mut().context("a Job has a spec")?;
    spec.selector = None;
    let labels = spec.template.metadata.as_mut().and_then(|meta| meta.labels.as_mut());
    let of_the_controller = ["controller-uid", "job-name"];
    labels
        .context("its pods have labels")?
        .retain(|name, _| !of_the_controller.iter().any(|it| name.ends_with(it)));
    Ok(sent)
}

/// A slow webhook held it back until nobody wanted it any more.
pub async fn a_job_that_is_created_after_its_run_was_given_up_is_stopped(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    let (jobs, name) = (world.api::<Job>(), format!("{}-forget", task.plan.run));
    let sent = as_sent(&jobs.get(&name).await?)?;
    annotate(world, "forget-three", annotations::ABORT, "stop").await?;
    world.request_until("forget-three", RequestPhase::Aborted).await?;
    wait::until_gone(&jobs, &name, None).await?;
    let late = jobs.create(&PostParams::default(), &sent).await?;
    wait::until_gone(&jobs, &name, late.metadata.uid.as_deref()).await?;
    world.request_until("forget-three", RequestPhase::Aborted).await?;
    // Nothing is stopped that is asked for.
    annotate(world, "forget-three", annotations::RETRY, "after all").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    Ok(())
}

async fn forget_runs(world: &World) -> Result<usize> {
    Ok(world.runs().await?.iter().filter(|run| run.spec.type_ == RunType::Forget).count())
}

pub async fn a_candidate_that_fails_is_tried_again_after_a_while(world: &World) -> Result<()> {
    let retry = json!({"action": "Retry", "attempts": 2, "waitSeconds": 4});
    begin_under(world, json!({"onGateFailure": retry})).await?;
    world.request("forget-three", "3", "8").await?;
    let first = world.task(Stage::Forget).await?;
    world.succeed(&first).await?;
    world.evaluate(the_three_leaks).await?;
    let waits = world.request_waits("forget-three", Reason::WaitingForAttempt, "attempt 1 of 2").await?;
    let attempts = waits.status.and_then(|status| status.attempts).context("no attempts")?;
    ensure!(attempts.used == 1 && attempts.allowed == 2 && attempts.next_at.is_some(), "{attempts:?}");
    // Its successor knows of the time from the run's status.
    world.crash_operator().await?;
    let second = world.task(Stage::Forget).await?;
    ensure!(second.plan.seed != first.plan.seed && second.plan.task == first.plan.task, "{:?}", second.plan);
    world.succeed(&second).await?;
    world.evaluate(|_| {}).await?;
    let done = world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let attempts = done.status.and_then(|status| status.attempts).context("no attempts")?;
    ensure!(attempts.used == 2 && attempts.next_at.is_none(), "{attempts:?}");
    ensure!(forget_runs(world).await? == 2, "another attempt was made");
    Ok(())
}

pub async fn a_word_in_an_annotation_acts_once(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    world.forget(the_three_leaks).await?;
    world.request_until("forget-three", RequestPhase::Held).await?;
    annotate(world, "forget-three", annotations::RETRY, "monday").await?;
    let second = world.task(Stage::Forget).await?;
    annotate(world, "forget-three", annotations::ABORT, "stop").await?;
    let aborted = world.request_until("forget-three", RequestPhase::Aborted).await?;
    let status = aborted.status.context("no status")?;
    let (retry, abort) = (status.retry.context("no retry")?, status.abort.context("no abort")?);
    ensure!(retry.token == "monday" && retry.message.contains("attempt 2"), "{retry:?}");
    ensure!(abort.token == "stop" && abort.message.contains("Nothing was rolled out"), "{abort:?}");
    let stopped = second.pod.metadata.name.unwrap_or_default();
    ensure!(!world.jobs().await?.iter().any(|job| stopped.starts_with(job)), "{stopped} goes on");
    // The words are still there, for an operator that starts anew as well.
    world.crash_operator().await?;
    annotate(world, "forget-three", annotations::RETRY, "tuesday").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    ensure!(forget_runs(world).await? == 3, "a word acted twice");
    Ok(())
}

pub async fn requests_come_together_and_one_that_fails_leaves(world: &World) -> Result<()> {
    begin_under(world, json!({"coalesce": {"windowSeconds": 8}})).await?;
    world.request("forget-three", "3", "8").await?;
    world.request_waits("forget-three", Reason::WaitingForOthers, "waits until").await?;
    world.request("forget-five", "5", "8").await?;
    world.crash_operator().await?;
    world.forget(the_three_leaks).await?;
    world.request_until("forget-three", RequestPhase::Held).await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-five", RequestPhase::Fulfilled).await?;
    let runs = world.runs().await?;
    let shared = runs.iter().filter(|run| run.spec.requests.len() == 2).count();
    ensure!(shared == 1 && forget_runs(world).await? == 2, "{shared} runs were shared");
    world.request_until("forget-three", RequestPhase::Held).await?;
    Ok(())
}

pub async fn what_an_earlier_request_asks_for_has_no_run_of_its_own(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    world.request("once-more", "3", "9").await?;
    let waits = world.request_waits("once-more", Reason::Duplicate, "forget-three").await?;
    ensure!(waits.status.is_some_and(|status| status.duplicate_of == ["forget-three"]), "of whom?");
    world.crash_operator().await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let done = world.request_until("once-more", RequestPhase::Fulfilled).await?;
    ensure!(done.status.is_some_and(|status| status.duplicate_of == ["forget-three"]), "of whom?");
    ensure!(forget_runs(world).await? == 1, "it had a run");
    Ok(())
}

pub async fn old_runs_go_and_those_in_the_ledger_stay(world: &World) -> Result<()> {
    begin_under(world, json!({"retention": {"runs": 1}})).await?;
    world.request("forget-three", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let recorded = world.ledger().await?[0].run.clone();
    for name in ["first", "second"] {
        world.request(name, "5", "8").await?;
        world.forget(|record| record.quality.candidate *= 100.0).await?;
        world.request_until(name, RequestPhase::Held).await?;
    }
    // The model looks again once the last one is over.
    let settled = async || -> Result<bool> { Ok(world.runs().await?.len() == 3) };
    for _ in 0..100 {
        if settled().await? {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let runs = world.runs().await?;
    let is_there = |request: &str| runs.iter().any(|run| run.spec.requests.iter().any(|r| r.name == request));
    ensure!(is_there("forget-three") && is_there("second") && !is_there("first"), "{runs:#?}");
    ensure!(runs.iter().any(|run| run.metadata.name.as_ref() == Some(&recorded)), "the ledger's is gone");
    ensure!(world.request_until("first", RequestPhase::Held).await.is_ok(), "its answer is gone");
    Ok(())
}
