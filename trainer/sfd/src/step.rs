//! One iteration of Score Forgetting Distillation (SFD, arXiv 2409.11219).
//!
//! The teacher phi is frozen. The fake score psi learns to denoise what the generator theta emits, under the labels that
//! theta was asked for. The generator moves to where the teacher's score and the fake score agree. The one ingredient
//! of forgetting: for a forgotten label the teacher is asked for the label's *replacement*, while psi and theta keep the
//! forgotten label, so that theta's images under it become the replacement's.
//!
//! Samples under kept and forgotten labels go through the networks as one batch with a weight for each sample; that is
//! exact, because no layer mixes samples. For the same reason a batch may be cut into pieces anywhere.

use self::reentry::Reentry;
use crate::adversary::Search;
use crate::concept::{Concept, Draw};
use crate::denoiser::{Denoiser, Form};
use crate::device::upload;
use crate::generator::{denoise_latent, generate_trainable};
use crate::judge::Judge;
use crate::loss;
use crate::noise::{Noise, Stream};
use crate::replicas;
use crate::settings::{Gradient, PartShares, PartWeights};
use crate::verdict::Verdict;
use std::ops::Range;
use tch::{Device, Kind, Tensor, no_grad};

mod reentry;
#[cfg(test)]
mod tests;

/// Sizes and weights of the two parts of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BatchShape {
    pub(crate) remain: i64,
    pub(crate) forget: i64,
    /// Weights of their mean losses in psi's and in theta's loss.
    pub(crate) fake_score: PartWeights,
    pub(crate) generator: PartWeights,
    /// Shares of them that re-enter.
    pub(crate) reentry: PartShares,
    /// Part of EDM's levels, from the lowest up, at which theta is trained.
    pub(crate) generator_range: f64,
    /// Before this step the forget part is trained at nearly all levels there are.
    pub(crate) forget_warmup: u64,
}

/// How theta is moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matching<'a> {
    pub(crate) alpha: f64,
    pub(crate) gradient: Gradient,
    /// Chooses overrides where the concept says so.
    pub(crate) judge: Option<&'a Judge>,
}

/// Everything random about one iteration. Fresh latents, levels and noise for each of the two networks' steps.
#[derive(Debug)]
pub(crate) struct Batch {
    shape: BatchShape,
    /// Labels that psi and theta are asked for, an adversary's rows being counted after the model's own: [B].
    pub(crate) shown: Tensor,
    /// Labels that phi is asked for: [B].
    pub(crate) taught: Tensor,
    /// The samples for which the judge decides that instead.
    verdict: Option<Verdict>,
    fake_score: Sample,
    generator: Sample,
}

/// Some samples of a batch, and what one network's step needs to know of them.
#[derive(Debug)]
pub(crate) struct Piece {
    shown: Tensor,
    taught: Tensor,
    verdict: Option<Verdict>,
    sample: Sample,
}

/// A latent to generate from, and the level and noise that perturb the generated image.
#[derive(Debug)]
struct Sample {
    latent: Tensor,
    /// [B, 1]
    sigma: Tensor,
    noise: Tensor,
    /// Weight of the loss: [B]
    weight: Tensor,
    /// Those that do not start from the latent itself.
    reentry: Option<Reentry>,
}

/// The loss of a batch, or of a piece of one.
pub(crate) struct Loss {
    /// The scalar to minimise. Those of all pieces add up to the batch's.
    pub(crate) total: Tensor,
    /// Loss of each sample, without its weight and without a graph: [B]
    pub(crate) each: Tensor,
}

impl Loss {
    fn new(per_sample: &Tensor, weight: &Tensor) -> Self {
        Self { total: (per_sample * weight).sum(None::<Kind>), each: per_sample.detach() }
    }
}

impl Batch {
    /// The batch of iteration `step`, on the CPU: a function of its arguments alone.
    pub(crate) fn draw(
        form: &Form,
        concept: &Concept,
        shape: BatchShape,
        seed: u64,
        step: u64,
        adversary: Option<&Search>,
    ) -> Self {
        let size = shape.remain + shape.forget;
        let first = step * size as u64;
        let Draw { mut shown, taught } = concept.draw(seed, first, shape.remain, shape.forget);
        let pixels = form.config.image.pixels();
        let normal = |stream, columns| Noise::new(seed, stream).normal(first, size, columns, Device::Cpu);
        let levels = &form.preconditioning;
        let fake = normal(Stream::FakeSigma, 1);
        let uniform = Noise::new(seed, Stream::GeneratorSigma).uniform(first, size);
        let (mut fake_sigma, mut generator_sigma) =
            (levels.score_levels(&fake), levels.generator_levels(shape.generator_range, &uniform));
        if step < shape.forget_warmup {
            let fake = Vec::<f64>::try_from(fake.to_kind(Kind::Double).special_ndtr().view([-1]));
            let fake = fake.expect("a row of numbers");
            fake_sigma = widened(form, shape, &fake_sigma, &fake);
            generator_sigma = widened(form, shape, &generator_sigma, &uniform);
        }
        let reentry = |sigma, noise| {
            let [sigma, noise] = [sigma, noise].map(|stream| Noise::new(seed, stream));
            Reentry::draw(form, shape, first, sigma, noise)
        };
        let verdict = Verdict::draw(concept, &shown, seed, first, form.config.classes());
        if let Some(adversary) = adversary {
            adversary.disguise(&mut shown, shape.remain as usize, first);
        }
        Self {
            shape,
            verdict,
            shown: Tensor::from_slice(&shown),
            taught: Tensor::from_slice(&taught),
            fake_score: Sample {
                latent: normal(Stream::FakeLatent, pixels),
                sigma: fake_sigma,
                noise: normal(Stream::FakeNoise, pixels),
                weight: weights(shape, shape.fake_score),
                reentry: reentry(Stream::FakeReentrySigma, Stream::FakeReentryNoise),
            },
            generator: Sample {
                latent: normal(Stream::GeneratorLatent, pixels),
                sigma: generator_sigma,
                noise: normal(Stream::GeneratorNoise, pixels),
                weight: weights(shape, shape.generator),
                reentry: reentry(Stream::GeneratorReentrySigma, Stream::GeneratorReentryNoise),
            },
        }
    }

    /// Which samples are worked on at once, if at most so many may be.
    pub(crate) fn pieces(&self, most: i64) -> Vec<Range<i64>> {
        replicas::pieces(self.shape.remain + self.shape.forget, most).collect()
    }

    /// Some of the samples, for psi's step.
    pub(crate) fn fake_score_piece(&self, at: &Range<i64>) -> Piece {
        self.piece(&self.fake_score, at)
    }

    /// Some of the samples, for theta's step.
    pub(crate) fn generator_piece(&self, at: &Range<i64>) -> Piece {
        self.piece(&self.generator, at)
    }

    fn piece(&self, sample: &Sample, at: &Range<i64>) -> Piece {
        let narrow = |tensor: &Tensor| tensor.narrow(0, at.start, at.end - at.start);
        Piece {
            shown: narrow(&self.shown),
            taught: narrow(&self.taught),
            verdict: self.verdict.as_ref().map(|verdict| verdict.map(narrow)),
            sample: sample.piece(at),
        }
    }

    /// The batch by name: what another implementation needs to compute the same losses.
    pub(crate) fn tensors(&self) -> [(&'static str, &Tensor); 8] {
        let Self { shown, taught, fake_score, generator, .. } = self;
        [
            ("shown", shown),
            ("taught", taught),
            ("fake.latent", &fake_score.latent),
            ("fake.sigma", &fake_score.sigma),
            ("fake.noise", &fake_score.noise),
            ("generator.latent", &generator.latent),
            ("generator.sigma", &generator.sigma),
            ("generator.noise", &generator.noise),
        ]
    }

    /// The mean loss of the remain part, and of the forget part (zero if there is none), from the loss of each sample: [B].
    pub(crate) fn means(&self, each: &Tensor) -> [Tensor; 2] {
        let parts = each.split_with_sizes([self.shape.remain, self.shape.forget], 0);
        let parts: [Tensor; 2] = parts.try_into().expect("two parts");
        parts.map(|part| part.sum(Kind::Double) / part.size()[0].max(1) as f64)
    }
}

impl Piece {
    /// The same on a device.
    pub(crate) fn on(&self, device: Device) -> Self {
        let upload = |tensor: &Tensor| upload(tensor, device);
        Self {
            shown: upload(&self.shown),
            taught: upload(&self.taught),
            verdict: self.verdict.as_ref().map(|verdict| verdict.map(upload)),
            sample: self.sample.on(device),
        }
    }

    /// What phi is asked for, given what psi makes of the samples: [b, pixels] -> [b].
    fn lesson(&self, judge: Option<&Judge>, fake: &Tensor) -> Tensor {
        match (&self.verdict, judge) {
            (Some(verdict), Some(judge)) => verdict.teach(judge, fake, &self.taught),
            _ => self.taught.shallow_clone(),
        }
    }
}

impl Sample {
    /// Some of the samples.
    fn piece(&self, at: &Range<i64>) -> Self {
        let reentry = self.reentry.as_ref().and_then(|reentry| reentry.piece(at));
        Self { reentry, ..self.map(|tensor| tensor.narrow(0, at.start, at.end - at.start)) }
    }

    fn on(&self, device: Device) -> Self {
        let reentry = self.reentry.as_ref().map(|reentry| reentry.on(device));
        Self { reentry, ..self.map(|tensor| upload(tensor, device)) }
    }

    /// The tensors that have a row for every sample changed, and nothing re-entering.
    fn map(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        let Self { latent, sigma, noise, weight, reentry: _ } = self;
        Self { latent: of(latent), sigma: of(sigma), noise: of(noise), weight: of(weight), reentry: None }
    }

    /// The generator's images under `label`, without gradients: [B, pixels].
    fn images(&self, generator: &Denoiser, label: &Tensor) -> Tensor {
        match &self.reentry {
            None => denoise_latent(generator, &self.latent, label),
            Some(reentry) => {
                let (x, sigma) = reentry.start(generator, &self.latent, label);
                no_grad(|| generator.denoise(&x, &sigma, label))
            }
        }
    }

    /// The same with a graph that leads to its weights.
    fn trainable_images(&self, generator: &Denoiser, label: &Tensor) -> Tensor {
        match &self.reentry {
            None => generate_trainable(generator, &self.latent, label),
            Some(reentry) => {
                let (x, sigma) = reentry.start(generator, &self.latent, label);
                generator.denoise_trainable(&x, &sigma, label)
            }
        }
    }
}

/// psi's loss: denoise the generator's current images under the labels it was asked for. Leads to psi's weights only.
pub(crate) fn fake_score_loss(fake_score: &Denoiser, generator: &Denoiser, piece: &Piece) -> Loss {
    let Sample { sigma, noise, weight, .. } = &piece.sample;
    let clean = piece.sample.images(generator, &piece.shown);
    let noisy = loss::perturb(&clean, noise, sigma);
    let denoised = fake_score.denoise_trainable(&noisy, sigma, &piece.shown);
    Loss::new(&loss::denoising(&denoised, &clean, &fake_score.loss_weight(sigma)), weight)
}

/// theta's loss: where teacher and fake score disagree about the generator's images, the teacher is right. Leads to
/// theta's weights only, through phi and psi.
pub(crate) fn generator_loss(
    teacher: &Denoiser,
    fake_score: &Denoiser,
    generator: &Denoiser,
    piece: &Piece,
    matching: Matching<'_>,
) -> Loss {
    let Sample { sigma, noise, weight, .. } = &piece.sample;
    let clean = piece.sample.trainable_images(generator, &piece.shown);
    let noisy = loss::perturb(&clean, noise, sigma);
    let scores = || {
        let fake = fake_score.denoise(&noisy, sigma, &piece.shown);
        let real = teacher.denoise(&noisy, sigma, &piece.lesson(matching.judge, &fake));
        (real, fake)
    };
    let (real, fake) = match matching.gradient {
        Gradient::ScoreDistillation => scores(),
        Gradient::DiffInstruct => no_grad(scores),
    };
    Loss::new(&loss::score_difference(&real, &fake, &clean, matching.alpha), weight)
}

/// Levels [B, 1] with those of the forget part drawn from nearly all there are, by the same uniform numbers.
fn widened(form: &Form, shape: BatchShape, levels: &Tensor, uniform: &[f64]) -> Tensor {
    let forget = form.preconditioning.widest_levels(&uniform[shape.remain as usize..]);
    Tensor::cat(&[levels.narrow(0, 0, shape.remain), forget], 0)
}

/// remain / n for each of the n remain samples, forget / m for each of the m forget samples.
fn weights(shape: BatchShape, parts: PartWeights) -> Tensor {
    let part = |size: i64, weight: f64| {
        Tensor::full([size], weight / size.max(1) as f64, (Kind::Float, Device::Cpu))
    };
    Tensor::cat(&[part(shape.remain, parts.remain), part(shape.forget, parts.forget)], 0)
}
