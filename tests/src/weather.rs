//! What goes wrong between the operator and the API server.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::sync::watch;

/// Clear, until somebody says otherwise.
#[derive(Debug, Default)]
pub struct Weather {
    /// Of so many calls that are no watches, one goes wrong; none if it is 0.
    every: AtomicU32,
    /// What is carried out is answered.
    only_refuses: AtomicBool,
    calls: AtomicU32,
    late_writes: AtomicU32,
    stumbled: Mutex<BTreeMap<Stumble, u32>>,
    /// How often all watches were ended so far.
    expiries: watch::Sender<u32>,
    silent: watch::Sender<bool>,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stumble {
    /// It is refused with this code, and not carried out.
    Refused(StatusCode),
    /// It is carried out, and the connection breaks in the answer.
    AnswerLost,
    /// It is carried out once whoever asked has given up.
    Late,
}

/// Longer than the operator waits for a write.
const LATE: Duration = Duration::from_secs(5);

const CONFLICT: Stumble = Stumble::Refused(StatusCode::CONFLICT);

const STUMBLES: [Stumble; 6] = [
    Stumble::Refused(StatusCode::TOO_MANY_REQUESTS),
    Stumble::AnswerLost,
    Stumble::Refused(StatusCode::INTERNAL_SERVER_ERROR),
    CONFLICT,
    Stumble::Refused(StatusCode::SERVICE_UNAVAILABLE),
    Stumble::Refused(StatusCode::GATEWAY_TIMEOUT),
];

impl Weather {
    /// From now on, of `every` calls that are no watches one goes wrong, each time in the way that was seen least.
    pub fn stumble(&self, every: u32) {
        self.only_refuses.store(false, Ordering::Relaxed);
        self.every.store(every, Ordering::Relaxed);
    }

    /// The same, but no answer gets lost: whoever counts what was done, counts all of it.
    pub fn refuse(&self, every: u32) {
        self.only_refuses.store(true, Ordering::Relaxed);
        self.every.store(every, Ordering::Relaxed);
    }

    /// How many calls went wrong in the way that was seen least.
    pub fn least_seen(&self) -> (Stumble, u32) {
        least(&self.stumbled.lock().unwrap_or_else(PoisonError::into_inner), |_| true)
    }

    /// Ends every watch that is open with a 410.
    pub fn expire_watches(&self) {
        self.expiries.send_modify(|expiries| *expiries += 1);
    }

    /// From now on, watches stay open and nothing comes of them, or no longer so.
    pub fn silence_watches(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    /// Of the next calls, but those about a lease, so many writes are carried out once nobody waits any more.
    pub fn delay_writes(&self, writes: u32) {
        self.late_writes.store(writes, Ordering::Relaxed);
    }

    /// Whether this call goes wrong, and how. Only a write can be in conflict.
    pub(crate) fn next(&self, method: &Method, uri: &Uri) -> Option<Stumble> {
        let is_write = *method != Method::GET && !uri.path().contains("/leases");
        let one_less = |left: u32| left.checked_sub(1);
        if is_write && self.late_writes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Some(Stumble::Late);
        }
        let every = self.every.load(Ordering::Relaxed);
        if every == 0 || !(self.calls.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every) {
            return None;
        }
        let mut stumbled = self.stumbled.lock().unwrap_or_else(PoisonError::into_inner);
        let only_refuses = self.only_refuses.load(Ordering::Relaxed);
        let can_be = |stumble| match stumble {
            CONFLICT => *method != Method::GET,
            Stumble::AnswerLost | Stumble::Late => !only_refuses,
            Stumble::Refused(_) => true,
        };
        let (stumble, _) = least(&stumbled, can_be);
        *stumbled.entry(stumble).or_default() += 1;
        Some(stumble)
    }

    /// The answer of a watch, as this weather lets it through.
    pub(crate) fn over(&self, body: Body) -> Body {
        let (mut expiries, silent) = (self.expiries.subscribe(), self.silent.subscribe());
        let now = expiries.clone();
        let expired = async move {
            // Ends with the proxy as well.
            let _ = expiries.changed().await;
        };
        let events = body.into_data_stream().map(|chunk| chunk.map_err(io::Error::other));
        let last = stream::once(async move {
            let gone = json!({"type": "ERROR", "object": status(StatusCode::GONE)});
            let expired = now.has_changed().unwrap_or(false);
            Ok(Bytes::from(if expired { format!("{gone}\n") } else { String::new() }))
        });
        // The end of a watch is silent too.
        Body::from_stream(events.take_until(expired).chain(last).then(move |chunk| {
            let mut silent = silent.clone();
            async move {
                let _ = silent.wait_for(|silent| !silent).await;
                chunk
            }
        }))
    }
}

fn least(stumbled: &BTreeMap<Stumble, u32>, can_be: impl Fn(Stumble) -> bool) -> (Stumble, u32) {
    let seen = |stumble: Stumble| stumbled.get(&stumble).copied().unwrap_or_default();
    let all = STUMBLES.into_iter().filter(|&stumble| can_be(stumble)).map(|stumble| (stumble, seen(stumble)));
    all.min_by_key(|&(_, seen)| seen).unwrap_or((Stumble::AnswerLost, 0))
}

pub(crate) fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

impl Stumble {
    /// How long a call is held back before it is carried out.
    pub(crate) fn delay(self) -> Option<Duration> {
        (self == Self::Late).then_some(LATE)
    }
}

impl IntoResponse for Stumble {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(code) => {
                let kind = (header::CONTENT_TYPE, "application/json");
                (code, [kind, (header::RETRY_AFTER, "1")], status(code).to_string()).into_response()
            }
            // Of what comes late nobody waits for the answer.
            Self::AnswerLost | Self::Late => {
                let broken = stream::iter([Err::<Bytes, _>(io::Error::other("the connection broke"))]);
                Body::from_stream(broken).into_response()
            }
        }
    }
}

/// As the API server says it.
fn status(code: StatusCode) -> serde_json::Value {
    let reason = match code {
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::GONE => "Expired",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::GATEWAY_TIMEOUT => "Timeout",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("bad weather: {reason}"), "reason": reason, "code": code.as_u16(),
    })
}
