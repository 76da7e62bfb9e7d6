//! The dashboard and the list of metrics, held against what a real Prometheus has read from the operator.

use std::{collections::BTreeSet, fs, net::IpAddr};

use anyhow::{Context, Result, ensure};
use axum::{Json, Router, routing::get};
use k8s_openapi::jiff::{Timestamp, ToSpan};
use lethe_api::{
    contract::{Failure, Progress, exit},
    v1alpha1::{RequestPhase, Stage, UnlearnRequest},
};
use lethe_tests::{
    Task, World,
    monitoring::{Monitoring, Sample, dashboard, rules},
    operator::Operator,
    place::request,
    proxy::Proxy,
    server::repository,
    trainer,
    world::policy,
};
use serde_json::{Value, json};

/// Questions that nobody can make have an answer here, and why.
const WITHOUT_ANSWER: [(&str, &str); 0] = [];

pub async fn every_question_of_the_dashboard_has_an_answer(world: &World) -> Result<()> {
    let monitoring = Monitoring::start(&rules(world, &[])?).await?;
    let (_proxy, operator) = behind_a_proxy(world).await?;
    monitoring.read(&world.home, operator.address())?;
    // Before anything happens: what is counted from then on has increased.
    monitoring.query_until("it is read", "lethe_leader == 1", |found| found.len() == 1).await?;
    let busy = live(world).await?;
    let server = says_how_far_it_is(&busy, world.run(&busy).await?).await?;

    let board = dashboard(world)?;
    let questions = questions(&board)?;
    ensure!(questions.len() > 25, "only {} questions", questions.len());
    for (title, question) in &questions {
        let asked = as_grafana_asks(question);
        if let Some((_, why)) = WITHOUT_ANSWER.iter().find(|(name, _)| name == title) {
            let answer = monitoring.query(&asked).await?;
            ensure!(answer.is_empty(), "{title} has an answer, although {why}");
            continue;
        }
        let has_data = |found: &[Sample]| found.iter().any(|one| !one.value().is_nan());
        monitoring.query_until(&format!("{title:?} has data"), &asked, has_data).await?;
    }
    println!("{} questions of the dashboard have an answer", questions.len());
    server.abort();
    choices(&board, &monitoring).await
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
    proxy.weather().stumble(20);
    let operator = Operator::start(&world.through(&launch, &proxy.url, "operator-0")?)?;
    Ok((proxy, operator))
}

/// What the trainer's pod answers.
async fn says_how_far_it_is(task: &Task, address: IpAddr) -> Result<tokio::task::JoinHandle<()>> {
    let listener = tokio::net::TcpListener::bind((address, Progress::PORT)).await?;
    let progress = trainer::progress(&task.plan.run, 320, 500);
    let router = Router::new().route("/progress", get(move || async move { Json(progress) }));
    Ok(tokio::spawn(async move {
        // Ends only with the task.
        let _ = axum::serve(listener, router).await;
    }))
}

/// The title and the question of every target of every panel.
fn questions(board: &Value) -> Result<Vec<(String, String)>> {
    let panels = board["panels"].as_array().context("no panels")?;
    let mut all = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().context("a panel without a title")?;
        let targets = panel["targets"].as_array().context("a panel that asks nothing")?;
        for target in targets {
            all.push((title.to_owned(), target["expr"].as_str().context("no question")?.to_owned()));
        }
    }
    Ok(all)
}

/// With everything chosen, and the shortest range.
fn as_grafana_asks(question: &str) -> String {
    question
        .replace("$namespace", ".*")
        .replace("$model", ".*")
        .replace("$__rate_interval", "1m")
        .replace("$__range", "3m")
}
