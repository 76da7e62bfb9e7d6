//! What a trainer pod answers at `GET /progress` while it works.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metrics;

/// Where a pod stands. For people; nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub run: String,
    /// For example `distil`, `judge`, `forget`, `measure`.
    pub stage: String,
    pub step: u64,
    pub total: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// The last line of the stage's metrics, if it is a training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
}

impl Progress {
    /// The TCP port of `/progress` and `/metrics`, and of the server's HTTP.
    pub const PORT: u16 = 8080;
    /// A longer answer is not read.
    pub const MAX_BYTES: usize = 16 * 1024;
}
