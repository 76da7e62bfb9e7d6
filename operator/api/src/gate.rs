//! Gates: what a policy requires of a candidate, and what became of it. Part of the custom resources, but without
//! Kubernetes: whoever holds a record can judge it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::{ProbeLevel, ProbeName};

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
    validation = Rule::new("self.name != 'neighbour-accuracy' || (has(self.maxDrop) && has(self.minSamples))").message("neighbour-accuracy needs maxDrop and minSamples"),
    validation = Rule::new("!(self.name in ['other-door-leak', 'multistep-leak', 'stochastic-leak', 'embedding-inversion', 'seed-search', 'benign-resurgence']) || (has(self.maxBound) && has(self.minSamples))").message("other-door-leak, multistep-leak, stochastic-leak, embedding-inversion, seed-search and benign-resurgence need maxBound and minSamples"),
    validation = Rule::new("self.name != 'relearning' || ((has(self.maxBound) || has(self.maxAboveNeverSaw)) && has(self.minSamples))").message("relearning needs maxBound or maxAboveNeverSaw, and minSamples"),
    validation = Rule::new("!(has(self.maxBound) || has(self.confidence)) || !(self.name in ['override-conformity', 'retain-accuracy', 'retain-quality', 'hygiene', 'neighbour-accuracy'])").message("maxBound and confidence belong to gates on leaks and attacks only"),
    validation = Rule::new("!has(self.min) || self.name == 'override-conformity'").message("min belongs to override-conformity only"),
    validation = Rule::new("!has(self.maxDrop) || self.name in ['retain-accuracy', 'neighbour-accuracy']").message("maxDrop belongs to retain-accuracy and neighbour-accuracy only"),
    validation = Rule::new("!has(self.maxRatio) || self.name == 'retain-quality'").message("maxRatio belongs to retain-quality only"),
    validation = Rule::new("!has(self.maxFidelityDrop) || self.name == 'retain-quality'").message("maxFidelityDrop belongs to retain-quality only"),
    validation = Rule::new("!has(self.maxNull) || self.name in ['other-door-leak', 'multistep-leak', 'benign-resurgence']").message("maxNull belongs to other-door-leak, multistep-leak and benign-resurgence only"),
    validation = Rule::new("!has(self.maxAboveNeverSaw) || self.name in ['embedding-inversion', 'relearning']").message("maxAboveNeverSaw belongs to embedding-inversion and relearning only")
))]
pub struct Gate {
    pub name: GateName,
    /// Gates on leaks and attacks: the one-sided Clopper-Pearson upper bound must not exceed this; that of the worst
    /// attempt where a probe makes several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.[0-9]+$|^0$|^1$"))]
    pub max_bound: Option<String>,
    /// Gates on leaks and attacks: confidence of the bound, at least 0.9; 0.95 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.9[0-9]*$"))]
    pub confidence: Option<String>,
    /// override-conformity: least share of samples that are the override label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.[0-9]+$|^0$|^1$"))]
    pub min: Option<String>,
    /// retain-accuracy: most that the mean over kept labels may lie below the baseline's. No single label may
    /// lose more than four times as much. neighbour-accuracy: most that any one of a target's neighbours may lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.[0-9]+$|^0$|^1$"))]
    pub max_drop: Option<String>,
    /// retain-quality: most that the Frechet distance may be of the baseline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]{1,6}(\.[0-9]+)?$"))]
    pub max_ratio: Option<String>,
    /// retain-quality: most that precision and recall over the kept labels, and precision at every target with one label as
    /// its override, may lie below the baseline's. Needs probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.[0-9]+$|^0$|^1$"))]
    pub max_fidelity_drop: Option<String>,
    /// other-door-leak, multistep-leak, benign-resurgence: the bound on what is shown without any label. If absent, that
    /// door is not looked at: right where the server lets nobody ask without a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.[0-9]+$|^0$|^1$"))]
    pub max_null: Option<String>,
    /// embedding-inversion, relearning: most that the candidate's share may lie above that of a model that never saw the
    /// label. The model needs `neverSaw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^0?\.[0-9]+$|^0$|^1$"))]
    pub max_above_never_saw: Option<String>,
    /// Fewer samples than this are inconclusive: at each forgotten label for direct-leak, override-conformity
    /// and served-leak, at each kept label for retain-accuracy, in all for retain-quality, at each neighbour for
    /// neighbour-accuracy, and in each attempt for the gates that read probes.
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
            max_fidelity_drop: None,
            max_null: None,
            max_above_never_saw: None,
            min_samples: None,
        }
    }

    /// What is wrong with it, if anything: it lacks what its gate needs, or demands what its gate would not look at. The
    /// schema refuses the same; whoever reads a policy that no API server has seen asks here.
    pub fn problem(&self) -> Option<String> {
        use GateName::*;
        const LEAKS: &[GateName] = &[
            DirectLeak,
            ServedLeak,
            OtherDoorLeak,
            MultistepLeak,
            StochasticLeak,
            EmbeddingInversion,
            SeedSearch,
            BenignResurgence,
        ];
        let name = self.name;
        let has_limit = self.max_bound.is_some() || self.max_above_never_saw.is_some();
        // Each field: whether it is there, whether the gate needs it, whether it may have it.
        let fields = [
            ("maxBound", self.max_bound.is_some(), LEAKS.contains(&name), name == Relearning),
            ("confidence", self.confidence.is_some(), false, name == Relearning || LEAKS.contains(&name)),
            ("min", self.min.is_some(), name == OverrideConformity, false),
            ("maxDrop", self.max_drop.is_some(), matches!(name, RetainAccuracy | NeighbourAccuracy), false),
            ("maxRatio", self.max_ratio.is_some(), name == RetainQuality, false),
            ("maxFidelityDrop", self.max_fidelity_drop.is_some(), false, name == RetainQuality),
            (
                "maxNull",
                self.max_null.is_some(),
                false,
                matches!(name, OtherDoorLeak | MultistepLeak | BenignResurgence),
            ),
            (
                "maxAboveNeverSaw",
                self.max_above_never_saw.is_some(),
                false,
                matches!(name, EmbeddingInversion | Relearning),
            ),
            ("minSamples", self.min_samples.is_some(), name != Hygiene, name == Hygiene),
        ];
        fields
            .into_iter()
            .find_map(|(field, given, needed, allowed)| match given {
                true if !needed && !allowed => Some(format!("{field} does not belong to {name}")),
                false if needed => Some(format!("{name} needs {field}")),
                _ => None,
            })
            .or_else(|| {
                let lacks_limit = name == Relearning && !has_limit;
                lacks_limit.then(|| format!("{name} needs maxBound or maxAboveNeverSaw"))
            })
    }
}

/// The gates of this version. Five are required.
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
    /// Those that follow read what probes found of a candidate, and a policy may have any of them: the kept labels that
    /// are most like what was forgotten.
    NeighbourAccuracy,
    /// Under kept labels, mixtures and none.
    OtherDoorLeak,
    /// Sampled in many steps.
    MultistepLeak,
    /// The same with more noise than a sampler should add.
    StochasticLeak,
    /// Under a condition that was optimised.
    EmbeddingInversion,
    /// From a latent that was optimised.
    SeedSearch,
    /// After training on a few samples of the label.
    Relearning,
    /// After training on samples of kept labels.
    BenignResurgence,
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

    /// Those on what probes found of a candidate, which a policy may have.
    pub const PROBES: [GateName; 8] = [
        GateName::NeighbourAccuracy,
        GateName::OtherDoorLeak,
        GateName::MultistepLeak,
        GateName::StochasticLeak,
        GateName::EmbeddingInversion,
        GateName::SeedSearch,
        GateName::Relearning,
        GateName::BenignResurgence,
    ];

    pub const ALL: [GateName; 14] = [
        GateName::DirectLeak,
        GateName::OverrideConformity,
        GateName::RetainAccuracy,
        GateName::RetainQuality,
        GateName::Hygiene,
        GateName::ServedLeak,
        GateName::NeighbourAccuracy,
        GateName::OtherDoorLeak,
        GateName::MultistepLeak,
        GateName::StochasticLeak,
        GateName::EmbeddingInversion,
        GateName::SeedSearch,
        GateName::Relearning,
        GateName::BenignResurgence,
    ];

    /// The probes that it reads have to be of this level, at least; none where it reads none.
    pub fn level(self) -> Option<ProbeLevel> {
        match self {
            GateName::NeighbourAccuracy => Some(ProbeLevel::Fast),
            _ => self.probe().map(ProbeName::level),
        }
    }

    /// The probe whose attempts it reads.
    pub fn probe(self) -> Option<ProbeName> {
        match self {
            GateName::OtherDoorLeak => Some(ProbeName::OtherDoorLeak),
            GateName::MultistepLeak => Some(ProbeName::MultistepLeak),
            GateName::StochasticLeak => Some(ProbeName::StochasticLeak),
            GateName::EmbeddingInversion => Some(ProbeName::EmbeddingInversion),
            GateName::SeedSearch => Some(ProbeName::SeedSearch),
            GateName::Relearning => Some(ProbeName::Relearning),
            GateName::BenignResurgence => Some(ProbeName::BenignResurgence),
            _ => None,
        }
    }

    /// The name on the wire, and the value of a metric's `gate` label.
    pub fn as_str(self) -> &'static str {
        match self {
            GateName::DirectLeak => "direct-leak",
            GateName::OverrideConformity => "override-conformity",
            GateName::RetainAccuracy => "retain-accuracy",
            GateName::RetainQuality => "retain-quality",
            GateName::Hygiene => "hygiene",
            GateName::ServedLeak => "served-leak",
            GateName::NeighbourAccuracy => "neighbour-accuracy",
            GateName::OtherDoorLeak => "other-door-leak",
            GateName::MultistepLeak => "multistep-leak",
            GateName::StochasticLeak => "stochastic-leak",
            GateName::EmbeddingInversion => "embedding-inversion",
            GateName::SeedSearch => "seed-search",
            GateName::Relearning => "relearning",
            GateName::BenignResurgence => "benign-resurgence",
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
    /// What the verdict rests on, where it is not the value itself: for gates on leaks and attacks the upper bound. Where a
    /// probe makes several attempts, all figures are of the worst one.
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
    /// direct-leak: how often the judge sees a leak in true samples of the override label. Gates that read probes: the share
    /// in a model that never saw the label, if there is one.
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
