//! The life of requests, when everybody behaves.

use anyhow::{Result, ensure};
use lethe_api::v1alpha1::RequestPhase;
use lethe_tests::World;

pub async fn a_model_is_made_to_forget(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    let request = world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.assert_serves(&candidate).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest == candidate, "{ledger:?}");
    ensure!(ledger[0].request.uid == request.metadata.uid.unwrap_or_default(), "{ledger:?}");
    Ok(())
}
