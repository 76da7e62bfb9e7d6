//! An API server that stumbles, and watches that break, or say nothing.

use anyhow::{Context, Result, ensure};
use lethe_api::v1alpha1::{RequestPhase, Stage};
use lethe_tests::{World, operator::Operator, proxy::Proxy, trainer, wait, world::policy};

pub async fn an_api_server_that_stumbles_costs_time_and_nothing_else(world: &World) -> Result<()> {
    let (proxy, operator) = behind_a_proxy(world, &[]).await?;
    proxy.weather().stumble(4);
    world.prepare().await?;
    let candidate = forget_three(world).await?;
    let (way, seen) = proxy.weather().least_seen();
    ensure!(seen >= 2, "only {seen} calls went wrong by {way:?}");
    let metrics = operator.get("/metrics").await?.1;
    let counted = |category: &str| {
        let name = format!("lethe_reconcile_errors_total{{category=\"{category}\"");
        metrics.lines().any(|line| line.starts_with(&name) && !line.ends_with(" 0"))
    };
    ensure!(counted("unavailable"), "it does not say that the API server stumbled:\n{metrics}");
    proxy.weather().stumble(0);
    ended_well(world, &candidate).await
}

/// The API server carries it out, and the operator has decided anew by then.
pub async fn writes_that_are_carried_out_too_late_do_nothing_twice(world: &World) -> Result<()> {
    let (proxy, operator) = behind_a_proxy(world, &[]).await?;
    world.prepare().await?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    proxy.weather().delay_writes(3);
    world.succeed(&task).await?;
    let task = world.task(Stage::Evaluate).await?;
    proxy.weather().delay_writes(3);
    world.succeed(&task).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let timed_out = |text: &str| {
        text.lines().any(|line| {
            line.starts_with("lethe_reconcile_errors_total{category=\"timeout\"") && !line.ends_with(" 0")
        })
    };
    operator.metrics_until("it counts what took too long", timed_out).await?;
    let candidate = world.ledger().await?.first().context("the ledger is empty")?.digest.clone();
    ended_well(world, &candidate).await
}

pub async fn watches_that_end_with_410_again_and_again_lose_nothing(world: &World) -> Result<()> {
    let (proxy, operator) = behind_a_proxy(world, &[]).await?;
    let task = world.task(Stage::Prepare).await?;
    proxy.weather().expire_watches();
    // Nobody hears of it but by a new list.
    world.succeed(&task).await?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    proxy.weather().expire_watches();
    world.succeed(&task).await?;
    let task = world.task(Stage::Evaluate).await?;
    proxy.weather().expire_watches();
    world.succeed(&task).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let broke = |text: &str| {
        text.lines().any(|line| line.starts_with("lethe_watch_errors_total") && !line.ends_with(" 0"))
    };
    operator.metrics_until("it counts watches that broke", broke).await?;
    let candidate = world.ledger().await?.first().context("the ledger is empty")?.digest.clone();
    ended_well(world, &candidate).await
}

pub async fn an_operator_whose_watches_fall_silent_says_so_and_goes_on_when_started_again(
    world: &World,
) -> Result<()> {
    let (proxy, operator) = behind_a_proxy(world, &["--watch-seconds=5"]).await?;
    world.prepare().await?;
    ensure!(operator.get("/healthz").await?.0 == 200, "it is not healthy from the start");
    proxy.weather().silence_watches(true);
    world.request("forget-three", "3", "8").await?;
    // Everything else is as ever: it has the lease, and gets answers.
    let dead = |(status, why): &(u16, String)| *status == 503 && why.contains("unlearnrequests");
    wait::until_answer("it says that it is deaf", || operator.get("/healthz"), dead).await?;
    ensure!(world.runs().await?.len() == 1, "it heard of the request");
    proxy.weather().silence_watches(false);
    operator.kill().await?;
    let launch = world.through(&world.launch().await?, &proxy.url, "operator-0")?;
    let operator = Operator::start(&launch)?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    drop(operator);
    ended_well(world, &candidate).await
}

/// What came while nobody held the lease is looked at once it is held again, although the operator never stopped.
pub async fn what_comes_while_a_renewal_is_late_is_not_forgotten(world: &World) -> Result<()> {
    let (proxy, operator) = behind_a_proxy(world, &[]).await?;
    world.prepare().await?;
    proxy.renewals().be_late().await?;
    let log = || std::fs::read_to_string(world.operator_log());
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    operator.get("/healthz").await.with_context(|| "it gave up the lease, and ended")?;
    let is_put_aside = |line: &str| line.contains("put aside") && line.contains("forget-three");
    ensure!(log()?.lines().any(is_put_aside), "nothing came in that moment: {}", log()?);
    ended_well(world, &candidate).await
}

async fn forget_three(world: &World) -> Result<lethe_api::Digest> {
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    Ok(candidate)
}

/// One run of each kind, one Job for each stage, one entry in the ledger.
async fn ended_well(world: &World, candidate: &lethe_api::Digest) -> Result<()> {
    world.assert_serves(candidate).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest == *candidate, "{ledger:?}");
    ensure!(*candidate != trainer::baseline(), "the baseline was served");
    let (jobs, runs) = (world.jobs().await?, world.runs().await?.len());
    ensure!(jobs.len() == 3 && runs == 2, "{jobs:?} of {runs} runs");
    Ok(())
}

/// An operator that reaches the API server only through a proxy; and the policy, the Deployment and the model.
async fn behind_a_proxy(world: &World, flags: &[&str]) -> Result<(Proxy, Operator)> {
    world.lay_out(policy()?, world.model()?).await?;
    let mut launch = world.launch().await?;
    launch.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    let proxy = world.proxy().await?;
    let operator = Operator::start(&world.through(&launch, &proxy.url, "operator-0")?)?;
    Ok((proxy, operator))
}
