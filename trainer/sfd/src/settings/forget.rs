//! Stage 2's settings.

use super::{Adversary, MOST_BATCH, SfdOptimiser, steps};
use crate::config::{config, fraction, positive, within};
use crate::early_stop::EarlyStop;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Stage 2: forgetting labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ForgetSettings {
    pub steps: u64,
    pub stages: Stages,
    /// Samples under kept labels per step.
    pub remain_batch: i64,
    /// Samples under forgotten labels per step.
    pub forget_batch: i64,
    /// Part of the steps, from the first, in which the samples under forgotten labels are trained at nearly all noise levels
    /// instead of those where training pays most (`forget_warmup` of the program published with SFD).
    #[serde(skip_serializing_if = "is_zero")]
    pub forget_warmup: f64,
    /// Weights of the two parts of psi's loss. A part that weighs nothing is drawn, measured and not learnt from.
    pub fake_score_weights: PartWeights,
    /// Weights of the two parts of theta's loss.
    pub generator_weights: PartWeights,
    /// Which kept labels are shown how often.
    pub label_prior: LabelPrior,
    /// Part of the samples under kept labels for which the label is hidden from psi and theta, but not from the teacher.
    /// Whoever asks without a condition then gets a mixture of what is kept. Of no effect on models that cannot be asked
    /// so.
    pub null_share: f64,
    /// psi's, as in stage 1. Both rates are lower: the baseline is good, and what is kept should be disturbed little.
    pub fake_score_learning_rate: f64,
    /// theta's.
    pub generator_learning_rate: f64,
    /// theta starts with every weight this part of the way from the baseline's to a fresh one. At zero forgetting is
    /// quick, but what the baseline knew is only hidden; at one nothing of it is left (UNDO, arXiv 2506.06278).
    pub fresh_weights: f64,
    /// Parts of the samples for which theta does not start from pure noise but from an image of its own, made noisy again
    /// to any level that a sampler of many steps visits. At zero only what one step shows is trained.
    #[serde(skip_serializing_if = "PartShares::is_none")]
    pub reentry: PartShares,
    /// Who looks, while it is trained, for conditions under which theta still shows what is to be forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adversary: Option<Adversary>,
    pub optimiser: SfdOptimiser,
    /// When to end before `steps`; the judge has to be given. Without it the last weights are the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
}

/// Where psi and theta start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stages {
    /// From the teacher's weights: distilling and forgetting at once. Takes as many steps as stage 1, for every request.
    One,
    /// From the baseline, which was distilled once for all requests.
    #[default]
    Two,
}

/// Weights of the mean losses over the samples under kept and under forgotten labels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PartWeights {
    pub remain: f64,
    pub forget: f64,
}

/// Parts of the samples under kept and under forgotten labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct PartShares {
    pub remain: f64,
    pub forget: f64,
}

/// How often a kept label is shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LabelPrior {
    #[default]
    Uniform,
    /// In proportion to these weights; a kept label that is not named has weight one.
    Weights(BTreeMap<i64, f64>),
    /// A label that the judge confuses most with a forgotten one is shown 1 + this times as often as one that it never
    /// does; in between in proportion. Needs the judge.
    Neighbours(f64),
}

/// How much of what the baseline knew a forgetting may leave in the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Robustness {
    /// The label is not shown; whoever holds the weights may bring it back.
    Suppress,
    /// Most of every weight is new.
    Harden,
    /// The generator starts from nothing.
    Scrub,
}

impl Default for ForgetSettings {
    fn default() -> Self {
        let weights = PartWeights { remain: 1.0, forget: 0.3 };
        Self {
            steps: 1_500,
            stages: Stages::default(),
            remain_batch: 96,
            forget_batch: 96,
            forget_warmup: 0.0,
            fake_score_weights: weights,
            generator_weights: weights,
            label_prior: LabelPrior::default(),
            null_share: 0.1,
            fake_score_learning_rate: 6e-4,
            generator_learning_rate: 2e-4,
            fresh_weights: 0.0,
            reentry: PartShares::default(),
            adversary: None,
            optimiser: SfdOptimiser::default(),
            early_stop: None,
        }
    }
}

impl ForgetSettings {
    /// The defaults of a level. More that is new takes more steps, and faster ones, with more of what is kept in them; and
    /// an average over more of them, since they are faster to the end.
    pub fn of(robustness: Robustness) -> Self {
        let from_fresh = |fresh_weights, steps| Self {
            steps,
            fresh_weights,
            remain_batch: 128,
            forget_batch: 64,
            fake_score_learning_rate: 1.5e-3,
            generator_learning_rate: 1e-3,
            optimiser: SfdOptimiser { decay: 0.4, ema_decay: 0.998, ..SfdOptimiser::default() },
            ..Self::default()
        };
        match robustness {
            Robustness::Suppress => Self::default(),
            Robustness::Harden => from_fresh(0.85, 2_000),
            Robustness::Scrub => from_fresh(1.0, 4_000),
        }
    }

    /// The same with the fields that `others` names replaced, also those within another: what is not named stays.
    ///
    /// # Errors
    /// Names the first field that is unknown or has a value of another kind. Ranges are for [`Self::validate`].
    pub fn with(&self, others: &Value) -> Result<Self> {
        if !others.is_object() {
            return Err(Error::Settings("the settings must be a JSON object".into()));
        }
        let mut all = serde_json::to_value(self).expect("settings have string keys");
        replace(&mut all, others);
        serde_path_to_error::deserialize(all)
            .map_err(|error| Error::Settings(format!("{}: {}", error.path(), error.inner())))
    }

    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn validate(&self) -> Result<()> {
        steps("forget.steps", self.steps)?;
        within("forget.remainBatch", self.remain_batch, 1, MOST_BATCH)?;
        within("forget.forgetBatch", self.forget_batch, 1, MOST_BATCH)?;
        fraction("forget.forgetWarmup", self.forget_warmup, 0.0, 1.0 + f64::EPSILON)?;
        self.fake_score_weights.validate("forget.fakeScoreWeights")?;
        self.generator_weights.validate("forget.generatorWeights")?;
        self.label_prior.validate()?;
        fraction("forget.nullShare", self.null_share, 0.0, 1.0)?;
        positive("forget.fakeScoreLearningRate", self.fake_score_learning_rate)?;
        positive("forget.generatorLearningRate", self.generator_learning_rate)?;
        fraction("forget.freshWeights", self.fresh_weights, 0.0, 1.0 + f64::EPSILON)?;
        self.reentry.validate("forget.reentry")?;
        self.adversary.as_ref().map_or(Ok(()), Adversary::validate)?;
        self.optimiser.validate()?;
        self.early_stop.as_ref().map_or(Ok(()), |stop| stop.validate(self.steps))
    }
}

fn is_zero(part: &f64) -> bool {
    *part == 0.0
}

impl PartShares {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn validate(&self, field: &'static str) -> Result<()> {
        fraction(field, self.remain, 0.0, 1.0)?;
        fraction(field, self.forget, 0.0, 1.0)
    }
}

impl PartWeights {
    fn validate(&self, field: &'static str) -> Result<()> {
        for weight in [self.remain, self.forget] {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(config(field, weight, "must be zero or a positive number"));
            }
        }
        if self.remain + self.forget == 0.0 {
            return Err(config(field, "zero for both parts", "nothing would be trained"));
        }
        Ok(())
    }
}

impl LabelPrior {
    fn validate(&self) -> Result<()> {
        match self {
            Self::Uniform => Ok(()),
            Self::Weights(weights) => {
                weights.values().try_for_each(|&weight| positive("forget.labelPrior.weights", weight))
            }
            Self::Neighbours(more) => match more.is_finite() && *more >= 0.0 {
                true => Ok(()),
                false => {
                    Err(config("forget.labelPrior.neighbours", more, "must be zero or a positive number"))
                }
            },
        }
    }
}

fn replace(value: &mut Value, by: &Value) {
    match (value, by) {
        (Value::Object(fields), Value::Object(others)) => {
            for (name, other) in others {
                replace(fields.entry(name).or_insert(Value::Null), other);
            }
        }
        (value, by) => *value = by.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn named_settings_replace_those_of_the_level_and_their_neighbours_stay() {
        let harden = ForgetSettings::of(Robustness::Harden);
        assert_ne!(harden.optimiser, SfdOptimiser::default());
        assert_eq!(harden.with(&json!({"steps": 7})).unwrap(), ForgetSettings { steps: 7, ..harden.clone() });
        let found = harden.with(&json!({"optimiser": {"alpha": 1.0}})).unwrap();
        let optimiser = SfdOptimiser { alpha: 1.0, ..harden.optimiser.clone() };
        assert_eq!(found, ForgetSettings { optimiser, ..harden.clone() });
        // Something for nothing, and nothing for something.
        let looks = harden.with(&json!({"earlyStop": {}})).unwrap();
        assert!(looks.early_stop.is_some());
        assert!(looks.with(&json!({"earlyStop": null})).unwrap().early_stop.is_none());
        assert_eq!(harden.with(&json!({"reentry": {"forget": 0.5}})).unwrap().reentry.forget, 0.5);
    }

    #[test]
    fn an_unknown_name_or_a_value_of_another_kind_is_named() {
        let refusal = |others| ForgetSettings::default().with(&others).unwrap_err().to_string();
        for (others, words) in [
            (json!({"stepz": 7}), "stepz"),
            (json!({"optimiser": {"alpa": 1.0}}), "optimiser.alpa"),
            (json!({"optimiser": {"gradient": "best"}}), "optimiser.gradient"),
            (json!({"nullShare": "a tenth"}), "nullShare"),
            (json!([]), "JSON object"),
        ] {
            let message = refusal(others);
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn an_override_keeps_the_other_defaults_and_a_typo_is_refused() {
        let settings: ForgetSettings =
            serde_json::from_str(r#"{"steps": 7, "optimiser": {"alpha": 1.0}}"#).unwrap();
        let optimiser = SfdOptimiser { alpha: 1.0, ..SfdOptimiser::default() };
        assert_eq!(settings, ForgetSettings { steps: 7, optimiser, ..ForgetSettings::default() });
        let message = serde_json::from_str::<ForgetSettings>(r#"{"stepz": 7}"#).unwrap_err().to_string();
        assert!(message.contains("stepz"), "{message}");
    }

    #[test]
    fn every_switch_is_a_word_or_a_number_in_json() {
        let json = r#"{
            "stages": "one",
            "fakeScoreWeights": {"remain": 1.0, "forget": 0.01},
            "generatorWeights": {"remain": 1.0, "forget": 0.02},
            "labelPrior": {"neighbours": 1.0},
            "nullShare": 0.2,
            "reentry": {"forget": 0.5},
            "adversary": {"every": 10},
            "optimiser": {"gradient": "diffInstruct", "averaging": "constant"},
            "earlyStop": {"every": 50}
        }"#;
        let settings: ForgetSettings = serde_json::from_str(json).unwrap();
        settings.validate().unwrap();
        assert_eq!((settings.stages, settings.generator_weights.forget), (Stages::One, 0.02));
        assert_eq!((settings.reentry.remain, settings.reentry.forget), (0.0, 0.5));
        assert_eq!(settings.adversary.as_ref().map(|adversary| adversary.every), Some(10));
        assert_eq!(settings.early_stop.as_ref().map(|stop| stop.every), Some(50));
        let defaults = serde_json::to_string(&ForgetSettings::default()).unwrap();
        for unsaid in ["reentry", "adversary", "forgetWarmup", "generatorRange"] {
            assert!(!defaults.contains(unsaid), "{defaults}");
        }
        let again = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<ForgetSettings>(&again).unwrap(), settings);
        assert!(serde_json::from_str::<ForgetSettings>(r#"{"stages": "three"}"#).is_err());
        let weights: LabelPrior = serde_json::from_str(r#"{"weights": {"3": 2.0}}"#).unwrap();
        assert_eq!(weights, LabelPrior::Weights(BTreeMap::from([(3, 2.0)])));
    }

    #[test]
    fn what_cannot_train_is_refused_by_name() {
        let refusal = |settings: ForgetSettings| settings.validate().unwrap_err().to_string();
        let defaults = ForgetSettings::default;
        assert_eq!(refusal(ForgetSettings { steps: 0, ..defaults() }), "forget.steps is 0: too small");
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            let weights = PartWeights { remain: 1.0, forget: bad };
            let message = refusal(ForgetSettings { fake_score_weights: weights, ..defaults() });
            assert!(message.contains("forget.fakeScoreWeights"), "{message}");
            let message = refusal(ForgetSettings { generator_weights: weights, ..defaults() });
            assert!(message.contains("forget.generatorWeights"), "{message}");
            let label_prior = LabelPrior::Weights(BTreeMap::from([(3, bad)]));
            let message = refusal(ForgetSettings { label_prior, ..defaults() });
            assert!(message.contains("forget.labelPrior.weights"), "{message}");
        }
        let nothing = PartWeights { remain: 0.0, forget: 0.0 };
        let message = refusal(ForgetSettings { generator_weights: nothing, ..defaults() });
        assert!(message.contains("forget.generatorWeights is zero for both"), "{message}");
        for bad in [f64::NAN, -0.1, 1.1] {
            let message = refusal(ForgetSettings { forget_warmup: bad, ..defaults() });
            assert!(message.contains("forget.forgetWarmup"), "{message}");
            let optimiser = SfdOptimiser { generator_range: bad, ..SfdOptimiser::default() };
            assert!(refusal(ForgetSettings { optimiser, ..defaults() }).contains("optimiser.generatorRange"));
        }
        let message = refusal(ForgetSettings { label_prior: LabelPrior::Neighbours(-0.5), ..defaults() });
        assert!(message.contains("forget.labelPrior.neighbours is -0.5"), "{message}");
        assert!(refusal(ForgetSettings { null_share: 1.0, ..defaults() }).contains("forget.nullShare"));
        assert!(
            refusal(ForgetSettings { fresh_weights: 1.1, ..defaults() })
                .contains("forget.freshWeights is 1.1")
        );
        let reentry = PartShares { remain: 0.0, forget: 1.0 };
        assert!(refusal(ForgetSettings { reentry, ..defaults() }).contains("forget.reentry is 1"));
        let adversary = Some(Adversary { rows: 0, ..Adversary::default() });
        assert!(refusal(ForgetSettings { adversary, ..defaults() }).contains("forget.adversary.rows is 0"));
        let early_stop = Some(EarlyStop { least_steps: 301, ..EarlyStop::default() });
        let message = refusal(ForgetSettings { steps: 300, early_stop, ..defaults() });
        assert!(message.contains("forget.earlyStop.leastSteps is 301: more than forget.steps"), "{message}");
        let optimiser = SfdOptimiser { ema_decay: 1.0, ..SfdOptimiser::default() };
        assert!(refusal(ForgetSettings { optimiser, ..defaults() }).contains("optimiser.emaDecay"));
    }

    #[test]
    fn more_robust_is_more_new_and_takes_longer() {
        let [suppress, harden, scrub] =
            [Robustness::Suppress, Robustness::Harden, Robustness::Scrub].map(ForgetSettings::of);
        assert!(suppress.fresh_weights < harden.fresh_weights && harden.fresh_weights < scrub.fresh_weights);
        assert!(suppress.steps < harden.steps && harden.steps < scrub.steps);
        assert_eq!((suppress.fresh_weights, scrub.fresh_weights), (0.0, 1.0));
    }
}
