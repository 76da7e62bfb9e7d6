//! Paths and answers.

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, MatchedPath, Path, Query, Request, State, rejection::BytesRejection},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use lethe_report::gallery::{SAMPLES, waiting};
use serde::Deserialize;
use serde_json::json;

use super::{
    Loaded, Server, gallery,
    oip::{InferRequest, InferResponse, ModelMetadata, ServerMetadata},
    worker::Refusal,
};

/// A full batch of labels and seeds is smaller.
const MAX_BODY: usize = 1 << 20;

pub(super) fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/samples/{file}", get(samples))
        .route("/metrics", get(metrics))
        .route("/v2", get(server_metadata))
        .route("/v2/health/live", get(async || Json(json!({"live": true}))))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{name}", get(model_metadata))
        .route("/v2/models/{name}/ready", get(model_ready))
        .route("/v2/models/{name}/infer", post(infer))
        .fallback(async || Failure::not_found("no such path; the protocol's begin with /v2"))
        .method_not_allowed_fallback(async || {
            Failure(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method".into())
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(server.clone(), count))
        .with_state(server)
}

/// An answer that is not what was asked for: a status and the protocol's error object.
pub(super) struct Failure(StatusCode, String);

impl Failure {
    fn not_found(message: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, message.into())
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    fn not_ready(reason: impl Into<String>) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, reason.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Full => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, refusal.to_string())
    }
}

async fn count(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let endpoint = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let endpoint = endpoint.as_deref().unwrap_or("other");
    server.metrics.answered(endpoint, response.status().as_u16(), began.elapsed());
    response
}

async fn server_metadata() -> impl IntoResponse {
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    Json(ServerMetadata { name, version, extensions: [] })
}

async fn ready(State(server): State<Arc<Server>>) -> Response {
    match server.model() {
        Ok(_) => Json(json!({"ready": true})).into_response(),
        Err(reason) => not_ready(&reason),
    }
}

async fn model_ready(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    known(&server, &name)?;
    Ok(match server.model() {
        Ok(_) => Json(json!({"name": server.name, "ready": true})).into_response(),
        Err(reason) => not_ready(&reason),
    })
}

fn not_ready(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ready": false, "error": reason}))).into_response()
}

async fn model_metadata(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let model = model(&server, &name)?;
    Ok(Json(ModelMetadata::of(&server.name, model)).into_response())
}

async fn infer(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let model = model(&server, &name)?;
    let body = body.map_err(|rejection| Failure(rejection.status(), rejection.body_text()))?;
    let request: InferRequest = serde_json::from_slice(&body)
        .map_err(|error| Failure::bad_request(format!("not an inference request: {error}")))?;
    let pairs = request.pairs(&model.config).map_err(Failure::bad_request)?;
    let images = model.queue.draw(pairs).await?;
    Ok(Json(InferResponse::new(&server.name, model, request, &images)).into_response())
}

async fn metrics(State(server): State<Arc<Server>>) -> Result<Response, Failure> {
    let text = server.metrics.render();
    let text = text.map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// What the gallery shows.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct View {
    seed: u64,
    n: u64,
}

impl Default for View {
    fn default() -> Self {
        Self { seed: 0, n: SAMPLES }
    }
}

async fn index(State(server): State<Arc<Server>>, Query(view): Query<View>) -> Response {
    match server.model() {
        Ok(model) => Html(gallery::page(&server.name, model, view.seed)).into_response(),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Html(waiting(&server.name, &reason))).into_response()
        }
    }
}

async fn samples(
    State(server): State<Arc<Server>>,
    Path(file): Path<String>,
    Query(view): Query<View>,
) -> Result<Response, Failure> {
    let model = server.model().map_err(Failure::not_ready)?;
    let label = file.strip_suffix(".png").and_then(|name| model.config.label(name));
    let label = label.ok_or_else(|| Failure::not_found("no such label"))?;
    let png = gallery::row(model, label, view.seed, view.n).await?;
    Ok(([(header::CONTENT_TYPE, "image/png")], png).into_response())
}

fn model<'a>(server: &'a Server, name: &str) -> Result<&'a Loaded, Failure> {
    known(server, name)?;
    server.model().map_err(Failure::not_ready)
}

fn known(server: &Server, name: &str) -> Result<(), Failure> {
    if name == server.name {
        return Ok(());
    }
    Err(Failure::not_found(format!("no such model; this server has {:?}", server.name)))
}

impl From<crate::failure::Failed> for Failure {
    fn from(failed: crate::failure::Failed) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, failed.message)
    }
}
