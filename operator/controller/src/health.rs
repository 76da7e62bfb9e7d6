//! `/metrics`, `/healthz` and `/readyz`. None of them depends on how much there is to do.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};

use crate::{metrics::Metrics, watchdog::Watchdog};

/// What the probes read.
#[derive(Clone)]
pub struct Health {
    pub metrics: Arc<Metrics>,
    pub watchdog: Arc<Watchdog>,
    /// Why the operator is not ready; empty if it is.
    pub unready: watch::Receiver<String>,
}

/// Binds the address, so that a taken port is an error at the start.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz and /readyz");
    Ok(listener)
}

pub async fn serve(
    listener: TcpListener,
    health: Health,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(health)).with_graceful_shutdown(stop).await
}

fn router(health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
}

async fn metrics(State(health): State<Health>) -> Response {
    match health.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            let message = format!("cannot gather the metrics: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
        }
    }
}

/// A process that hears nothing any more is better started again.
async fn healthz(State(health): State<Health>) -> (StatusCode, String) {
    let stale = health.watchdog.stale();
    if stale.is_empty() {
        return (StatusCode::OK, "ok\n".into());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("no sign of life from the watch of {}\n", stale.join(", ")))
}

/// A replica that waits for the lease is ready: it could act at once.
async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    let reason = health.unready.borrow().clone();
    if reason.is_empty() {
        return (StatusCode::OK, "ok\n".into());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}
