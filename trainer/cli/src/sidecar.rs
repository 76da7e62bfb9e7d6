//! The thread beside the work: SIGTERM, `GET /progress` and `GET /metrics`.

use std::{collections::BTreeMap, io, net::SocketAddr, thread};

use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use lethe_api::contract::Progress;
use prometheus::{Encoder, GaugeVec, Opts, Registry, TextEncoder, process_collector::ProcessCollector};
use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    failure::{Failed, Result},
    watch::Watch,
};

/// Starts the thread. From here on SIGTERM and Ctrl-C ask the work to stop instead of ending the process.
/// Without a port nothing listens; port 0 is any free one.
pub(crate) fn start(watch: Watch, port: Option<u16>) -> Result<()> {
    let failed = |error: io::Error| Failed::bad_configuration(format!("cannot watch for signals: {error}"));
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    // Both are set up here, before any work: a signal or a port in use is noticed from the start.
    let signals = runtime.block_on(async { Signals::new() }).map_err(failed)?;
    let listener = runtime.block_on(listen(port))?;
    let serve = async move { tokio::join!(signals.stop(&watch), serve(listener, watch.clone())) };
    let thread = thread::Builder::new().name("sidecar".into()).spawn(move || runtime.block_on(serve));
    thread.map(|_| ()).map_err(failed)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    async fn stop(mut self, watch: &Watch) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => tracing::info!("SIGTERM: stopping"),
                _ = self.interrupt.recv() => tracing::info!("SIGINT: stopping"),
            }
            watch.stop();
        }
    }
}

async fn listen(port: Option<u16>) -> Result<Option<TcpListener>> {
    let Some(port) = port else { return Ok(None) };
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let failed = |error| {
        Failed::bad_configuration(format!("cannot listen on {address} for /progress: {error}; use --port"))
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "listening");
    Ok(Some(listener))
}

async fn serve(listener: Option<TcpListener>, watch: Watch) {
    let Some(listener) = listener else { return };
    let routes = Router::new()
        .route("/progress", get(async |State(watch): State<Watch>| Json(watch.progress())))
        .route("/metrics", get(metrics))
        .with_state(watch);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::warn!(%error, "/progress is gone");
    }
}

async fn metrics(State(watch): State<Watch>) -> impl IntoResponse {
    let text = render(&watch).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot render the metrics");
        String::new()
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Labels come from this program's own words: stages and names of losses.
fn render(watch: &Watch) -> prometheus::Result<String> {
    let Progress { stage, step, total, eta_seconds, metrics, .. } = watch.progress();
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let plain = |name: &str, help: &str, value: Option<f64>| {
        let gauge = GaugeVec::new(Opts::new(name, help), &["stage"])?;
        value.iter().for_each(|&value| gauge.with_label_values(&[&stage]).set(value));
        registry.register(Box::new(gauge))
    };
    let named = |name: &str, help: &str, values: &BTreeMap<String, f64>| {
        let gauge = GaugeVec::new(Opts::new(name, help), &["stage", "name"])?;
        values.iter().for_each(|(name, &value)| gauge.with_label_values(&[&stage, name]).set(value));
        registry.register(Box::new(gauge))
    };
    plain("lethe_trainer_step", "Steps done in the current stage.", Some(step as f64))?;
    plain("lethe_trainer_steps", "Steps of the current stage in all.", Some(total as f64))?;
    let eta = eta_seconds.map(|seconds| seconds as f64);
    plain("lethe_trainer_eta_seconds", "Seconds left in the current stage.", eta)?;
    if let Some(last) = &metrics {
        named("lethe_trainer_loss", "Mean loss since the record before.", &last.losses)?;
        let norms = &last.gradient_norms;
        named("lethe_trainer_gradient_norm", "Mean norm of the gradient since the record before.", norms)?;
        named("lethe_trainer_look", "What the last look at the model found.", &last.looks)?;
        let pace = last.seconds_per_1000_images;
        plain("lethe_trainer_seconds_per_1000_images", "Since the record before.", pace)?;
        plain("lethe_trainer_images", "Images trained on so far.", Some(last.images as f64))?;
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_api::contract::Metrics;

    #[test]
    fn the_metrics_say_where_the_work_stands() {
        let watch = Watch::new("run");
        watch.begin("forget", 0, 500);
        let losses = [("generator".to_owned(), 0.5)].into();
        watch.record(&Metrics { losses, seconds_per_1000_images: Some(0.25), ..Metrics::default() });
        watch.trained(320);
        let text = render(&watch).unwrap();
        assert!(text.contains("lethe_trainer_step{stage=\"forget\"} 320\n"), "{text}");
        assert!(text.contains("lethe_trainer_loss{name=\"generator\",stage=\"forget\"} 0.5\n"), "{text}");
        assert!(text.contains("lethe_trainer_seconds_per_1000_images{stage=\"forget\"} 0.25\n"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
