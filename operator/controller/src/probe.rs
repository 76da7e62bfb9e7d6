//! Asking a pod over plain HTTP. Pods are not trusted: time and size are limited, and what cannot be
//! parsed is an error.

use std::{net::IpAddr, time::Duration};

use axum::{body::Bytes, http::Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use crate::spans;

/// For connecting, and for the whole answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// An HTTP client for pods. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prober {
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// Why a pod gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("the pod has no IP address yet")]
    NoAddress,
    #[error("{0} is not a URI")]
    Uri(String),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    #[error("HTTP status {0}")]
    Status(u16),
    #[error("the answer is longer than {0} bytes or broke off")]
    Body(usize),
    #[error("the answer is not the JSON that was expected: {0}")]
    Json(serde_json::Error),
}

impl Prober {
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // Every question goes to a connection of its own: a pod that was replaced must not answer.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { client }
    }

    /// GETs `path` of a pod as JSON of at most `max` bytes.
    pub async fn get<T: DeserializeOwned>(
        &self,
        pod: &Pod,
        port: u16,
        path: &str,
        max: usize,
    ) -> Result<T, ProbeError> {
        let address = address(pod).ok_or(ProbeError::NoAddress)?;
        let uri = uri(address, port, path)?;
        let span = spans::step("ask a pod", &uri);
        let asked = async {
            let body = tokio::time::timeout(ANSWER_TIMEOUT, self.body(uri, max)).await;
            let body = body.map_err(|_| ProbeError::Timeout)??;
            serde_json::from_slice(&body).map_err(ProbeError::Json)
        };
        let answer = asked.instrument(span.clone()).await;
        answer.inspect_err(|error| spans::failed(&span, "pod", error))
    }

    async fn body(&self, uri: Uri, max: usize) -> Result<Bytes, ProbeError> {
        let answer = self.client.get(uri).await.map_err(|error| ProbeError::Connect(error.to_string()))?;
        if !answer.status().is_success() {
            return Err(ProbeError::Status(answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), max).collect().await;
        Ok(body.map_err(|_| ProbeError::Body(max))?.to_bytes())
    }
}

impl Default for Prober {
    fn default() -> Self {
        Self::new()
    }
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

fn uri(address: IpAddr, port: u16, path: &str) -> Result<Uri, ProbeError> {
    let authority = std::net::SocketAddr::new(address, port);
    let uri = format!("http://{authority}{path}");
    uri.parse().map_err(|_| ProbeError::Uri(uri))
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::get};
    use futures::stream;
    use k8s_openapi::api::core::v1::PodStatus;
    use serde_json::{Value, json};

    use super::*;

    fn pod(ip: &str) -> Pod {
        let status = PodStatus { pod_ip: Some(ip.into()), ..PodStatus::default() };
        Pod { status: Some(status), ..Pod::default() }
    }

    async fn serve(router: Router) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    #[test]
    fn an_ipv6_address_is_bracketed() {
        let uri = uri("fd00::1".parse().unwrap(), 8080, "/progress").unwrap();
        assert_eq!(uri.to_string(), "http://[fd00::1]:8080/progress");
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_a_limit() {
        let long = json!("x".repeat(100)).to_string();
        let router = Router::new()
            .route("/good", get(|| async { r#"{"digest":"d"}"# }))
            .route("/long", get(move || async move { long }))
            .route("/text", get(|| async { "hello" }));
        let port = serve(router).await;
        let (prober, pod) = (Prober::new(), pod("127.0.0.1"));
        let good: Value = prober.get(&pod, port, "/good", 100).await.unwrap();
        assert_eq!(good, json!({"digest": "d"}));
        let get = |path| prober.get::<Value>(&pod, port, path, 100);
        assert!(matches!(get("/long").await, Err(ProbeError::Body(100))));
        assert!(matches!(get("/text").await, Err(ProbeError::Json(_))));
        assert!(matches!(get("/none").await, Err(ProbeError::Status(404))));
        let nobody = prober.get::<Value>(&self::pod("not an address"), port, "/good", 100).await;
        assert!(matches!(nobody, Err(ProbeError::NoAddress)));
    }

    #[tokio::test]
    async fn a_pod_that_takes_its_time_is_not_waited_for() {
        // It takes the connection and says nothing; or begins and never comes to an end.
        async fn drips() -> Body {
            Body::from_stream(stream::unfold((), async |()| {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
            }))
        }
        let router =
            Router::new().route("/silent", get(std::future::pending::<String>)).route("/drips", get(drips));
        let port = serve(router).await;
        // Nobody listens there any more.
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (prober, pod) = (Prober::new(), pod("127.0.0.1"));
        let get = |port, path| prober.get::<Value>(&pod, port, path, 1 << 20);
        let asked = std::time::Instant::now();
        let (silent, drips, closed) =
            tokio::join!(get(port, "/silent"), get(port, "/drips"), get(closed, "/"));
        assert!(matches!(silent, Err(ProbeError::Timeout)), "{silent:?}");
        assert!(matches!(drips, Err(ProbeError::Timeout)), "{drips:?}");
        assert!(matches!(closed, Err(ProbeError::Connect(_))), "{closed:?}");
        let took = asked.elapsed();
        assert!(took >= ANSWER_TIMEOUT && took < ANSWER_TIMEOUT * 5, "{took:?}");
    }
}
