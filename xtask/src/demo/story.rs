//! What the demo found out, for the summary and the report. Every number was measured in this run.

use lethe_api::gate::GateResult;
use serde::Deserialize;

use super::live::{Judged, Sampled};

#[derive(Debug)]
pub struct Story {
    /// The cluster's version.
    pub kubernetes: String,
    pub base: Taught,
    pub made: Made,
    /// The live server before the request, and after it.
    pub before: Sampled,
    pub after: Sampled,
    /// The samples of the forgotten label among them.
    pub leak_before: Judged,
    pub leak_after: Judged,
    /// The label to forget, and what is shown instead.
    pub target: String,
    pub replacement: String,
    /// Where the request ended.
    pub phase: String,
    pub gates: Vec<GateResult>,
    pub evidence: Evidence,
    pub speeds: Speeds,
    pub blocked: Blocked,
}

/// What the teach Job said.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taught {
    pub digest: String,
    pub images: u64,
    pub steps: u64,
}

/// What `Prepare` made of the base, as digests.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    pub bundle: String,
    pub judge: String,
    pub reference: String,
}

/// What the evaluate pod left.
#[derive(Debug)]
pub struct Evidence {
    /// Digest of its measurement record.
    pub record: String,
    /// The page about it, with the operator's verdicts.
    pub page: String,
}

/// Images per second.
#[derive(Debug, Clone, Copy)]
pub struct Speeds {
    /// The teacher's own sampler, in the prepare pod.
    pub teacher: f64,
    /// The one-step model, beside it in the same pod.
    pub one_step: f64,
    /// The one-step model over HTTP, as the probe saw it.
    pub served: f64,
}

/// The request whose gates cannot pass.
#[derive(Debug)]
pub struct Blocked {
    pub phase: String,
    pub gates: Vec<GateResult>,
    /// What was served when it had ended.
    pub served_digest: String,
}
