//! Pods that are killed in the middle of their work.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use lethe_api::v1alpha1::{Reason, RequestPhase, Stage, UnlearnRequest, UnlearnRun, labels};
use lethe_tests::{studio::Studio, wait};
use serde_json::json;

pub async fn an_operator_that_is_killed_at_every_stage_comes_to_the_same_end(studio: &Studio) -> Result<()> {
    studio.allow_cost().await?;
    let entries = studio.ledger().await?.len();
    studio.request("operator-dies", "5", "6").await?;
    let run = studio.run_of("operator-dies").await?;
    for stage in [Stage::Forget, Stage::Evaluate] {
        studio.running(&run, stage).await?;
        studio.kill_operator().await?;
    }
    wait::until(&studio.api::<UnlearnRun>(), &run, "it was judged", |run| {
        run.status.as_ref().is_some_and(|status| status.verdict.is_some())
    })
    .await?;
    studio.kill_operator().await?;
    studio.request_ends("operator-dies", RequestPhase::Fulfilled).await?;

    let candidate = studio.candidate(&run).await?;
    ensure!(studio.served().await? == candidate, "another digest is served");
    ensure!(studio.ledger().await?.len() == entries + 1, "{:?}", studio.ledger().await?);
    let selector = ListParams::default().labels(&format!("{}={run}", labels::RUN));
    let jobs = studio.api::<Job>().list(&selector).await?.items;
    let pods = studio.api::<Pod>().list(&selector).await?.items;
    ensure!(
        jobs.len() == 2 && pods.len() == 2,
        "{} Jobs and {} pods instead of 2 and 2",
        jobs.len(),
        pods.len()
    );
    Ok(())
}

pub async fn a_trainer_that_is_killed_goes_on_and_makes_the_same(studio: &Studio) -> Result<()> {
    studio.allow_cost().await?;
    studio.request("trainer-dies", "0", "6").await?;
    let run = studio.run_of("trainer-dies").await?;
    let first = studio.running(&run, Stage::Forget).await?;
    wait::until(&studio.api::<UnlearnRequest>(), "trainer-dies", "it trains", is_training).await?;
    // SIGTERM: it writes a checkpoint and says that it was told to stop. First as a queue does it, then by hand.
    let job = format!("{run}-forget");
    studio.patch::<Job>(&job, json!({"spec": {"suspend": true}})).await?;
    wait::until_gone(&studio.api::<Pod>(), &first.name_any(), None).await?;
    studio.request_waits("trainer-dies", Reason::Suspended, "the Job is suspended").await?;
    studio.patch::<Job>(&job, json!({"spec": {"suspend": false}})).await?;
    let second = studio.running(&run, Stage::Forget).await?;
    wait::until(&studio.api::<UnlearnRequest>(), "trainer-dies", "it trains again", has_trained).await?;
    studio.api::<Pod>().delete(&second.name_any(), &DeleteParams::default()).await?;
    wait::until_gone(&studio.api::<Pod>(), &second.name_any(), None).await?;
    let third = studio.running(&run, Stage::Forget).await?;
    let interrupted = studio.candidate(&run).await?;
    let log = studio.node.kubectl(&["logs", "-n", &studio.namespace, &third.name_any()])?;
    let resumed = log.lines().find(|line| line.contains("resum") || line.contains("continu"));
    resumed.with_context(|| format!("the third pod did not go on from a checkpoint:\n{log}"))?;
    let failed =
        studio.api::<Job>().get(&job).await?.status.and_then(|status| status.failed).unwrap_or_default();
    ensure!(failed == 0, "{failed} pods that were told to stop count as failed");

    // The same plan again, this time in peace.
    studio.api::<UnlearnRun>().delete(&run, &DeleteParams::background()).await?;
    wait::until_gone(&studio.api::<Pod>(), &third.name_any(), None).await?;
    let undisturbed = studio.candidate(&run).await?;
    ensure!(interrupted == undisturbed, "{interrupted} after an interruption, {undisturbed} without");
    studio.request_ends("trainer-dies", RequestPhase::Fulfilled).await?;
    ensure!(studio.served().await? == undisturbed, "another digest is served");
    Ok(())
}

/// It has done some of its steps.
fn has_trained(request: &UnlearnRequest) -> bool {
    let progress = request.status.as_ref().and_then(|status| status.progress.as_ref());
    progress.is_some_and(|p| p.stage == "forget" && p.step > 0)
}

/// And not nearly all.
fn is_training(request: &UnlearnRequest) -> bool {
    let progress = request.status.as_ref().and_then(|status| status.progress.as_ref());
    progress.is_some_and(|p| p.stage == "forget" && p.step > 0 && p.step < p.total / 2)
}
