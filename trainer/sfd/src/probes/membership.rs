//! Membership inference, where images that were to be forgotten are at hand: does the model treat them unlike images of the
//! same kind that it never saw? One query per image: the length of the noise that the model believes to see in it (SimA,
//! arXiv 2509.25003).

use crate::denoiser::Denoiser;
use crate::error::{Error, Result};
use tch::{Kind, Tensor, no_grad};

/// Part of the other images that may be taken for members at the point of the curve that matters in practice.
const FALSE_POSITIVES: f64 = 0.01;

/// How well the two groups are told apart. 0.5 and 0.01 are what guessing reaches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Membership {
    /// Probability that a member looks more like one than another image does.
    pub auc: f64,
    /// Members recognised while at most 1 % of the others are taken for members.
    pub true_positives: u64,
    pub members: u64,
    pub others: u64,
}

/// # Shapes
/// members, others: `[N, pixels]` and `[M, pixels]`; label of each: `[N]` and `[M]`; `sigma`: the one noise level to ask at
///
/// # Errors
/// [`Error::TooFewSamples`] without members or with fewer than 100 others, of whom 1 % would be nobody;
/// [`Error::Diverged`] if the model's answer is not finite.
pub fn membership(
    model: &Denoiser,
    (members, member_labels): (&Tensor, &Tensor),
    (others, other_labels): (&Tensor, &Tensor),
    sigma: f64,
) -> Result<Membership> {
    let score = |images, labels| Vec::<f32>::try_from(-perceived_noise(model, images, labels, sigma));
    match (score(members, member_labels), score(others, other_labels)) {
        (Ok(members), Ok(others)) => compare(&members, &others),
        _ => unreachable!("one f32 score per image"),
    }
}

/// Length of the predicted noise (x - D(x; sigma)) / sigma of each image: [B].
fn perceived_noise(model: &Denoiser, images: &Tensor, labels: &Tensor, sigma: f64) -> Tensor {
    no_grad(|| {
        let level = Tensor::full([images.size()[0], 1], sigma, (images.kind(), images.device()));
        let noise = (images - model.denoise(images, &level, labels)) / sigma;
        noise.square().sum_dim_intlist(1, false, None::<Kind>).sqrt().to_kind(Kind::Float)
    })
}

/// Members are expected to have the higher scores.
fn compare(members: &[f32], others: &[f32]) -> Result<Membership> {
    let few = |what, least, given: usize| Err(Error::TooFewSamples { what, least, given: given as i64 });
    if members.is_empty() {
        return few("membership inference", 1, 0);
    }
    if others.len() < (1.0 / FALSE_POSITIVES) as usize {
        return few("membership inference's other images", 100, others.len());
    }
    if members.iter().chain(others).any(|score| !score.is_finite()) {
        return Err(Error::Diverged { step: 0, tensor: "the predicted noise of an image".to_owned() });
    }
    let mut sorted = others.to_vec();
    sorted.sort_by(f32::total_cmp);
    let below = |score: f32| sorted.partition_point(|&other| other < score);
    let not_above = |score: f32| sorted.partition_point(|&other| other <= score);
    let wins: f64 = members.iter().map(|&score| 0.5 * (below(score) + not_above(score)) as f64).sum();
    let allowed = (FALSE_POSITIVES * others.len() as f64) as usize;
    let threshold = sorted[others.len() - 1 - allowed];
    Ok(Membership {
        auc: wins / (members.len() * others.len()) as f64,
        true_positives: members.iter().filter(|&&score| score > threshold).count() as u64,
        members: members.len() as u64,
        others: others.len() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::fixture::World;

    fn others() -> Vec<f32> {
        (0..200).map(|score| score as f32).collect()
    }

    #[test]
    fn equal_groups_are_not_told_apart() {
        let result = compare(&others(), &others()).unwrap();
        // Two of 200 may be false positives: scores 198 and 199 lie above the threshold of 197.
        let expected = Membership { auc: 0.5, true_positives: 2, members: 200, others: 200 };
        assert_eq!(result, expected);
        assert_eq!(compare(&[3.0; 10], &[3.0; 100]).unwrap().auc, 0.5);
        assert_eq!(compare(&[3.0; 10], &[3.0; 100]).unwrap().true_positives, 0);
    }

    #[test]
    fn separate_groups_are_told_apart_in_the_right_direction() {
        assert_eq!(compare(&[500.0, 501.0], &others()).unwrap().auc, 1.0);
        assert_eq!(compare(&[500.0, 501.0], &others()).unwrap().true_positives, 2);
        assert_eq!(compare(&[-1.0, -2.0], &others()).unwrap().auc, 0.0);
        assert_eq!(compare(&[-1.0, -2.0], &others()).unwrap().true_positives, 0);
    }

    #[test]
    fn too_few_images_and_numbers_that_are_none_are_refused() {
        assert!(compare(&[], &others()).is_err());
        assert!(compare(&[1.0], &others()[..99]).is_err());
        assert!(compare(&[f32::NAN], &others()).is_err());
    }

    #[test]
    fn an_image_that_a_model_knows_is_told_from_noise() {
        let world = World::new();
        let members = world.shots(50);
        let others = crate::noise::Noise::new(3, crate::noise::Stream::ProbeLatent)
            .normal(0, 120, 4, tch::Device::Cpu)
            .clamp(-1.0, 1.0);
        let labels = |n| Tensor::full([n], world.label, (Kind::Int64, tch::Device::Cpu));
        let result =
            membership(&world.teacher, (&members, &labels(50)), (&others, &labels(120)), 0.3).unwrap();
        assert!(result.auc > 0.9, "{result:?}");
    }
}
