//! What a trainer pod answers at `GET /progress` while it works.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// The last losses, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

impl Progress {
    /// The TCP port of `/progress` and `/metrics`, and of the server's HTTP.
    pub const PORT: u16 = 8080;
    /// A longer answer is not read.
    pub const MAX_BYTES: usize = 16 * 1024;
}
