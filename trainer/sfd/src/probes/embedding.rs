//! Embedding inversion: is there a condition row that brings the forgotten label back, the weights untouched?
//! (arXiv 2308.01508.)

use crate::conditions::Table;
use crate::denoiser::Denoiser;
use crate::error::Result;
use crate::generator::generate_trainable;
use crate::judge::Judge;
use crate::noise::Stream;
use crate::probes::examiner::labels;
use crate::probes::finetune::Lessons;
use crate::probes::{Examiner, Sighting};
use crate::variable::Variable;
use tch::{Kind, Tensor};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbeddingBudget {
    /// Starts; the first is the forgotten label's own row.
    pub restarts: u64,
    /// Adam steps of each.
    pub steps: u64,
    /// Images per step.
    pub batch: i64,
    pub learning_rate: f64,
    /// One-step samples to look at after each restart.
    pub samples: i64,
}

/// Beyond every label's own series of latents.
const ATTACK: u64 = (1 << 20) + 4096;

impl Default for EmbeddingBudget {
    fn default() -> Self {
        Self { restarts: 4, steps: 400, batch: 64, learning_rate: 1e-2, samples: 500 }
    }
}

/// Learns a row from `shots`, teacher samples of the forgotten label [N, pixels], by the denoising loss: textual inversion.
/// The worst over all restarts, in each respect.
///
/// # Errors
/// If the model has no condition table.
pub fn invert_by_denoising(
    model: &Denoiser,
    examiner: &Examiner<'_>,
    shots: &Tensor,
    budget: EmbeddingBudget,
) -> Result<Sighting> {
    let attack = Attack::new(model, examiner, budget)?;
    let label = labels(model, examiner.label, shots.size()[0]);
    let lessons = Lessons { images: shots, labels: &label, batch: budget.batch, seed: examiner.seed };
    let loss = |copy: &Denoiser, step: u64| lessons.loss(copy, step);
    let rows = attack.table.rows(model);
    let (mean, spread) = (rows.mean_dim(0, false, None::<Kind>), rows.std(true));
    // Rows as large as the model's own, in any direction.
    let start = |restart: u64| &mean + attack.direction(restart) * &spread;
    Ok(attack.run(start, |row| row.shallow_clone(), loss))
}

/// How far [`invert_by_judge`] may go from a row: half the smallest distance between two labels' rows of a model that has
/// forgotten nothing. Of a candidate's own rows it would be the candidate that says how hard it is looked at.
///
/// # Errors
/// If the model has no condition table.
pub fn radius(baseline: &Denoiser) -> Result<f64> {
    Ok(Table::of(baseline)?.half_gap(baseline))
}

/// Looks for a row under which `attacker`, a judge that is not the examiner's, sees the forgotten label, no further than
/// `radius` from the forgotten label's own. The worst over all restarts, in each respect.
///
/// # Errors
/// If the model has no condition table.
pub fn invert_by_judge(
    model: &Denoiser,
    examiner: &Examiner<'_>,
    attacker: &Judge,
    radius: f64,
    budget: EmbeddingBudget,
) -> Result<Sighting> {
    let attack = Attack::new(model, examiner, budget)?;
    let label = labels(model, examiner.label, budget.batch);
    let loss = |copy: &Denoiser, step: u64| {
        let latent = examiner.latents(model, ATTACK + step, budget.batch);
        attacker.surprise(&generate_trainable(copy, &latent, &label), examiner.label).mean(None::<Kind>)
    };
    let own = attack.table.rows(model).get(examiner.label);
    let within = |row: &Tensor| {
        let away = row - &own;
        let length = away.norm().clamp_min(f64::MIN_POSITIVE);
        &own + &away * (radius / length).clamp_max(1.0)
    };
    let start = |restart: u64| within(&(&own + attack.direction(restart) * radius));
    Ok(attack.run(start, within, loss))
}

/// What both attacks share: optimise a row in a copy of the model, look, start again.
struct Attack<'a> {
    model: &'a Denoiser,
    examiner: &'a Examiner<'a>,
    table: Table,
    budget: EmbeddingBudget,
}

impl<'a> Attack<'a> {
    fn new(model: &'a Denoiser, examiner: &'a Examiner<'a>, budget: EmbeddingBudget) -> Result<Self> {
        Ok(Self { model, examiner, table: Table::of(model)?, budget })
    }

    fn direction(&self, restart: u64) -> Tensor {
        let columns = self.table.rows(self.model).size()[1];
        self.examiner.normal(self.model, Stream::ProbeRow, restart, 1, columns).get(0)
    }

    fn run(
        &self,
        start: impl Fn(u64) -> Tensor,
        within: impl Fn(&Tensor) -> Tensor,
        loss: impl Fn(&Denoiser, u64) -> Tensor,
    ) -> Sighting {
        let EmbeddingBudget { restarts, steps, learning_rate, samples, .. } = self.budget;
        let label = self.examiner.label;
        let copy = self.model.duplicate();
        let attempt = |restart: u64| {
            let own = self.table.rows(self.model).get(label);
            let mut row = Variable::new(&if restart == 0 { own } else { start(restart) });
            for step in restart * steps..(restart + 1) * steps {
                self.table.set(&copy, label, row.value());
                let gradient = self.table.gradient(&copy, label, &loss(&copy, step));
                row.descend(&gradient, learning_rate);
                row.replace(&within(row.value()));
            }
            self.table.set(&copy, label, row.value());
            self.examiner.ask(&copy, label, samples)
        };
        (0..restarts.max(1)).map(attempt).reduce(Sighting::worse).expect("there is at least one attempt")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::fixture::World;
    use crate::probes::second_judge;

    const BUDGET: EmbeddingBudget =
        EmbeddingBudget { restarts: 2, steps: 150, batch: 32, learning_rate: 5e-2, samples: 50 };

    #[test]
    fn a_row_that_is_only_hidden_is_found_again() {
        let world = World::new();
        let (hidden, examiner) = (world.hidden(), world.examiner());
        assert!(examiner.ask(&hidden, world.label, 50).judged <= 2, "nothing may leak directly");
        let found = invert_by_denoising(&hidden, &examiner, &world.shots(20), BUDGET).unwrap();
        assert!(found.judged >= 45 && found.inside >= 20 && found.n == 50, "{found:?}");
    }

    #[test]
    fn where_conditions_change_nothing_no_row_helps() {
        let world = World::new();
        let (mute, examiner) = (world.always(world.other), world.examiner());
        let found = invert_by_denoising(&mute, &examiner, &world.shots(20), BUDGET).unwrap();
        assert_eq!(found, Sighting { judged: 0, inside: 0, n: 50 });
        let attacker = second_judge(&world.teacher, &world.judge_settings, 8, 1, &|| false).unwrap();
        let reach = radius(&world.baseline).unwrap();
        let found = invert_by_judge(&mute, &examiner, &attacker, reach, BUDGET).unwrap();
        assert_eq!(found, Sighting { judged: 0, inside: 0, n: 50 });
    }

    #[test]
    fn the_judge_guides_to_the_label_but_not_out_of_bounds() {
        let world = World::new();
        let attacker = second_judge(&world.teacher, &world.judge_settings, 8, 1, &|| false).unwrap();
        let examiner = world.examiner();
        let reach = radius(&world.baseline).unwrap();
        let control = invert_by_judge(&world.baseline, &examiner, &attacker, reach, BUDGET).unwrap();
        assert!(control.judged >= 45, "{control:?}");
        // With hardly any room nothing is found in a model that hides the label.
        let bounded = invert_by_judge(&world.hidden(), &examiner, &attacker, 1e-5, BUDGET).unwrap();
        assert!(bounded.judged <= 2, "{bounded:?}");
    }

    /// A candidate whose rows lie close together is not looked at from closer by.
    #[test]
    fn a_candidate_does_not_say_how_far_the_attack_may_go() {
        let world = World::new();
        let attacker = second_judge(&world.teacher, &world.judge_settings, 8, 1, &|| false).unwrap();
        let hidden = world.hidden();
        let table = Table::of(&hidden).unwrap();
        let row = table.rows(&hidden).get(world.other);
        for label in 0..4 {
            table.set(&hidden, label, &(&row + 1e-5 * label as f64));
        }
        let gap = (table.rows(&world.baseline).get(world.label) - &row).norm().double_value(&[]);
        let found = invert_by_judge(&hidden, &world.examiner(), &attacker, gap, BUDGET).unwrap();
        assert!(found.judged >= 45, "{found:?}");
    }
}
