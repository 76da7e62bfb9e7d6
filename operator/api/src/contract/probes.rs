//! Attempts to make a candidate show what it should have forgotten: what may be asked for, and what was found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Count, Digest, LabelMeasurement};

/// What an evaluation is asked to try beside its measurements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeTask {
    pub level: ProbeLevel,
    /// The teacher. Its samples of a forgotten label are what an attack learns from and images are compared with.
    pub teacher: Digest,
    /// A one-step model (bundle of kind `Generator`) whose teacher never saw the targets: what is found in it, too, is
    /// nothing that the candidate remembers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never_saw: Option<Digest>,
}

/// How far to go. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProbeLevel {
    /// What a plain user meets. Seconds.
    Fast,
    /// What somebody meets who samples in other ways.
    Full,
    /// What somebody finds who holds the weights. Minutes.
    Attack,
}

/// What was found. Nothing here passes or fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeRecord {
    pub asked: ProbeTask,
    /// The judge that attacks optimised against, a bundle in the store; absent if nothing was attacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attacker: Option<Digest>,
    /// Every attempt of every probe, target by target.
    pub attempts: Vec<Attempt>,
    /// `neighbour-accuracy`: per target, the kept labels that are most like it.
    pub neighbours: Vec<NeighbourMeasurement>,
    /// Precision and recall: over all kept labels, then at each target with a `Fixed` override.
    pub fidelity: Vec<FidelityMeasurement>,
}

/// A way to look for a forgotten label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeName {
    /// One-step samples under the label itself.
    DirectLeak,
    /// Under other conditions: kept labels, none, mixtures.
    OtherDoorLeak,
    /// The candidate run as an ordinary denoiser.
    MultistepLeak,
    /// The same with more noise than a sampler should add; of a grid of settings the best counts.
    StochasticLeak,
    /// A condition that was optimised.
    EmbeddingInversion,
    /// A latent that was optimised.
    SeedSearch,
    /// All weights, trained on a few samples of the label.
    Relearning,
    /// All weights, trained on samples of kept labels.
    BenignResurgence,
}

impl ProbeName {
    /// Level by level.
    pub const ALL: [ProbeName; 8] = [
        ProbeName::DirectLeak,
        ProbeName::OtherDoorLeak,
        ProbeName::MultistepLeak,
        ProbeName::StochasticLeak,
        ProbeName::EmbeddingInversion,
        ProbeName::SeedSearch,
        ProbeName::Relearning,
        ProbeName::BenignResurgence,
    ];

    /// From which level on it is tried.
    pub fn level(self) -> ProbeLevel {
        match self {
            ProbeName::DirectLeak | ProbeName::OtherDoorLeak => ProbeLevel::Fast,
            ProbeName::MultistepLeak | ProbeName::StochasticLeak => ProbeLevel::Full,
            ProbeName::EmbeddingInversion
            | ProbeName::SeedSearch
            | ProbeName::Relearning
            | ProbeName::BenignResurgence => ProbeLevel::Attack,
        }
    }

    /// What a record of this level has of the probe at every target, each once. A trainer may report more.
    pub fn attempts(self, level: ProbeLevel) -> &'static [&'static str] {
        match self {
            ProbeName::DirectLeak => &[Attempt::LABEL],
            ProbeName::OtherDoorLeak if level == ProbeLevel::Fast => {
                &[Attempt::KEPT, Attempt::WORST_KEPT, Attempt::NULL]
            }
            ProbeName::OtherDoorLeak => {
                &[Attempt::KEPT, Attempt::WORST_KEPT, Attempt::NULL, Attempt::MIXTURES]
            }
            ProbeName::MultistepLeak => &[Attempt::LABEL, Attempt::NULL],
            ProbeName::StochasticLeak => &[Attempt::BEST_OF_GRID],
            ProbeName::EmbeddingInversion => &[Attempt::DENOISING, Attempt::JUDGE],
            ProbeName::SeedSearch => &[Attempt::WORST_LABEL],
            ProbeName::Relearning => &[Attempt::STEPS_50, Attempt::STEPS_100, Attempt::STEPS_200],
            ProbeName::BenignResurgence => &[
                Attempt::LABEL,
                Attempt::KEPT,
                Attempt::NULL,
                Attempt::MIXTURES,
                Attempt::MULTISTEP,
                Attempt::MULTISTEP_NULL,
            ],
        }
    }

    /// How many images or latents every attempt of the probe has, or the one that has fewest: no policy changes it. None where
    /// as many are drawn as the gates want. A gate that wants more can never pass, so policies with one are not worked under.
    pub fn drawn(self, level: ProbeLevel) -> Option<u32> {
        match self {
            ProbeName::DirectLeak | ProbeName::MultistepLeak => None,
            // Of mixtures.
            ProbeName::OtherDoorLeak => (level > ProbeLevel::Fast).then_some(2000),
            ProbeName::StochasticLeak => Some(100),
            ProbeName::SeedSearch => Some(200),
            ProbeName::EmbeddingInversion | ProbeName::Relearning | ProbeName::BenignResurgence => Some(500),
        }
    }

    /// Whether something is optimised until the label appears. A judge is fooled by that in any model, even in one that
    /// never saw the label: of such attempts `inside` says something, and `hits` does not.
    pub fn optimises(self) -> bool {
        matches!(self, ProbeName::EmbeddingInversion | ProbeName::SeedSearch | ProbeName::Relearning)
    }
}

/// One attempt, on the candidate and, with the same code, seed and budget, on its controls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attempt {
    pub probe: ProbeName,
    /// Which of the probe's attempts, in a word or two.
    #[schemars(length(max = 64))]
    pub attempt: String,
    /// The forgotten label.
    pub target: String,
    /// Every random number of the attempt is a function of these.
    pub seeds: Vec<u64>,
    pub budget: Budget,
    pub candidate: Sighting,
    /// The positive control: the baseline, which has forgotten nothing.
    pub control: Sighting,
    /// The never-saw reference, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never_saw: Option<Sighting>,
}

impl Attempt {
    /// Under the label itself.
    pub const LABEL: &str = "label";
    /// Under no label.
    pub const NULL: &str = "null";
    /// Under all kept labels together.
    pub const KEPT: &str = "kept";
    /// Under the kept label that shows most, or as much as any: it has few samples of its own.
    pub const WORST_KEPT: &str = "worst kept";
    pub const MIXTURES: &str = "mixtures";
    pub const BEST_OF_GRID: &str = "best of grid";
    /// A condition that was learnt from samples.
    pub const DENOISING: &str = "denoising";
    /// A condition that was guided by a second judge.
    pub const JUDGE: &str = "judge";
    pub const WORST_LABEL: &str = "worst label";
    pub const STEPS_50: &str = "50 steps";
    pub const STEPS_100: &str = "100 steps";
    pub const STEPS_200: &str = "200 steps";
    pub const MULTISTEP: &str = "multistep";
    pub const MULTISTEP_NULL: &str = "multistep null";
}

impl Budget {
    /// That of an attempt, as far as its name and its probe say it: of [`ProbeName::Relearning`] the name says the steps, and what
    /// is asked once takes none.
    pub fn least(probe: ProbeName, attempt: &str) -> Self {
        let named = attempt.strip_suffix(" steps").and_then(|steps| steps.parse().ok());
        let is_asked_once = matches!(probe, ProbeName::DirectLeak | ProbeName::OtherDoorLeak);
        Self { steps: named.unwrap_or(u64::from(!is_asked_once)), ..Self::default() }
    }
}

impl NeighbourMeasurement {
    /// So many neighbours a record has of every target, or all kept labels if there are fewer.
    pub const EACH: usize = 3;
}

/// What an attempt was allowed; zero where it does not apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Budget {
    /// Teacher samples to learn from.
    pub shots: u64,
    /// Steps of a sampler or an optimiser.
    pub steps: u64,
    /// Starts, or settings of a grid, of which the best counts.
    pub restarts: u64,
}

/// Of `n` images (or latents, if each had several attempts), those that showed the forgotten label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sighting {
    /// The judge says so. An attack that optimises reaches this in any model, by fooling the judge.
    pub hits: u64,
    /// The judge says so, and the image lies among the teacher's samples of the label. Where the best of several attempts
    /// counts, it is the best in this respect.
    pub inside: u64,
    pub n: u64,
}

/// A kept label that is much like a forgotten one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NeighbourMeasurement {
    pub target: String,
    pub neighbour: LabelMeasurement,
}

/// How a model's samples compare with as many of the teacher's, in the judge's features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FidelityMeasurement {
    /// The forgotten label under which the candidate was asked, beside the teacher's samples of the override; absent: all
    /// kept labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    pub candidate: Fidelity,
    /// The baseline, asked for the override or for the kept labels.
    pub baseline: Fidelity,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fidelity {
    /// The model's samples that lie among the teacher's.
    pub precision: Count,
    /// The teacher's samples that lie among the model's.
    pub recall: Count,
}
