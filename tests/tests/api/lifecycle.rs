//! The life of requests, when everybody behaves.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use lethe_api::{
    contract::{Override, PlannedTarget, Task as Work},
    v1alpha1::{ConditionType, Reason, RequestPhase, RunType, Stage, UnlearnRequest, Verdict},
};
use lethe_tests::{
    Task, World, examples,
    place::{MODEL, condition, request},
    trainer,
    world::policy,
};
use serde_json::json;

pub async fn a_model_is_made_to_forget(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.assert_serves(&trainer::baseline()).await?;
    world.apply(&examples::first("forget-three.yaml")?).await?;
    let candidate = world.forget(|_| {}).await?;
    let request = world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.assert_serves(&candidate).await?;

    let status = request.status.unwrap_or_default();
    let hopes =
        ["Accepted", "Scheduled", "Trained", "Evaluated", "GatesPassed", "Promoted", "Fulfilled", "Ready"];
    for type_ in hopes {
        ensure!(
            status.conditions.iter().any(|c| c.type_ == type_ && c.status == "True"),
            "{type_} is not True"
        );
    }
    ensure!(status.gate_summary.as_deref() == Some("5/5"), "{:?}", status.gate_summary);
    let due = status.due_at.map(|due| due.0.to_string());
    ensure!(due.as_deref() == Some("2026-12-20T09:00:00Z"), "{due:?}");
    let leak = status.gates.iter().find(|gate| gate.bound.is_some()).context("no gate has a bound")?;
    ensure!(leak.hits == Some(2) && leak.n == Some(3000) && leak.verdict == Verdict::Pass, "{leak:?}");

    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest == candidate, "{ledger:?}");
    ensure!(
        ledger[0].targets == ["3"] && Some(&ledger[0].request.uid) == request.metadata.uid.as_ref(),
        "{ledger:?}"
    );
    let events = world.events().await;
    for (reason, kind) in
        [("Prepared", "DiffusionModel"), ("RanOnCpu", "UnlearnRun"), ("Fulfilled", "UnlearnRequest")]
    {
        ensure!(
            events.lines().any(|line| line.contains(&format!("{reason} {kind}/"))),
            "no {reason} of {kind}:{events}"
        );
    }
    Ok(())
}

pub async fn a_pilot_is_measured_and_never_rolled_out(world: &World) -> Result<()> {
    world.begin_ready().await?;
    let before = world.api::<Deployment>().get(MODEL).await?;
    world.apply(&examples::first("pilot.yaml")?).await?;
    let candidate = world.forget(|_| {}).await?;
    let pilot = world.request_until("try-three", RequestPhase::Tried).await?;
    let status = pilot.status.unwrap_or_default();
    ensure!(status.gate_summary.as_deref() == Some("5/5"), "{:?}", status.gate_summary);
    ensure!(!status.at_risk.is_empty(), "nobody is at risk");
    ensure!(world.ledger().await?.is_empty(), "a pilot is in the ledger");
    world.assert_serves(&trainer::baseline()).await?;
    let after = world.api::<Deployment>().get(MODEL).await?;
    ensure!(after.spec == before.spec, "a pilot changed the Deployment");
    // In earnest it is measured again, and forgotten.
    world.request("forget-three", "3", "8").await?;
    world.evaluate(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.assert_serves(&candidate).await
}

pub async fn gates_that_do_not_pass_change_nothing(world: &World) -> Result<()> {
    world.begin_ready().await?;
    let before = world.api::<Deployment>().get(MODEL).await?;
    world.request("leaks", "3", "8").await?;
    world.forget(|measured| measured.targets[0].leak.hits = 30).await?;
    let held = world.request_until("leaks", RequestPhase::Held).await?;
    let conditions = held.status.map(|status| status.conditions).unwrap_or_default();
    let ready = ConditionType::Ready.find(&conditions).context("no Ready")?;
    ensure!(ready.reason == "GateFailed" && ready.message.contains("direct-leak \"3\" Fail"), "{ready:?}");
    let after = world.api::<Deployment>().get(MODEL).await?;
    ensure!(before.metadata.generation == after.metadata.generation, "the Deployment was changed");
    ensure!(world.ledger().await?.is_empty(), "the ledger was written");

    // The lineage is free for the next one.
    world.request("forgets", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("forgets", RequestPhase::Fulfilled).await?;
    world.assert_serves(&candidate).await
}

pub async fn a_second_request_keeps_the_first_forgotten(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    let first = world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    world.request("second", "7", "1").await?;
    let task = world.task(Stage::Forget).await?;
    ensure!(targets(&task)? == [("3", Some("8")), ("7", Some("1"))], "{:?}", task.plan.task);
    world.succeed(&task).await?;
    let evaluation = world.evaluate(|_| {}).await?;
    ensure!(targets(&evaluation)? == [("3", Some("8")), ("7", Some("1"))], "{:?}", evaluation.plan.task);
    world.request_until("second", RequestPhase::Fulfilled).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 2 && ledger[0].digest == first, "{ledger:?}");
    ensure!(ledger[1].digest == trainer::product(&task.digest), "{ledger:?}");

    // One that asks for what is forgotten already is answered without a run.
    let runs = world.runs().await?.len();
    world.request("third", "3", "9").await?;
    world.request_until("third", RequestPhase::Fulfilled).await?;
    ensure!(world.runs().await?.len() == runs && world.ledger().await?.len() == 2, "it had a run");
    Ok(())
}

pub async fn a_leak_of_an_earlier_target_holds_the_second_request(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    let first = world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    world.request("second", "7", "1").await?;
    let forgotten = |measured: &mut lethe_api::contract::EvaluateRecord| {
        let earlier = measured.targets.iter_mut().filter(|target| target.label == "3");
        earlier.for_each(|target| target.leak.hits = 30);
    };
    world.forget(forgotten).await?;
    world.request_until("second", RequestPhase::Held).await?;
    world.assert_serves(&first).await
}

pub async fn requests_that_wait_share_a_run(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    let first = world.task(Stage::Forget).await?;
    world.request("second", "7", "1").await?;
    world.request_until("second", RequestPhase::Queued).await?;
    world.request("third", "5", "6").await?;
    world.request_until("third", RequestPhase::Queued).await?;
    world.succeed(&first).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    let shared = world.task(Stage::Forget).await?;
    ensure!(targets(&shared)?.len() == 3, "{:?}", shared.plan.task);
    world.succeed(&shared).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("second", RequestPhase::Fulfilled).await?;
    world.request_until("third", RequestPhase::Fulfilled).await?;
    let forgets = world.runs().await?.into_iter().filter(|run| run.spec.type_ == RunType::Forget).count();
    ensure!(forgets == 2, "there were {forgets} runs");
    Ok(())
}

pub async fn a_suspended_request_waits_before_the_run_and_before_the_roll_out(world: &World) -> Result<()> {
    world.begin_ready().await?;
    let mut manifest = request("patient", &["3"], "8");
    manifest["spec"]["suspend"] = json!(true);
    world.apply(&manifest).await?;
    world.request_says("patient", Reason::Suspended, "spec.suspend is true").await?;
    let suspend =
        async |yes: bool| world.patch::<UnlearnRequest>("patient", json!({"spec": {"suspend": yes}})).await;
    suspend(false).await?;
    let task = world.task(Stage::Forget).await?;
    suspend(true).await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_says("patient", Reason::RollingOut, "spec.suspend holds the roll-out").await?;
    world.assert_serves(&trainer::baseline()).await?;
    suspend(false).await?;
    world.request_until("patient", RequestPhase::Fulfilled).await?;
    world.assert_serves(&trainer::product(&task.digest)).await
}

pub async fn a_policy_that_changes_during_a_run_does_not_change_the_run(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("strict", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    let mut lax = policy()?;
    lax["spec"]["gates"][0]["maxBound"] = json!("0.5");
    world.change_policy(&lax).await?;
    world.succeed(&task).await?;
    world.evaluate(|measured| measured.targets[0].leak.hits = 300).await?;
    world.request_until("strict", RequestPhase::Held).await?;
    // It counts for the next one.
    world.request("lax", "3", "8").await?;
    world.forget(|measured| measured.targets[0].leak.hits = 300).await?;
    world.request_until("lax", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn nearest_is_resolved_before_the_trainer_sees_it(world: &World) -> Result<()> {
    world.begin_ready().await?;
    let mut manifest = request("nearest", &["3", "4"], "8");
    manifest["spec"]["override"] = json!({"strategy": "Nearest"});
    world.apply(&manifest).await?;
    let task = world.task(Stage::Forget).await?;
    // The stand-in's judge confuses each digit most with the next one, and 4 goes as well.
    ensure!(targets(&task)? == [("3", Some("5")), ("4", Some("5"))], "{:?}", task.plan.task);
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("nearest", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_request_that_makes_no_sense_for_its_model_is_denied(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    let rest = ["0", "1", "2", "4", "5", "6", "7", "8", "9"];
    let mut every = request("every", &rest, "8");
    every["spec"]["override"] = json!({"strategy": "Random"});
    let cases = [
        (request("unknown", &["eleven"], "8"), Reason::UnknownLabel, "it knows 0, 1, 2"),
        (request("unknown-override", &["5"], "eleven"), Reason::UnknownLabel, "\"eleven\""),
        (request("in-ledger", &["5"], "3"), Reason::OverrideIsForgotten, "choose a label that stays"),
        (every, Reason::NothingWouldRemain, "keep at least one"),
    ];
    let runs = world.runs().await?.len();
    for (manifest, reason, words) in cases {
        world.apply(&manifest).await?;
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        world.request_says(name, reason, words).await?;
        world.request_until(name, RequestPhase::Denied).await?;
    }
    ensure!(world.runs().await?.len() == runs, "a denied request had a run");
    Ok(())
}

pub async fn nothing_is_served_before_the_first_request_if_the_model_says_so(world: &World) -> Result<()> {
    let mut model = world.model()?;
    model["spec"]["serving"]["initial"] = json!("None");
    world.begin_with(policy()?, model).await?;
    let task = world.task(Stage::Prepare).await?;
    world.succeed(&task).await?;
    let ready = |m: &lethe_api::v1alpha1::DiffusionModel| condition(m, ConditionType::Ready, "True");
    world.model_until("it is Ready", ready).await?;
    ensure!(world.named_bundle().await?.is_none(), "something is served");
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.assert_serves(&candidate).await
}

/// Labels to forget with what replaces them (nothing stands for Random).
fn targets(task: &Task) -> Result<Vec<(&str, Option<&str>)>> {
    let targets: &[PlannedTarget] = match &task.plan.task {
        Work::Forget(work) => &work.targets,
        Work::Evaluate(work) => &work.targets,
        Work::Audit(task) => &task.targets,
        Work::Prepare(_) => anyhow::bail!("a Prepare plan has no targets"),
    };
    Ok(targets
        .iter()
        .map(|target| {
            let label = match &target.replacement {
                Override::Fixed { label } => Some(label.as_str()),
                _ => None,
            };
            (target.label.as_str(), label)
        })
        .collect())
}
