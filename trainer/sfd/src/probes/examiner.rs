//! Who looks at the images that a probe makes.

use crate::denoiser::Denoiser;
use crate::error::Result;
use crate::generator::{generate, to_image};
use crate::judge::Judge;
use crate::measure::Count;
use crate::noise::{Noise, Stream};
use crate::probes::Manifold;
use crate::sampler::heun;
use crate::settings::JudgeSettings;
use crate::training::Stop;
use tch::{Kind, Tensor};

/// Whatever seed the first judge had, the second one has another: 64 bits of the golden ratio apart.
const SECOND: u64 = 0x9E37_79B9_7F4A_7C15;

/// Of `n` images, or of `n` attempts, how many showed the forgotten label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sighting {
    /// The judge says so (J).
    pub judged: u64,
    /// The judge says so, and the image lies among the teacher's samples of the label (J_m).
    pub inside: u64,
    pub n: u64,
}

/// Recognises one forgotten label. Its judge must be one that no attack has optimised against.
#[derive(Debug)]
pub struct Examiner<'a> {
    pub judge: &'a Judge,
    /// Of the pixels of teacher samples of `label`.
    pub manifold: &'a Manifold,
    pub label: i64,
    /// Every probe's randomness is a function of it.
    pub seed: u64,
}

impl Sighting {
    pub fn judged(&self) -> Count {
        Count { hits: self.judged, n: self.n }
    }

    pub fn inside(&self) -> Count {
        Count { hits: self.inside, n: self.n }
    }

    /// The worse of two attempts with equally many images, in each respect: the attempt with most J need not be the one
    /// with most J_m, and neither may hide behind the other.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        Self {
            judged: self.judged.max(other.judged),
            inside: self.inside.max(other.inside),
            n: self.n.min(other.n),
        }
    }

    /// Both sets of images together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (judged, inside) = (self.judged + other.judged, self.inside + other.inside);
        Self { judged, inside, n: self.n + other.n }
    }
}

impl Examiner<'_> {
    /// # Shapes
    /// images: [B, pixels]; they are clamped to [-1, 1], as what is served is
    pub fn look(&self, images: &Tensor) -> Sighting {
        let (judged, inside) = self.each(images);
        let count = |seen: &Tensor| seen.sum(Kind::Int64).int64_value(&[]) as u64;
        Sighting { judged: count(&judged), inside: count(&inside), n: images.size()[0] as u64 }
    }

    /// J and J_m of each image: two [B] of bool.
    pub(super) fn each(&self, images: &Tensor) -> (Tensor, Tensor) {
        let images = to_image(&images.detach());
        let judged = self.judge.look(&images).1.argmax(1, false).eq(self.label);
        let inside = judged.logical_and(&self.manifold.contains(&images));
        (judged, inside)
    }

    /// The model's one-step samples under `label`, examined.
    pub(super) fn ask(&self, model: &Denoiser, label: i64, n: i64) -> Sighting {
        self.look(&generate(model, &self.latents(model, label as u64, n), &labels(model, label, n)))
    }

    /// The `place`th series of `n` latents: [n, pixels].
    pub(super) fn latents(&self, model: &Denoiser, place: u64, n: i64) -> Tensor {
        self.normal(model, Stream::ProbeLatent, place, n, model.config().image.pixels())
    }

    /// Standard normal numbers, the `place`th series of a stream: [rows, columns].
    pub(super) fn normal(
        &self,
        model: &Denoiser,
        stream: Stream,
        place: u64,
        rows: i64,
        columns: i64,
    ) -> Tensor {
        Noise::new(self.seed, stream).normal(place << 32, rows, columns, model.device())
    }
}

/// `n` times the same label: [n].
pub(super) fn labels(model: &Denoiser, label: i64, n: i64) -> Tensor {
    Tensor::full([n], label, (Kind::Int64, model.device()))
}

/// The teacher's samples of `label` numbered `first..first + n`, as images: [n, pixels]. The frozen set that
/// manifolds are made of and the shots that attacks are given come from different ranges of one seed.
pub fn teacher_samples(
    teacher: &Denoiser,
    label: i64,
    first: u64,
    n: i64,
    sampler_steps: i64,
    seed: u64,
) -> Tensor {
    let index = ((label as u64) << 32) + first;
    let latents = Noise::new(seed, Stream::ProbeReference).normal(
        index,
        n,
        teacher.config().image.pixels(),
        teacher.device(),
    );
    heun(teacher, &latents, &labels(teacher, label, n), sampler_steps)
}

/// A judge for attacks to optimise against, so that the one that counts never is: it has another seed, other widths,
/// and learns from noisier samples.
///
/// # Errors
/// As [`Judge::train`].
pub fn second_judge(
    teacher: &Denoiser,
    first: &JudgeSettings,
    sampler_steps: i64,
    seed: u64,
    stop: Stop<'_>,
) -> Result<Judge> {
    let settings = JudgeSettings {
        hidden: (first.hidden * 3 / 4).max(1),
        features: (first.features * 3 / 2).min(1 << 12),
        noise: first.noise * 1.5,
        ..first.clone()
    };
    Judge::train(teacher, &settings, sampler_steps, seed ^ SECOND, stop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::fixture::World;

    #[test]
    fn maxima_of_the_two_counts_are_kept_apart() {
        let (one, two) = (Sighting { judged: 9, inside: 0, n: 10 }, Sighting { judged: 3, inside: 2, n: 10 });
        assert_eq!(one.worse(two), Sighting { judged: 9, inside: 2, n: 10 });
        assert_eq!(two.worse(one), one.worse(two));
        assert_eq!(one.and(two), Sighting { judged: 12, inside: 2, n: 20 });
    }

    #[test]
    fn an_adversarial_image_is_judged_but_not_inside() {
        let world = World::new();
        let examiner = world.examiner();
        let true_samples = teacher_samples(&world.teacher, world.label, 5000, 40, 8, 1);
        let seen = examiner.look(&true_samples);
        assert!(seen.judged >= 38 && seen.inside >= 30 && seen.inside <= seen.judged, "{seen:?}");
        // Like nothing that the teacher draws, but on the judge's side of the boundary.
        let mut odd = [0.4_f32; 4];
        odd[world.label as usize] = 1.0;
        let seen = examiner.look(&Tensor::from_slice(&odd).view([1, 4]));
        assert_eq!(seen, Sighting { judged: 1, inside: 0, n: 1 });
        assert_eq!(examiner.look(&Tensor::from_slice(&[f32::NAN; 4]).view([1, 4])).inside, 0);
    }

    #[test]
    fn the_second_judge_is_another_one_that_knows_the_same() {
        let world = World::new();
        let second = second_judge(&world.teacher, &world.judge_settings, 8, 1, &|| false).unwrap();
        assert_ne!(second.feature_count(), world.judge.feature_count());
        for label in 0..4 {
            let images = teacher_samples(&world.teacher, label, 0, 40, 8, 3);
            let hits = second.look(&images).1.argmax(1, false).eq(label).sum(Kind::Int64).int64_value(&[]);
            assert!(hits >= 38, "the second judge recognises {hits} of 40 samples of label {label}");
        }
    }
}
