//! A real Prometheus with a real Alertmanager, as people have them: they read the operator's metrics, judge them by the
//! rules that the chart renders, and tell a receiver.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Range,
    path::Path,
    process::{self, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use axum::{Json, Router, extract::State, routing::post};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    task::spawn_blocking,
};
use xtask::setup::prometheus;

use crate::{examples, loopback::Loopback, operator::free_port, rights, wait, world::World};

/// How often metrics are read and rules are judged, in seconds. Alertmanager waits as long as it does by default before it
/// tells of something new.
pub const EVERY: u32 = 5;

/// The receiver notes what it was told.
type Told = Arc<Mutex<Vec<Alert>>>;

/// What a notification says of one alert.
#[derive(Clone, Debug, Deserialize)]
pub struct Alert {
    /// `firing` or `resolved`.
    pub status: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// One series of an answer of Prometheus.
#[derive(Clone, Debug, Deserialize)]
pub struct Sample {
    pub metric: BTreeMap<String, String>,
    value: (f64, String),
}

impl Sample {
    /// Not a number if Prometheus says so.
    pub fn value(&self) -> f64 {
        self.value.1.parse().unwrap_or(f64::NAN)
    }
}

/// An answer.
#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

/// All of it. Ends when it is dropped.
pub struct Monitoring {
    _prometheus: Child,
    _alertmanager: Child,
    _receiver: Loopback,
    url: String,
    told: Told,
    files: TempDir,
}

/// The rules of the chart's PrometheusRule, with these values, as a file of rules.
///
/// # Errors
/// If the chart renders none.
pub fn rules(world: &World, values: &[&str]) -> Result<Value> {
    let values = [&["metrics.prometheusRule.enabled=true"], values].concat();
    let rendered = rights::render_with(&world.server, &world.home, world.reach, &values)?;
    let rule = rendered.into_iter().find(|object| object["kind"] == "PrometheusRule");
    Ok(rule.context("the chart rendered no PrometheusRule")?["spec"].take())
}

/// Makes an alert wait less: rules say for how long something has to last.
///
/// # Errors
/// If there is no such alert, or it does not wait.
pub fn hurry(rules: &mut Value, alert: &str, wait: &str) -> Result<()> {
    let groups = rules["groups"].as_array_mut().context("no groups of rules")?;
    let mut all = groups.iter_mut().filter_map(|group| group["rules"].as_array_mut()).flatten();
    let rule = all.find(|rule| rule["alert"] == alert).with_context(|| format!("there is no {alert}"))?;
    ensure!(rule["for"].is_string(), "{alert} does not wait");
    rule["for"] = json!(wait);
    Ok(())
}

impl Monitoring {
    /// With these rules, reading the metrics of nobody yet.
    ///
    /// # Errors
    /// If a program cannot be had, or does not start.
    pub async fn start(rules: &Value) -> Result<Self> {
        let programs = spawn_blocking(|| {
            Ok::<_, anyhow::Error>((prometheus::prometheus()?, prometheus::alertmanager()?))
        });
        let (prometheus, alertmanager) = programs.await??;
        let files = tempfile::tempdir().context("cannot create a directory")?;
        let folder = files.path();
        let told = Told::default();
        let receiver = Loopback::start(Router::new().route("/", post(note)).with_state(told.clone())).await?;
        let (alerts, metrics) = (free_port()?, free_port()?);
        // JSON is YAML.
        write(folder, "rules.yml", rules)?;
        write(folder, "targets.json", &json!([]))?;
        write(folder, "prometheus.yml", &prometheus_configuration(alerts))?;
        write(folder, "alertmanager.yml", &alertmanager_configuration(&format!("{}/", receiver.url)))?;
        let alertmanager = start(
            alertmanager,
            folder,
            "alertmanager.log",
            &[
                "--config.file=alertmanager.yml",
                "--storage.path=alerts",
                "--cluster.listen-address=",
                &format!("--web.listen-address=127.0.0.1:{alerts}"),
            ],
        )?;
        let prometheus = start(
            process::Command::new(prometheus),
            folder,
            "prometheus.log",
            &[
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=metrics",
                &format!("--web.listen-address=127.0.0.1:{metrics}"),
            ],
        )?;
        let url = format!("http://127.0.0.1:{metrics}");
        let all = Self {
            _prometheus: prometheus,
            _alertmanager: alertmanager,
            _receiver: receiver,
            url,
            told,
            files,
        };
        let answers =
            wait::until_answer("Prometheus answers", async || all.query("vector(1)").await, |_| true);
        let answers = answers.await;
        answers.map(|_| ()).with_context(|| all.logs())?;
        Ok(all)
    }

    /// From now on reads the metrics of this operator, and of no other, with the labels that a ServiceMonitor gives.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn read(&self, home: &str, address: &str) -> Result<()> {
        let labels =
            json!({"job": "lethe-metrics", "namespace": home, "pod": "lethe-0", "container": "operator"});
        // Prometheus watches the file: it must never see half of it.
        write(self.files.path(), "new.json", &json!([{"targets": [address], "labels": labels}]))?;
        fs::rename(self.files.path().join("new.json"), self.files.path().join("targets.json"))?;
        Ok(())
    }

    /// # Errors
    /// If Prometheus does not answer, or does not understand the question.
    pub async fn query(&self, question: &str) -> Result<Vec<Sample>> {
        let Data { kind, result } = self.ask("query", vec![("query", question.to_owned())]).await?;
        ensure!(kind == "vector", "the answer is a {kind}");
        Ok(serde_json::from_value(result)?)
    }

    /// All series of the answer, as Prometheus writes them: every [`EVERY`] seconds of this range, in seconds since 1970, or now.
    ///
    /// # Errors
    /// As [`Monitoring::query`].
    pub async fn series(&self, question: &str, range: Option<&Range<i64>>) -> Result<Value> {
        let mut parameters = vec![("query", question.to_owned())];
        let Some(range) = range else { return Ok(self.ask("query", parameters).await?.result) };
        let (start, end, step) = (range.start.to_string(), range.end.to_string(), EVERY.to_string());
        parameters.extend([("start", start), ("end", end), ("step", step)]);
        Ok(self.ask("query_range", parameters).await?.result)
    }

    async fn ask(&self, what: &str, parameters: Vec<(&'static str, String)>) -> Result<Data> {
        #[derive(Deserialize)]
        struct Answer {
            data: Data,
        }
        let url = format!("{}/api/v1/{what}", self.url);
        let ask = move || -> Result<String> {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let mut answer = agent.get(&url).query_pairs(parameters.clone()).call()?;
            let text = answer.body_mut().read_to_string()?;
            ensure!(answer.status().is_success(), "Prometheus says to {parameters:?}: {text}");
            Ok(text)
        };
        Ok(serde_json::from_str::<Answer>(&spawn_blocking(ask).await??)?.data)
    }

    /// The answer to `question` as soon as it `is` as described by `what`.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn query_until(
        &self,
        what: &str,
        question: &str,
        is: impl Fn(&[Sample]) -> bool,
    ) -> Result<Vec<Sample>> {
        wait::until_answer(what, async || self.query(question).await, |answer| is(answer))
            .await
            .with_context(|| question.to_owned())
    }

    /// What the receiver was told first of an alert with this status, as soon as it was told.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn told(&self, alert: &str, status: &str) -> Result<Alert> {
        let all = || self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_it = |told: &&Alert| {
            told.labels.get("alertname").map(String::as_str) == Some(alert) && told.status == status
        };
        let what = format!("somebody is told that {alert} is {status}");
        let found = wait::until_answer(&what, async || Ok(all()), |all| all.iter().any(|told| is_it(&told)));
        let found = found.await.with_context(|| self.logs())?;
        found.iter().find(is_it).cloned().context("it was told")
    }

    /// The names of all alerts of which the receiver was told.
    pub fn names(&self) -> Vec<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter_map(|alert| alert.labels.get("alertname").cloned()).collect()
    }

    fn logs(&self) -> String {
        let log = |name| xtask::cmd::tail(&self.files.path().join(name));
        format!("--- prometheus\n{}\n--- alertmanager\n{}", log("prometheus.log"), log("alertmanager.log"))
    }
}

fn prometheus_configuration(alertmanager: u16) -> Value {
    let every = format!("{EVERY}s");
    json!({
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [format!("127.0.0.1:{alertmanager}")]}]}]},
        "scrape_configs": [{
            "job_name": "operator",
            // As in the chart's ServiceMonitor.
            "honor_labels": true,
            "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}],
        }],
    })
}

/// Told of what is new after the usual 30 s; of what changes sooner than usual.
fn alertmanager_configuration(webhook: &str) -> Value {
    json!({
        "route": {"receiver": "people", "group_by": ["alertname"], "group_interval": "5s"},
        "receivers": [{"name": "people", "webhook_configs": [{"url": webhook, "send_resolved": true}]}],
    })
}

fn write(folder: &Path, name: &str, content: &Value) -> Result<()> {
    fs::write(folder.join(name), content.to_string()).with_context(|| format!("cannot write {name}"))
}

fn start(program: process::Command, folder: &Path, log: &str, arguments: &[&str]) -> Result<Child> {
    let log = File::create(folder.join(log))?;
    let mut command = Command::from(program);
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))
}

#[derive(Deserialize)]
struct Notification {
    alerts: Vec<Alert>,
}

async fn note(State(told): State<Told>, Json(notification): Json<Notification>) {
    told.lock().unwrap_or_else(PoisonError::into_inner).extend(notification.alerts);
}

/// The dashboard as the chart ships it.
///
/// # Errors
/// If the chart renders none that a sidecar would find.
pub fn dashboard(world: &World) -> Result<Value> {
    let values = ["metrics.dashboard.enabled=true"];
    let rendered = rights::render_with(&world.server, &world.home, world.reach, &values)?;
    let found = rendered.iter().find(|object| object["metadata"]["labels"]["grafana_dashboard"] == "1");
    let map = found.context("nothing has the label grafana_dashboard")?;
    let text = map["data"]["lethe.json"].as_str().context("there is no lethe.json")?;
    let dashboard: Value = serde_json::from_str(text)?;
    ensure!(examples::documents(text)?.len() == 1, "it is not one document");
    Ok(dashboard)
}
