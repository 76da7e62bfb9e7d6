//! From a request to a live endpoint that has forgotten.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use lethe_api::v1alpha1::{DiffusionModel, RequestPhase, UnlearnRequest, UnlearnRun, Verdict};
use lethe_tests::{
    examples,
    place::{MODEL, Place},
    studio::{Judged, MOST_HITS, Studio},
};

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

pub async fn a_second_request_keeps_the_first_forgotten(studio: &Studio) -> Result<()> {
    studio.forgotten_three().await?;
    let first = studio.served().await?;
    studio.allow_cost().await?;
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
    only_these_are_gone(studio, &judged).await
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
