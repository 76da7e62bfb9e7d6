//! Gates: what a policy requires of a candidate, and what became of it. Part of the custom resources, but without
//! Kubernetes: whoever holds a record can judge it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One requirement on a candidate. Numbers are decimal strings: they are compared, hashed and audited.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[cfg_attr(feature = "kubernetes", derive(kube::KubeSchema))]
#[cfg_attr(not(feature = "kubernetes"), derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "kubernetes", x_kube(
    validation = Rule::new("self.name != 'direct-leak' || (has(self.maxBound) && has(self.minSamples))").message("direct-leak needs maxBound and minSamples"),
    validation = Rule::new("self.name != 'override-conformity' || (has(self.min) && has(self.minSamples))").message("override-conformity needs min and minSamples"),
    validation = Rule::new("self.name != 'retain-accuracy' || (has(self.maxDrop) && has(self.minSamples))").message("retain-accuracy needs maxDrop and minSamples"),
    validation = Rule::new("self.name != 'retain-quality' || (has(self.maxRatio) && has(self.minSamples))").message("retain-quality needs maxRatio and minSamples"),
    validation = Rule::new("self.name != 'served-leak' || (has(self.maxBound) && has(self.minSamples))").message("served-leak needs maxBound and minSamples"),
    validation = Rule::new("has(self.maxBound) == (self.name in ['direct-leak', 'served-leak'])").message("maxBound belongs to direct-leak and served-leak only"),
    validation = Rule::new("!has(self.confidence) || self.name in ['direct-leak', 'served-leak']").message("confidence belongs to direct-leak and served-leak only"),
    validation = Rule::new("has(self.min) == (self.name == 'override-conformity')").message("min belongs to override-conformity only"),
    validation = Rule::new("has(self.maxDrop) == (self.name == 'retain-accuracy')").message("maxDrop belongs to retain-accuracy only"),
    validation = Rule::new("has(self.maxRatio) == (self.name == 'retain-quality')").message("maxRatio belongs to retain-quality only")
))]
pub struct Gate {
    pub name: GateName,
    /// direct-leak, served-leak: the one-sided Clopper-Pearson upper bound must not exceed this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.[0-9]+$|^0$|^1$"))]
    pub max_bound: Option<String>,
    /// direct-leak, served-leak: confidence of the bound, at least 0.9; 0.95 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.9[0-9]*$"))]
    pub confidence: Option<String>,
    /// override-conformity: least share of samples that are the override label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.[0-9]+$|^0$|^1$"))]
    pub min: Option<String>,
    /// retain-accuracy: most that the mean over kept labels may lie below the baseline's. No single label may
    /// lose more than four times as much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.[0-9]+$|^0$|^1$"))]
    pub max_drop: Option<String>,
    /// retain-quality: most that the Frechet distance may be of the baseline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]{1,6}(\.[0-9]+)?$"))]
    pub max_ratio: Option<String>,
    /// Fewer samples than this are inconclusive: at each forgotten label for direct-leak, override-conformity
    /// and served-leak, at each kept label for retain-accuracy, in all for retain-quality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_samples: Option<u32>,
}

impl Gate {
    /// A gate that demands nothing yet.
    pub fn named(name: GateName) -> Self {
        Self {
            name,
            max_bound: None,
            confidence: None,
            min: None,
            max_drop: None,
            max_ratio: None,
            min_samples: None,
        }
    }
}

/// The gates of this version. All are required but `served-leak`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GateName {
    DirectLeak,
    OverrideConformity,
    RetainAccuracy,
    RetainQuality,
    Hygiene,
    /// On what the live server shows, after a roll-out and whenever it is audited.
    ServedLeak,
}

impl GateName {
    /// Those on a candidate, before it is served.
    pub const REQUIRED: [GateName; 5] = [
        GateName::DirectLeak,
        GateName::OverrideConformity,
        GateName::RetainAccuracy,
        GateName::RetainQuality,
        GateName::Hygiene,
    ];

    pub const ALL: [GateName; 6] = [
        GateName::DirectLeak,
        GateName::OverrideConformity,
        GateName::RetainAccuracy,
        GateName::RetainQuality,
        GateName::Hygiene,
        GateName::ServedLeak,
    ];

    /// The name on the wire, and the value of a metric's `gate` label.
    pub fn as_str(self) -> &'static str {
        match self {
            GateName::DirectLeak => "direct-leak",
            GateName::OverrideConformity => "override-conformity",
            GateName::RetainAccuracy => "retain-accuracy",
            GateName::RetainQuality => "retain-quality",
            GateName::Hygiene => "hygiene",
            GateName::ServedLeak => "served-leak",
        }
    }
}

impl std::fmt::Display for GateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One gate's verdict, computed by the operator from raw counts. Numbers are decimal strings.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GateResult {
    pub name: GateName,
    /// The forgotten label; absent for gates on the whole candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub target: Option<String>,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub value: Option<String>,
    /// What the verdict rests on, where it is not the value itself: for direct-leak the upper bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub bound: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub threshold: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// direct-leak: how often the judge sees a leak in true samples of the override label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub base_rate: Option<String>,
    pub verdict: Verdict,
    /// Why the verdict is not Pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
}

/// Only `Pass` of every gate promotes. Ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    Pass,
    /// Too little was measured to say.
    Inconclusive,
    Fail,
    /// The measurement cannot be trusted: missing, foreign, not a number, or the positive control passed.
    Error,
}

impl Verdict {
    pub const ALL: [Verdict; 4] = [Verdict::Pass, Verdict::Inconclusive, Verdict::Fail, Verdict::Error];
}

/// How far the baseline was from the teacher when it was made. An evaluation that finds it elsewhere is not believed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaselineQuality {
    /// Frechet distance to the reference, a decimal number.
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub distance: String,
    /// Samples behind it, over all labels.
    #[schemars(range(min = 2))]
    pub samples: u64,
}
