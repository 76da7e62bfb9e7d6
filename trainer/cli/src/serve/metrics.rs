//! What the server counts. Labels are this program's own words: a path that a client made up is no label.

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    pub(super) images: IntCounter,
    pub(super) ready: IntGauge,
}

impl Metrics {
    pub(super) fn new() -> prometheus::Result<Self> {
        let requests =
            Opts::new("lethe_server_requests_total", "Answered requests, by endpoint and HTTP status.");
        let seconds = HistogramOpts::new("lethe_server_request_seconds", "Time to answer, by endpoint.");
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(requests, &["endpoint", "status"])?,
            seconds: HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &["endpoint"])?,
            images: IntCounter::new("lethe_server_images_total", "Images drawn.")?,
            ready: IntGauge::new("lethe_server_ready", "1 once a verified model is served.")?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.images.clone()))?;
        metrics.registry.register(Box::new(metrics.ready.clone()))?;
        Ok(metrics)
    }

    /// Counts one answer. `endpoint` is the route's pattern, never the path that was asked for.
    pub(super) fn answered(&self, endpoint: &str, status: u16, took: Duration) {
        self.requests.with_label_values(&[endpoint, &status.to_string()]).inc();
        self.seconds.with_label_values(&[endpoint]).observe(took.as_secs_f64());
    }

    /// In the text format of Prometheus.
    pub(super) fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
