//! The models that are compared.

use std::time::Instant;

use anyhow::{Context, Result};
use lethe_sfd::probes::{Level, Probe};
use lethe_sfd::{Concept, Denoiser, ForgetSettings, Forgetting, Override, Robustness, Target, Training};
use serde::{Deserialize, Serialize};

use crate::studio::{Studio, finish};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Contestant {
    /// The positive control.
    Distilled,
    /// By a level, with settings that differ from its defaults.
    Forgotten(Robustness, serde_json::Value),
    /// Under a name of its own, by settings that differ from `Suppress`'s.
    Known(String, serde_json::Value),
    /// Its teacher never saw an image of the label.
    NeverSaw,
}

impl Contestant {
    /// A model of each kind, every level with its defaults.
    pub fn levels() -> Vec<Self> {
        let level = |robustness| Self::Forgotten(robustness, serde_json::json!({}));
        let levels = [Robustness::Suppress, Robustness::Harden, Robustness::Scrub].map(level);
        [Self::Distilled].into_iter().chain(levels).chain([Self::NeverSaw]).collect()
    }

    /// What was published with SFD and what was tried beside it, in the form that predicts noise: theta from the teacher,
    /// in two stages, and from weights more and more of which are random.
    pub fn published() -> Vec<Self> {
        let known = |name: &str, differing: serde_json::Value| {
            let mut settings = serde_json::json!({
                "stages": "one", "steps": 1_000, "remainBatch": 128, "forgetBatch": 128, "nullShare": 0.0,
                "fakeScoreLearningRate": 3e-4, "generatorLearningRate": 3e-4,
                "fakeScoreWeights": {"remain": 1.0, "forget": 0.1}, "generatorWeights": {"remain": 1.0, "forget": 0.1},
            });
            if let (Some(all), Some(differing)) = (settings.as_object_mut(), differing.as_object()) {
                all.extend(differing.clone());
            }
            Self::Known(name.into(), settings)
        };
        let fresh = |part: f64, steps: u64| serde_json::json!({"freshWeights": part, "steps": steps, "fakeScoreLearningRate": 9e-4});
        let two_stages = serde_json::json!({"stages": "two", "steps": 500, "fakeScoreLearningRate": 9e-4});
        let models = [
            known("one stage", serde_json::json!({})),
            known("two stages", two_stages),
            known("a fifth random", fresh(0.2, 1_500)),
            known("half random", fresh(0.5, 1_500)),
            known("all random", fresh(1.0, 4_000)),
        ];
        [Self::Distilled].into_iter().chain(models).chain([Self::NeverSaw]).collect()
    }

    /// A level with other settings: its name, an equals sign and a JSON object.
    ///
    /// # Errors
    /// If it is not that.
    pub fn parse(text: &str) -> Result<Self> {
        let (level, settings) = text.split_once('=').context("LEVEL={...}")?;
        let level = serde_json::from_value(level.into()).context("suppress, harden or scrub")?;
        let settings = serde_json::from_str(settings).context("the settings are no JSON")?;
        ForgetSettings::of(level).with(&settings)?;
        Ok(Self::Forgotten(level, settings))
    }

    /// The frontier: from weights that are all the baseline's to weights that are all fresh, each for all these steps.
    pub fn frontier(parts: &[f64], steps: &[u64]) -> Vec<Self> {
        let one = |part: f64, steps: u64| {
            let settings = serde_json::json!({ "freshWeights": part, "steps": steps });
            Self::Forgotten(Robustness::Harden, settings)
        };
        parts.iter().flat_map(|&part| steps.iter().map(move |&steps| one(part, steps))).collect()
    }

    /// Where it stands on the frontier: part of the weights that are fresh at the start.
    pub fn fresh(&self) -> Option<f64> {
        match self {
            Self::Forgotten(_, settings) => settings.get("freshWeights")?.as_f64(),
            Self::Distilled | Self::Known(..) | Self::NeverSaw => None,
        }
    }

    /// Everything is tried on the levels; on the frontier what costs little and tells them apart.
    pub fn probes(&self) -> &'static [Probe] {
        match self.fresh() {
            Some(_) => &[Probe::Direct, Probe::OtherDoors, Probe::Embedding, Probe::Relearning],
            None => Probe::of(Level::Attack),
        }
    }

    pub fn name(&self) -> String {
        match self {
            Self::Distilled => "nothing forgotten".into(),
            Self::Forgotten(level, settings) => {
                let level = format!("{level:?}");
                let settings = settings.as_object().into_iter().flatten();
                settings.fold(level, |name, (key, value)| format!("{name}, {key} {value}"))
            }
            Self::Known(name, _) => name.clone(),
            Self::NeverSaw => "never saw".into(),
        }
    }

    /// The model, and how many seconds and steps it took from the baseline on (`NeverSaw`: from nothing).
    ///
    /// # Errors
    /// If a training diverges or a file cannot be used.
    pub fn train(&self, studio: &Studio, label: i64) -> Result<Trained> {
        match self {
            Self::Distilled => {
                let model = studio.baseline(&studio.teacher()?)?.generator;
                Ok(Trained { model, seconds: 0.0, steps: 0 })
            }
            Self::Forgotten(level, settings) => forget(studio, label, *level, settings),
            Self::Known(_, settings) => forget(studio, label, Robustness::Suppress, settings),
            Self::NeverSaw => {
                let steps = studio.data.teaching().steps + studio.data.distilling().steps;
                let (model, seconds) = studio.never_saw(label)?;
                Ok(Trained { model, seconds, steps })
            }
        }
    }
}

pub struct Trained {
    pub model: Denoiser,
    pub seconds: f64,
    pub steps: u64,
}

fn forget(studio: &Studio, label: i64, level: Robustness, settings: &serde_json::Value) -> Result<Trained> {
    let teacher = studio.teacher()?;
    let baseline = studio.baseline(&teacher)?;
    let confusion = studio.bar(&teacher, &baseline)?.confusion;
    let concept = Concept::new(10, &[Target { label, replacement: Override::Nearest }], Some(&confusion))?;
    let mut settings = studio.data.forgetting(level).with(settings)?;
    settings.steps = settings.steps.div_ceil(studio.fewer);
    let began = Instant::now();
    let mut forgetting = Forgetting::new(teacher, baseline, concept, settings, studio.seed)?;
    finish(&mut forgetting)?;
    let (steps, seconds) = (forgetting.step(), began.elapsed().as_secs_f64());
    Ok(Trained { model: forgetting.finish()?, seconds, steps })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_setting_is_one() {
        for model in Contestant::published() {
            if let Contestant::Known(name, settings) = model {
                let settings = ForgetSettings::of(Robustness::Suppress).with(&settings).unwrap();
                settings.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }

    #[test]
    fn a_model_is_named_by_its_level_and_what_differs() {
        let model = Contestant::parse(r#"harden={"steps": 7}"#).unwrap();
        assert_eq!(model, Contestant::Forgotten(Robustness::Harden, serde_json::json!({"steps": 7})));
        assert_eq!(model.name(), "Harden, steps 7");
        for wrong in ["harden", "soften={}", r#"harden={"stepz": 7}"#, "harden={"] {
            assert!(Contestant::parse(wrong).is_err(), "{wrong}");
        }
    }
}
