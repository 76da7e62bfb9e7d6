//! Precision and recall in the judge's features (arXiv 1904.06991): how many of a model's samples look like the teacher's,
//! and how much of what the teacher draws the model covers. A Frechet distance mixes the two.

use crate::denoiser::Denoiser;
use crate::error::Result;
use crate::generator::generate;
use crate::judge::Judge;
use crate::measure::Count;
use crate::noise::{Noise, Stream};
use crate::probes::Manifold;
use crate::probes::examiner::labels;
use tch::Tensor;

/// Beyond every label's own series of latents.
const PLACE: u64 = 1 << 22;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fidelity {
    /// Samples of the model among the teacher's.
    pub precision: Count,
    /// Samples of the teacher among the model's.
    pub recall: Count,
}

/// # Shapes
/// real: [N, F]; shown: [M, F]: features, best with N = M
///
/// # Errors
/// If either has too few rows for a manifold.
pub fn fidelity(real: &Tensor, shown: &Tensor) -> Result<Fidelity> {
    let count = |manifold: &Manifold, points: &Tensor| Count {
        hits: manifold.count(points),
        n: points.size()[0] as u64,
    };
    let (reals, showns) = (Manifold::new(real)?, Manifold::new(shown)?);
    Ok(Fidelity { precision: count(&reals, shown), recall: count(&showns, real) })
}

/// One-step samples of `model` under each of `asked`, `per_label` of each, beside the teacher's samples [N, pixels] of the
/// labels that are to be seen there.
///
/// # Errors
/// If there are too few of either.
pub fn fidelity_of(
    model: &Denoiser,
    judge: &Judge,
    teacher_samples: &Tensor,
    asked: &[i64],
    per_label: i64,
    seed: u64,
) -> Result<Fidelity> {
    let pixels = model.config().image.pixels();
    let show = |&label: &i64| {
        let first = (PLACE + label as u64) << 32;
        let latent = Noise::new(seed, Stream::ProbeLatent).normal(first, per_label, pixels, model.device());
        generate(model, &latent, &labels(model, label, per_label))
    };
    let shown = Tensor::cat(&asked.iter().map(show).collect::<Vec<_>>(), 0);
    fidelity(&judge.look(teacher_samples).0, &judge.look(&shown).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::fixture::World;
    use crate::probes::teacher_samples;

    fn line(points: &[f32]) -> Tensor {
        Tensor::from_slice(points).view([-1, 1])
    }

    #[test]
    fn what_is_invented_costs_precision_and_what_is_missing_costs_recall() {
        let real = line(&[0.0, 1.0, 2.0, 3.0, 100.0, 101.0, 102.0, 103.0]);
        assert_eq!(share(&real, &real), (8, 8));
        // Half of the real is never shown.
        assert_eq!(share(&real, &line(&[0.0, 1.0, 2.0, 3.0, 0.5, 1.5, 2.5, 1.0])), (8, 4));
        // Half of what is shown is not real.
        let invented = line(&[0.0, 1.0, 2.0, 3.0, 500.0, 501.0, 502.0, 503.0]);
        assert_eq!(share(&real, &invented), (4, 4));
        assert!(fidelity(&real, &line(&[1.0, 2.0, 3.0])).is_err());
    }

    fn share(real: &Tensor, shown: &Tensor) -> (u64, u64) {
        let Fidelity { precision, recall } = fidelity(real, shown).unwrap();
        assert_eq!((precision.n, recall.n), (8, 8));
        (precision.hits, recall.hits)
    }

    #[test]
    fn a_model_that_shows_one_image_is_precise_and_recalls_nothing() {
        let world = World::new();
        let samples: Vec<Tensor> =
            (0..4).map(|label| teacher_samples(&world.teacher, label, 0, 40, 8, 1)).collect();
        let samples = Tensor::cat(&samples, 0);
        let of = |model: &Denoiser| fidelity_of(model, &world.judge, &samples, &[0, 1, 2, 3], 40, 1).unwrap();
        let (monotonous, baseline) = (of(&world.always(world.other)), of(&world.baseline));
        assert_eq!((monotonous.precision.n, monotonous.recall.n), (160, 160));
        assert!(monotonous.recall.hits <= 60, "{monotonous:?}");
        assert!(baseline.recall.hits >= 2 * monotonous.recall.hits, "{baseline:?}, {monotonous:?}");
    }
}
