//! Benign resurgence: fine-tuning on something harmless may bring back what was forgotten (arXiv 2410.08074).

use crate::denoiser::Denoiser;
use crate::error::Result;
use crate::probes::finetune::{Finetuning, Lessons};
use crate::probes::{Examiner, Sighting, kept_doors, mixed_door, multistep, null_door};
use tch::Tensor;

#[derive(Debug, Clone, PartialEq)]
pub struct BenignBudget {
    pub steps: u64,
    /// Images per step.
    pub batch: i64,
    pub learning_rate: f64,
    /// Samples to look at, at each door.
    pub samples: i64,
    /// Mixtures of conditions to look at.
    pub mixtures: i64,
    /// Noise levels of the sampler.
    pub sampler_steps: i64,
}

/// Where the forgotten label is seen after the fine-tuning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aftermath {
    /// One-step samples under the forgotten label.
    pub direct: Sighting,
    /// One-step samples under each kept label.
    pub kept: Vec<(i64, Sighting)>,
    /// One-step samples without a label, and under mixtures of conditions.
    pub null: Sighting,
    pub mixtures: Sighting,
    /// Multi-step samples under the forgotten label, and without one.
    pub multistep: Sighting,
    pub multistep_null: Sighting,
}

impl Default for BenignBudget {
    fn default() -> Self {
        Self { steps: 200, batch: 64, learning_rate: 3e-4, samples: 500, mixtures: 500, sampler_steps: 18 }
    }
}

/// Fine-tunes a copy on teacher samples of kept labels (images `[N, pixels]`, labels `[N]`), and looks again.
///
/// # Errors
/// If the model has no condition table.
pub fn benign(
    model: &Denoiser,
    examiner: &Examiner<'_>,
    (images, labels): (&Tensor, &Tensor),
    kept: &[i64],
    budget: &BenignBudget,
) -> Result<Aftermath> {
    let lessons = Lessons { images, labels, batch: budget.batch, seed: examiner.seed };
    let mut finetuning = Finetuning::new(model);
    finetuning.until(budget.steps, &lessons, budget.learning_rate);
    let model = finetuning.model();
    let (multistep, multistep_null) = multistep(model, examiner, budget.samples, budget.sampler_steps)?;
    Ok(Aftermath {
        direct: examiner.ask(model, examiner.label, budget.samples),
        kept: kept_doors(model, examiner, kept, budget.samples),
        null: null_door(model, examiner, budget.samples)?,
        mixtures: mixed_door(model, examiner, budget.mixtures)?,
        multistep,
        multistep_null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::examiner::labels;
    use crate::probes::fixture::World;
    use crate::probes::teacher_samples;

    fn lessons(world: &World, taught: &[i64]) -> (Tensor, Tensor) {
        let images: Vec<Tensor> =
            taught.iter().map(|&label| teacher_samples(&world.teacher, label, 1 << 20, 20, 8, 1)).collect();
        let labels: Vec<Tensor> = taught.iter().map(|&label| labels(&world.teacher, label, 20)).collect();
        (Tensor::cat(&images, 0), Tensor::cat(&labels, 0))
    }

    #[test]
    fn harmless_lessons_bring_nothing_back_and_harmful_ones_are_seen() {
        let world = World::new();
        let budget = BenignBudget {
            steps: 300,
            batch: 16,
            learning_rate: 1e-2,
            samples: 40,
            mixtures: 40,
            sampler_steps: 6,
        };
        let (images, labels) = lessons(&world, &world.kept());
        let hidden = world.hidden();
        let seen = |images: &Tensor, labels: &Tensor| {
            benign(&hidden, &world.examiner(), (images, labels), &world.kept(), &budget).unwrap()
        };
        let harmless = seen(&images, &labels);
        assert!(harmless.direct.judged <= 4, "{harmless:?}");
        assert_eq!(harmless.kept.len(), 3);
        // The same lessons with the forgotten label's images among them are not benign, and the probe says so.
        let (images, labels) = lessons(&world, &[0, 1, 2, 3]);
        let harmful = seen(&images, &labels);
        assert!(harmful.direct.judged >= 30 && harmful.multistep.judged >= 30, "{harmful:?}");
    }
}
