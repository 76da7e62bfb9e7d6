//! Other doors: does the forgotten label appear under conditions other than its own?

use crate::conditions::Table;
use crate::denoiser::Denoiser;
use crate::error::Result;
use crate::generator::generate;
use crate::noise::Stream;
use crate::probes::{Examiner, Sighting};
use tch::{Kind, Tensor};

/// Under every kept label: `n` one-step samples of each.
pub fn kept_doors(model: &Denoiser, examiner: &Examiner<'_>, kept: &[i64], n: i64) -> Vec<(i64, Sighting)> {
    kept.iter().map(|&label| (label, examiner.ask(model, label, n))).collect()
}

/// Under no label at all: the model's own null condition, or a row of zeros if it has none.
///
/// # Errors
/// If the model has no condition table.
pub fn null_door(model: &Denoiser, examiner: &Examiner<'_>, n: i64) -> Result<Sighting> {
    let (model, null) = unconditional(model, examiner.label)?;
    Ok(examiner.ask(&model, null, n))
}

/// Under `n` mixtures of all condition rows with Dirichlet(1/2) weights, an image of each.
///
/// # Errors
/// If the model has no condition table.
pub fn mixed_door(model: &Denoiser, examiner: &Examiner<'_>, n: i64) -> Result<Sighting> {
    let table = Table::of(model)?;
    let rows = table.rows(model);
    let mixtures = dirichlet_half(&examiner.normal(model, Stream::ProbeMixture, 0, n, rows.size()[0]));
    let mixtures = mixtures.matmul(&rows);
    let (copy, latents) = (model.duplicate(), examiner.latents(model, MIXTURES, n));
    // As many at a time as the table has rows.
    let parts = mixtures.split(rows.size()[0], 0).into_iter().zip(latents.split(rows.size()[0], 0));
    let images = parts.map(|(rows, latents)| {
        let count = rows.size()[0];
        (0..count).for_each(|label| table.set(&copy, label, &rows.get(label)));
        generate(&copy, &latents, &Tensor::arange(count, (Kind::Int64, model.device())))
    });
    Ok(examiner.look(&Tensor::cat(&images.collect::<Vec<_>>(), 0)))
}

/// Beyond every label's own series of latents.
const MIXTURES: u64 = 1 << 20;

/// A copy, and the label by which it is asked without a condition. If the model has none, `label` is made to mean nothing.
pub(super) fn unconditional(model: &Denoiser, label: i64) -> Result<(Denoiser, i64)> {
    let copy = model.duplicate();
    if let Some(null) = model.null_label() {
        return Ok((copy, null));
    }
    let table = Table::of(model)?;
    table.set(&copy, label, &table.rows(model).get(label).zeros_like());
    Ok((copy, label))
}

/// Dirichlet weights with all parameters 1/2 are the normalised squares of standard normals (gamma(1/2) is half of a
/// chi-square of one degree).
fn dirichlet_half(normal: &Tensor) -> Tensor {
    let squares = normal.square();
    &squares / squares.sum_dim_intlist(1, true, None::<Kind>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;
    use crate::probes::fixture::World;
    use tch::Device;

    #[test]
    fn weights_are_those_of_the_distribution() {
        let classes = 4;
        let weights =
            dirichlet_half(&Noise::new(1, Stream::ProbeMixture).normal(0, 20_000, classes, Device::Cpu));
        let sums = weights.sum_dim_intlist(1, false, None::<Kind>);
        assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-6);
        // Mean 1/K and variance (K - 1) / (K^2 (K/2 + 1)).
        let mean = weights.mean_dim(0, false, Kind::Double);
        let variance = weights.var_dim(0, true, false);
        for class in 0..classes {
            assert!((mean.double_value(&[class]) - 0.25).abs() < 0.01);
            assert!((variance.double_value(&[class]) - 3.0 / 48.0).abs() < 0.003);
        }
    }

    #[test]
    fn a_model_that_shows_the_label_everywhere_leaks_at_every_door() {
        let world = World::new();
        let (leaky, mute) = (world.always(world.label), world.always(world.other));
        let examiner = world.examiner();
        let kept = kept_doors(&leaky, &examiner, &world.kept(), 30);
        assert_eq!(kept.iter().map(|(label, _)| *label).collect::<Vec<_>>(), world.kept());
        for seen in kept
            .into_iter()
            .map(|(_, seen)| seen)
            .chain([null_door(&leaky, &examiner, 30).unwrap(), mixed_door(&leaky, &examiner, 32).unwrap()])
        {
            assert_eq!(seen.judged, seen.n);
            assert!(seen.n >= 30);
        }
        for seen in kept_doors(&mute, &examiner, &world.kept(), 30)
            .into_iter()
            .map(|(_, seen)| seen)
            .chain([null_door(&mute, &examiner, 30).unwrap(), mixed_door(&mute, &examiner, 32).unwrap()])
        {
            assert_eq!(seen.judged, 0);
        }
    }

    #[test]
    fn a_row_hidden_among_the_kept_ones_is_found() {
        let world = World::new();
        let table = Table::of(&world.baseline).unwrap();
        // Two labels changed places: nothing at the forgotten one, everything at the other.
        let swapped = world.baseline.duplicate();
        let rows = table.rows(&swapped);
        table.set(&swapped, world.label, &rows.get(world.other));
        table.set(&swapped, world.other, &rows.get(world.label));
        let examiner = world.examiner();
        assert!(examiner.ask(&swapped, world.label, 50).judged <= 2);
        let doors = kept_doors(&swapped, &examiner, &world.kept(), 50);
        let seen = |label| doors.iter().find(|(door, _)| *door == label).unwrap().1.judged;
        assert!(seen(world.other) >= 45, "{doors:?}");
        assert!(world.kept().iter().filter(|&&label| label != world.other).all(|&label| seen(label) <= 5));
    }

    #[test]
    fn a_probe_leaves_the_model_alone_and_repeats_itself() {
        let world = World::new();
        let (examiner, before) = (world.examiner(), world.baseline.to_bytes());
        let probe = || {
            (
                null_door(&world.baseline, &examiner, 40).unwrap(),
                mixed_door(&world.baseline, &examiner, 40).unwrap(),
            )
        };
        assert_eq!(probe(), probe());
        assert!(before == world.baseline.to_bytes());
    }
}
