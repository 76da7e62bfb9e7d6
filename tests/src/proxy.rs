//! A plain HTTP proxy between an operator and the API server, to which every write of the operator is known,
//! which can end the operator after any of them, and which has its own weather.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use kube::Client;
use rustix::process::Signal;
use tokio::sync::{Barrier, mpsc, watch};

use crate::{
    late::Renewals,
    loopback::Loopback,
    operator::signal_process,
    weather::{Stumble, Weather, is_watch},
};

/// No request of the operator is larger.
const MAX_BODY: usize = 4 << 20;

/// The proxy. It runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    _server: Loopback,
}

#[derive(Debug, Default)]
struct Shared {
    weather: Weather,
    renewals: Renewals,
    /// Whether requests are taken and not answered.
    hangs: watch::Sender<bool>,
    writes: Mutex<Vec<String>>,
    jobs: Mutex<Vec<String>>,
    victim: Mutex<Option<Victim>>,
    /// A process that dies before a write whose method and path begin so.
    too_early: Mutex<Option<(String, Victim)>>,
    /// Where the next write of a lease waits for others.
    meeting: Mutex<Option<Arc<Barrier>>>,
}

/// A process that dies after a write.
#[derive(Debug)]
struct Victim {
    id: u32,
    /// How many writes come before that one.
    before: usize,
    tell: mpsc::UnboundedSender<String>,
}

#[derive(Clone)]
struct Route {
    client: Client,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy that makes its requests as `client`.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(client: Client) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let router = Router::new().fallback(forward).with_state(Route { client, shared: shared.clone() });
        let server = Loopback::start(router).await?;
        Ok(Self { url: server.url.clone(), shared, _server: server })
    }

    /// Kills process `id` once the API server has carried out a write of it, the next one being 1, before it can know.
    /// Returns what is told then: the write.
    pub fn kill_after_write(&self, id: u32, write: usize) -> mpsc::UnboundedReceiver<String> {
        let (tell, told) = mpsc::unbounded_channel();
        let victim = Victim { id, before: write.saturating_sub(1), tell };
        *self.shared.victim.lock().unwrap_or_else(PoisonError::into_inner) = Some(victim);
        told
    }

    /// Kills process `id` when it sends the first write whose method and path begin like this, which is never carried out.
    /// Returns what is told then: the write.
    pub fn kill_before(&self, id: u32, write: &str) -> mpsc::UnboundedReceiver<String> {
        let (tell, told) = mpsc::unbounded_channel();
        let victim = Victim { id, before: 0, tell };
        *self.shared.too_early.lock().unwrap_or_else(PoisonError::into_inner) = Some((write.into(), victim));
        told
    }

    pub fn weather(&self) -> &Weather {
        &self.shared.weather
    }

    pub fn renewals(&self) -> &Renewals {
        &self.shared.renewals
    }

    /// From now on, requests are taken and neither passed on nor answered, or no longer so. What waits then is passed
    /// on late, if somebody still waits for it.
    pub fn hang(&self, hangs: bool) {
        self.shared.hangs.send_replace(hangs);
    }

    /// The next write of a lease is passed on once as many have come to `meeting` as it is for.
    pub fn meet(&self, meeting: Arc<Barrier>) {
        *self.shared.meeting.lock().unwrap_or_else(PoisonError::into_inner) = Some(meeting);
    }

    /// Every write so far, other than of leases, that the API server accepted: method and path.
    pub fn writes(&self) -> Vec<String> {
        self.shared.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of all Jobs that were made so far, those that are gone again as well.
    pub fn jobs(&self) -> Vec<String> {
        self.shared.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    /// Who is to die before this write is carried out.
    fn dies_before(&self, write: &str) -> Option<Victim> {
        let mut early = self.too_early.lock().unwrap_or_else(PoisonError::into_inner);
        early.take_if(|(beginning, _)| write.starts_with(&**beginning)).map(|(_, victim)| victim)
    }

    /// Who is to die after the write that was just carried out.
    fn dies_now(&self) -> Option<Victim> {
        let mut victim = self.victim.lock().unwrap_or_else(PoisonError::into_inner);
        match victim.as_mut() {
            Some(waits) if waits.before > 0 => {
                waits.before -= 1;
                None
            }
            _ => victim.take(),
        }
    }
}

/// Ends a process. It never hears an answer.
async fn kill(victim: &Victim, write: String) -> Result<Response> {
    signal_process(victim.id, Signal::KILL)?;
    let _ = victim.tell.send(write);
    std::future::pending().await
}

async fn forward(State(route): State<Route>, request: Request) -> Response {
    let is_watch = is_watch(request.uri());
    let stumble = if is_watch { None } else { route.shared.weather.next(request.method(), request.uri()) };
    if let Some(refused @ Stumble::Refused(_)) = stumble {
        return refused.into_response();
    }
    let passed = match stumble.and_then(Stumble::delay) {
        None => pass_on(route, request, stumble).await,
        // A task of its own: whoever gives up ends this one.
        Some(delay) => late(delay, route, request, stumble).await,
    };
    passed.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response())
}

async fn late(delay: Duration, route: Route, request: Request, stumble: Option<Stumble>) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let whole = Request::from_parts(parts, to_bytes(body, MAX_BODY).await?.into());
    let passing = async move {
        tokio::time::sleep(delay).await;
        pass_on(route, whole, stumble).await
    };
    tokio::spawn(passing).await?
}

async fn pass_on(route: Route, request: Request, stumble: Option<Stumble>) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let is_watch = is_watch(&parts.uri);
    let is_of_lease = parts.uri.path().contains("/leases");
    let is_write = parts.method != Method::GET && !is_of_lease;
    let write = format!("{} {}", parts.method, parts.uri.path());
    // These are about this connection, not about the next.
    for name in [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    let body = to_bytes(body, MAX_BODY).await?;
    route.shared.hangs.subscribe().wait_for(|hangs| !hangs).await?;
    if is_of_lease && parts.method != Method::GET {
        if route.shared.renewals.refuses_next().await {
            return Ok((StatusCode::INTERNAL_SERVER_ERROR, "not now").into_response());
        }
        let meeting = route.shared.meeting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(meeting) = meeting {
            meeting.wait().await;
        }
    }
    let too_early = route.shared.dies_before(&write);
    if let Some(victim) = too_early {
        return kill(&victim, write).await;
    }
    let job = job_in(&parts.method, parts.uri.path(), &body);
    let answer = route.client.send(Request::from_parts(parts, body.into())).await?;
    if is_write && answer.status().is_success() {
        route.shared.jobs.lock().unwrap_or_else(PoisonError::into_inner).extend(job);
        route.shared.writes.lock().unwrap_or_else(PoisonError::into_inner).push(write.clone());
        if let Some(victim) = route.shared.dies_now() {
            return kill(&victim, write).await;
        }
    }
    let (mut parts, body) = answer.into_parts();
    if let Some(lost) = stumble {
        return Ok(lost.into_response());
    }
    parts.headers.remove(header::TRANSFER_ENCODING);
    let body = Body::new(body);
    Ok(Response::from_parts(parts, if is_watch { route.shared.weather.over(body) } else { body }))
}

/// The name of the Job that is to be made.
fn job_in(method: &Method, path: &str, body: &[u8]) -> Option<String> {
    let is_of_job = *method == Method::POST && path.ends_with("/jobs");
    let job: serde_json::Value = is_of_job.then(|| serde_json::from_slice(body).ok()).flatten()?;
    job["metadata"]["name"].as_str().map(str::to_owned)
}
