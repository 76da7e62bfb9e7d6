//! What the live server shows is asked of it, and decides.

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use lethe_api::v1alpha1::{
    ConditionType, DiffusionModel, Reason, RequestPhase, Stage, UnlearnRequest, Verdict,
};
use lethe_tests::{
    World,
    place::{HasConditions, MODEL, bundle},
    wait,
    world::policy,
};
use serde_json::{Value, json};

/// A model of which nothing is served at first.
pub fn unserved(world: &World) -> Result<Value> {
    let mut model = world.model()?;
    model["spec"]["serving"]["initial"] = json!("None");
    Ok(model)
}

/// Nothing is served at first, and the live server is asked after every roll-out.
async fn begin(world: &World) -> Result<()> {
    world.begin_with(watchful()?, unserved(world)?).await?;
    prepare(world).await
}

/// Plays the trainer until requests can be worked for.
pub async fn prepare(world: &World) -> Result<()> {
    let task = world.task(Stage::Prepare).await?;
    world.succeed(&task).await?;
    world.model_until("it is prepared", |m| ConditionType::Prepared.is_true(m.conditions())).await?;
    Ok(())
}

/// The policy of `examples/` with a gate on what is served.
pub fn watchful() -> Result<Value> {
    let mut policy = policy()?;
    let gate = json!({"name": "served-leak", "maxBound": "0.005", "minSamples": 3000});
    if let Some(gates) = policy["spec"]["gates"].as_array_mut() {
        gates.retain(|gate| gate["name"] != "served-leak");
        gates.push(gate);
    }
    Ok(policy)
}

pub async fn a_roll_back_of_the_deployment_is_said_of_the_requests_that_it_exposes(
    world: &World,
) -> Result<()> {
    begin(world).await?;
    for (name, label) in [("first", "3"), ("second", "5")] {
        world.request(name, label, "8").await?;
        world.forget(|_| {}).await?;
        world.audit(|_| {}).await?;
        world.request_until(name, RequestPhase::Fulfilled).await?;
    }
    let ledger = world.ledger().await?;
    // While nobody sets it back.
    world.take_operator().await?.kill().await?;
    world.drift(Some(&ledger[0].digest)).await?;
    world.start_operator().await?;
    let back = |d: &Deployment| bundle(d).as_deref() == Some(ledger[1].digest.as_str());
    wait::until(&world.api::<Deployment>(), MODEL, "it is set back", back).await?;
    world.request_until("second", RequestPhase::Fulfilled).await?;
    wait::until_answer(
        "events tell of it, for the second request only",
        async || Ok(world.events().await),
        |events| {
            let exposed =
                |name: &str| events.contains(&format!("event Warning Reexposed UnlearnRequest/{name}"));
            exposed("second") && !exposed("first")
        },
    )
    .await?;
    Ok(())
}

/// The minute after this one.
pub fn soon() -> String {
    let next = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
    format!("{} * * * *", next.to_zoned(jiff::tz::TimeZone::UTC).minute())
}

pub async fn an_audit_that_is_due_and_fails_exposes_what_was_forgotten(world: &World) -> Result<()> {
    begin(world).await?;
    world.request("first", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.audit(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    world.patch::<DiffusionModel>(MODEL, json!({"spec": {"audit": {"schedule": soon()}}})).await?;
    world.audit(|shown| shown.targets[0].leak.hits = 300).await?;
    world.request_until("first", RequestPhase::Reexposed).await?;
    has_pods(world, 0).await?;
    let accused = |m: &DiffusionModel| {
        ConditionType::Compliant.is_false(m.conditions()) && ConditionType::Audited.is_false(m.conditions())
    };
    let model = world.model_until("it is not compliant", accused).await?;
    ensure!(model.status.is_some_and(|s| s.exposed == ["3"] && s.next_audit.is_some()), "it says too little");
    Ok(())
}

/// The Deployment, once it is to have so many pods.
pub async fn has_pods(world: &World, replicas: i32) -> Result<Deployment> {
    let what = format!("it has {replicas} replicas");
    let is = |d: &Deployment| d.spec.as_ref().and_then(|spec| spec.replicas) == Some(replicas);
    wait::until(&world.api::<Deployment>(), MODEL, &what, is).await
}

pub async fn a_live_server_that_leaks_is_taken_down_until_one_does_not(world: &World) -> Result<()> {
    begin(world).await?;
    world.request("leaks", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.audit(|shown| shown.targets[0].leak.hits = 300).await?;
    world.request_says("leaks", Reason::GateFailed, "300 of 3000 samples of the live server").await?;
    world.request_until("leaks", RequestPhase::Failed).await?;
    has_pods(world, 0).await?;
    let accused = |m: &DiffusionModel| ConditionType::Compliant.is_false(m.conditions());
    world.model_until("it is not called compliant", accused).await?;
    ensure!(world.ledger().await?.is_empty(), "the ledger was written");

    world.request("again", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    let task = world.task(Stage::Audit).await?;
    let waits = world.api::<UnlearnRequest>().get("again").await?;
    ensure!(
        waits.status.and_then(|s| s.phase) == Some(RequestPhase::RollingOut),
        "it is fulfilled too early"
    );
    // Whoever goes on from here knows that the live server is being asked.
    world.crash_operator().await?;
    world.succeed(&task).await?;
    world.request_until("again", RequestPhase::Fulfilled).await?;
    let deployment = has_pods(world, 1).await?;
    ensure!(bundle(&deployment).as_deref() == Some(candidate.as_str()), "something else is served");
    let ready = |m: &DiffusionModel| ConditionType::Ready.is_true(m.conditions());
    let model = world.model_until("it is Ready", ready).await?;
    let audit = model.status.and_then(|status| status.audit);
    ensure!(
        audit.is_some_and(|a| a.verdict == Verdict::Pass && a.digest == candidate),
        "no audit is on record"
    );
    Ok(())
}
