//! What the operator tells Prometheus. Its caches may be a moment behind what the API server says.

use anyhow::Result;
use lethe_api::v1alpha1::{DiffusionModel, RequestPhase, UnlearnRequest};
use lethe_tests::{World, examples, place::MODEL, wait};

pub async fn series_come_with_their_object_and_go_with_it(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.apply(&examples::first("forget-three.yaml")?).await?;
    world.request_until("forget-three", RequestPhase::Training).await?;
    let namespace = &world.namespace;
    let object = format!("model=\"digits\",namespace=\"{namespace}\",request=\"forget-three\"");
    let due = format!("lethe_request_due_timestamp_seconds{{{object}}} 1797757200\n");
    let working = "lethe_requests{phase=\"Training\"} 1\n";
    expect(world, &["lethe_leader 1\n", "lethe_build_info{version=\"", working, &due], &[]).await?;

    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let bound = format!("lethe_gate_bound{{gate=\"direct-leak\",{object},target=\"3\"}}");
    let compliant = format!("lethe_model_compliant{{model=\"digits\",namespace=\"{namespace}\"}} 1\n");
    let drift = format!("lethe_served_digest_drift{{model=\"digits\",namespace=\"{namespace}\"}} 0\n");
    let counted = "lethe_gate_evaluations_total{gate=\"direct-leak\",verdict=\"Pass\"} 1\n";
    let stages = ["prepare", "forget", "evaluate"]
        .map(|stage| format!("lethe_run_duration_seconds_count{{stage=\"{stage}\"}} 1\n"));
    let there = [&bound, &compliant, &drift, counted, &stages[0], &stages[1], &stages[2]];
    expect(world, &there, &[&due]).await?;

    world.delete::<UnlearnRequest>("forget-three").await?;
    expect(world, &[&compliant], &["request=\"forget-three\""]).await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    expect(world, &[], &["model=\"digits\""]).await
}

pub async fn a_gate_that_fails_is_counted(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("leaks", "3", "8").await?;
    world.forget(|measured| measured.targets[0].leak.hits = 30).await?;
    world.request_until("leaks", RequestPhase::Held).await?;
    let there = [
        "lethe_gate_evaluations_total{gate=\"direct-leak\",verdict=\"Fail\"} 1\n",
        "lethe_gate_evaluations_total{gate=\"hygiene\",verdict=\"Pass\"} 1\n",
        "lethe_requests{phase=\"Held\"} 1\n",
    ];
    expect(world, &there, &["gate=\"direct-leak\",verdict=\"Pass\"} 1"]).await
}

/// Waits until the metrics hold every text of `there` and none of `gone`.
async fn expect(world: &World, there: &[&str], gone: &[&str]) -> Result<()> {
    let what = format!("the metrics have {there:?} and not {gone:?}");
    let is = |text: &str| there.iter().all(|t| text.contains(t)) && !gone.iter().any(|t| text.contains(t));
    world.metrics_until(&what, is).await.map(|_| ())
}
