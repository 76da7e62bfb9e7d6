//! The thread beside the work: SIGTERM, `GET /progress` and `GET /metrics`.

use std::{io, net::SocketAddr, thread};

use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use prometheus::{Encoder, GaugeVec, IntGaugeVec, Opts, Registry, TextEncoder};
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
/// With port 0 nothing listens.
pub(crate) fn start(watch: Watch, port: u16) -> Result<()> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Failed::bad_configuration(format!("{what}: {error}"))
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("cannot start the thread that watches for signals"))?;
    let (terminate, listener) = {
        let _context = runtime.enter();
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let terminate = (signals.0.map_err(failed("cannot watch for SIGTERM"))?, signals.1);
        let interrupt = terminate.1.map_err(failed("cannot watch for SIGINT"))?;
        ((terminate.0, interrupt), listen(&runtime, port)?)
    };
    let work = move || {
        runtime.block_on(async {
            tokio::join!(stop_on(terminate, watch.clone()), serve(listener, watch.clone()));
        });
    };
    thread::Builder::new().name("sidecar".into()).spawn(work).map_err(failed("cannot start a thread"))?;
    Ok(())
}

fn listen(runtime: &runtime::Runtime, port: u16) -> Result<Option<TcpListener>> {
    if port == 0 {
        return Ok(None);
    }
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let listener = runtime.block_on(TcpListener::bind(address)).map_err(|error| {
        Failed::bad_configuration(format!("cannot listen on {address} for /progress: {error}; use --port"))
    })?;
    Ok(Some(listener))
}

async fn stop_on((mut terminate, mut interrupt): (Signal, Signal), watch: Watch) {
    loop {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        watch.stop();
    }
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
    let progress = watch.progress();
    let registry = Registry::new();
    let steps = |name: &str, help: &str, value: u64| {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &["stage"])?;
        gauge.with_label_values(&[&progress.stage]).set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(Box::new(gauge))
    };
    steps("lethe_trainer_step", "Steps done in the current stage.", progress.step)?;
    steps("lethe_trainer_steps", "Steps of the current stage in all.", progress.total)?;
    let losses = Opts::new("lethe_trainer_loss", "Mean loss since the report before, by name.");
    let losses = GaugeVec::new(losses, &["stage", "name"])?;
    for (name, &value) in &progress.metrics {
        losses.with_label_values(&[&progress.stage, name]).set(value);
    }
    registry.register(Box::new(losses))?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_say_where_the_work_stands() {
        let watch = Watch::new("run");
        watch.begin("forget", 0, 500);
        watch.at(320);
        watch.metrics(&[("generator", 0.5)]);
        let text = render(&watch).unwrap();
        assert!(text.contains("lethe_trainer_step{stage=\"forget\"} 320\n"), "{text}");
        assert!(text.contains("lethe_trainer_loss{name=\"generator\",stage=\"forget\"} 0.5\n"), "{text}");
    }
}
