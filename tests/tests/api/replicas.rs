//! Replicas of which one may act, and the lease that says which.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use lethe_api::v1alpha1::{RequestPhase, Stage};
use lethe_tests::{World, audit, operator::Operator, rights, wait, world::policy};
use serde_json::json;
use tokio::sync::Barrier;

use crate::crash::{Pair, one_job_per_stage};

fn leads(metrics: &str) -> bool {
    metrics.contains("lethe_leader 1\n")
}

pub async fn a_replica_that_waits_takes_over_from_a_leader_that_was_killed(world: &World) -> Result<()> {
    let Pair { first, second, operators: (leader, other) } = Pair::start(world).await?;
    world.prepare().await?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    ensure!(!first.writes().is_empty() && second.writes().is_empty(), "{:?}", second.writes());
    leader.kill().await?;
    let killed = Instant::now();
    // What ends meanwhile is found by whoever comes next.
    world.succeed(&task).await?;
    other.metrics_until("it leads", leads).await?;
    let gap = killed.elapsed();
    // The lease is respected for 15 s after it was seen to be renewed, which was 2 s ago at most.
    ensure!(gap > Duration::from_secs(11) && gap < Duration::from_secs(30), "nobody led for {gap:?}");
    world.evaluate(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    one_job_per_stage(world).await
}

pub async fn of_two_replicas_that_reach_for_the_lease_at_once_one_gets_it(world: &World) -> Result<()> {
    world.lay_out(policy()?, world.model()?).await?;
    let launch = world.launch().await?;
    // Both wait for somebody who has it.
    world
        .apply(&json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "lethe"},
            "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3600},
        }))
        .await?;
    let proxies = [world.proxy().await?, world.proxy().await?];
    let mut replicas = Vec::new();
    for (proxy, identity) in proxies.iter().zip(["operator-a", "operator-b"]) {
        replicas.push(Operator::start(&world.through(&launch, &proxy.url, identity)?)?);
    }
    for replica in &replicas {
        replica.ready().await?;
    }
    // Each sees that it is free before the other one has written.
    let meeting = Arc::new(Barrier::new(2));
    proxies.iter().for_each(|proxy| proxy.meet(meeting.clone()));
    world.patch::<Lease>("lethe", json!({"spec": {"holderIdentity": ""}})).await?;
    let refused = async || {
        let entries = audit::of(&world.server.audit_log(), &world.home)?;
        let code = |entry: &audit::Entry| entry.response_status.as_ref().map(|status| status.code);
        Ok(entries.iter().filter(|entry| entry.is_of_a_lease() && code(entry) == Some(409)).count())
    };
    wait::until_answer("one of them is refused", refused, |refused| *refused == 1).await?;
    world.prepare().await?;
    let mut acted = Vec::new();
    for (replica, proxy) in replicas.iter().zip(&proxies) {
        acted.push((leads(&replica.get("/metrics").await?.1), proxy.writes().len()));
    }
    acted.sort_unstable();
    ensure!(
        acted[0] == (false, 0) && acted[1].0 && acted[1].1 > 0,
        "who leads, and wrote how often: {acted:?}"
    );
    Ok(())
}

pub async fn an_operator_that_may_not_write_the_lease_says_so_and_changes_nothing(
    world: &World,
) -> Result<()> {
    world.lay_out(policy()?, world.model()?).await?;
    let launch = world.launch().await?;
    rights::take_away(&world.server, &world.home, ("create", "coordination.k8s.io", "leases")).await?;
    let proxy = world.proxy().await?;
    let operator = Operator::start(&world.through(&launch, &proxy.url, "operator-0")?)?;
    operator.ready().await?;
    let log = async || Ok(std::fs::read_to_string(world.operator_log())?);
    let says = |log: &String| {
        log.lines().any(|line| line.contains("cannot reach for the lease") && line.contains("forbidden"))
    };
    wait::until_answer("its log says why", log, says).await?;
    ensure!(!leads(&operator.get("/metrics").await?.1), "it leads");
    ensure!(proxy.writes().is_empty(), "it wrote {:?}", proxy.writes());
    rights::grant(&world.server, &world.home, world.reach).await?;
    world.prepare().await?;
    ensure!(leads(&operator.get("/metrics").await?.1) && !proxy.writes().is_empty(), "somebody else leads");
    Ok(())
}
