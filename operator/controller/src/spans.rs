//! The spans of traces. A trace is one look at one object: what was asked of the API server, of the store and of pods meanwhile,
//! and how long each of it took.
//!
//! They are in no log, and while nobody asks for traces there are none.

use std::fmt::Display;

use axum::http::{Method, Request, StatusCode};
use kube::ResourceExt;
use tracing::{Span, field::Empty, info_span};

use crate::controller::Kind;

/// What tells these spans from those of libraries.
pub const TARGET: &str = "lethe::trace";

/// A look at an object: the beginning of a trace.
pub fn look<K: Kind>(object: &K) -> Span {
    info_span!(
        target: TARGET,
        parent: None,
        "look",
        otel.name = format!("look at {}", K::kind(&())),
        lethe.namespace = object.namespace(),
        lethe.name = object.name_any(),
        lethe.resource_version = object.resource_version(),
        error.type = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// A part of a look that takes its time, and whom it is asked of. What belongs to no look is not traced.
pub fn step(name: &'static str, of: impl Display) -> Span {
    if !is_within_a_look() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "step",
        otel.name = name,
        lethe.of = %of,
        error.type = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// A call to the API server, until its answer begins.
pub fn call<B>(request: &Request<B>) -> Span {
    if !is_within_a_look() {
        return Span::none();
    }
    let (method, path) = (request.method(), request.uri().path());
    info_span!(
        target: TARGET,
        "call",
        otel.kind = "client",
        otel.name = name_of(method, path),
        http.request.method = %method,
        url.path = path,
        http.response.status_code = Empty,
        error.type = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// A call that is under way. Whoever does not wait any longer drops it, and then it has failed.
pub struct Call(Option<Span>);

impl Call {
    pub fn begins(span: Span) -> Self {
        Self(Some(span))
    }

    pub fn span(&self) -> Span {
        self.0.clone().unwrap_or_else(Span::none)
    }

    pub fn answered(mut self, status: StatusCode) {
        let Some(call) = self.0.take() else { return };
        // Of integers, only those with a sign are exported as numbers.
        call.record("http.response.status_code", i64::from(status.as_u16()));
        if status.is_client_error() || status.is_server_error() {
            failed(&call, status.as_str(), &status.canonical_reason().unwrap_or_default());
        }
    }

    pub fn failed(mut self, why: &impl Display) {
        if let Some(call) = self.0.take() {
            failed(&call, "connection", why);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            failed(&call, "timeout", &"nobody waited any longer");
        }
    }
}

/// Says of a span that what it stands for did not succeed.
pub fn failed(span: &Span, kind: &str, why: &impl Display) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", tracing::field::display(why));
}

fn is_within_a_look() -> bool {
    Span::current().metadata().is_some_and(|metadata| metadata.target() == TARGET)
}

/// Method and resource, without the names of objects: there are few of these.
fn name_of(method: &Method, path: &str) -> String {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    // api/VERSION or apis/GROUP/VERSION
    match parts.next() {
        Some("api") => drop(parts.next()),
        Some("apis") => drop((parts.next(), parts.next())),
        _ => return method.to_string(),
    }
    let rest: Vec<_> = parts.collect();
    let of_object = match rest.as_slice() {
        ["namespaces", _, resource @ ..] if !resource.is_empty() => resource,
        other => other,
    };
    match of_object {
        [] => method.to_string(),
        [resource, _, part, ..] => format!("{method} {resource}/{part}"),
        [resource, ..] => format!("{method} {resource}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_by_what_they_are_about_and_not_by_whom() {
        let named = |path: &str| name_of(&Method::GET, path);
        assert_eq!(named("/api/v1/namespaces/studio/pods"), "GET pods");
        assert_eq!(named("/api/v1/namespaces/studio/pods/digits-1"), "GET pods");
        assert_eq!(named("/api/v1/namespaces/studio"), "GET namespaces");
        let of_run = "/apis/lethe.dev/v1alpha1/namespaces/studio/unlearnruns/digits-1";
        assert_eq!(named(of_run), "GET unlearnruns");
        let status = format!("{of_run}/status");
        assert_eq!(named(&status), "GET unlearnruns/status");
        assert_eq!(
            named("/apis/lethe.dev/v1alpha1/clusterunlearnpolicies/strict"),
            "GET clusterunlearnpolicies"
        );
        assert_eq!(named("/version"), "GET");
        assert_eq!(named("/"), "GET");
    }
}
