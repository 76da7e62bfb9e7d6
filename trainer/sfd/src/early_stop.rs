//! Ending a forgetting when it is good enough, and keeping the best that it has been.
//!
//! Looking is cheap: a one-step generator draws some thousand samples in less time than a few training steps take. A
//! label is gone long before what is kept has recovered, so quality is looked at too.

use crate::concept::{Concept, Replacement};
use crate::config::{config, fraction, positive, within};
use crate::denoiser::Denoiser;
use crate::error::Result;
use crate::judge::Judge;
use crate::measure::{self, Census, Reference};
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

#[cfg(test)]
mod tests;

/// Checks in a row that have to find all conditions met.
const IN_A_ROW: i64 = 2;

/// When to look, at how much, and what has to be found on two looks in a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct EarlyStop {
    /// Steps between two looks.
    pub every: u64,
    /// The training goes on for at least this many steps.
    pub least_steps: u64,
    /// Samples under each forgotten label.
    pub samples_per_target: i64,
    /// Samples under each kept label.
    pub samples_per_kept: i64,
    /// Largest share of a forgotten label's samples that still shows it.
    pub most_leak: f64,
    /// Least share of them that shows what was to be shown instead.
    pub least_override: f64,
    /// How much less of what is kept the judge may recognise than of the baseline's.
    pub most_accuracy_lost: f64,
    /// Largest Frechet distance from the teacher over what is kept, as a multiple of the baseline's.
    pub most_distance: f64,
}

impl Default for EarlyStop {
    fn default() -> Self {
        Self {
            every: 100,
            least_steps: 200,
            samples_per_target: 400,
            samples_per_kept: 200,
            most_leak: 0.005,
            least_override: 0.98,
            most_accuracy_lost: 0.01,
            most_distance: 1.1,
        }
    }
}

impl EarlyStop {
    /// `steps`: of the training that it may end.
    pub(crate) fn validate(&self, steps: u64) -> Result<()> {
        if self.least_steps > steps {
            let problem = "more than forget.steps: the training could never end early";
            return Err(config("forget.earlyStop.leastSteps", self.least_steps, problem));
        }
        let most = 1 << 20;
        within("forget.earlyStop.every", i64::try_from(self.every).unwrap_or(i64::MAX), 1, most)?;
        within("forget.earlyStop.samplesPerTarget", self.samples_per_target, 1, most)?;
        within("forget.earlyStop.samplesPerKept", self.samples_per_kept, 2, most)?;
        fraction("forget.earlyStop.mostLeak", self.most_leak, 0.0, 1.0 + f64::EPSILON)?;
        fraction("forget.earlyStop.leastOverride", self.least_override, 0.0, 1.0 + f64::EPSILON)?;
        fraction("forget.earlyStop.mostAccuracyLost", self.most_accuracy_lost, 0.0, 1.0 + f64::EPSILON)?;
        positive("forget.earlyStop.mostDistance", self.most_distance)
    }
}

/// What a forgetting is looked at with.
#[derive(Debug)]
pub struct Measures {
    pub judge: Judge,
    /// Early stopping compares with it.
    pub reference: Option<Reference>,
}

/// What one look found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    /// The largest share of a forgotten label's samples that shows it.
    leak: f64,
    /// The smallest share of them that shows what it should.
    conformity: f64,
    kept: Kept,
}

/// How well what is kept is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Kept {
    /// Mean over labels of the share that the judge recognises.
    accuracy: f64,
    /// Frechet distance from the teacher.
    distance: f64,
}

/// Looks at the average of the generator, and keeps a copy of the best one.
#[derive(Debug)]
pub(crate) struct Watch {
    settings: EarlyStop,
    reference: Reference,
    seed: u64,
    kept: Vec<i64>,
    /// Forgotten labels, and what each may be shown as.
    forgotten: Vec<(i64, Vec<i64>)>,
    baseline: Kept,
    /// The best weights so far: [P]
    best: Tensor,
    /// Of the best look: conditions that were not met, and distance. Looks in a row, up to the last, that met all.
    tally: Tensor,
    last: Option<Found>,
}

impl Watch {
    /// The judge and the reference are of the baseline's model.
    pub(crate) fn new(
        settings: EarlyStop,
        concept: &Concept,
        baseline: &Denoiser,
        judge: &Judge,
        reference: Reference,
        seed: u64,
    ) -> Self {
        let kept = concept.kept().to_vec();
        let shown_as = |replacement: Replacement| match replacement {
            Replacement::Label(label) => vec![label],
            Replacement::AnyKept | Replacement::Judged(_) => kept.clone(),
        };
        let forgotten =
            concept.forgotten().iter().map(|&(label, instead)| (label, shown_as(instead))).collect();
        let baseline_kept = look_at_kept(baseline, judge, &reference, &kept, settings.samples_per_kept, seed);
        Self {
            forgotten,
            baseline: baseline_kept,
            best: baseline.params().flat().copy(),
            tally: Tensor::from_slice(&[f64::MAX, f64::MAX, 0.0]),
            last: None,
            settings,
            reference,
            seed,
            kept,
        }
    }

    /// Looks, if it is time to.
    pub(crate) fn look(&mut self, step: u64, total: u64, average: &Denoiser, judge: &Judge) {
        let is_due = step.is_multiple_of(self.settings.every) || step == total;
        // Weights that are not finite are for the next report to say.
        if !is_due || average.params().first_not_finite().is_some() {
            return;
        }
        let found = self.examine(average, judge);
        let unmet = self.unmet(&found);
        let [least_unmet, least_distance, in_a_row] = self.tally();
        let (now, before) = ((f64::from(unmet), found.kept.distance), (least_unmet, least_distance));
        let is_better = now < before;
        let in_a_row = if unmet == 0 { in_a_row + 1.0 } else { 0.0 };
        let (least_unmet, least_distance) = if is_better { now } else { before };
        no_grad(|| {
            if is_better {
                self.best.copy_(average.params().flat());
            }
            self.tally.copy_(&Tensor::from_slice(&[least_unmet, least_distance, in_a_row]));
        });
        self.last = Some(found);
    }

    /// Whether the training may end after `step` steps.
    pub(crate) fn is_satisfied(&self, step: u64) -> bool {
        step >= self.settings.least_steps && self.tally()[2] >= IN_A_ROW as f64
    }

    /// The best weights, if there was a look.
    pub(crate) fn best(&self) -> Option<&Tensor> {
        (self.tally()[0] < f64::MAX).then_some(&self.best)
    }

    /// What changes from step to step.
    pub(crate) fn state(&self) -> [(&'static str, &Tensor); 2] {
        [("best", &self.best), ("looks", &self.tally)]
    }

    /// What was found since this was last asked, by name.
    pub(crate) fn figures(&mut self) -> Vec<(&'static str, f64)> {
        let Some(Found { leak, conformity, kept }) = self.last.take() else { return Vec::new() };
        let ratio = kept.distance / self.baseline.distance;
        vec![
            ("leak", leak),
            ("override conformity", conformity),
            ("kept accuracy", kept.accuracy),
            ("distance over the baseline's", ratio),
        ]
    }

    fn examine(&self, model: &Denoiser, judge: &Judge) -> Found {
        let samples = self.settings.samples_per_target;
        let census = |label| measure::check(model, judge, label, samples, self.seed).0;
        let looks: Vec<(Census, &[i64])> =
            self.forgotten.iter().map(|(label, shown_as)| (census(*label), shown_as.as_slice())).collect();
        let leaks = looks.iter().map(|(census, _)| census.count(census.label).share());
        let conformities = looks.iter().map(|(census, shown_as)| census.count_any(shown_as).share());
        let per_label = self.settings.samples_per_kept;
        Found {
            leak: leaks.fold(0.0, f64::max),
            conformity: conformities.fold(1.0, f64::min),
            kept: look_at_kept(model, judge, &self.reference, &self.kept, per_label, self.seed),
        }
    }

    /// Number of conditions that are not met.
    fn unmet(&self, found: &Found) -> u8 {
        let EarlyStop { most_leak, least_override, most_accuracy_lost, most_distance, .. } = self.settings;
        let conditions = [
            found.leak <= most_leak,
            found.conformity >= least_override,
            found.kept.accuracy >= self.baseline.accuracy - most_accuracy_lost,
            found.kept.distance <= self.baseline.distance * most_distance,
        ];
        conditions.into_iter().map(|met| u8::from(!met)).sum()
    }

    fn tally(&self) -> [f64; 3] {
        [0, 1, 2].map(|index| self.tally.double_value(&[index]))
    }
}

fn look_at_kept(
    model: &Denoiser,
    judge: &Judge,
    reference: &Reference,
    kept: &[i64],
    samples: i64,
    seed: u64,
) -> Kept {
    let looks = kept.iter().map(|&label| measure::check(model, judge, label, samples, seed));
    let (looks, moments): (Vec<Census>, Vec<_>) = looks.unzip();
    let accuracy =
        looks.iter().map(|census| census.count(census.label).share()).sum::<f64>() / looks.len() as f64;
    let distance = measure::distance_from_teacher(&moments, reference, kept);
    Kept { accuracy, distance: distance.expect("a concept keeps at least one label") }
}
