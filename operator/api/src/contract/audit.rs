//! What a live server is asked, and what came of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Count, Digest, MAX_LABEL_BYTES, MAX_LABELS, PlannedTarget};

/// Ask the live server, as its users do, for samples of every forgotten label, and let the judge look at them. The pod
/// decides nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditTask {
    /// Where the server listens (docs/serving-contract.md), without a path.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^http://[A-Za-z0-9.:\[\]-]+$"))]
    pub endpoint: String,
    /// The model's name there: `/v2/models/NAME`.
    #[schemars(length(min = 1, max = 253))]
    pub model: String,
    /// What it has to serve. Samples of anything else are not judged.
    pub served: Digest,
    /// The positive control: it has forgotten nothing, and the judge must recognise it.
    pub baseline: Digest,
    pub judge: Digest,
    /// Everything that is forgotten, with `Fixed` or `Random` overrides.
    #[schemars(length(min = 1, max = MAX_LABELS))]
    pub targets: Vec<PlannedTarget>,
    /// Every other label of the model.
    #[schemars(length(min = 1, max = MAX_LABELS))]
    pub kept: Vec<String>,
    /// At each forgotten label, and without a label where the server can be asked so.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub samples: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditRecord {
    /// What the server said with every answer that it served.
    pub served: Digest,
    pub baseline: Digest,
    pub judge: Digest,
    pub targets: Vec<AuditMeasurement>,
    /// Live samples of kept labels that were judged as the label that was asked for, over all of them: whether what the
    /// server sends is what the judge can see.
    pub kept: Count,
}

/// What the live server showed of one forgotten label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditMeasurement {
    #[schemars(length(min = 1, max = MAX_LABEL_BYTES))]
    pub label: String,
    /// Live samples at this label that were judged as it.
    pub leak: Count,
    /// Live samples without a label that were judged as it; absent if the server cannot be asked so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<Count>,
    /// The positive control: samples of the baseline at this label, drawn in the pod, that were judged as it.
    pub control: Count,
}
