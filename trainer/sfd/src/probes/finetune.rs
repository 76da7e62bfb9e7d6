//! Fine-tuning a copy of a model on a few images, as an ordinary denoiser: what somebody does who holds the weights.

use crate::adam::Adam;
use crate::denoiser::Denoiser;
use crate::loss;
use crate::noise::{Noise, Stream};
use tch::{Kind, Tensor};

const BETA1: f64 = 0.9;

/// Images to learn from, and how they are drawn.
#[derive(Debug)]
pub(super) struct Lessons<'a> {
    /// [N, pixels]
    pub(super) images: &'a Tensor,
    /// [N]
    pub(super) labels: &'a Tensor,
    /// Images per step, drawn with replacement.
    pub(super) batch: i64,
    pub(super) seed: u64,
}

impl Lessons<'_> {
    /// The mean denoising loss of the batch number `step`, with a graph that leads to the weights.
    pub(super) fn loss(&self, model: &Denoiser, step: u64) -> Tensor {
        let (device, first) = (model.device(), step * self.batch as u64);
        let count = self.images.size()[0];
        let chosen = Noise::new(self.seed, Stream::ProbeLesson).below(first, self.batch, count as usize);
        let chosen: Vec<i64> = chosen.into_iter().map(|index| index as i64).collect();
        let chosen = Tensor::from_slice(&chosen).to_device(device);
        let (clean, label) = (self.images.index_select(0, &chosen), self.labels.index_select(0, &chosen));
        let normal =
            |stream, columns| Noise::new(self.seed, stream).normal(first, self.batch, columns, device);
        let sigma = model.preconditioning().score_levels(&normal(Stream::ProbeSigma, 1));
        let noisy = loss::perturb(&clean, &normal(Stream::ProbeNoise, clean.size()[1]), &sigma);
        let denoised = model.denoise_trainable(&noisy, &sigma, &label);
        loss::denoising(&denoised, &clean, &model.loss_weight(&sigma)).mean(None::<Kind>)
    }
}

/// All weights of a copy, trained in place with Adam.
#[derive(Debug)]
pub(super) struct Finetuning {
    model: Denoiser,
    adam: Adam,
    step: u64,
}

impl Finetuning {
    pub(super) fn new(model: &Denoiser) -> Self {
        let model = model.duplicate();
        Self { adam: Adam::new(model.params(), BETA1), model, step: 0 }
    }

    pub(super) fn model(&self) -> &Denoiser {
        &self.model
    }

    /// Trains on until `steps` were done in all.
    pub(super) fn until(&mut self, steps: u64, lessons: &Lessons<'_>, learning_rate: f64) {
        while self.step < steps {
            let gradient = self.model.params().gradient(&lessons.loss(&self.model, self.step));
            self.adam.step(self.model.params(), &gradient, learning_rate, self.step);
            self.step += 1;
        }
    }
}
