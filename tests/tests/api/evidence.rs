//! Signed evidence: nothing is rolled out without it, whatever becomes of the keys, the store and the operator.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use lethe_api::{
    Digest,
    v1alpha1::{
        ConditionType, DiffusionModel, Reason, RequestPhase, Stage, UnlearnRequest, UnlearnRun, Verdict,
    },
};
use lethe_tests::{
    World,
    operator::said_by,
    place::{HasConditions, MODEL, condition, request},
    trainer, wait,
};
use serde_json::json;
use tokio::process::Command;

use crate::crash::{dying_all_the_time_it_forgets_three, one_job_per_stage};

pub async fn what_was_measured_is_signed_before_it_is_rolled_out(world: &World) -> Result<()> {
    let key = world.key("a")?;
    world.set_flags(key.flags(&[&key])?).await;
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    let request = world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    ensure!(condition(&request, ConditionType::Signed, "True"), "{:?}", request.conditions());
    world.assert_serves(&candidate).await?;
    let run = run_of(world, &candidate).await?;
    let found = world.store.evidence(&candidate, &key.trusted()?).await?;
    ensure!(found.good.len() == 1 && found.bad.is_empty(), "{found:?}");
    let (envelope, proof) = &found.good[0];
    ensure!(
        run.status.as_ref().and_then(|status| status.evidence.as_ref()) == Some(envelope),
        "it names another"
    );
    ensure!(
        proof.evidence.verdict == Verdict::Pass && proof.evidence.run.plan == run.spec.plan_digest,
        "{proof:?}"
    );
    ensure!(proof.evidence.requests[0].uid == request.uid().unwrap_or_default(), "{proof:?}");
    // Of the next candidate, which leaks, the same is said as it is.
    world.request("leaks", "5", "8").await?;
    let leaks = world.forget(|measured| measured.targets[0].leak.hits = 300).await?;
    world.request_until("leaks", RequestPhase::Held).await?;
    let signed = || async { Ok(world.store.evidence(&leaks, &key.trusted()?).await?.good) };
    let good = wait::until_answer("it is signed", signed, |good| !good.is_empty()).await?;
    ensure!(good[0].1.evidence.verdict == Verdict::Fail, "{good:?}");
    world.assert_serves(&candidate).await
}

pub async fn a_key_that_cannot_be_read_is_said_and_nothing_is_rolled_out(world: &World) -> Result<()> {
    let key = world.key("a")?;
    let flags = key.flags(&[&key])?;
    let away = key.private.with_extension("away");
    fs::rename(&key.private, &away)?;
    world.set_flags(flags).await;
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    world.forget(|_| {}).await?;
    let words = "every gate passed; not rolled out: the signing key";
    let request = world.request_waits("forget-three", Reason::SigningKeyUnusable, words).await?;
    ensure!(condition(&request, ConditionType::Signed, "False"), "{:?}", request.conditions());
    world.assert_serves(&trainer::baseline()).await?;
    // A Secret that is mounted late is seen without a restart.
    fs::rename(&away, &key.private)?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn evidence_that_somebody_changed_is_not_rolled_out(world: &World) -> Result<()> {
    let key = world.key("a")?;
    world.set_flags(key.flags(&[&key])?).await;
    world.begin_ready().await?;
    let mut manifest = request("patient", &["3"], "8");
    world.apply(&manifest).await?;
    let task = world.task(Stage::Forget).await?;
    // Suspended, the candidate waits with everything that was found.
    manifest["spec"]["suspend"] = json!(true);
    world.apply(&manifest).await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    let candidate = trainer::product(&task.digest);
    let requests = world.api::<UnlearnRequest>();
    let is_signed = |request: &UnlearnRequest| condition(request, ConditionType::Signed, "True");
    wait::until(&requests, "patient", "it is signed", is_signed).await?;
    let file = world.envelopes(&candidate)?.pop().context("no envelope")?;
    let whole = fs::read(&file)?;
    let mut changed = whole.clone();
    changed[40] ^= 1;
    fs::write(&file, changed)?;
    manifest["spec"]["suspend"] = json!(false);
    world.apply(&manifest).await?;
    world.request_waits("patient", Reason::EvidenceRefused, "is corrupt").await?;
    world.assert_serves(&trainer::baseline()).await?;
    // What somebody looked at and took away is signed anew.
    fs::remove_file(&file)?;
    world.request_until("patient", RequestPhase::Fulfilled).await?;
    world.assert_serves(&candidate).await?;
    ensure!(fs::read(&file)? == whole, "the same is signed to the same bytes");
    Ok(())
}

pub async fn dying_all_the_time_it_signs_what_it_rolls_out(world: &World) -> Result<()> {
    let key = world.key("a")?;
    world.set_flags(key.flags(&[&key])?).await;
    let candidate = dying_all_the_time_it_forgets_three(world).await?;
    let found = world.store.evidence(&candidate, &key.trusted()?).await?;
    ensure!(found.good.len() == 1 && found.bad.is_empty(), "signed once, however often it died: {found:?}");
    one_job_per_stage(world).await
}

/// As docs/evidence.md has it, and what becomes of it if the last step is left out.
pub async fn a_key_is_replaced_and_what_the_old_one_signed_is_signed_again(world: &World) -> Result<()> {
    let (old, new) = (world.key("old")?, world.key("new")?);
    world.set_flags(old.flags(&[&old])?).await;
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    let first = world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    // The old one is dropped at once. What is served stays; what somebody changes is not set back.
    world.set_flags(new.flags(&[&new])?).await;
    world.crash_operator().await?;
    world.drift(Some(&trainer::baseline())).await?;
    let refused = |model: &DiffusionModel| {
        ConditionType::Serving.find(model.conditions()).is_some_and(|serving| {
            serving.reason == Reason::EvidenceRefused.to_string() && serving.message.contains("sign-again")
        })
    };
    world.model_until("it says why it is not set back", refused).await?;
    wait::until(&world.api::<Deployment>(), MODEL, "it has no pods", |it| replicas(it) == Some(0)).await?;
    // Both are trusted while the new one signs what the old one had signed.
    let flags = new.flags(&[&old, &new])?;
    let said = sign_again(world, &flags).await?;
    ensure!(said.contains("count=1"), "{said}");
    world.model_until("it is Ready again", |model| condition(model, ConditionType::Ready, "True")).await?;
    world.assert_serves(&first).await?;
    ensure!(
        world.store.evidence(&first, &new.trusted()?).await?.good.len() == 1,
        "the new one has not signed it"
    );
    // The next candidate is signed by the new key alone.
    world.request("second", "5", "8").await?;
    let second = world.forget(|_| {}).await?;
    world.request_until("second", RequestPhase::Fulfilled).await?;
    ensure!(
        world.store.evidence(&second, &old.trusted()?).await?.good.is_empty(),
        "the old key signs no more"
    );
    Ok(())
}

async fn run_of(world: &World, candidate: &Digest) -> Result<UnlearnRun> {
    let made = |run: &UnlearnRun| run.status.as_ref().and_then(|s| s.candidate.as_ref()) == Some(candidate);
    world.runs().await?.into_iter().find(made).context("no run has this candidate")
}

fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref()?.replicas
}

/// What an administrator runs after a change of keys. It asks no cluster.
async fn sign_again(world: &World, flags: &[String]) -> Result<String> {
    let mut command = Command::new(&world.server.operator);
    command
        .env_clear()
        .args(["sign-again", "--log-format=text"])
        .arg(format!("--store={}", world.store.uri()))
        .args(flags);
    said_by(&mut command).await
}
