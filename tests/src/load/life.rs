//! The operator's life with N requests, and what is measured on the way.

use std::{
    collections::HashSet,
    future::ready,
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{batch::v1::Job, coordination::v1::Lease};
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::Config},
};
use lethe_api::v1alpha1::{ConditionType, RequestPhase, Stage, UnlearnRequest, annotations, labels};
use serde_json::json;
use tokio::{runtime::Runtime, time::sleep};
use xtask::{cmd, image};

use super::{
    AT_ONCE, Args, Row,
    measure::{Looks, memory, processor_time},
    nodes::{self, Nodes},
    play::Player,
};
use crate::{
    Server, World, audit,
    operator::{Launch, Operator},
    place::{HasConditions, MODEL, condition, request},
    rights, wait, world,
};

/// The figures are promised for no more requests than this.
const PROMISED: usize = 10_000;
/// As Prometheus asks, if the chart's ServiceMonitor tells it to.
const SCRAPE_EVERY: Duration = Duration::from_secs(30);
/// Nothing more is done if nothing was done for this long: longer than the slowest poll.
const REST: Duration = Duration::from_secs(6);

/// Runs on a thread that lives as long as the server.
pub fn measure(runtime: &Runtime, kwok: &Path, args: &Args, n: usize) -> Result<Vec<Row>> {
    eprintln!("== {n} requests over {} models ==", args.models);
    // Those that play clients are not what is measured: nobody is to hold them up.
    let hurry = ["--kube-api-qps=1000", "--kube-api-burst=2000"].map(str::to_owned);
    let jobs = "--concurrent-job-syncs=20".to_owned();
    let server = Arc::new(Server::start_with(hurry.iter().cloned().chain([jobs]).collect())?);
    let nodes = Arc::new(Nodes::start(&server, kwok, &hurry)?);
    runtime.block_on(async {
        let world = Arc::new(World::with_kubelets(server).await?);
        tokio::select! {
            created = nodes::create(&world, args.nodes) => created?,
            error = nodes.ended() => return Err(error),
        }
        let launch = prepare_launch(&world).await?;
        Life { nodes, world, launch, args, n, rows: Vec::new() }.live().await
    })
}

async fn prepare_launch(world: &World) -> Result<Launch> {
    let env = image::OPERATOR_ENV.iter().filter_map(|variable| variable.split_once('='));
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Launch { verbosity: "info", env, ..world.launch().await? })
}

struct Life<'a> {
    // First, to be dropped before the API server.
    nodes: Arc<Nodes>,
    world: Arc<World>,
    launch: Launch,
    args: &'a Args,
    n: usize,
    rows: Vec<Row>,
}

impl Life<'_> {
    async fn live(mut self) -> Result<Vec<Row>> {
        self.world.await_service_account().await?;
        let operator = Operator::start(&self.launch)?;
        let (pid, nodes) = (operator.id()?, self.nodes.clone());
        tokio::select! {
            settled = self.settle(&operator) => settled?,
            error = ended(pid) => return Err(error.context(cmd::tail(&self.world.operator_log()))),
            error = nodes.ended() => return Err(error),
        }
        drop(nodes);
        let peak = memory(pid)?.peak;
        let operator = self.restart(operator, peak).await?;
        self.hand_over(operator).await?;
        Ok(self.rows)
    }

    /// Until every request has its answer, and nothing happens any more.
    async fn settle(&mut self, operator: &Operator) -> Result<()> {
        self.prepare_models(operator).await?;
        let burst = self.args.burst.min(self.n);
        let start = Instant::now();
        self.burst(burst).await?;
        let player = self.play();
        self.create(burst..self.n).await?;
        let end = tokio::select! {
            all = self.count_requests(self.n, |request| condition(request, ConditionType::Fulfilled, "True")) => all?,
            error = self.ask_again() => return Err(error),
        };
        self.row("all-fulfilled", (end - start).as_secs_f64(), None, "s");
        drop(player);
        self.idle(operator).await
    }

    /// How many labels are forgotten of each model.
    fn forgotten(&self) -> usize {
        self.n.div_ceil(self.args.models).min(self.args.labels)
    }

    /// Its models know the forgotten labels and two more, of which one is the override.
    fn play(&self) -> Player {
        Player::of_models_with(self.world.clone(), self.forgotten() + 2)
    }

    fn row(&mut self, name: &'static str, value: f64, limit: impl Into<Option<f64>>, unit: &'static str) {
        eprintln!("{name}: {value:.3} {unit}");
        let limit = limit.into().filter(|_| self.n <= PROMISED);
        self.rows.push(Row { name: name.into(), n: self.n, value, limit, unit: unit.into() });
    }

    /// Models that serve nothing yet, each with a Deployment of its own.
    async fn prepare_models(&self, operator: &Operator) -> Result<()> {
        let player = self.play();
        self.world.apply(&world::policy()?).await?;
        let names = (0..self.args.models).map(model);
        let created = names.map(async |name| self.world.apply_model(&name).await);
        stream::iter(created).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        for index in 0..self.args.models {
            let ready = |m: &lethe_api::v1alpha1::DiffusionModel| condition(m, ConditionType::Ready, "True");
            wait::until(&self.world.api(), &model(index), "it is Ready", ready).await?;
        }
        drop(player);
        eprintln!("{} models are ready, {:.0} MiB", self.args.models, memory(operator.id()?)?.now);
        Ok(())
    }

    /// From the first of many requests to their acceptance, and to the first Job of every model.
    async fn burst(&mut self, size: usize) -> Result<()> {
        let start = Instant::now();
        let models = self.args.models.min(size);
        let accepted = self.count_requests(size, |r| condition(r, ConditionType::Accepted, "True"));
        let jobs = self.count_first_jobs(models);
        let create = self.create(0..size);
        let (created, accepted, jobs) = tokio::join!(create, accepted, jobs);
        created?;
        let (accepted, jobs) = (accepted?, jobs?);
        self.row("burst-accepted", (accepted - start).as_secs_f64(), 30.0, "s");
        self.row("burst-first-jobs", (jobs - start).as_secs_f64(), 30.0, "s");
        Ok(())
    }

    async fn create(&self, range: std::ops::Range<usize>) -> Result<()> {
        let created = range.map(async |index| {
            let label = (index / self.args.models % self.forgotten()).to_string();
            let replacement = self.forgotten().to_string();
            let mut manifest = request(&format!("forget-{index}"), &[&label], &replacement);
            manifest["spec"]["modelRef"]["name"] = json!(model(index % self.args.models));
            self.world.create(&manifest).await.map(|_| ()).context("a request is refused")
        });
        stream::iter(created).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// When this many requests were as described.
    async fn count_requests(&self, wanted: usize, is: fn(&UnlearnRequest) -> bool) -> Result<Instant> {
        let requests = watcher(self.world.api::<UnlearnRequest>(), Config::default());
        distinct(requests, wanted, |request| is(&request).then(|| request.name_any())).await
    }

    /// Asks once more for what failed, as people do: of thousands of servers that this program plays, one or two are not heard.
    /// Comes back if nothing is heard of requests any more.
    async fn ask_again(&self) -> anyhow::Error {
        let requests = watcher(self.world.api::<UnlearnRequest>(), Config::default()).applied_objects();
        let failed = requests.try_filter(|request| ready(has_failed(request)));
        let mut failed = pin!(failed);
        let mut asked = HashSet::new();
        while let Some(request) = failed.next().await {
            // A watch that breaks is opened again.
            let Ok(request) = request else { continue };
            let name = request.name_any();
            if !asked.insert(name.clone()) {
                continue;
            }
            let ready = ConditionType::Ready.find(request.conditions());
            eprintln!("{name} failed and is asked for again: {}", ready.map_or("", |it| it.message.as_str()));
            let again = json!({"metadata": {"annotations": {annotations::RETRY: "again"}}});
            if let Err(error) = self.world.patch::<UnlearnRequest>(&name, again).await {
                return error.into();
            }
        }
        anyhow::anyhow!("the watch of requests ended")
    }

    /// When this many models had a Job that forgets.
    async fn count_first_jobs(&self, wanted: usize) -> Result<Instant> {
        let of_stage = format!("{}={}", labels::STAGE, Stage::Forget.as_str());
        let jobs = watcher(self.world.api::<Job>(), Config::default().labels(&of_stage));
        distinct(jobs, wanted, |job: Job| job.labels().get(labels::MODEL).cloned()).await
    }

    /// What it does and needs while nothing happens.
    async fn idle(&mut self, operator: &Operator) -> Result<()> {
        self.come_to_rest().await?;
        let pid = operator.id()?;
        let (before, worked, start) = (self.calls()?, processor_time(pid)?, Instant::now());
        let beside = self.nodes.need()?;
        let unread = memory(pid)?.now;
        let text = operator.get("/metrics").await?.1;
        eprintln!("({unread:.0} MiB before its {} KiB of metrics are read)", text.len() / 1024);
        let looked = Looks::of(&text, "model")?;
        let end = start + Duration::from_secs_f64(60.0 * self.args.idle);
        while Instant::now() < end {
            operator.get("/metrics").await?;
            sleep(SCRAPE_EVERY.min(end.saturating_duration_since(Instant::now()))).await;
        }
        let (after, worked) = (self.calls()?, processor_time(pid)? - worked);
        let cores = worked.as_secs_f64() / start.elapsed().as_secs_f64();
        self.row("rss-settled", memory(pid)?.now, 128.0, "MiB");
        self.row("idle-cpu", 1000.0 * cores, 20.0, "m");
        self.row("idle-writes", (after.writes - before.writes) as f64, 0.0, "");
        eprintln!("(and {} reads in {} min)", after.reads - before.reads, self.args.idle);
        for ((name, before, _), (_, after, mib)) in beside.into_iter().zip(self.nodes.need()?) {
            let cores = (after - before).as_secs_f64() / start.elapsed().as_secs_f64();
            eprintln!("(beside it, {name} had {:.1} m and {mib:.0} MiB)", 1000.0 * cores);
        }
        // One at a time, and not a hundred of a process that has just started.
        let looked = Looks::of(&operator.get("/metrics").await?.1, "model")?.since(&looked);
        if looked.count() > 0 {
            self.row("idle-model-p99", looked.quantile(0.99)?, None, "ms");
        }
        Ok(())
    }

    async fn come_to_rest(&self) -> Result<()> {
        let rest = async || {
            let before = self.calls()?.writes;
            sleep(REST).await;
            Ok(self.calls()?.writes - before)
        };
        wait::until_answer("the operator has come to rest", rest, |writes| *writes == 0).await.map(|_| ())
    }

    /// What the operator asked of the API server so far, but for its lease.
    fn calls(&self) -> Result<Calls> {
        let all = audit::of(&self.world.server.audit_log(), &self.world.home)?;
        let all: Vec<_> = all.into_iter().filter(|entry| !entry.is_of_a_lease()).collect();
        let writes = all.iter().filter(|entry| entry.is_write()).count();
        let reads = all.iter().filter(|entry| !entry.is_write() && entry.verb != "watch").count();
        Ok(Calls { writes, reads })
    }

    /// A new process looks at everything, and finds nothing to do.
    async fn restart(&mut self, operator: Operator, peak: f64) -> Result<Operator> {
        ensure!(operator.stop().await?.success(), "the operator did not end well");
        let start = Instant::now();
        let operator = Operator::start(&self.launch)?;
        let looks = |text: &str, kind: &str| Looks::of(text, kind).map_or(0, |looks| looks.count());
        let any = |text: &str| ["request", "model", "run"].iter().any(|kind| looks(text, kind) > 0);
        operator.metrics_until("it has decided", any).await?;
        self.row("restart-first-decision", start.elapsed().as_secs_f64(), 10.0, "s");
        let n = self.n;
        let all = |text: &str| looks(text, "request") >= n;
        // Not more often than that: each time, two megabytes are written and read, on the cores on which it looks.
        let ask = async || Ok(operator.get("/metrics").await?.1);
        let what = "it has looked at every request";
        wait::until_answer_every(Duration::from_secs(1), what, ask, |text| all(text)).await?;
        self.row("restart-all-looked-at", start.elapsed().as_secs_f64(), None, "s");
        self.come_to_rest().await?;
        let metrics = operator.get("/metrics").await?.1;
        self.row("noop-request-p99", Looks::of(&metrics, "request")?.quantile(0.99)?, 5.0, "ms");
        self.row("noop-run-p99", Looks::of(&metrics, "run")?.quantile(0.99)?, 5.0, "ms");
        // A look at a model reads its Deployment and its archive from the API server.
        self.row("noop-model-p99", Looks::of(&metrics, "model")?.quantile(0.99)?, None, "ms");
        let again = memory(operator.id()?)?;
        eprintln!("(and {:.0} MiB after the restart)", again.now);
        self.row("rss-peak", again.peak.max(peak), 256.0, "MiB");
        Ok(operator)
    }

    /// From SIGTERM to the other replica's term.
    async fn hand_over(&mut self, leader: Operator) -> Result<()> {
        let launch = Launch { identity: "operator-1".into(), ..self.launch.clone() };
        let other = Operator::start(&launch)?;
        other.ready().await?;
        let leases: Api<Lease> = Api::namespaced(self.world.client.clone(), &self.world.home);
        let start = Instant::now();
        let stop = leader.stop();
        let taken = wait::until(&leases, rights::ACCOUNT, "the other replica has it", |lease| {
            lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some("operator-1")
        });
        let taken = async { taken.await.map(|_| start.elapsed()) };
        let (stopped, taken) = tokio::join!(stop, taken);
        ensure!(stopped?.success(), "the leader did not end well");
        self.row("lease-hand-over", taken?.as_secs_f64(), 2.0, "s");
        ensure!(other.stop().await?.success(), "the other replica did not end well");
        Ok(())
    }
}

fn has_failed(request: &UnlearnRequest) -> bool {
    request.status.as_ref().is_some_and(|status| status.phase == Some(RequestPhase::Failed))
}

struct Calls {
    writes: usize,
    reads: usize,
}

/// Comes back when the process has ended: it has no memory then.
async fn ended(pid: u32) -> anyhow::Error {
    loop {
        sleep(Duration::from_secs(2)).await;
        if let Err(error) = memory(pid) {
            return error.context(
                "the operator did not survive this load; see whether the machine is busy otherwise",
            );
        }
    }
}

/// When a watch had shown this many different things.
async fn distinct<K: wait::Kind>(
    events: impl stream::Stream<Item = watcher::Result<watcher::Event<K>>>,
    wanted: usize,
    name: impl Fn(K) -> Option<String>,
) -> Result<Instant> {
    let mut objects = Box::pin(events.applied_objects());
    let mut seen = HashSet::new();
    while let Some(object) = objects.next().await {
        // A watch that breaks is opened again.
        seen.extend(object.ok().and_then(&name));
        if seen.len() >= wanted {
            return Ok(Instant::now());
        }
    }
    anyhow::bail!("the watch ended after {} of {wanted}", seen.len())
}

fn model(index: usize) -> String {
    format!("{MODEL}-{index}")
}
