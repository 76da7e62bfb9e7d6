//! Measurements: raw counts and values of what a model emits, as the judge sees it. Nothing here passes or fails.
//!
//! A model's samples are addressed by (seed, label, index): measuring twice, or measuring other labels in between, gives
//! the same numbers.

use crate::config::ModelConfig;
use crate::denoiser::Denoiser;
use crate::error::{Error, Result, WeightsError};
use crate::frechet::{self, Moments};
use crate::generator::{generate, refine};
use crate::judge::{Judge, samples};
use crate::noise::{Noise, Stream};
use crate::settings::ReferenceSettings;
use crate::training::Stop;
use crate::weights::{self, Expected};
use tch::{Kind, Tensor};

#[cfg(test)]
mod tests;

const FILE: &str = "reference.safetensors";
/// Most pixel values of the samples that are drawn and judged at a time: 64 MiB of them.
const AT_ONCE: i64 = 1 << 24;
/// Mean probability of a label among another one's samples above which the other does not replace it well.
const MOST_ALIKE: f64 = 0.005;

/// `hits` of `n` samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub hits: u64,
    pub n: u64,
}

/// What the judge says about a model's samples under one label.
#[derive(Debug, Clone, PartialEq)]
pub struct Census {
    /// The label that the model was asked for.
    pub label: i64,
    /// Samples by the label that the judge finds most likely.
    pub predicted: Vec<u64>,
    /// The judge's mean probability of each label.
    pub probability: Vec<f64>,
}

/// A census of every label of a model that has forgotten nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Confusion(Vec<Census>);

/// What the teacher's samples look like to the judge, label by label.
#[derive(Debug)]
pub struct Reference {
    samples_per_label: i64,
    moments: Vec<Moments>,
    /// The same of as many other teacher samples: how far the teacher is from itself.
    floor: Vec<Moments>,
    /// Per label, how many of the teacher's samples the judge recognises.
    recognised: Vec<u64>,
}

impl Count {
    pub fn share(&self) -> f64 {
        self.hits as f64 / self.n.max(1) as f64
    }
}

impl Census {
    pub fn n(&self) -> u64 {
        self.predicted.iter().sum()
    }

    /// Samples that the judge takes for `label`. At a forgotten label's census: the direct leak if `label` is the
    /// forgotten one, override conformity if it is the replacement. At a kept label's census: retained accuracy.
    pub fn count(&self, label: i64) -> Count {
        Count { hits: self.predicted[label as usize], n: self.n() }
    }

    /// Samples that the judge takes for any of `labels`.
    pub fn count_any(&self, labels: &[i64]) -> Count {
        Count { hits: labels.iter().map(|&label| self.count(label).hits).sum(), n: self.n() }
    }
}

impl Census {
    fn empty(label: i64, classes: i64) -> Self {
        let classes = classes as usize;
        Self { label, predicted: vec![0; classes], probability: vec![0.0; classes] }
    }

    /// Both sets of samples together.
    fn and(self, other: Self) -> Self {
        let (ours, theirs) = (self.n() as f64, other.n() as f64);
        let sum = |(a, b): (&u64, &u64)| a + b;
        let mean = |(a, b): (&f64, &f64)| (a * ours + b * theirs) / (ours + theirs).max(1.0);
        Self {
            label: self.label,
            predicted: self.predicted.iter().zip(&other.predicted).map(sum).collect(),
            probability: self.probability.iter().zip(&other.probability).map(mean).collect(),
        }
    }
}

impl Confusion {
    /// Asks `model` for `n` samples of every label.
    pub fn measure(model: &Denoiser, judge: &Judge, n: i64, seed: u64) -> Self {
        Self((0..model.config().classes()).map(|label| census(model, judge, label, n, seed)).collect())
    }

    #[cfg(test)]
    pub(crate) fn from_rows(rows: Vec<Census>) -> Self {
        Self(rows)
    }

    pub fn classes(&self) -> usize {
        self.0.len()
    }

    /// How likely the judge finds `label` in samples of `asked`, relative to the likeliest of `candidates`: 0 to 1.
    pub(crate) fn likeness(&self, asked: i64, label: i64, candidates: &[i64]) -> f64 {
        let probability = |label: i64| self.0[asked as usize].probability[label as usize];
        let most = candidates.iter().map(|&label| probability(label)).fold(f64::MIN_POSITIVE, f64::max);
        probability(label) / most
    }

    /// One census per label.
    pub fn rows(&self) -> &[Census] {
        &self.0
    }

    /// The one of `candidates` that the judge finds most like `label`: by mean probability, because a good judge hardly
    /// ever confuses two labels outright. A candidate whose own samples pass for `label` is left out if there is another:
    /// what it shows would go on looking like the label that it replaces.
    ///
    /// # Panics
    /// If there are no candidates.
    pub fn nearest(&self, label: i64, candidates: &[i64]) -> i64 {
        let probability = |asked: i64, seen: i64| self.0[asked as usize].probability[seen as usize];
        let distinct = |candidate: &&i64| probability(**candidate, label) <= MOST_ALIKE;
        let alike = |a: &&i64, b: &&i64| probability(label, **a).total_cmp(&probability(label, **b));
        let nearest =
            candidates.iter().filter(distinct).max_by(alike).or_else(|| candidates.iter().max_by(alike));
        *nearest.expect("at least one label is kept")
    }
}

/// Asks a one-step model for `n` samples under `label`, so many at a time that any number of them fits into memory.
pub fn census(model: &Denoiser, judge: &Judge, label: i64, n: i64, seed: u64) -> Census {
    let at_once = (AT_ONCE / model.config().image.pixels()).max(1);
    let part = |first: i64| {
        let n = at_once.min(n - first);
        let images = one_step_from(model, label, first, n, seed, Stream::MeasureLatent);
        count(label, &judge.look(&images).1)
    };
    let parts = (0..(n + at_once - 1) / at_once).map(|index| part(index * at_once));
    parts.reduce(Census::and).unwrap_or_else(|| Census::empty(label, model.config().classes()))
}

/// A census and the moments of the same samples' features, of other samples than those that are measured at the end.
pub(crate) fn check(model: &Denoiser, judge: &Judge, label: i64, n: i64, seed: u64) -> (Census, Moments) {
    let (features, probability) = judge.look(&one_step(model, label, n, seed, Stream::CheckLatent));
    (count(label, &probability), Moments::of(&features))
}

/// # Shapes
/// probability: [N, classes]
fn count(label: i64, probability: &Tensor) -> Census {
    let predicted = probability.argmax(1, false).bincount::<Tensor>(None, probability.size()[1]);
    let count = |class: i64| predicted.int64_value(&[class]) as u64;
    let mean = probability.mean_dim(0, false, Kind::Double);
    let classes = 0..probability.size()[1];
    Census {
        label,
        predicted: classes.clone().map(count).collect(),
        probability: classes.map(|class| mean.double_value(&[class])).collect(),
    }
}

/// Frechet distance between a one-step model's samples and the teacher's in the judge's features, over `labels`, with
/// equally many samples of both.
///
/// # Errors
/// [`Error::TooFewSamples`] without labels.
pub fn frechet(
    model: &Denoiser,
    judge: &Judge,
    reference: &Reference,
    labels: &[i64],
    seed: u64,
) -> Result<f64> {
    frechet_of(model, judge, reference, labels, reference.samples_per_label, seed)
}

/// As [`frechet`], with `per_label` samples of the model.
///
/// # Errors
/// [`Error::TooFewSamples`] without labels.
pub fn frechet_of(
    model: &Denoiser,
    judge: &Judge,
    reference: &Reference,
    labels: &[i64],
    per_label: i64,
    seed: u64,
) -> Result<f64> {
    let moments = |&label: &i64| {
        Moments::of(&judge.look(&one_step(model, label, per_label, seed, Stream::MeasureLatent)).0)
    };
    let ours: Vec<Moments> = labels.iter().map(moments).collect();
    distance_from_teacher(&ours, reference, labels)
}

/// As [`frechet`], of samples in `steps` steps: see [`refine`].
///
/// # Errors
/// [`Error::TooFewSamples`] without labels.
pub fn frechet_in_steps(
    model: &Denoiser,
    judge: &Judge,
    reference: &Reference,
    labels: &[i64],
    steps: u64,
    seed: u64,
) -> Result<f64> {
    let moments = |&label: &i64| {
        Moments::of(&judge.look(&in_steps(model, label, reference.samples_per_label, steps, seed)).0)
    };
    let ours: Vec<Moments> = labels.iter().map(moments).collect();
    distance_from_teacher(&ours, reference, labels)
}

/// As [`census`], of samples in `steps` steps: see [`refine`].
pub fn census_in_steps(model: &Denoiser, judge: &Judge, label: i64, n: i64, steps: u64, seed: u64) -> Census {
    count(label, &judge.look(&in_steps(model, label, n, steps, seed)).1)
}

/// Frechet distance of samples with these moments from the teacher's, over `labels`.
pub(crate) fn distance_from_teacher(ours: &[Moments], reference: &Reference, labels: &[i64]) -> Result<f64> {
    distance(ours, labels.iter().map(|&label| &reference.moments[label as usize]))
}

fn distance<'a>(
    ours: impl IntoIterator<Item = &'a Moments>,
    theirs: impl IntoIterator<Item = &'a Moments>,
) -> Result<f64> {
    match (Moments::union(ours), Moments::union(theirs)) {
        (Some(ours), Some(theirs)) => Ok(frechet::distance(&ours, &theirs)),
        _ => Err(Error::TooFewSamples { what: "the Frechet distance", least: 2, given: 0 }),
    }
}

impl Reference {
    /// Draws fresh teacher samples, other ones than the judge learnt from. Asks `stop` before those of each label, twice.
    ///
    /// # Errors
    /// If a setting is not valid, or `stop` said so.
    pub fn measure(
        teacher: &Denoiser,
        judge: &Judge,
        settings: &ReferenceSettings,
        seed: u64,
        stop: Stop<'_>,
    ) -> Result<Self> {
        settings.validate()?;
        let per_label = settings.samples_per_label;
        let draw = |stream| samples(teacher, per_label, settings.sampler_steps, seed, stream, stop);
        let (images, _) = draw(Stream::ReferenceLatent)?;
        let (features, probability) = judge.look(&images);
        let parts =
            features.split(per_label, 0).into_iter().zip(probability.argmax(1, false).split(per_label, 0));
        let (others, _) = draw(Stream::FloorLatent)?;
        let floor = judge.look(&others).0.split(per_label, 0).iter().map(Moments::of).collect();
        let mut reference =
            Self { samples_per_label: per_label, moments: Vec::new(), floor, recognised: Vec::new() };
        for (label, (features, predicted)) in (0_i64..).zip(parts) {
            reference.moments.push(Moments::of(&features));
            reference.recognised.push(predicted.eq(label).sum(Kind::Int64).int64_value(&[]) as u64);
        }
        Ok(reference)
    }

    /// Frechet distance of the teacher from itself over `labels`: no model can be expected below it.
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] without labels.
    pub fn floor(&self, labels: &[i64]) -> Result<f64> {
        distance(
            labels.iter().map(|&label| &self.floor[label as usize]),
            labels.iter().map(|&label| &self.moments[label as usize]),
        )
    }

    /// How many of the teacher's fresh samples of `label` the judge recognises.
    pub fn recognised(&self, label: i64) -> Count {
        Count { hits: self.recognised[label as usize], n: self.samples_per_label as u64 }
    }

    /// Whether it is about this model's labels and this judge's features.
    pub(crate) fn suits(&self, config: &ModelConfig, judge: &Judge) -> bool {
        let is_of = |moments: &Moments| moments.sum.size() == [judge.feature_count()];
        self.moments.len() as i64 == config.classes() && self.moments.iter().all(is_of)
    }

    /// Teacher samples behind each label's statistics.
    pub fn samples_per_label(&self) -> i64 {
        self.samples_per_label
    }

    /// Same statistics, same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let stack = |moments: &[Moments], part: fn(&Moments) -> &Tensor| {
            Tensor::stack(&moments.iter().map(part).collect::<Vec<_>>(), 0)
        };
        let recognised: Vec<i64> = self.recognised.iter().map(|&hits| hits as i64).collect();
        let tensors = [
            ("samples", Tensor::from_slice(&[self.samples_per_label])),
            ("recognised", Tensor::from_slice(&recognised)),
            ("sum", stack(&self.moments, |moments| &moments.sum)),
            ("outer", stack(&self.moments, |moments| &moments.outer)),
            ("floor.sum", stack(&self.floor, |moments| &moments.sum)),
            ("floor.outer", stack(&self.floor, |moments| &moments.outer)),
        ];
        weights::write(None, tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor)))
    }

    /// # Errors
    /// If the bytes are not reference statistics of this model and this judge.
    pub fn from_bytes(config: &ModelConfig, judge: &Judge, bytes: &[u8]) -> Result<Self> {
        let (classes, features) = (config.classes(), judge.feature_count());
        let expected = [
            Expected::new("samples", &[1], Kind::Int64),
            Expected::new("recognised", &[classes], Kind::Int64),
            Expected::new("sum", &[classes, features], Kind::Double),
            Expected::new("outer", &[classes, features, features], Kind::Double),
            Expected::new("floor.sum", &[classes, features], Kind::Double),
            Expected::new("floor.outer", &[classes, features, features], Kind::Double),
        ];
        let tensors = weights::read(FILE, bytes, &expected, tch::Device::Cpu)?;
        let samples_per_label = tensors[0].int64_value(&[0]);
        let recognised: Vec<i64> = (0..classes).map(|label| tensors[1].int64_value(&[label])).collect();
        if samples_per_label < 2 || recognised.iter().any(|hits| !(0..=samples_per_label).contains(hits)) {
            let problem = format!("{recognised:?} recognised of {samples_per_label} samples per label");
            return Err(Error::Weights { file: FILE, source: WeightsError::Header(problem) });
        }
        let moments = |first: usize| -> Vec<Moments> {
            let of = |label| Moments {
                n: samples_per_label,
                sum: tensors[first].get(label),
                outer: tensors[first + 1].get(label),
            };
            (0..classes).map(of).collect()
        };
        Ok(Self {
            samples_per_label,
            moments: moments(2),
            floor: moments(4),
            recognised: recognised.into_iter().map(|hits| hits as u64).collect(),
        })
    }
}

/// Samples of `label` that depend on the seed, the stream, the label and their index only: [n, pixels].
fn one_step(model: &Denoiser, label: i64, n: i64, seed: u64, stream: Stream) -> Tensor {
    one_step_from(model, label, 0, n, seed, stream)
}

/// Those numbered `first..first + n`.
fn one_step_from(model: &Denoiser, label: i64, first: i64, n: i64, seed: u64, stream: Stream) -> Tensor {
    let (pixels, device) = (model.config().image.pixels(), model.device());
    let place = ((label as u64) << 32) + first as u64;
    let latent = Noise::new(seed, stream).normal(place, n, pixels, device);
    generate(model, &latent, &Tensor::full([n], label, (Kind::Int64, device)))
}

/// The same latents as those of one step, and then noise of each further step's own.
fn in_steps(model: &Denoiser, label: i64, n: i64, steps: u64, seed: u64) -> Tensor {
    let (pixels, device) = (model.config().image.pixels(), model.device());
    let normal = |stream, step: u64| {
        let place = ((label as u64) << 32) + (step << 48);
        Noise::new(seed, stream).normal(place, n, pixels, device)
    };
    let noise: Vec<Tensor> = (1..steps).map(|step| normal(Stream::MeasureNoise, step)).collect();
    let label = Tensor::full([n], label, (Kind::Int64, device));
    refine(model, &normal(Stream::MeasureLatent, 0), &noise, &label)
}
