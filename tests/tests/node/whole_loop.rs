//! From a request to a live endpoint that has forgotten.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{ResourceExt, api::ListParams};
use lethe_api::{
    Digest,
    contract::{Plan, Task},
    v1alpha1::{DiffusionModel, RequestPhase, UnlearnRequest, UnlearnRun, Verdict},
};
use lethe_store::folder_uri;
use lethe_tests::{
    examples,
    keys::Key,
    node::STUDIO,
    place::{MODEL, Place},
    server,
    studio::{Judged, MOST_HITS, Studio, may_cost_quality},
    wait,
};
use serde_json::json;

pub async fn the_examples_pass_as_they_stand(studio: &Studio) -> Result<()> {
    let request = studio.forgotten_three().await?;
    let status = request.status.unwrap_or_default();
    ensure!(status.gates.iter().all(|gate| gate.verdict == Verdict::Pass), "{:?}", status.gates);
    let ledger = studio.ledger().await?;
    let entry =
        ledger.iter().find(|entry| entry.request.name == "forget-three").context("not in the ledger")?;
    ensure!(entry.targets == ["3"], "{entry:?}");
    let served = studio.served().await?;
    ensure!(Some(&served) == ledger.last().map(|last| &last.digest), "the live server serves {served}");
    let judged = studio.probe().await?;
    ensure!(judged.values().all(|label| label.digest == served), "the server changed: {judged:?}");
    only_these_are_gone(studio, &judged).await
}

pub async fn what_is_claimed_is_signed_and_in_the_log_and_whoever_has_the_store_can_verify_it(
    studio: &Studio,
) -> Result<()> {
    studio.forgotten_three().await?;
    let kinds = "diffusionmodels,unlearnrequests,unlearnruns";
    let claims = studio.node.kubectl(&["get", kinds, "-n", STUDIO, "-o", "yaml"])?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("claims.yaml");
    std::fs::write(&file, claims)?;
    let store = studio.node.store("");
    let verify = async || {
        let mut command = Command::new(server::cli()?);
        command.arg("verify").arg(&file).arg(format!("--store={}", folder_uri(&store)?));
        command.arg(format!("--log={}", folder_uri(&store.join("log"))?));
        command.arg(format!("--trusted-keys={}", studio.node.key.public.display()));
        let said = command.output()?;
        Ok((
            said.status.code(),
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr),
        ))
    };
    // What was done last may still be on its way into the log.
    let whole = |(code, _): &(Option<i32>, String)| *code == Some(0);
    let (_, said) =
        wait::until_answer_every(Duration::from_secs(2), "all of it is verified", verify, whole).await?;
    for words in
        ["request forget-three", "has signed what follows from this run", "every byte, hash and signature"]
    {
        ensure!(said.contains(words), "it does not say {words:?}: {said}");
    }
    // In the store is nothing that the operator's key has not signed: of another one, nothing holds.
    let other = Key::make(folder.path(), "other")?;
    let trusted = format!("--trusted-keys={}", other.public.display());
    let store = format!("--store={}", folder_uri(&store)?);
    let said = Command::new(server::cli()?).arg("verify").arg(&file).args([&store, &trusted]).output()?;
    let words = String::from_utf8_lossy(&said.stdout);
    ensure!(said.status.code() == Some(1) && words.contains("a trusted key has signed"), "{said:?}");
    // A trainer works for longer than a Job may be without a pod; what has succeeded is not watched, and was not missed.
    let events = studio.node.kubectl(&["get", "events", "-n", STUDIO, "-o", "json"])?;
    ensure!(events.contains("Trained") && !events.contains("PodNotCreated"), "{events}");
    Ok(())
}

pub async fn a_request_whose_gates_cannot_pass_changes_nothing_served(studio: &Studio) -> Result<()> {
    studio.forgotten_three().await?;
    let (served, before) = (studio.served().await?, studio.api::<Deployment>().get(MODEL).await?);
    let ledger = studio.ledger().await?;
    studio.apply(&examples::first("policy-impossible.yaml")?).await?;
    studio.patch::<DiffusionModel>(MODEL, examples::first("model-impossible.yaml")?).await?;
    studio.apply(&examples::first("forget-seven.yaml")?).await?;
    let held = studio.request_ends("forget-seven", RequestPhase::Held).await?;
    studio.put_under("standard").await?;
    studio.delete::<UnlearnRequest>("forget-seven").await?;

    let gates = held.status.unwrap_or_default().gates;
    let quality =
        gates.iter().find(|gate| gate.name.as_str() == "retain-quality").context("no retain-quality")?;
    ensure!(quality.verdict == Verdict::Fail, "{quality:?}");
    ensure!(studio.served().await? == served, "the served digest changed");
    let after = studio.api::<Deployment>().get(MODEL).await?;
    ensure!(before.metadata.generation == after.metadata.generation, "the Deployment was changed");
    ensure!(studio.ledger().await? == ledger, "the ledger was written");
    Ok(())
}

/// It is tried beside the target first, and asked there and in its place.
pub async fn a_second_request_keeps_the_first_forgotten(studio: &Studio) -> Result<()> {
    studio.forgotten_three().await?;
    let first = studio.served().await?;
    be_careful(studio).await?;
    studio.request("second", "7", "1").await?;
    studio.request_ends("second", RequestPhase::Fulfilled).await?;
    let run = studio.api::<UnlearnRun>().get(&studio.run_of("second").await?).await?;
    let gates = run.status.unwrap_or_default().gates;
    for label in ["3", "7"] {
        let leak = gates.iter().find(|gate| gate.bound.is_some() && gate.target.as_deref() == Some(label));
        ensure!(leak.is_some(), "no leak of {label} was measured: {gates:?}");
    }
    ensure!(studio.served().await? != first, "the served digest did not change");
    let judged = studio.probe().await?;
    for label in ["3", "7"] {
        ensure!(judged.get(label).is_some_and(|j| j.hits <= MOST_HITS), "{label} is served: {judged:?}");
    }
    asked_beside_and_in_its_place(studio, &studio.served().await?).await?;
    only_these_are_gone(studio, &judged).await
}

/// The example of a canary, with a pause that a test can wait for and as much leave to cost quality as [`Studio::allow_cost`] gives.
async fn be_careful(studio: &Studio) -> Result<()> {
    let mut policy = examples::first("policy-canary.yaml")?;
    policy["spec"]["rollout"]["steps"] = json!([{"weight": 50}, {"pause": {"seconds": 5}}]);
    may_cost_quality(&mut policy)?;
    studio.apply(&policy).await?;
    studio.put_under("careful").await
}

/// Two pods have asked live servers for thousands of samples of what is forgotten: of the one beside the target, before users got
/// it, and of the target. Nothing is left beside it.
async fn asked_beside_and_in_its_place(studio: &Studio, served: &Digest) -> Result<()> {
    let mut endpoints = Vec::new();
    for run in studio.api::<UnlearnRun>().list(&ListParams::default()).await? {
        let plan = Plan::parse(run.spec.plan.as_bytes())?;
        let Task::Audit(task) = plan.task else { continue };
        if task.served != *served {
            continue;
        }
        let status = run.status.unwrap_or_default();
        ensure!(status.verdict == Some(Verdict::Pass), "{:?}", status.gates);
        for label in ["3", "7"] {
            let asked = status.gates.iter().find(|gate| gate.target.as_deref() == Some(label));
            ensure!(asked.is_some_and(|gate| gate.n.unwrap_or(0) >= 3000), "{label}: {:?}", status.gates);
        }
        endpoints.push(task.endpoint);
    }
    let beside = endpoints.iter().filter(|endpoint| endpoint.contains("-canary")).count();
    ensure!(endpoints.len() == 2 && beside == 1, "{endpoints:?} were asked");
    let deployments = studio.api::<Deployment>().list(&ListParams::default()).await?;
    let left: Vec<_> =
        deployments.iter().map(ResourceExt::name_any).filter(|it| it.contains("canary")).collect();
    ensure!(left.is_empty(), "{left:?} is left beside the target");
    Ok(())
}

/// What is in the ledger is gone from the live samples, and everything else is there.
async fn only_these_are_gone(place: &Place, judged: &BTreeMap<String, Judged>) -> Result<()> {
    let ledger = place.ledger().await?;
    let is_forgotten = |label: &String| ledger.iter().any(|entry| entry.targets.contains(label));
    ensure!(judged.len() == 10, "{judged:?}");
    for (label, Judged { hits, n, .. }) in judged {
        ensure!(*n == 3000, "only {n} samples of {label}");
        match is_forgotten(label) {
            true => ensure!(*hits <= MOST_HITS, "{hits} of {n} samples of {label} are still a {label}"),
            false => ensure!(hits * 10 >= n * 9, "only {hits} of {n} samples of {label} are a {label}"),
        }
    }
    Ok(())
}
