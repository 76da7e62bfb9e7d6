//! Training a teacher from images: the only part of this crate that sees any.

use crate::adam::Adam;
use crate::config::ModelConfig;
use crate::denoiser::Denoiser;
use crate::device::upload;
use crate::error::{Error, Result};
use crate::noise::{Noise, Stream};
use crate::replicas::{self, Part};
use crate::settings::{Averaging, TeachSettings};
use crate::state::{self, Identity};
use crate::training::{Means, Meter, Progress, Stage, Training, schedule};
use crate::{ema, loss};
use serde_json::{Value, json};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

const BETA1: f64 = 0.9;
/// Part of the steps, at the end, over which the learning rate falls.
const DECAY: f64 = 0.5;

/// Images with their labels.
#[derive(Debug)]
pub struct TrainingImages {
    /// [N, pixels], values in [-1, 1].
    images: Tensor,
    /// [N]
    labels: Tensor,
}

impl TrainingImages {
    /// `pixels` holds one image after another, each channel by channel and row by row, with values in [-1, 1].
    ///
    /// # Errors
    /// [`Error::Images`] if there are none, sizes do not match, a value is out of range, or a label is unknown.
    pub fn new(config: &ModelConfig, pixels: &[f32], labels: &[i64]) -> Result<Self> {
        let (size, count) = (config.image.pixels(), labels.len() as i64);
        if count == 0 || pixels.len() as i64 != count * size {
            let (values, shape) = (pixels.len(), config.image);
            return Err(Error::Images(format!("{values} pixel values are not {count} images of {shape:?}")));
        }
        if let Some(at) = pixels.iter().position(|pixel| !(-1.0..=1.0).contains(pixel)) {
            let (image, value) = (at as i64 / size, pixels[at]);
            return Err(Error::Images(format!("image {image} has a pixel of {value}, outside [-1, 1]")));
        }
        if let Some(at) = labels.iter().position(|label| !(0..config.classes()).contains(label)) {
            return Err(Error::Images(format!("image {at} has label {}, which the model lacks", labels[at])));
        }
        Ok(Self {
            images: Tensor::from_slice(pixels).view([count, size]),
            labels: Tensor::from_slice(labels),
        })
    }

    pub fn len(&self) -> i64 {
        self.labels.size()[0]
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Images `[N, pixels]` and labels `[N]`.
    pub fn tensors(&self) -> (&Tensor, &Tensor) {
        (&self.images, &self.labels)
    }
}

/// Denoising score matching.
#[derive(Debug)]
pub struct Teaching {
    settings: TeachSettings,
    seed: u64,
    images: TrainingImages,
    /// What tells these images from others.
    given: Value,
    model: Denoiser,
    /// The same on every further device; they follow the first.
    replicas: Vec<Denoiser>,
    average: Denoiser,
    adam: Adam,
    step: u64,
    meter: Meter,
}

/// Some samples of a step.
struct Piece {
    /// [b, pixels]
    clean: Tensor,
    /// [b]
    label: Tensor,
    /// [b, 1]
    sigma: Tensor,
    /// [b, pixels]
    noise: Tensor,
}

impl Teaching {
    /// # Errors
    /// If the configuration or a setting is not valid.
    pub fn new(
        config: &ModelConfig,
        images: TrainingImages,
        settings: TeachSettings,
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        settings.validate()?;
        let model = Denoiser::init(config, seed, device)?;
        let given = state::fingerprint([&images.images, &images.labels]);
        let images = TrainingImages {
            images: images.images.to_device(device),
            labels: images.labels.to_device(device),
        };
        let (average, adam) = (model.duplicate(), Adam::new(model.params(), BETA1));
        let meter = Meter::new(&["denoising"], &["teacher"], device);
        let (model, replicas) = (model.in_precision(settings.precision), Vec::new());
        Ok(Self { settings, seed, images, given, model, replicas, average, adam, step: 0, meter })
    }

    /// Shares every step with further devices. The result is that of one device but for the rounding of the devices, and
    /// on CPUs to the bit.
    pub fn share_with(&mut self, devices: &[Device]) {
        let others = replicas::useful(devices, self.settings.batch, self.model.most_at_once());
        self.replicas.extend(others.iter().map(|&device| self.model.on(device)));
    }

    /// Continues from a checkpoint of a training with the same arguments.
    ///
    /// # Errors
    /// If the state is not one of this training.
    pub fn resume(&mut self, state: &[u8]) -> Result<()> {
        self.step = state::load(state, &self.identity(), self.state())?;
        self.follow();
        Ok(())
    }

    /// The teacher: the averaged weights.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a weight is not finite.
    pub fn finish(self) -> Result<Denoiser> {
        self.check()?;
        Ok(self.average)
    }

    fn identity(&self) -> Identity {
        Identity::new([
            ("stage", json!(Stage::Teach)),
            ("seed", json!(self.seed)),
            ("model", json!(self.model.config())),
            ("settings", json!(self.settings)),
            ("input", self.given.clone()),
        ])
    }

    /// Every tensor that changes.
    fn state(&self) -> Vec<(String, &Tensor)> {
        let networks = [("model", &self.model), ("average", &self.average)];
        let weights = networks.map(|(name, network)| (name.to_owned(), network.params().flat()));
        let adam = self.adam.state().map(|(name, tensor)| (format!("adam.{name}"), tensor));
        weights.into_iter().chain(adam).chain([self.meter.state()]).collect()
    }

    /// The samples of the next step, on the device of the images.
    fn pieces(&self) -> Vec<Piece> {
        let (device, size) = (self.model.device(), self.settings.batch);
        let first = self.step * size as u64;
        let chosen = Noise::new(self.seed, Stream::TeachImage).below(first, size, self.images.len() as usize);
        let chosen: Vec<i64> = chosen.into_iter().map(|index| index as i64).collect();
        let chosen = upload(&Tensor::from_slice(&chosen), device);
        let clean = self.images.images.index_select(0, &chosen);
        let label = self.images.labels.index_select(0, &chosen);
        let normal = |stream, columns| Noise::new(self.seed, stream).normal(first, size, columns, device);
        let sigma = self.model.preconditioning().teacher_levels(&normal(Stream::TeachSigma, 1));
        let noise = normal(Stream::TeachNoise, clean.size()[1]);
        let piece = |at: Range<i64>| {
            let of = |tensor: &Tensor| tensor.narrow(0, at.start, at.end - at.start);
            Piece { clean: of(&clean), label: of(&label), sigma: of(&sigma), noise: of(&noise) }
        };
        replicas::pieces(size, self.model.most_at_once()).map(piece).collect()
    }

    /// What the weights became on the first device, everywhere.
    fn follow(&self) {
        let params = self.model.params();
        params.settle();
        self.replicas.iter().for_each(|replica| replica.params().set(params.flat()));
    }

    fn check(&self) -> Result<()> {
        match self.model.params().first_not_finite() {
            None => Ok(()),
            Some(name) => {
                Err(Error::Diverged { step: self.step, tensor: format!("weight {name} of the teacher") })
            }
        }
    }
}

/// Loss of each sample of a piece: [b]
fn losses(model: &Denoiser, piece: &Piece) -> Tensor {
    let here = |tensor: &Tensor| tensor.to_device(model.device());
    let (clean, sigma) = (here(&piece.clean), here(&piece.sigma));
    let noisy = loss::perturb(&clean, &here(&piece.noise), &sigma);
    let denoised = model.denoise_trainable(&noisy, &sigma, &here(&piece.label));
    loss::denoising(&denoised, &clean, &model.loss_weight(&sigma))
}

impl Training for Teaching {
    fn stage(&self) -> Stage {
        Stage::Teach
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn total(&self) -> u64 {
        self.settings.steps
    }

    fn advance(&mut self) {
        if self.done() {
            return;
        }
        let (device, size) = (self.model.device(), self.settings.batch as f64);
        let work = move |model: &Denoiser, piece: Piece| {
            let each = losses(model, &piece);
            let gradient = model.params().gradient(&(each.sum(None::<Kind>) / size));
            Part { gradient, each: each.detach() }
        };
        let pieces = self.pieces();
        let Part { gradient, each } = replicas::sum(&self.model, &mut self.replicas, device, pieces, work);
        let rate = schedule(self.step, self.settings.steps, self.settings.warmup_steps, DECAY);
        self.adam.step(self.model.params(), &gradient, rate * self.settings.learning_rate, self.step);
        self.follow();
        let decay = ema::decay(Averaging::Ramped, self.step, self.settings.ema_decay);
        ema::update(self.average.params().flat(), self.model.params().flat(), decay);
        self.meter.add(&[each.mean(None::<Kind>)], &[gradient.norm()]);
        self.step += 1;
    }

    fn report(&mut self) -> Result<Progress> {
        let Means { losses, gradient_norms } =
            self.meter.read().map_err(|found| found.at(self.step, None))?;
        self.check()?;
        Ok(Progress {
            stage: self.stage(),
            step: self.step,
            total: self.total(),
            images: self.step * self.settings.batch as u64,
            losses,
            gradient_norms,
            looks: Vec::new(),
        })
    }

    fn checkpoint(&self) -> Result<Vec<u8>> {
        self.check()?;
        Ok(state::save(&self.identity(), self.step, self.state()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny;

    #[test]
    fn images_that_do_not_fit_are_refused() {
        let refusal = |pixels: &[f32], labels: &[i64]| {
            TrainingImages::new(&tiny(), pixels, labels).unwrap_err().to_string()
        };
        assert!(refusal(&[], &[]).contains("0 images"));
        assert!(refusal(&[0.0; 7], &[1, 2]).contains("7 pixel values are not 2 images"));
        let out_of_range = refusal(&[0.0, 0.0, 0.0, 0.0, 0.0, 1.5, 0.0, 0.0], &[1, 2]);
        assert!(out_of_range.contains("image 1 has a pixel of 1.5"), "{out_of_range}");
        assert!(refusal(&[f32::NAN; 4], &[1]).contains("NaN"));
        assert!(refusal(&[0.0; 8], &[1, 4]).contains("image 1 has label 4"));
    }
}
