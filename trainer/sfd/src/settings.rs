//! How long and how hard to train: plain numbers, each with a default that was measured on 8x8 digits.
//!
//! A plan sets the steps of a distillation, and every setting of a forgetting (`docs/settings.md`); the rest is changed
//! here. An unknown name is refused.

use crate::config::{ModelConfig, NetworkConfig, fraction, positive, within};
use crate::error::Result;
use crate::sigma::GENERATOR_RANGE;
use serde::{Deserialize, Serialize};

mod adversary;
mod forget;

pub use adversary::Adversary;
pub use forget::{ForgetSettings, LabelPrior, PartShares, PartWeights, Robustness, Stages};

const MOST_STEPS: i64 = 100_000_000;
const MOST_BATCH: i64 = 1 << 16;

/// Training a teacher from images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TeachSettings {
    pub steps: u64,
    /// Images per step.
    pub batch: i64,
    /// Adam's learning rate after the warm-up; falls to zero along a cosine.
    pub learning_rate: f64,
    pub warmup_steps: u64,
    /// Weights are averaged with min(ema_decay, (1 + step) / (10 + step)).
    pub ema_decay: f64,
    pub precision: Precision,
}

/// Stage 1: distilling the teacher into a one-step generator, no label forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DistilSettings {
    pub steps: u64,
    /// Samples per step.
    pub batch: i64,
    /// psi's: faster than the generator's, because it has to follow it.
    pub fake_score_learning_rate: f64,
    /// theta's.
    pub generator_learning_rate: f64,
    pub optimiser: SfdOptimiser,
}

/// What both stages share. Adam's first moment decay is zero (SiD, arXiv 2404.04057).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SfdOptimiser {
    /// Steps over which both learning rates rise from zero: Adam's second moments start empty.
    pub warmup_steps: u64,
    /// Part of the steps, at the end, over which both learning rates fall to zero along a cosine.
    pub decay: f64,
    /// alpha of the generator's loss (SiD, equation 23).
    pub alpha: f64,
    pub gradient: Gradient,
    /// Part of the noise levels, from the lowest up and spaced as a sampler's, at which the generator is trained (SiD's t_max).
    /// Of EDM's form only: in discrete time the model itself has a window of timesteps.
    #[serde(skip_serializing_if = "is_usual_range")]
    pub generator_range: f64,
    /// Each component of a gradient is clipped to [-clip, clip].
    pub clip: f64,
    /// How much of the generator's average each step keeps; the average is what is served.
    pub ema_decay: f64,
    pub averaging: Averaging,
    pub precision: Precision,
}

/// In what the networks of a training compute. Weights are kept in f32 in any case, and so are gradients once they are
/// taken, Adam, averages, norms, softmax, preconditioning and losses. Results differ by rounding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Precision {
    #[default]
    F32,
    /// Products of matrices and convolutions of bf16 copies of the weights, and what lies between them: for accelerators
    /// that have units for it.
    Bf16,
}

/// What of the generator's loss leads to the generator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Gradient {
    /// All of it, through the teacher and the fake score (SiD).
    #[default]
    ScoreDistillation,
    /// The sample itself only, as if the two scores were constants: two backward passes less, and a coarser direction
    /// (Diff-Instruct, arXiv 2305.18455).
    DiffInstruct,
}

/// How the moving average of the generator's weights starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Averaging {
    /// Keeps min(emaDecay, (1 + step) / (10 + step)), so that the first steps do not drag the start along.
    #[default]
    Ramped,
    /// Keeps emaDecay from the first step. After n steps, emaDecay^n of the average is the start.
    Constant,
}

/// Training a classifier on the teacher's own samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct JudgeSettings {
    /// Teacher samples per label to learn from.
    pub samples_per_label: i64,
    pub steps: u64,
    pub batch: i64,
    pub learning_rate: f64,
    /// Standard deviation of the noise added to every training image.
    pub noise: f64,
    /// Units of the first hidden layer, or channels of the first convolution.
    pub hidden: i64,
    /// Whether it looks for shapes wherever they are (a small residual network) instead of at every pixel by itself (a
    /// perceptron).
    pub sees_shapes: bool,
    /// Units of the penultimate layer, whose values are the features of the Frechet distance.
    pub features: i64,
}

/// Drawing from the teacher, and how many of its samples make the reference statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ReferenceSettings {
    /// Teacher samples per label behind the reference statistics. Their own error moves every distance that is measured
    /// against them: on digits, with 400 the teacher is half as far from itself (0.45) as the baseline is from it, with
    /// 1,500 a fifth (0.13).
    pub samples_per_label: i64,
    /// Noise levels of the teacher's Heun sampler.
    pub sampler_steps: i64,
}

impl Default for TeachSettings {
    fn default() -> Self {
        Self {
            steps: 8_000,
            batch: 128,
            learning_rate: 2e-3,
            warmup_steps: 100,
            ema_decay: 0.998,
            precision: Precision::default(),
        }
    }
}

impl Default for DistilSettings {
    fn default() -> Self {
        Self {
            steps: 1_500,
            batch: 128,
            fake_score_learning_rate: 9e-4,
            generator_learning_rate: 3e-4,
            optimiser: SfdOptimiser::default(),
        }
    }
}

impl Default for SfdOptimiser {
    fn default() -> Self {
        Self {
            warmup_steps: 20,
            decay: 0.7,
            alpha: 1.2,
            gradient: Gradient::default(),
            generator_range: GENERATOR_RANGE,
            clip: 1.0,
            ema_decay: 0.99,
            averaging: Averaging::default(),
            precision: Precision::default(),
        }
    }
}

impl Default for JudgeSettings {
    fn default() -> Self {
        Self {
            samples_per_label: 800,
            steps: 2_000,
            batch: 128,
            learning_rate: 1e-3,
            noise: 0.2,
            hidden: 256,
            sees_shapes: false,
            features: 128,
        }
    }
}

impl Default for ReferenceSettings {
    fn default() -> Self {
        Self { samples_per_label: 1_500, sampler_steps: 18 }
    }
}

impl TeachSettings {
    pub fn validate(&self) -> Result<()> {
        steps("teach.steps", self.steps)?;
        within("teach.batch", self.batch, 1, MOST_BATCH)?;
        positive("teach.learningRate", self.learning_rate)?;
        warmup("teach.warmupSteps", self.warmup_steps)?;
        fraction("teach.emaDecay", self.ema_decay, 0.0, 1.0)
    }
}

impl DistilSettings {
    pub fn validate(&self) -> Result<()> {
        steps("distil.steps", self.steps)?;
        within("distil.batch", self.batch, 1, MOST_BATCH)?;
        positive("distil.fakeScoreLearningRate", self.fake_score_learning_rate)?;
        positive("distil.generatorLearningRate", self.generator_learning_rate)?;
        self.optimiser.validate()
    }
}

impl SfdOptimiser {
    fn validate(&self) -> Result<()> {
        warmup("optimiser.warmupSteps", self.warmup_steps)?;
        positive("optimiser.alpha", self.alpha)?;
        positive("optimiser.generatorRange", self.generator_range)?;
        fraction("optimiser.generatorRange", self.generator_range, 0.0, 1.0 + f64::EPSILON)?;
        positive("optimiser.clip", self.clip)?;
        fraction("optimiser.decay", self.decay, 0.0, 1.0 + f64::EPSILON)?;
        fraction("optimiser.emaDecay", self.ema_decay, 0.0, 1.0)
    }
}

/// What everybody has need not be said: a state that was saved before there was a choice is gone on from.
fn is_usual_range(range: &f64) -> bool {
    *range == GENERATOR_RANGE
}

/// Images with more pixel values than this are taken for photographs: 32x32 in grey.
const LARGE: i64 = 1 << 10;

impl JudgeSettings {
    /// For images as a model of this form makes them: whoever needs convolutions to draw them needs them to tell them apart.
    pub fn of(config: &ModelConfig) -> Self {
        let usual = Self::default();
        match config.network {
            NetworkConfig::Mlp(_) => usual,
            _ if config.image.pixels() > LARGE => {
                Self { sees_shapes: true, hidden: 32, samples_per_label: 4_000, steps: 10_000, ..usual }
            }
            _ => Self { sees_shapes: true, hidden: 16, ..usual },
        }
    }

    pub fn validate(&self) -> Result<()> {
        within("judge.samplesPerLabel", self.samples_per_label, 1, MOST_STEPS)?;
        steps("judge.steps", self.steps)?;
        within("judge.batch", self.batch, 1, MOST_BATCH)?;
        positive("judge.learningRate", self.learning_rate)?;
        fraction("judge.noise", self.noise, 0.0, 10.0)?;
        within("judge.hidden", self.hidden, 1, 1 << 14)?;
        within("judge.features", self.features, 1, 1 << 12)
    }
}

impl ReferenceSettings {
    pub fn validate(&self) -> Result<()> {
        within("reference.samplesPerLabel", self.samples_per_label, 2, MOST_STEPS)?;
        within("reference.samplerSteps", self.sampler_steps, 2, 1000)
    }
}

fn warmup(field: &'static str, value: u64) -> Result<()> {
    within(field, i64::try_from(value).unwrap_or(i64::MAX), 0, MOST_STEPS)
}

fn steps(field: &'static str, value: u64) -> Result<()> {
    within(field, i64::try_from(value).unwrap_or(i64::MAX), 1, MOST_STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What serde would have taken in the place of a name that it does not know.
    fn names<T: serde::de::DeserializeOwned + std::fmt::Debug>() -> Vec<String> {
        let error = serde_json::from_str::<T>(r#"{"?": 0}"#).unwrap_err().to_string();
        let (_, expected) = error.split_once("expected").unwrap();
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_setting_of_a_forgetting_is_on_its_page() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
        let page = std::fs::read_to_string(page).unwrap();
        let all = [
            names::<ForgetSettings>(),
            names::<SfdOptimiser>(),
            names::<Adversary>(),
            names::<crate::EarlyStop>(),
        ];
        for names in &all {
            assert!(names.len() > 6, "{names:?}");
        }
        let words = all.concat().into_iter().map(|name| format!("`{name}`")).chain(
            [
                "`two`",
                "`one`",
                "`ramped`",
                "`constant`",
                "`scoreDistillation`",
                "`diffInstruct`",
                "\"uniform\"",
                "\"weights\"",
                "\"neighbours\"",
                "\"remain\"",
                "\"forget\"",
            ]
            .map(str::to_owned),
        );
        for word in words {
            assert!(page.contains(&word), "docs/settings.md does not say what {word} is");
        }
    }

    #[test]
    fn defaults_are_valid() {
        TeachSettings::default().validate().unwrap();
        DistilSettings::default().validate().unwrap();
        for level in [Robustness::Suppress, Robustness::Harden, Robustness::Scrub] {
            ForgetSettings::of(level).validate().unwrap();
        }
        JudgeSettings::default().validate().unwrap();
        ReferenceSettings::default().validate().unwrap();
    }
}
