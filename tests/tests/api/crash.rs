//! The operator dies, or there are two of it.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{ResourceExt, api::ListParams};
use lethe_api::{
    Digest,
    contract::MADE_AGAIN,
    v1alpha1::{RequestPhase, Stage, UnlearnRun},
};
use lethe_tests::{
    Task, World, operator::Operator, place::MODEL, proxy::Proxy, trainer, wait, world::policy,
};
use rustix::process::Signal;

pub async fn an_operator_that_dies_after_every_write_comes_to_the_same_end(world: &World) -> Result<()> {
    let candidate = dying_all_the_time_it_forgets_three(world).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest == candidate, "{ledger:?}");
    one_job_per_stage(world).await
}

/// From a model that is applied to a request that is fulfilled; the operator dies after every write. Returns what is served then.
pub async fn dying_all_the_time_it_forgets_three(world: &World) -> Result<Digest> {
    world.lay_out(policy()?, world.model()?).await?;
    let life = async {
        world.prepare().await?;
        world.request("forget-three", "3", "8").await?;
        let candidate = world.forget(|_| {}).await?;
        world.request_until("forget-three", RequestPhase::Fulfilled).await?;
        world
            .model_until("its run is over", |m| m.status.as_ref().is_some_and(|s| s.active_run.is_none()))
            .await?;
        Ok(candidate)
    };
    let candidate = world.dying(life).await?;
    world.died_more_than(15)?;
    world.assert_serves(&candidate).await?;
    Ok(candidate)
}

pub async fn an_operator_that_is_killed_at_every_stage_goes_on(world: &World) -> Result<()> {
    world.begin().await?;
    let task = world.task(Stage::Prepare).await?;
    world.crash_operator().await?;
    world.succeed(&task).await?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    // While it is dead the stage ends.
    world.take_operator().await?.kill().await?;
    world.succeed(&task).await?;
    completed(world, &task).await?;
    world.start_operator().await?;
    let evaluation = world.task(Stage::Evaluate).await?;
    world.crash_operator().await?;
    world.succeed(&evaluation).await?;
    world.request_until("forget-three", RequestPhase::RollingOut).await.ok();
    world.crash_operator().await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.assert_serves(&trainer::product(&task.digest)).await?;
    one_job_per_stage(world).await
}

/// The Job of a trainer, once it is complete.
async fn completed(world: &World, task: &Task) -> Result<Job> {
    let job = task.pod.owner_references().first().context("a pod without a Job")?.name.clone();
    let complete = |job: &Job| {
        let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Complete" && c.status == "True"))
    };
    wait::until(&world.api(), &job, "it is complete", complete).await
}

/// A node that is drained just then takes the pod away; nobody has read what it said.
pub async fn a_job_whose_pod_went_before_anybody_read_it_is_made_again(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    world.take_operator().await?.kill().await?;
    world.succeed(&task).await?;
    let lost = completed(world, &task).await?.uid().context("a Job without a uid")?;
    world.delete::<Pod>(&task.pod.name_any()).await?;
    wait::until_gone(&world.api::<Pod>(), &task.pod.name_any(), None).await?;
    world.start_operator().await?;
    // Before the Job is there again, and after: it is made once.
    let run: UnlearnRun = wait::until(&world.api(), &task.plan.run, "it says that a Job was lost", |run| {
        lost_job(run).is_some()
    })
    .await?;
    world.crash_operator().await?;
    ensure!(lost_job(&run) == Some(&lost), "{:?}", run.status);
    let again = world.task(Stage::Forget).await?;
    world.crash_operator().await?;
    ensure!(again.digest == task.digest, "another plan");
    let containers = again.pod.spec.as_ref().map(|spec| &spec.containers[..]).unwrap_or_default();
    let says_so = containers.iter().flat_map(|it| it.env.iter().flatten()).any(|it| it.name == MADE_AGAIN);
    ensure!(says_so, "a pod of a Job that was made again does not say so: {containers:?}");
    world.succeed(&again).await?;
    let second = completed(world, &again).await?.uid();
    world.evaluate(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.assert_serves(&trainer::product(&task.digest)).await?;
    ensure!(
        second == completed(world, &again).await?.uid() && second != Some(lost),
        "it was made a third time"
    );
    one_job_per_stage(world).await
}

fn lost_job(run: &UnlearnRun) -> Option<&String> {
    run.status.as_ref()?.job(Stage::Forget)?.lost.as_ref().map(|lost| &lost.uid)
}

pub async fn a_job_that_vanishes_after_its_run_is_not_created_again(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    for job in world.jobs().await? {
        world.delete::<Job>(&job).await?;
        wait::until_gone(&world.api::<Job>(), &job, None).await?;
    }
    world.crash_operator().await?;
    // The operator has looked at everything again once it has worked for another request.
    world.request("forget-seven", "7", "1").await?;
    let task = world.task(Stage::Forget).await?;
    let jobs = world.jobs().await?;
    ensure!(jobs == [format!("{}-forget", task.plan.run)], "{jobs:?}");
    Ok(())
}

pub async fn of_two_replicas_one_acts_and_hands_over_when_it_is_stopped(world: &World) -> Result<()> {
    let pair = Pair::start(world).await?;
    world.prepare().await?;
    let (first, second) = (pair.first.writes().len(), pair.second.writes().len());
    ensure!(first > 0 && second == 0, "the first wrote {first} times, the second {second} times");
    let status = pair.operators.0.stop().await?;
    ensure!(status.success(), "the first ended with {status}");
    world.request("forget-three", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    ensure!(!pair.second.writes().is_empty(), "the second wrote nothing");
    one_job_per_stage(world).await
}

pub async fn a_leader_that_was_frozen_does_not_write_when_it_wakes(world: &World) -> Result<()> {
    let mut pair = Pair::start(world).await?;
    world.prepare().await?;
    pair.operators.0.signal(Signal::STOP)?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    ensure!(!pair.second.writes().is_empty(), "the second wrote nothing");
    // What it had sent before has arrived by now. It wakes while the other one acts, and there is something to do.
    let before = pair.first.writes().len();
    pair.operators.0.signal(Signal::CONT)?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let status = pair.operators.0.ended().await?;
    ensure!(!status.success(), "it lost the lease and ended with {status}");
    let wrote = pair.first.writes().split_off(before);
    ensure!(wrote.is_empty(), "the frozen leader wrote {wrote:?}");
    one_job_per_stage(world).await
}

pub async fn an_api_server_that_never_answers_costs_the_leader_its_lease_and_nothing_else(
    world: &World,
) -> Result<()> {
    let Pair { first, second, operators: (mut leader, other) } = Pair::start(world).await?;
    world.prepare().await?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    // The leader has something to do, and its API server takes every request and answers none.
    first.hang(true);
    world.succeed(&task).await?;
    let status = leader.ended().await?;
    ensure!(!status.success(), "it could not renew the lease and ended with {status}");
    // What it had sent before has arrived by now.
    let before = first.writes().len();
    world.evaluate(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    // Started anew, as the kubelet does, it waits, and goes on once there is an answer.
    let launch = world.launch().await?;
    let leader = Operator::start(&world.through(&launch, &first.url, "operator-a")?)?;
    let unready =
        wait::until_answer("it answers", || leader.get("/readyz"), |(status, _)| *status == 503).await?;
    ensure!(!unready.1.trim().is_empty(), "it does not say why it is not ready");
    first.hang(false);
    leader.ready().await?;
    let wrote = first.writes().split_off(before);
    ensure!(wrote.is_empty(), "who had no lease wrote {wrote:?}");
    other.stop().await?;
    world.request("forget-seven", "7", "1").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-seven", RequestPhase::Fulfilled).await?;
    ensure!(first.writes().len() > before, "it took the lease over and wrote nothing");
    drop(second);
    Ok(())
}

/// Two replicas, each behind a proxy that knows what it writes. The first has the lease.
pub struct Pair {
    pub first: Proxy,
    pub second: Proxy,
    pub operators: (Operator, Operator),
}

impl Pair {
    pub async fn start(world: &World) -> Result<Self> {
        world.await_service_account().await?;
        let launch = world.launch().await?;
        let (first, second) = (world.proxy().await?, world.proxy().await?);
        let leader = Operator::start(&world.through(&launch, &first.url, "operator-a")?)?;
        leader.metrics_until("it leads", |text| text.contains("lethe_leader 1\n")).await?;
        let other = Operator::start(&world.through(&launch, &second.url, "operator-b")?)?;
        other.ready().await?;
        world.lay_out(policy()?, world.model()?).await?;
        Ok(Self { first, second, operators: (leader, other) })
    }
}

/// Every Job and every pod of it was made once.
pub async fn one_job_per_stage(world: &World) -> Result<()> {
    every_job_was_made_once(world, &["prepare", "forget", "evaluate"]).await
}

/// There is one Job, with one pod, for each time that a stage is named, and no other.
pub async fn every_job_was_made_once(world: &World, stages: &[&str]) -> Result<()> {
    let jobs = world.jobs().await?;
    ensure!(jobs.iter().all(|job| job.starts_with(MODEL)), "{jobs:?}");
    let mut made: Vec<_> = jobs.iter().filter_map(|job| job.rsplit('-').next()).collect();
    let mut stages = stages.to_vec();
    made.sort_unstable();
    stages.sort_unstable();
    ensure!(made == stages, "{jobs:?}");
    let selector = ListParams::default().labels("app.kubernetes.io/name=lethe-trainer");
    let pods = world.api::<Pod>().list(&selector).await?.items;
    let names = pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    ensure!(pods.len() == stages.len(), "{names:?}");
    Ok(())
}
