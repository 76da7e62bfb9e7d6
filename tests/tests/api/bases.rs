//! A new base artifact.

use anyhow::{Result, ensure};
use lethe_api::{
    Digest,
    v1alpha1::{ConditionType, DiffusionModel, RequestPhase, Stage, UnlearnPolicy},
};
use lethe_tests::{
    World,
    place::{HasConditions, MODEL},
};
use serde_json::json;

/// Names another base artifact in the spec.
pub async fn edit_base(world: &World, base: &Digest) -> Result<()> {
    let edited = json!({"spec": {"base": {"uri": "file:///artifacts/base/next", "digest": base}}});
    world.patch::<DiffusionModel>(MODEL, edited).await?;
    Ok(())
}

/// Waits until this base is in service, and the model Ready.
pub async fn is_in_service(world: &World, base: &Digest) -> Result<()> {
    let is_so = |model: &DiffusionModel| {
        let status = model.status.clone().unwrap_or_default();
        status.baseline.is_some_and(|baseline| baseline.teacher == *base)
            && status.active_run.is_none()
            && ConditionType::Ready.is_true(&status.conditions)
    };
    world.model_until("the base is in service", is_so).await?;
    Ok(())
}

pub async fn a_new_base_that_leaks_leaves_the_old_one_in_service_until_it_does_not(
    world: &World,
) -> Result<()> {
    world.begin_ready().await?;
    world.request("first", "3", "8").await?;
    let old = world.forget(|_| {}).await?;
    world.request_until("first", RequestPhase::Fulfilled).await?;
    let next = Digest::of("another teacher");
    edit_base(world, &next).await?;
    let task = world.task(Stage::Prepare).await?;
    world.succeed(&task).await?;
    // It waits for the new base, and is not blamed for it.
    let task = world.task(Stage::Forget).await?;
    world.request("second", "5", "8").await?;
    world.request_until("second", RequestPhase::Queued).await?;
    world.succeed(&task).await?;
    world.evaluate(|measured| measured.targets[0].leak.hits = 300).await?;
    let failed = |model: &DiffusionModel| {
        ConditionType::BaseInService.find(model.conditions()).is_some_and(|c| {
            c.status == "False" && c.message.contains("direct-leak") && c.message.contains("stays in service")
        })
    };
    world.model_until("it says why", failed).await?;
    let refused = format!("lethe_base_refused{{model=\"digits\",namespace=\"{}\"}} 1\n", world.namespace);
    world.metrics_until("it can be alerted on", |text| text.contains(&refused)).await?;
    let second = world.forget(|_| {}).await?;
    world.request_until("second", RequestPhase::Fulfilled).await?;
    world.assert_serves(&second).await?;
    // Somebody sees to it.
    let remedy = json!({"spec": {"training": {"forgetSteps": 400}}});
    world.patch::<UnlearnPolicy>("standard", remedy).await?;
    let candidate = world.forget(|_| {}).await?;
    is_in_service(world, &next).await?;
    world.assert_serves(&candidate).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 2 && candidate != second && second != old, "{ledger:?}");
    Ok(())
}
