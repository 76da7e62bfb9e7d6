//! A real OpenTelemetry Collector, as people have it: it takes what the operator sends, and passes it on to a receiver that
//! notes it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use axum::{Json, Router, extract::State, routing::post};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};
use xtask::setup::otelcol;

use crate::{loopback::Loopback, operator::free_port, wait};

type Noted = Arc<Mutex<Vec<Span>>>;

/// A span, as far as it is of interest.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    pub trace_id: String,
    pub span_id: String,
    #[serde(default)]
    pub parent_span_id: String,
    pub name: String,
    #[serde(default)]
    attributes: Vec<Attribute>,
    #[serde(default)]
    status: Status,
    /// Of whoever made it.
    #[serde(skip)]
    pub resource: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    /// 2 is an error.
    code: u32,
}

#[derive(Clone, Debug, Deserialize)]
struct Attribute {
    key: String,
    value: Value,
}

impl Span {
    /// An attribute as it is sent, with its type: `{"intValue": "200"}`.
    pub fn typed(&self, key: &str) -> Option<&Value> {
        self.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
    }

    /// An attribute as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        self.attributes.iter().find(|attribute| attribute.key == key).map(Attribute::text)
    }

    /// Whether it failed.
    pub fn has_failed(&self) -> bool {
        self.status.code == 2
    }
}

impl Attribute {
    /// The value has its type as its only key.
    fn text(&self) -> String {
        let value = self.value.as_object().and_then(|object| object.values().next());
        value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default()
    }
}

/// What is sent to the receiver.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    resource_spans: Vec<OfResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfResource {
    resource: Resource,
    scope_spans: Vec<OfScope>,
}

#[derive(Deserialize)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
struct OfScope {
    spans: Vec<Span>,
}

/// Collector and receiver. Both end when this is dropped.
pub struct Collector {
    _process: Child,
    _receiver: Loopback,
    port: u16,
    noted: Noted,
    files: TempDir,
}

impl Collector {
    /// # Errors
    /// If the program cannot be had, or does not start.
    pub async fn start() -> Result<Self> {
        let binary = tokio::task::block_in_place(otelcol::binary)?;
        let files = tempfile::tempdir().context("cannot create a directory")?;
        let noted = Noted::default();
        let router = Router::new().route("/v1/traces", post(note)).with_state(noted.clone());
        let receiver = Loopback::start(router).await?;
        let port = free_port()?;
        // JSON is YAML.
        fs::write(files.path().join("otelcol.yaml"), configuration(port, &receiver.url).to_string())?;
        let log = File::create(files.path().join("log"))?;
        let process = Command::new(binary)
            .env_clear()
            .current_dir(files.path())
            .args(["--config", "file:otelcol.yaml"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the collector")?;
        let collector = Self { _process: process, _receiver: receiver, port, noted, files };
        let listens = async || Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
        let listening = wait::until_answer("the collector listens", listens, |listens| *listens).await;
        listening.map(|_| ()).with_context(|| collector.log())?;
        Ok(collector)
    }

    /// Where spans are to be sent.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All spans as soon as they are as described by `what`.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn spans_until(&self, what: &str, are: impl Fn(&[Span]) -> bool) -> Result<Vec<Span>> {
        let all = || self.noted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let found = wait::until_answer(what, async || Ok(all()), |spans| are(spans)).await;
        found.with_context(|| self.log())
    }

    fn log(&self) -> String {
        format!("--- collector\n{}", xtask::cmd::tail(&self.files.path().join("log")))
    }
}

fn configuration(port: u16, receiver: &str) -> Value {
    json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
        "exporters": {"otlp_http": {
            "endpoint": receiver,
            "encoding": "json",
            "compression": "none",
            "sending_queue": {"enabled": false},
        }},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_http"]}},
        },
    })
}

async fn note(State(noted): State<Noted>, Json(sent): Json<Sent>) {
    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
    for OfResource { resource, scope_spans } in sent.resource_spans {
        let resource: BTreeMap<_, _> =
            resource.attributes.iter().map(|it| (it.key.clone(), it.text())).collect();
        let spans = scope_spans.into_iter().flat_map(|scope| scope.spans);
        noted.extend(spans.map(|span| Span { resource: resource.clone(), ..span }));
    }
}
