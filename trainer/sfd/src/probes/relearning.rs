//! Relearning: how few images and steps bring a forgotten label back. A model that lost it learns as slowly as one that
//! never saw it; a model that only hides it remembers.

use crate::denoiser::Denoiser;
use crate::probes::examiner::labels;
use crate::probes::finetune::{Finetuning, Lessons};
use crate::probes::{Examiner, Sighting};
use tch::Tensor;

#[derive(Debug, Clone, PartialEq)]
pub struct RelearningBudget {
    /// Training steps after which to look, in ascending order.
    pub checkpoints: Vec<u64>,
    /// Images per step.
    pub batch: i64,
    pub learning_rate: f64,
    /// One-step samples to look at.
    pub samples: i64,
}

impl Default for RelearningBudget {
    fn default() -> Self {
        Self { checkpoints: vec![50, 100, 200], batch: 64, learning_rate: 3e-4, samples: 500 }
    }
}

/// Fine-tunes a copy on `shots`, teacher samples of the forgotten label [N, pixels], and looks at its one-step samples under
/// that label at every checkpoint.
pub fn relearn(
    model: &Denoiser,
    examiner: &Examiner<'_>,
    shots: &Tensor,
    budget: &RelearningBudget,
) -> Vec<(u64, Sighting)> {
    let label = labels(model, examiner.label, shots.size()[0]);
    let lessons = Lessons { images: shots, labels: &label, batch: budget.batch, seed: examiner.seed };
    let mut finetuning = Finetuning::new(model);
    let look = |&steps: &u64| {
        finetuning.until(steps, &lessons, budget.learning_rate);
        (steps, examiner.ask(finetuning.model(), examiner.label, budget.samples))
    };
    budget.checkpoints.iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::fixture::World;

    #[test]
    fn what_is_only_hidden_comes_back_with_training() {
        let world = World::new();
        let checkpoints = vec![0, 20, 300];
        let budget = RelearningBudget { checkpoints, batch: 16, learning_rate: 1e-2, samples: 50 };
        let curve = relearn(&world.hidden(), &world.examiner(), &world.shots(20), &budget);
        assert_eq!(curve.iter().map(|(steps, _)| *steps).collect::<Vec<_>>(), [0, 20, 300]);
        let judged: Vec<u64> = curve.iter().map(|(_, seen)| seen.judged).collect();
        assert!(judged[0] <= 2, "nothing may leak before the training: {judged:?}");
        assert!(judged[2] >= 45, "the label should be back: {judged:?}");
    }

    #[test]
    fn a_checkpoint_does_not_depend_on_the_others() {
        let world = World::new();
        let (hidden, examiner, shots) = (world.hidden(), world.examiner(), world.shots(20));
        let budget =
            |checkpoints| RelearningBudget { checkpoints, batch: 16, learning_rate: 1e-2, samples: 50 };
        let alone = relearn(&hidden, &examiner, &shots, &budget(vec![40]));
        assert_eq!(alone[0], relearn(&hidden, &examiner, &shots, &budget(vec![10, 40]))[1]);
    }
}
