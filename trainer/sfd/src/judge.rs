//! The judge: a classifier trained on the teacher's own samples, so that measuring needs no data either. Its penultimate
//! layer gives the features in which distributions are compared.

use crate::adam::Adam;
use crate::config::ModelConfig;
use crate::denoiser::{Denoiser, expected};
use crate::error::{Error, Result, WeightsError};
use crate::noise::{Noise, Stream};
use crate::params::Params;
use crate::sampler::heun;
use crate::settings::JudgeSettings;
use crate::training::{Stop, go_on, schedule};
use crate::weights;
use std::sync::Arc;
use tch::{Device, Kind, Reduction, Tensor, no_grad};

mod network;
#[cfg(test)]
mod tests;

use network::{Network, Shape};

const FILE: &str = "judge.safetensors";
const BETA1: f64 = 0.9;
/// The learning rate falls along a cosine from the first step.
const DECAY: f64 = 1.0;

#[derive(Debug)]
pub struct Judge {
    shape: Shape,
    network: Network,
    params: Params,
}

/// Most images that are looked at in one piece by a judge that sees shapes.
const AT_ONCE: i64 = 512;

impl Judge {
    /// Learns to name the label that the teacher was asked for. `sampler_steps` is the teacher's number of noise levels.
    /// Asks `stop` before the samples of each label are drawn, and then before each step.
    ///
    /// # Errors
    /// If a setting is not valid, a weight is not finite at the end, or `stop` said so.
    pub fn train(
        teacher: &Denoiser,
        settings: &JudgeSettings,
        sampler_steps: i64,
        seed: u64,
        stop: Stop<'_>,
    ) -> Result<Self> {
        settings.validate()?;
        let (per_label, stream) = (settings.samples_per_label, Stream::JudgeLatent);
        let (images, labels) = samples(teacher, per_label, sampler_steps, seed, stream, stop)?;
        let judge = Self::fresh(teacher.config(), settings, seed, teacher.device());
        judge.fit(&images, &labels, settings, seed, stop)?;
        match judge.params.first_not_finite() {
            None => Ok(judge),
            Some(name) => {
                Err(Error::Diverged { step: settings.steps, tensor: format!("weight {name} of the judge") })
            }
        }
    }

    fn fresh(config: &ModelConfig, settings: &JudgeSettings, seed: u64, device: Device) -> Self {
        let shape = Shape {
            pixels: config.image.pixels(),
            hidden: settings.hidden,
            features: settings.features,
            classes: config.classes(),
            image: settings.sees_shapes.then_some(config.image),
        };
        let (network, layout) = Network::new(shape);
        Self { shape, network, params: Params::init(Arc::new(layout), seed, device) }
    }

    /// Reads a judge of this model's images and labels.
    ///
    /// # Errors
    /// If the bytes are no judge, or one of another model.
    pub fn from_bytes(config: &ModelConfig, bytes: &[u8], device: Device) -> Result<Self> {
        let header = |problem: String| Error::Weights { file: FILE, source: WeightsError::Header(problem) };
        let shape: Shape = serde_json::from_str(&weights::read_header(FILE, bytes)?)
            .map_err(|error| header(error.to_string()))?;
        if !shape.suits(config) {
            let (pixels, classes) = (config.image.pixels(), config.classes());
            return Err(header(format!("{shape:?} does not judge {pixels} pixels and {classes} labels")));
        }
        if !(1..=1 << 14).contains(&shape.hidden) || !(1..=1 << 12).contains(&shape.features) {
            return Err(header(format!("{shape:?} is out of range")));
        }
        let (network, layout) = Network::new(shape);
        let tensors = weights::read(FILE, bytes, &expected(&layout), device)?;
        let flat: Vec<Tensor> = tensors.iter().map(|tensor| tensor.flatten(0, -1)).collect();
        let params = Params::from_flat(Arc::new(layout), Tensor::cat(&flat, 0));
        Ok(Self { shape, network, params })
    }

    /// The weights as safetensors. Same weights, same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let shape = serde_json::to_string(&self.shape).expect("numbers have a JSON form");
        weights::write(Some(shape), self.params.named().map(|(name, tensor)| (name.to_owned(), tensor)))
    }

    /// The same on another device.
    pub(crate) fn on(&self, device: Device) -> Self {
        Self { shape: self.shape, network: self.network.clone(), params: self.params.on(device) }
    }

    /// Whether it judges images and labels of this model.
    pub(crate) fn suits(&self, config: &ModelConfig) -> bool {
        self.shape.suits(config)
    }

    /// All weights, one after the other.
    pub(crate) fn weights(&self) -> &Tensor {
        self.params.flat()
    }

    /// Number of features of an image.
    pub fn feature_count(&self) -> i64 {
        self.shape.features
    }

    /// What the judge sees in each image.
    ///
    /// # Shapes
    /// images: [B, pixels] -> features [B, F] and class probabilities [B, classes]
    pub fn look(&self, images: &Tensor) -> (Tensor, Tensor) {
        no_grad(|| {
            let weights = self.params.frozen();
            // A perceptron takes any number at once.
            let chunk = if self.shape.image.is_some() { AT_ONCE } else { images.size()[0].max(1) };
            let parts: Vec<Tensor> =
                images.split(chunk, 0).iter().map(|part| self.network.features(weights, part)).collect();
            let features = Tensor::cat(&parts, 0);
            let probabilities = self.network.logits(weights, &features).softmax(1, None::<Kind>);
            (features, probabilities)
        })
    }

    /// Minus the log-probability that each image shows `label`, with a graph that leads to the images: [B, pixels] -> [B].
    /// What an attack descends; never ask the judge that counts.
    pub(crate) fn surprise(&self, images: &Tensor, label: i64) -> Tensor {
        let features = self.network.features(self.params.frozen(), images);
        let logits = self.network.logits(self.params.frozen(), &features);
        -logits.log_softmax(1, None::<Kind>).select(1, label)
    }

    fn fit(
        &self,
        images: &Tensor,
        labels: &Tensor,
        settings: &JudgeSettings,
        seed: u64,
        stop: Stop<'_>,
    ) -> Result<()> {
        let mut adam = Adam::new(&self.params, BETA1);
        let (count, pixels) = images.size2().expect("images are [N, pixels]");
        for step in 0..settings.steps {
            go_on(stop)?;
            let first = step * settings.batch as u64;
            let chosen = Noise::new(seed, Stream::JudgeImage).below(first, settings.batch, count as usize);
            let chosen: Vec<i64> = chosen.into_iter().map(|index| index as i64).collect();
            let chosen = Tensor::from_slice(&chosen).to_device(images.device());
            let noise =
                Noise::new(seed, Stream::JudgeNoise).normal(first, settings.batch, pixels, images.device());
            let noisy = images.index_select(0, &chosen) + noise * settings.noise;
            let features = self.network.features(self.params.trainable(), &noisy);
            let logits = self.network.logits(self.params.trainable(), &features);
            let loss = logits.cross_entropy_loss(
                &labels.index_select(0, &chosen),
                None::<&Tensor>,
                Reduction::Mean,
                -100,
                0.0,
            );
            let gradient = self.params.gradient(&loss);
            let rate = settings.learning_rate * schedule(step, settings.steps, 0, DECAY);
            adam.step(&self.params, &gradient, rate, step);
        }
        Ok(())
    }
}

/// `per_label` teacher samples of every label: images [N, pixels] and labels [N], label by label.
///
/// # Errors
/// If `stop` said so.
pub(crate) fn samples(
    teacher: &Denoiser,
    per_label: i64,
    sampler_steps: i64,
    seed: u64,
    stream: Stream,
    stop: Stop<'_>,
) -> Result<(Tensor, Tensor)> {
    let (pixels, device) = (teacher.config().image.pixels(), teacher.device());
    let of = |label: i64| {
        go_on(stop)?;
        let first = (label * per_label) as u64;
        let latents = Noise::new(seed, stream).normal(first, per_label, pixels, device);
        let labels = Tensor::full([per_label], label, (Kind::Int64, device));
        Ok((heun(teacher, &latents, &labels, sampler_steps), labels))
    };
    let (images, labels): (Vec<Tensor>, Vec<Tensor>) =
        (0..teacher.config().classes()).map(of).collect::<Result<Vec<_>>>()?.into_iter().unzip();
    Ok((Tensor::cat(&images, 0), Tensor::cat(&labels, 0)))
}
