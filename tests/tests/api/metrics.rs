//! What the operator tells Prometheus.

use anyhow::{Result, ensure};
use lethe_api::v1alpha1::{DiffusionModel, RequestPhase, UnlearnRequest};
use lethe_tests::{World, examples, place::MODEL, wait};

pub async fn series_come_with_their_object_and_go_with_it(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.apply(&examples::first("forget-three.yaml")?).await?;
    world.request_until("forget-three", RequestPhase::Training).await?;
    let object = format!("model=\"digits\",namespace=\"{}\",request=\"forget-three\"", world.namespace);
    let due = format!("lethe_request_due_timestamp_seconds{{{object}}} 1797757200\n");
    let text = world.metrics_until("the deadline is there", |text| text.contains(&due)).await?;
    for series in
        ["lethe_leader 1\n", "lethe_build_info{version=\"", "lethe_requests{phase=\"Training\"} 1\n"]
    {
        ensure!(text.contains(series), "no {series:?} in\n{text}");
    }
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let bound = format!("lethe_gate_bound{{gate=\"direct-leak\",{object},target=\"3\"}}");
    let counted = "lethe_gate_evaluations_total{gate=\"direct-leak\",verdict=\"Pass\"} 1\n";
    let text = world.metrics_until("the bound is there", |text| text.contains(&bound)).await?;
    ensure!(text.contains(counted) && !text.contains(&due), "{text}");
    for stage in ["prepare", "forget", "evaluate"] {
        let series = format!("lethe_run_duration_seconds_count{{stage=\"{stage}\"}} 1\n");
        ensure!(text.contains(&series), "no {series:?} in\n{text}");
    }
    let compliant =
        format!("lethe_model_compliant{{model=\"digits\",namespace=\"{}\"}} 1\n", world.namespace);
    ensure!(text.contains(&compliant), "{text}");

    world.delete::<UnlearnRequest>("forget-three").await?;
    world
        .metrics_until("the request's series are gone", |text| !text.contains("request=\"forget-three\""))
        .await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    world.metrics_until("the model's series are gone", |text| !text.contains("model=\"digits\"")).await?;
    Ok(())
}

pub async fn a_gate_that_fails_is_counted(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("leaks", "3", "8").await?;
    world.forget(|measured| measured.targets[0].leak.hits = 30).await?;
    world.request_until("leaks", RequestPhase::Held).await?;
    let failed = "lethe_gate_evaluations_total{gate=\"direct-leak\",verdict=\"Fail\"} 1\n";
    let text = world.metrics_until("the failure is counted", |text| text.contains(failed)).await?;
    ensure!(text.contains("lethe_gate_evaluations_total{gate=\"hygiene\",verdict=\"Pass\"} 1\n"), "{text}");
    ensure!(text.contains("lethe_requests{phase=\"Held\"} 1\n"), "{text}");
    Ok(())
}
