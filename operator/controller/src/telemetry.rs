//! Logs, and traces for whoever asks for them: where they go, and how much of them.
//!
//! A thread of its own sends spans. A collector that is away or slow costs spans, never a look.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    args::{LogFormat, Traces},
    spans,
};

/// A collector that does not take a batch within this time does not get it.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long may the last batch take when the process ends.
const GOOD_BYE: Duration = Duration::from_secs(2);

/// Sends the last spans when the process ends.
#[derive(Debug)]
#[must_use = "the last spans are sent when it is told to end"]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Sends every log line of the process to standard error, filtered by `RUST_LOG` (`info` if unset).
/// Called once; a second call changes nothing.
pub fn init(format: LogFormat) {
    start(format, None);
}

/// The same, and sends traces to the collector of `traces`, if there is one. `identity` tells replicas apart.
///
/// # Errors
/// If nothing can be sent in such a way.
pub fn init_with_traces(
    format: LogFormat,
    traces: &Traces,
    identity: &str,
) -> Result<Telemetry, ExporterBuildError> {
    let provider = traces.collector().map(|url| provider(url, traces.trace_ratio, identity)).transpose()?;
    start(format, provider.as_ref());
    Ok(Telemetry(provider))
}

fn start(format: LogFormat, provider: Option<&SdkTracerProvider>) {
    let asked = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    let no_spans =
        Targets::new().with_default(LevelFilter::TRACE).with_target(spans::TARGET, LevelFilter::OFF);
    let lines = lines.with_filter(asked.and(no_spans));
    let sent = provider.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
            // What matters of these is in the name of a span.
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(Targets::new().with_target(spans::TARGET, LevelFilter::INFO))
    });
    let _ = tracing_subscriber::registry().with(lines).with(sent).try_init();
}

fn provider(url: &str, ratio: f64, identity: &str) -> Result<SdkTracerProvider, ExporterBuildError> {
    // The process may have chosen one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", url.trim_end_matches('/')))
        .with_timeout(PATIENCE)
        .build()?;
    let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| env!("CARGO_PKG_NAME").to_owned());
    let who = Resource::builder()
        .with_service_name(name)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", identity.to_owned()))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
    Ok(SdkTracerProvider::builder()
        .with_resource(who)
        .with_sampler(sampler)
        .with_batch_exporter(exporter)
        .build())
}

impl Telemetry {
    /// Sends what is left. Whatever cannot be sent now is lost.
    pub fn end(self) {
        let Some(Err(error)) = self.0.map(|provider| provider.shutdown_with_timeout(GOOD_BYE)) else {
            return;
        };
        tracing::warn!(%error, "the last spans could not be sent");
    }
}
