//! An operator that dies after every single write, in the scenarios that do not end well. The one that does is in `crash.rs`.

use anyhow::{Result, ensure};
use lethe_api::{
    Digest,
    v1alpha1::{ConditionType, DiffusionModel, Reason, RequestPhase, Stage, UnlearnRequest, annotations},
};
use lethe_tests::{
    World,
    kubelet::Conduct,
    place::{HasConditions, condition},
    trainer, wait,
    world::policy,
};
use serde_json::json;

use crate::{
    audits::{has_pods, prepare, soon, unserved, watchful},
    bases::{edit_base, is_in_service},
    crash::every_job_was_made_once,
    rollout::somebody_names,
};

pub async fn dying_all_the_time_it_holds_what_leaks(world: &World) -> Result<()> {
    begin(world, 300).await?;
    let life = async {
        world.prepare().await?;
        world.request("leaks", "3", "8").await?;
        world.forget(|measured| measured.targets[0].leak.hits = 30).await?;
        world.request_until("leaks", RequestPhase::Held).await?;
        rests(world).await
    };
    world.dying(life).await?;
    nothing_changed(world).await
}

pub async fn dying_all_the_time_it_turns_back_a_roll_out_that_stalls(world: &World) -> Result<()> {
    begin(world, 5).await?;
    let life = async {
        world.prepare().await?;
        world.kubelet.set(Conduct::Stuck);
        world.request("stuck", "3", "8").await?;
        world.forget(|_| {}).await?;
        world.request_says("stuck", Reason::RolloutTimedOut, "").await?;
        world.kubelet.set(Conduct::Honest);
        world.request_until("stuck", RequestPhase::Failed).await?;
        rests(world).await
    };
    world.dying(life).await?;
    nothing_changed(world).await
}

pub async fn dying_all_the_time_it_lets_two_requests_share_a_run(world: &World) -> Result<()> {
    begin(world, 300).await?;
    let life = async {
        world.prepare().await?;
        world.request("first", "3", "8").await?;
        let task = world.task(Stage::Forget).await?;
        for (name, target) in [("second", "5"), ("third", "7")] {
            world.request(name, target, "1").await?;
            world.request_until(name, RequestPhase::Queued).await?;
        }
        world.succeed(&task).await?;
        world.evaluate(|_| {}).await?;
        world.request_until("first", RequestPhase::Fulfilled).await?;
        let candidate = world.forget(|_| {}).await?;
        for name in ["second", "third"] {
            world.request_until(name, RequestPhase::Fulfilled).await?;
        }
        rests(world).await?;
        Ok(candidate)
    };
    let candidate = world.dying(life).await?;
    world.assert_serves(&candidate).await?;
    let ledger = world.ledger().await?;
    let forgotten: Vec<_> = ledger.iter().map(|entry| entry.targets.join(",")).collect();
    ensure!(forgotten == ["3", "5", "7"], "{ledger:?}");
    ensure!(ledger[1].digest == candidate && ledger[2].digest == candidate, "{ledger:?}");
    every_job_was_made_once(world, &["prepare", "forget", "evaluate", "forget", "evaluate"]).await
}

pub async fn dying_all_the_time_it_lets_go_of_what_is_deleted(world: &World) -> Result<()> {
    begin(world, 300).await?;
    let life = async {
        world.prepare().await?;
        world.request("stays", "3", "8").await?;
        let candidate = world.forget(|_| {}).await?;
        world.request_until("stays", RequestPhase::Fulfilled).await?;
        world.request("withdrawn", "7", "1").await?;
        world.task(Stage::Forget).await?;
        world.delete::<UnlearnRequest>("withdrawn").await?;
        wait::until_gone(&world.api::<UnlearnRequest>(), "withdrawn", None).await?;
        rests(world).await?;
        // The model goes, and comes back under its name: what it had to forget is not forgotten.
        let before = world.ledger().await?;
        let name = lethe_tests::place::MODEL;
        world.delete::<DiffusionModel>(name).await?;
        wait::until_gone(&world.api::<DiffusionModel>(), name, None).await?;
        world.apply(&world.model()?).await?;
        let is_back =
            |model: &DiffusionModel| model.status.as_ref().is_some_and(|status| status.ledger == before);
        world.model_until("its ledger is back", is_back).await?;
        Ok(candidate)
    };
    let candidate = world.dying(life).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest == candidate, "{ledger:?}");
    Ok(())
}

/// Once what it hears leaves nothing to serve, and once it does not.
pub async fn dying_all_the_time_it_has_the_live_server_asked(world: &World) -> Result<()> {
    world.lay_out(watchful()?, unserved(world)?).await?;
    let life = async {
        prepare(world).await?;
        world.request("leaks", "3", "8").await?;
        world.forget(|_| {}).await?;
        world.audit(|shown| shown.targets[0].leak.hits = 300).await?;
        world.request_says("leaks", Reason::GateFailed, "of the live server").await?;
        has_pods(world, 0).await?;
        rests(world).await?;
        ensure!(world.ledger().await?.is_empty(), "the ledger was written");
        world.request("again", "3", "8").await?;
        let candidate = world.forget(|_| {}).await?;
        world.audit(|_| {}).await?;
        world.request_until("again", RequestPhase::Fulfilled).await?;
        rests(world).await?;
        Ok(candidate)
    };
    let candidate = world.dying(life).await?;
    world.died_more_than(25)?;
    world.assert_serves(&candidate).await?;
    has_pods(world, 1).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest == candidate, "{ledger:?}");
    let attempt = ["forget", "evaluate", "audit"];
    every_job_was_made_once(world, &[&["prepare"][..], &attempt, &attempt].concat()).await
}

/// By itself, as the policy says, and then because somebody asks for it.
pub async fn dying_all_the_time_it_tries_again(world: &World) -> Result<()> {
    let mut stubborn = policy()?;
    stubborn["spec"]["onGateFailure"] = json!({"action": "Retry", "attempts": 2, "waitSeconds": 1});
    world.lay_out(stubborn, world.model()?).await?;
    let life = async {
        world.prepare().await?;
        world.request("stubborn", "3", "8").await?;
        for _ in 0..2 {
            world.forget(|measured| measured.targets[0].leak.hits = 30).await?;
        }
        world.request_until("stubborn", RequestPhase::Held).await?;
        rests(world).await?;
        let word = json!({"metadata": {"annotations": {annotations::RETRY: "monday"}}});
        world.patch::<UnlearnRequest>("stubborn", word).await?;
        let candidate = world.forget(|_| {}).await?;
        let done = world.request_until("stubborn", RequestPhase::Fulfilled).await?;
        rests(world).await?;
        Ok((candidate, done))
    };
    let (candidate, done) = world.dying(life).await?;
    world.died_more_than(30)?;
    let attempts = done.status.and_then(|status| status.attempts).map(|attempts| attempts.used);
    ensure!(attempts == Some(3), "{attempts:?} attempts");
    world.assert_serves(&candidate).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest == candidate, "{ledger:?}");
    let attempt = ["forget", "evaluate"];
    every_job_was_made_once(world, &[&["prepare"][..], &attempt, &attempt, &attempt].concat()).await
}

/// It dies as soon as the time of an audit comes: what was before is as in other scenarios.
pub async fn dying_all_the_time_it_says_what_an_audit_on_a_schedule_exposes(world: &World) -> Result<()> {
    world.begin_with(watchful()?, unserved(world)?).await?;
    prepare(world).await?;
    world.request("first", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.audit(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    rests(world).await?;
    world.take_operator().await?.stop().await?;
    let name = lethe_tests::place::MODEL;
    world.patch::<DiffusionModel>(name, json!({"spec": {"audit": {"schedule": soon()}}})).await?;
    let life = async {
        world.audit(|shown| shown.targets[0].leak.hits = 300).await?;
        world.request_until("first", RequestPhase::Reexposed).await?;
        has_pods(world, 0).await?;
        let accused = |model: &DiffusionModel| {
            model.status.as_ref().is_some_and(|status| status.exposed == ["3"])
                && ConditionType::Compliant.is_false(model.conditions())
        };
        world.model_until("it is not compliant", accused).await?;
        rests(world).await
    };
    world.dying(life).await?;
    world.died_more_than(6)?;
    // What was found out about it does not make it forgotten any less.
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest == candidate, "{ledger:?}");
    every_job_was_made_once(world, &["prepare", "forget", "evaluate", "audit", "audit"]).await
}

pub async fn dying_all_the_time_it_gets_another_base(world: &World) -> Result<()> {
    begin(world, 300).await?;
    let next = Digest::of("another teacher");
    let life = async {
        world.prepare().await?;
        world.request("first", "3", "8").await?;
        world.forget(|_| {}).await?;
        world.request_until("first", RequestPhase::Fulfilled).await?;
        rests(world).await?;
        edit_base(world, &next).await?;
        let task = world.task(Stage::Prepare).await?;
        world.succeed(&task).await?;
        let candidate = world.forget(|_| {}).await?;
        is_in_service(world, &next).await?;
        Ok(candidate)
    };
    let candidate = world.dying(life).await?;
    world.died_more_than(25)?;
    world.assert_serves(&candidate).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest != candidate, "{ledger:?}");
    every_job_was_made_once(world, &["prepare", "forget", "evaluate", "prepare", "forget", "evaluate"]).await
}

/// Everything but the operator. `patience` is how many seconds a roll-out may take.
/// It changes no Deployment: what is to be served, somebody else has it name.
pub async fn dying_all_the_time_it_publishes_what_somebody_promotes(world: &World) -> Result<()> {
    let mut model = world.model()?;
    model["spec"]["serving"]["promotion"] = json!("Publish");
    world.lay_out(policy()?, model).await?;
    let life = async {
        let task = world.task(Stage::Prepare).await?;
        world.succeed(&task).await?;
        somebody_names(world, &trainer::baseline()).await?;
        world.model_until("it is Ready", |model| condition(model, ConditionType::Ready, "True")).await?;
        world.request("forget-three", "3", "8").await?;
        let candidate = world.forget(|_| {}).await?;
        world.request_says("forget-three", Reason::WaitingForPromotion, "").await?;
        world.assert_serves(&trainer::baseline()).await?;
        somebody_names(world, &candidate).await?;
        world.request_until("forget-three", RequestPhase::Fulfilled).await?;
        rests(world).await?;
        Ok(candidate)
    };
    let candidate = world.dying(life).await?;
    world.died_more_than(12)?;
    world.assert_serves(&candidate).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest == candidate, "{ledger:?}");
    every_job_was_made_once(world, &["prepare", "forget", "evaluate"]).await
}

async fn begin(world: &World, patience: u32) -> Result<()> {
    let mut policy = policy()?;
    policy["spec"]["rollout"]["progressDeadlineSeconds"] = json!(patience);
    world.lay_out(policy, world.model()?).await
}

/// Nothing is at work for the model any more.
async fn rests(world: &World) -> Result<()> {
    let rests =
        |model: &DiffusionModel| model.status.as_ref().is_some_and(|status| status.active_run.is_none());
    world.model_until("its run is over", rests).await?;
    Ok(())
}

/// It died often enough, and the baseline is served as if nobody had asked for anything.
async fn nothing_changed(world: &World) -> Result<()> {
    world.died_more_than(12)?;
    world.assert_serves(&trainer::baseline()).await?;
    ensure!(world.ledger().await?.is_empty(), "the ledger was written");
    every_job_was_made_once(world, &["prepare", "forget", "evaluate"]).await
}
