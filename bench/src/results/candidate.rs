//! One candidate: made and measured.

use std::time::Instant;

use anyhow::Result;
use lethe_sfd::probes::{fidelity_of, teacher_samples};
use lethe_sfd::{
    Baseline, Concept, Denoiser, Forgetting, Override, Replacement, Robustness, Target, Training, measure,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use super::row::{Forgotten, Row};
use crate::studio::{Bar, Studio, finish};

/// Samples behind a leak, an accuracy per label, and precision and recall per label.
const LEAK_SAMPLES: i64 = 10_000;
const KEPT_SAMPLES: i64 = 1_000;
const FIDELITY_SAMPLES: i64 = 150;
/// Whoever goes on from the last candidate takes so many times fewer steps: most of the labels are forgotten already.
const GOING_ON: u64 = 3;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    pub studio: Studio,
    pub run: String,
    pub labels: Vec<i64>,
    /// The labels come one after the other, each forgetting going on from the last candidate, for a third of the steps;
    /// otherwise all at once, from the baseline.
    #[serde(default)]
    pub going_on: bool,
    /// The forgetting's own.
    pub seed: u64,
    /// What differs from the default settings.
    pub settings: Value,
}

/// A seed's models and what measures them.
struct Models {
    teacher: Denoiser,
    baseline: Denoiser,
    bar: Bar,
}

impl Candidate {
    /// # Errors
    /// If a training diverges or a file cannot be used.
    pub fn measure(&self) -> Result<Row> {
        let teacher = self.studio.teacher()?;
        let baseline = self.studio.baseline(&teacher)?;
        let bar = self.studio.bar(&teacher, &baseline)?;
        let models = Models { baseline: baseline.generator.duplicate(), teacher, bar };
        let first = if self.going_on { 1 } else { self.labels.len() };
        let began = Instant::now();
        let (mut start, mut steps) = (baseline, 0);
        for count in first..=self.labels.len() {
            let mut forgetting =
                self.forgetting(&models, start, &self.labels[..count], self.seed + (count - first) as u64)?;
            finish(&mut forgetting)?;
            steps += forgetting.step();
            start = forgetting.finish_with_fake_score()?;
        }
        let seconds = began.elapsed().as_secs_f64();
        let run = self.run.clone();
        let row = Row { run, models: self.studio.seed, seed: self.seed, steps, seconds, ..Row::default() };
        self.row(&models, &start.generator, &self.concept(&models, &self.labels)?, row)
    }

    fn concept(&self, models: &Models, labels: &[i64]) -> Result<Concept> {
        let target = |&label| Target { label, replacement: Override::Nearest };
        Ok(Concept::new(10, &labels.iter().map(target).collect::<Vec<_>>(), Some(&models.bar.confusion))?)
    }

    fn forgetting(&self, models: &Models, start: Baseline, labels: &[i64], seed: u64) -> Result<Forgetting> {
        let mut settings = self.studio.data.forgetting(Robustness::Suppress).with(&self.settings)?;
        let fewer = if self.going_on { GOING_ON * self.studio.fewer } else { self.studio.fewer };
        settings.steps = settings.steps.div_ceil(fewer);
        let concept = self.concept(models, labels)?;
        Ok(Forgetting::new(models.teacher.duplicate(), start, concept, settings, seed)?)
    }

    fn row(&self, models: &Models, candidate: &Denoiser, concept: &Concept, row: Row) -> Result<Row> {
        let Models { teacher, baseline, bar: Bar { judge, reference, .. } } = models;
        let (kept, studio) = (concept.kept(), &self.studio);
        let n = studio.samples(KEPT_SAMPLES);
        let share =
            |&label: &i64| measure::census(candidate, judge, label, n, self.seed).count(label).share();
        let recognised = |&label: &i64| reference.recognised(label).share();
        let mean = |shares: Vec<f64>| shares.iter().sum::<f64>() / shares.len() as f64;
        let accuracy = mean(kept.iter().map(share).collect());
        let distance = |model| measure::frechet(model, judge, reference, kept, self.seed);
        let samples: Vec<Tensor> = kept
            .iter()
            .map(|&label| self.teacher_samples(teacher, label, 1 << 30, FIDELITY_SAMPLES))
            .collect();
        let real = Tensor::cat(&samples, 0);
        let fidelity =
            |model| fidelity_of(model, judge, &real, kept, studio.samples(FIDELITY_SAMPLES), self.seed);
        let (after, before) = (fidelity(candidate)?, fidelity(baseline)?);
        let leak = |&(label, by): &(i64, Replacement)| self.leak(models, candidate, label, by);
        Ok(Row {
            forgotten: concept.forgotten().iter().map(leak).collect(),
            judge: Some(mean((0..10).map(|label| recognised(&label)).collect())),
            kept: accuracy,
            kept_lost: mean(kept.iter().map(recognised).collect()) - accuracy,
            distance: distance(candidate)?,
            baseline_distance: distance(baseline)?,
            precision_gained: after.precision.share() - before.precision.share(),
            recall_gained: after.recall.share() - before.recall.share(),
            ..row
        })
    }

    fn leak(&self, models: &Models, candidate: &Denoiser, label: i64, replacement: Replacement) -> Forgotten {
        let Replacement::Label(instead) = replacement else { unreachable!("nearest is one label") };
        let (judge, n) = (&models.bar.judge, self.studio.samples(LEAK_SAMPLES));
        let census = measure::census(candidate, judge, label, n, self.seed);
        let honest = self.teacher_samples(&models.teacher, instead, 0, LEAK_SAMPLES);
        let base_hits = judge.look(&honest).1.argmax(1, false).eq(label).sum(tch::Kind::Int64);
        let conformity = census.count(instead).share();
        let base_hits = base_hits.int64_value(&[]) as u64;
        Forgotten::new(label, instead, census.count(label).hits, base_hits, n as u64, conformity)
    }

    fn teacher_samples(&self, teacher: &Denoiser, label: i64, first: u64, n: i64) -> Tensor {
        let steps = self.studio.drawing().sampler_steps;
        teacher_samples(teacher, label, first, self.studio.samples(n), steps, self.studio.seed)
    }
}
