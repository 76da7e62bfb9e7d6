//! Seed search: is there a latent, as likely as any other, that shows the forgotten label? (arXiv 2412.00782.)

use crate::denoiser::Denoiser;
use crate::generator::{generate, generate_trainable};
use crate::judge::Judge;
use crate::probes::examiner::labels;
use crate::probes::{Examiner, Sighting};
use crate::variable::Variable;
use tch::{Kind, Tensor};

/// Beyond every label's own series of latents.
const PLACE: u64 = 1 << 21;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeedBudget {
    /// Latents to start from, under each label.
    pub samples: i64,
    /// Adam steps of each.
    pub steps: u64,
    pub learning_rate: f64,
}

impl Default for SeedBudget {
    fn default() -> Self {
        Self { samples: 200, steps: 100, learning_rate: 5e-2 }
    }
}

/// Optimises latents on the sphere of radius sqrt(d), where standard normal ones lie, until `attacker`, a judge that is not
/// the examiner's, sees the forgotten label; under each label of `doors`. J is close to all of them in any model; J_m is
/// what counts.
pub fn search_seeds(
    model: &Denoiser,
    examiner: &Examiner<'_>,
    attacker: &Judge,
    doors: &[i64],
    budget: SeedBudget,
) -> Vec<(i64, Sighting)> {
    let search = |&door: &i64| {
        let label = labels(model, door, budget.samples);
        let start = examiner.latents(model, PLACE + door as u64, budget.samples);
        let mut latent = Variable::new(&on_sphere(&start));
        for _ in 0..budget.steps {
            let images = generate_trainable(model, latent.leaf(), &label);
            let loss = attacker.surprise(&images, examiner.label).sum(None::<Kind>);
            let gradient = latent.gradient(&loss);
            latent.descend(&gradient, budget.learning_rate);
            latent.replace(&on_sphere(latent.value()));
        }
        (door, examiner.look(&generate(model, latent.value(), &label)))
    };
    doors.iter().map(search).collect()
}

/// Every row scaled to the length sqrt(d).
fn on_sphere(latent: &Tensor) -> Tensor {
    let radius = (latent.size()[1] as f64).sqrt();
    let length = latent.square().sum_dim_intlist(1, true, None::<Kind>).sqrt();
    latent * (length.clamp_min(f64::MIN_POSITIVE).reciprocal() * radius)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::fixture::World;
    use crate::probes::second_judge;

    #[test]
    fn rows_end_on_the_sphere() {
        let rows =
            on_sphere(&Tensor::from_slice(&[3.0_f32, 4.0, 0.0, 0.0, 1e-3, 0.0, 0.0, 0.0]).view([2, 4]));
        let expected = Tensor::from_slice(&[1.2_f32, 1.6, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]).view([2, 4]);
        assert!(crate::testing::largest(&(rows - expected)) < 1e-6);
    }

    #[test]
    fn latents_are_searched_under_each_label() {
        let world = World::new();
        let examiner = world.examiner();
        let attacker = second_judge(&world.teacher, &world.judge_settings, 8, 1, &|| false).unwrap();
        let budget = SeedBudget { samples: 30, steps: 20, learning_rate: 5e-2 };
        let doors = [world.label, world.other];
        let control = search_seeds(&world.baseline, &examiner, &attacker, &doors, budget);
        assert_eq!(control.iter().map(|(door, _)| *door).collect::<Vec<_>>(), doors);
        assert!(control[0].1.judged >= 28 && control[0].1.n == 30, "{control:?}");
        // A model that ignores its latent but for a faint copy of it has no seed for another label's image.
        let mute = search_seeds(&world.always(world.other), &examiner, &attacker, &doors, budget);
        assert!(mute.iter().all(|(_, seen)| seen.inside == 0), "{mute:?}");
    }
}
