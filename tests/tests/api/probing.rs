//! Gates that read what probes found.

use anyhow::{Context, Result, ensure};
use lethe_api::{
    Digest,
    contract::{EvaluateRecord, Sighting},
    v1alpha1::{DiffusionModel, GateName, Reason, RequestPhase, Verdict},
};
use lethe_tests::{World, examples, place::MODEL, trainer, world::policy};
use serde_json::{Value, json};

/// The policy of every scenario, with the gates and probes of `examples/policy-attack.yaml`.
pub fn thorough() -> Result<Value> {
    let attack = examples::first("policy-attack.yaml")?;
    let mut thorough = policy()?;
    for field in ["gates", "probes"] {
        thorough["spec"][field] = attack["spec"][field].clone();
    }
    Ok(thorough)
}

/// After a hundred steps on twenty images the label is there again. Asked in any ordinary way it never shows.
fn comes_back(measured: &mut EvaluateRecord) {
    let attempts = measured.probes.iter_mut().flat_map(|probes| &mut probes.attempts);
    for one in attempts.filter(|one| one.attempt == "100 steps") {
        one.candidate = Sighting { hits: 480, inside: 450, n: 500 };
    }
}

pub async fn a_candidate_that_only_hides_the_label_is_held(world: &World) -> Result<()> {
    world.begin_with(thorough()?, world.model()?).await?;
    world.prepare().await?;
    world.request("hidden", "3", "8").await?;
    world.request_waits("hidden", Reason::WaitingForReference, "never saw 3").await?;
    let reference =
        json!([{"bundle": Digest::of("without three"), "base": trainer::base(), "labels": ["3"]}]);
    world.patch::<DiffusionModel>(MODEL, json!({"spec": {"neverSaw": reference}})).await?;
    world.forget(comes_back).await?;
    world.request_says("hidden", Reason::GateFailed, "relearning \"3\" Fail").await?;
    let held = world.request_until("hidden", RequestPhase::Held).await?;
    let status = held.status.context("no status")?;
    let verdict =
        |name: GateName| status.gates.iter().find(|gate| gate.name == name).map(|gate| gate.verdict);
    for name in GateName::REQUIRED.into_iter().chain(GateName::PROBES) {
        let expected = if name == GateName::Relearning { Verdict::Fail } else { Verdict::Pass };
        ensure!(verdict(name) == Some(expected), "{name}: {:?}", status.gates);
    }
    ensure!(world.ledger().await?.is_empty(), "the ledger was written");

    world.request("gone", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("gone", RequestPhase::Fulfilled).await?;
    Ok(())
}
