//! Legal terms: how long a person who asks may be kept waiting. Not legal advice.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What a regulation may be called.
pub(super) const REGULATION: &str = r"^[A-Za-z0-9][A-Za-z0-9._-]*$";

/// The term of one regulation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LegalTerm {
    /// As requests name it. With `GDPR` or `CCPA`, this holds instead of the term that is known.
    #[schemars(length(min = 1, max = 32), regex(pattern = REGULATION))]
    pub regulation: String,
    /// From receipt.
    pub term: Term,
    /// From receipt, if the person was told of an extension within `term`. Absent if the regulation knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended: Option<Term>,
    /// Where months and days are counted: a name of the IANA database, such as `Europe/Berlin`. UTC if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"))]
    pub time_zone: Option<String>,
}

/// Calendar months (a day that the last month lacks becomes its last day), or calendar days.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.months) != has(self.days)").message("a term is of months or of days"))]
pub struct Term {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 120))]
    pub months: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_650))]
    pub days: Option<u32>,
}
