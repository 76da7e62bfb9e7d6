//! Ten requests, twenty blows.

use std::{collections::BTreeSet, env, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use lethe_api::{
    Digest,
    v1alpha1::{ConditionType, LedgerEntry, RequestPhase, UnlearnPolicy, UnlearnRun, labels},
};
use lethe_tests::{
    chaos::{
        Blow, Sampler, Summary, nothing_forbidden_was_served, nothing_was_served_before_its_gates_passed,
    },
    place::{MODEL, request},
    server::repository,
    studio::{MOST_HITS, Studio, runs},
};
use serde_json::json;
use tokio::time::sleep;
use xtask::cluster::Options;

/// Decides the order of the blows, and when they fall; another one may be given here.
const SEED: &str = "LETHE_CHAOS_SEED";
/// Seconds between two blows.
const PAUSE: std::ops::Range<u64> = 2..9;
/// How long nobody can reach the API server.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two requests.
const NEXT_REQUEST: Duration = Duration::from_secs(15);
/// Of the five blows against a trainer, so many meet one at least.
const LEAST_TRAINERS: u32 = 2;
/// How long a blow against a trainer waits for one.
const NO_TRAINER: Duration = Duration::from_secs(20);

/// What is asked for: some labels by several people.
const REQUESTS: [&[&str]; 10] =
    [&["2"], &["2"], &["4"], &["2", "4"], &["9"], &["4"], &["9"], &["2", "9"], &["4", "9"], &["2", "4", "9"]];

pub async fn ten_requests_end_right_under_twenty_blows(studio: &Studio) -> Result<()> {
    studio.allow_cost().await?;
    // Whoever is killed so often may start so often.
    let patient = json!({"spec": {"trainer": {"backoffLimit": 20}}});
    let patient = studio.patch::<UnlearnPolicy>("costly", patient).await?;
    studio.policy_is_known(patient.metadata.generation).await?;
    let (before, entries) = (studio.served().await?, studio.ledger().await?.len());
    let seed = env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let log = repository(&format!("target/chaos/seed-{seed}.jsonl"));
    eprintln!("{SEED}={seed}; what is served is in {}", log.display());

    let sampler = Sampler::start(live_server(studio).await?, MODEL, &log)?;
    let (asked, hit) = tokio::join!(ask(studio), strike(studio, fastrand::Rng::with_seed(seed)));
    asked?;
    let trainers = hit?;
    ensure!(trainers >= LEAST_TRAINERS, "only {trainers} trainers ran when one was to be killed");
    for index in 0..REQUESTS.len() {
        studio.request_ends(&name(index), RequestPhase::Fulfilled).await?;
    }
    let (served, ledger) = (studio.served().await?, studio.ledger().await?);
    let sights = tokio::task::block_in_place(|| sampler.stop(&served))?;
    eprintln!("{}", Summary(&sights));

    nothing_forbidden_was_served(&sights, &before, &ledger[entries..])?;
    let passed = passed(studio).await?;
    nothing_was_served_before_its_gates_passed(&sights, &passed)?;
    each_is_recorded_once(&ledger[entries..])?;
    for entry in &ledger[entries..] {
        let is_known = passed.iter().any(|(candidate, _)| *candidate == entry.digest);
        ensure!(is_known, "no run says when the gates of {} passed", entry.digest);
    }
    ensure!(Some(&served) == ledger.last().map(|entry| &entry.digest), "{served} is served");
    let judged = studio.probe().await?;
    for label in ledger.iter().flat_map(|entry| &entry.targets) {
        ensure!(judged.get(label).is_some_and(|j| j.hits <= MOST_HITS), "{label} is served: {judged:?}");
    }
    Ok(())
}

/// The candidates whose gates passed, and when.
async fn passed(studio: &Studio) -> Result<Vec<(Digest, Timestamp)>> {
    let runs = studio.api::<UnlearnRun>().list(&ListParams::default()).await?;
    let of = |run: UnlearnRun| {
        let status = run.status?;
        let gates =
            ConditionType::GatesPassed.find(&status.conditions).filter(|gates| gates.status == "True")?;
        Some((status.candidate?, gates.last_transition_time.0))
    };
    Ok(runs.into_iter().filter_map(of).collect())
}

/// Whoever asks for what is forgotten already needs no entry.
fn each_is_recorded_once(new: &[LedgerEntry]) -> Result<()> {
    let names: Vec<_> = new.iter().map(|entry| &entry.request.name).collect();
    let distinct: BTreeSet<_> = names.iter().collect();
    ensure!(distinct.len() == names.len(), "a request is in the ledger twice: {names:?}");
    for label in REQUESTS.concat() {
        let is_there = new.iter().any(|entry| entry.targets.iter().any(|target| target == label));
        ensure!(is_there, "{label} is not in the ledger: {new:?}");
    }
    Ok(())
}

fn name(index: usize) -> String {
    format!("chaos-{index}")
}

/// The Service, at a loopback port: not through the API server, which is one of those that are hit.
async fn live_server(studio: &Studio) -> Result<SocketAddr> {
    let service = studio.api::<Service>().get(MODEL).await?;
    let spec = service.spec.context("a Service without a spec")?;
    let port = spec.ports.iter().flatten().next().context("a Service without a port")?.port;
    let address = spec.cluster_ip.context("a Service without an address")?.parse()?;
    let port = studio.node.cluster.forward(0, SocketAddr::new(address, u16::try_from(port)?))?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// The requests, one after the other; whoever applies one tries again until it is taken.
async fn ask(studio: &Studio) -> Result<()> {
    for (index, targets) in REQUESTS.into_iter().enumerate() {
        let manifest = request(&name(index), targets, "6");
        let mut tries = 10;
        while let Err(error) = studio.apply(&manifest).await {
            tries -= 1;
            ensure!(tries > 0, "{} is not taken: {error}", name(index));
            sleep(Duration::from_secs(5)).await;
        }
        sleep(NEXT_REQUEST).await;
    }
    Ok(())
}

/// Returns how many trainers were killed.
async fn strike(studio: &Studio, mut random: fastrand::Rng) -> Result<u32> {
    let mut trainers = 0;
    for blow in Blow::twenty(&mut random) {
        sleep(Duration::from_secs(random.u64(PAUSE))).await;
        eprintln!("{} {blow:?}", Timestamp::now());
        let cluster = &studio.node.cluster;
        match blow {
            Blow::Operator => studio.kill_operator().await?,
            Blow::Trainer => {
                if kill_trainer(studio).await? {
                    trainers += 1;
                } else {
                    studio.kill_operator().await?;
                }
            }
            Blow::Kubelet => {
                cluster.kill("kubelet")?;
                // As a device plugin does when the kubelet is back.
                cluster.set_gpus(Options::default().gpus)?;
            }
            Blow::ApiServer => {
                cluster.pause("kube-apiserver")?;
                sleep(SILENCE).await;
                cluster.resume("kube-apiserver")?;
            }
        }
    }
    Ok(trainers)
}

/// Kills one that runs: not as a node that is drained does, but at once. Returns whether there was one.
async fn kill_trainer(studio: &Studio) -> Result<bool> {
    let (pods, start) = (studio.api::<Pod>(), tokio::time::Instant::now());
    while start.elapsed() < NO_TRAINER {
        let working = pods.list(&ListParams::default().labels(labels::STAGE)).await?.items;
        if let Some(pod) = working.iter().find(|pod| runs(pod)) {
            let at_once = DeleteParams::default().grace_period(0);
            pods.delete(&pod.name_any(), &at_once).await?;
            return Ok(true);
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(false)
}
