//! The dashboard and the list of metrics, held against what a real Prometheus has read from the operator.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path};

use anyhow::{Context, Result, anyhow, ensure};
use axum::{Json, Router, body::Bytes, http::header, routing::get};
use k8s_openapi::jiff::{Timestamp, ToSpan};
use lethe_api::{
    contract::{Failure, Progress, exit},
    v1alpha1::{RequestPhase, Stage, UnlearnRequest},
};
use lethe_tests::{
    Server, Task, Tier, World,
    browser::Browser,
    loopback::Loopback,
    monitoring::{EVERY, Monitoring, Sample, dashboard, rules},
    operator::Operator,
    place::request,
    proxy::Proxy,
    server::repository,
    trainer,
    world::policy,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_blocking},
};
use xtask::setup::grafana;

/// The range of time that questions about all of it are asked for: longer than anything here takes.
const MINUTES: i64 = 5;
/// Questions that nobody can make have an answer here, and why.
const WITHOUT_ANSWER: [(&str, &str); 0] = [];

pub async fn every_question_of_the_dashboard_has_an_answer(world: &World) -> Result<()> {
    let told = Told::start(world).await?;
    choices(&told.board, &told.monitoring).await
}

pub async fn the_dashboard_is_drawn_with_what_prometheus_answers(world: &World) -> Result<()> {
    // Takes minutes where it was never built, and what is drawn is what happened in the last few.
    let page = spawn_blocking(grafana::page).await??;
    // A name that people would give stands in all legends.
    let world = World::new(world.server.clone(), "studio").await?;
    match draw(&world, &page).await {
        Ok(()) => Ok(()),
        Err(error) => Err(anyhow!("{error:#}\n\n{}", Server::diagnose(&world).await)),
    }
}

async fn draw(world: &World, page: &Path) -> Result<()> {
    let told = Told::start(world).await?;
    // A line through two points is no picture.
    let minutes = format!("count_over_time(lethe_leader[5m]) > {}", 90 / EVERY);
    told.monitoring
        .query_until("it has read for a minute and a half", &minutes, |found| found.len() == 1)
        .await?;
    let server = serve(page, told.answers().await?).await?;
    let mut browser = Browser::start().await?;
    let wanted: Vec<_> = panels(&told.board)?.map(|panel| (&panel["title"], &panel["type"])).collect();
    for (view, drawn) in browser.drawn("dashboard", &format!("{}/index.html", server.url)).await? {
        let drawn: Vec<Drawn> = serde_json::from_value(drawn)?;
        let there: Vec<_> = drawn.iter().map(|one| (&one.title, &one.kind)).collect();
        ensure!(there == wanted, "{view}: there are {there:?}");
        let bad: Vec<_> = drawn.iter().filter(|one| !one.has_data || one.is_title_cut).collect();
        ensure!(bad.is_empty(), "{view}: {bad:#?}");
    }
    drop(server);
    Ok(())
}

/// What is to be seen of a panel.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Drawn {
    title: Value,
    #[serde(rename = "type")]
    kind: Value,
    has_data: bool,
    is_title_cut: bool,
}

/// The page, and the dashboard with its answers beside it.
async fn serve(page: &Path, answers: Value) -> Result<Loopback> {
    const FILES: [(&str, &str); 6] = [
        ("index.html", "text/html"),
        ("dashboard.js", "text/javascript"),
        ("dashboard.css", "text/css"),
        ("public/build/img/icons/unicons/info-circle.svg", "image/svg+xml"),
        ("public/fonts/inter/Inter-Regular.woff2", "font/woff2"),
        ("public/fonts/inter/Inter-Medium.woff2", "font/woff2"),
    ];
    let mut router = Router::new().route("/board.json", get(async || Json(answers)));
    for (file, kind) in FILES {
        let content =
            Bytes::from(fs::read(page.join(file)).with_context(|| format!("the page has no {file}"))?);
        router =
            router.route(&format!("/{file}"), get(async move || ([(header::CONTENT_TYPE, kind)], content)));
    }
    Loopback::start(router).await
}

/// The dashboard, and a Prometheus that has an answer to all of its questions.
struct Told {
    board: Value,
    since: Timestamp,
    monitoring: Monitoring,
    trainer: JoinHandle<()>,
    _operator: (Proxy, Operator),
}

impl Drop for Told {
    fn drop(&mut self) {
        self.trainer.abort();
    }
}

impl Told {
    async fn start(world: &World) -> Result<Self> {
        let since = Timestamp::now();
        let monitoring = Monitoring::start(&rules(world, &[])?).await?;
        let (proxy, operator) = behind_a_proxy(world).await?;
        monitoring.read(&world.home, operator.address())?;
        // Before anything happens: what is counted from then on has increased.
        monitoring.query_until("it is read", "lethe_leader == 1", |found| found.len() == 1).await?;
        let busy = live(world).await?;
        let trainer = says_how_far_it_is(&busy, world.run(&busy).await?).await?;
        let told =
            Self { board: dashboard(world)?, since, monitoring, trainer, _operator: (proxy, operator) };
        told.has_all_answers().await?;
        Ok(told)
    }

    async fn has_all_answers(&self) -> Result<()> {
        let questions = questions(&self.board)?;
        ensure!(questions.len() > 25, "only {} questions", questions.len());
        for (title, question) in &questions {
            let asked = as_grafana_asks(question);
            if let Some((_, why)) = WITHOUT_ANSWER.iter().find(|(name, _)| name == title) {
                let answer = self.monitoring.query(&asked).await?;
                ensure!(answer.is_empty(), "{title} has an answer, although {why}");
                continue;
            }
            let has_data = |found: &[Sample]| found.iter().any(|one| !one.value().is_nan());
            self.monitoring.query_until(&format!("{title:?} has data"), &asked, has_data).await?;
        }
        println!("{} questions of the dashboard have an answer", questions.len());
        Ok(())
    }

    /// What `xtask/tools/grafana/dashboard.tsx` draws: the dashboard, and the answers by panel and target.
    async fn answers(&self) -> Result<Value> {
        let range = self.since.as_second()..Timestamp::now().as_second();
        let mut answers = Map::new();
        for panel in panels(&self.board)? {
            let mut of_panel = Map::new();
            for target in targets(panel)? {
                let range = (target["instant"] != true).then_some(&range);
                let series = self.monitoring.series(&as_grafana_asks(question(target)?), range).await?;
                of_panel.insert(target["refId"].as_str().context("no refId")?.to_owned(), series);
            }
            answers.insert(panel["id"].to_string(), of_panel.into());
        }
        let (from, to, step) = (range.start * 1000, range.end * 1000, EVERY * 1000);
        Ok(json!({"board": self.board, "answers": answers, "from": from, "to": to, "step": step}))
    }
}

/// The lists to choose from are filled by metrics that are there.
async fn choices(board: &Value, monitoring: &Monitoring) -> Result<()> {
    let variables = board["templating"]["list"].as_array().context("no variables")?;
    let queries = variables.iter().filter(|one| one["type"] == "query");
    for query in queries.map(|one| one["definition"].as_str().unwrap_or_default()) {
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).context("no label_values")?;
        let found = monitoring.query(&as_grafana_asks(selector)).await?;
        ensure!(found.iter().any(|one| one.metric.contains_key(label)), "{query} offers nothing");
    }
    Ok(())
}

pub async fn every_metric_is_documented_and_no_other(world: &World) -> Result<()> {
    world.keep_log().await?;
    world.begin_ready().await?;
    world.request("leaks", "3", "8").await?;
    world.forget(|measured| measured.targets[0].leak.hits = 30).await?;
    world.request_until("leaks", RequestPhase::Held).await?;
    world.request("fails", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    let words = trainer::failure(&task, Failure::BadArtifact, "a byte changed").to_message();
    world.exit(&task, exit::BAD_ARTIFACT, &words).await?;
    world.request_until("fails", RequestPhase::Failed).await?;
    let mut due = request("due", &["4"], "9");
    due["spec"]["dataSubjectRequest"] = received_an_hour_ago()?;
    world.apply(&due).await?;
    let task = world.task(Stage::Forget).await?;
    let server = says_how_far_it_is(&task, world.run(&task).await?).await?;
    world.request("waits", "5", "9").await?;
    world.request_until("waits", RequestPhase::Queued).await?;
    world.copy_a_run_that_nobody_can_read("unreadable").await?;
    let documented = documented()?;
    let all = |text: &str| documented.iter().all(|name| text.contains(&format!("# TYPE {name} ")));
    let text = world.metrics_until(&format!("it has all of {documented:?}"), all).await?;
    server.abort();
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exported: BTreeSet<_> = lines.filter_map(|line| line.split(' ').next()).collect();
    let others: Vec<_> =
        exported.iter().filter(|name| name.starts_with("lethe_") && !documented.contains(**name)).collect();
    ensure!(others.is_empty(), "docs/monitoring.md says nothing of {others:?}");
    Ok(())
}

/// The operator's metrics as `docs/monitoring.md` lists them.
fn documented() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(repository("docs/monitoring.md"))?;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `lethe_"));
    let names = rows.filter_map(|row| row.split('`').next()).map(|name| format!("lethe_{name}"));
    Ok(names
        .filter(|name| !name.starts_with("lethe_trainer_") && !name.starts_with("lethe_server_"))
        .collect())
}

/// A model with a request that was fulfilled after somebody approved of it, one that is held by a gate, and one whose run is
/// under way; of many requests.
async fn live(world: &World) -> Result<Task> {
    world.prepare().await?;
    world.apply(&asked("forget-three", "3")?).await?;
    approve(world, "forget-three").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.apply(&asked("leaks", "4")?).await?;
    approve(world, "leaks").await?;
    world.forget(|measured| measured.targets.iter_mut().for_each(|target| target.leak.hits = 30)).await?;
    world.request_until("leaks", RequestPhase::Held).await?;
    world.apply(&asked("slow", "5")?).await?;
    approve(world, "slow").await?;
    world.task(Stage::Forget).await
}

fn asked(name: &str, label: &str) -> Result<Value> {
    let mut asked = request(name, &[label], "8");
    asked["spec"]["requestedBy"] = json!("alice");
    asked["spec"]["dataSubjectRequest"] = received_an_hour_ago()?;
    Ok(asked)
}

fn received_an_hour_ago() -> Result<Value> {
    let received = Timestamp::now().checked_sub(1.hour())?;
    Ok(json!({"reference": "DSR-1", "receivedAt": received, "regulation": "GDPR"}))
}

async fn approve(world: &World, name: &str) -> Result<()> {
    world.request_until(name, RequestPhase::AwaitingApproval).await?;
    let asked = world.api::<UnlearnRequest>().get(name).await?;
    let approval = json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnApproval", "metadata": {"name": format!("{name}-bob")},
        "spec": {
            "requestRef": {"name": name, "uid": asked.metadata.uid},
            "decision": "Approve", "approver": "bob", "reason": "it is lawful",
        },
    });
    world.apply(&approval).await?;
    Ok(())
}

/// Under a policy that asks for an approval. The API server stumbles, so that there are errors to show.
async fn behind_a_proxy(world: &World) -> Result<(Proxy, Operator)> {
    world.keep_log().await?;
    let mut policy = policy()?;
    policy["spec"]["approvals"] = json!({"required": 1});
    world.lay_out(policy, world.model()?).await?;
    let launch = world.launch().await?;
    let proxy = world.proxy().await?;
    proxy.weather().refuse(20);
    let operator = Operator::start(&world.through(&launch, &proxy.url, "operator-0")?)?;
    Ok((proxy, operator))
}

/// What the trainer's pod answers.
async fn says_how_far_it_is(task: &Task, address: IpAddr) -> Result<JoinHandle<()>> {
    let listener = TcpListener::bind((address, Progress::PORT)).await?;
    let progress = trainer::progress(&task.plan.run, 320, 500);
    let router = Router::new().route("/progress", get(move || async move { Json(progress) }));
    Ok(tokio::spawn(async move {
        // Ends only with the task.
        let _ = axum::serve(listener, router).await;
    }))
}

/// The title and the question of every target of every panel.
fn questions(board: &Value) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for panel in panels(board)? {
        let title = panel["title"].as_str().context("a panel without a title")?;
        for target in targets(panel)? {
            all.push((title.to_owned(), question(target)?.to_owned()));
        }
    }
    Ok(all)
}

/// All that ask something.
fn panels(board: &Value) -> Result<impl Iterator<Item = &Value>> {
    let panels = board["panels"].as_array().context("no panels")?;
    Ok(panels.iter().filter(|panel| panel["type"] != "row"))
}

fn targets(panel: &Value) -> Result<&Vec<Value>> {
    panel["targets"].as_array().with_context(|| format!("{} asks nothing", panel["title"]))
}

fn question(target: &Value) -> Result<&str> {
    target["expr"].as_str().context("no question")
}

/// With everything chosen, about the last few minutes.
fn as_grafana_asks(question: &str) -> String {
    question
        .replace("$namespace", ".*")
        .replace("$model", ".*")
        .replace("$__rate_interval", "1m")
        .replace("$__range", &format!("{MINUTES}m"))
}
