//! `prepare`: once per teacher. The one-step baseline, the judge, and the statistics to compare with.

use std::{cell::Cell, time::Instant};

use lethe_api::contract::{BundleKind, Count, PrepareRecord, PrepareTask, Quality};
use lethe_sfd::{
    Baseline, Confusion, Denoiser, DistilSettings, Distillation, Judge, JudgeSettings, Reference,
    ReferenceSettings, generator, measure,
    noise::{Noise, Stream},
    sampler,
};
use tch::{Kind, Tensor};

use crate::{
    curves::Curves,
    failure::{Failed, Result},
    job::Job,
    model::{self, Model},
    runtime,
    train::{self, Run, Saving},
    watch::Watch,
};

/// Baseline samples per label behind the confusion matrix.
pub(crate) const CONFUSION_SAMPLES: i64 = 400;
/// Least share of a label's teacher samples that the judge must recognise. A good judge of the digits recognises 98 %
/// of the hardest; below this, a leak of half a per cent would drown in the judge's own errors.
const LEAST_RECOGNISED: f64 = 0.9;
/// Images per label that the two samplers are timed on, side by side.
const TIMED_SAMPLES: i64 = 40;

pub(crate) fn run(job: &mut Job<'_>, task: &PrepareTask) -> Result<PrepareRecord> {
    job.watch.begin("import", 0, 1);
    let bundle = job.artifacts.import(&task.base.uri, &task.base.digest, BundleKind::Teacher);
    let bundle = bundle.map_err(|failed| failed.of("the base artifact"))?;
    let (model, teacher) = model::denoiser(&bundle, job.device)?;

    let (baseline, curves) = distil(job, task, &teacher)?;
    let (judge, reference) = learn_to_measure(job, &teacher)?;
    check_labels(&model.model.labels, |label| reference.recognised(label))?;
    job.watch.check()?;

    job.watch.begin("measure", 0, 1);
    let measured = measure(job, &baseline.generator, &judge, &reference)?;
    speeds(job, &teacher, &baseline.generator);
    let description = Model::new(&model.model, Vec::new()).to_bytes()?;
    let store = |kind, weights| job.artifacts.put_bundle(kind, weights, description.clone());
    Ok(PrepareRecord {
        teacher: task.base.digest.clone(),
        labels: model.model.labels.clone(),
        baseline: store(BundleKind::Generator, baseline.generator.to_bytes())?,
        distillation: store(BundleKind::Distillation, baseline.fake_score.to_bytes())?,
        judge: store(BundleKind::Judge, judge.to_bytes())?,
        reference: store(BundleKind::Reference, reference.to_bytes())?,
        judge_accuracy: measured.judge_accuracy,
        baseline_accuracy: measured.accuracy,
        confusion: measured.confusion,
        quality: measured.quality,
        curves: Some(job.artifacts.put_blob(curves.reproducible())?),
    })
}

/// What the judge says about the teacher and the baseline.
struct Measured {
    /// Teacher samples of all labels, fresh to the judge, judged as what they were drawn for.
    judge_accuracy: Count,
    /// Baseline samples per label, judged as what they were drawn for.
    accuracy: Vec<Count>,
    confusion: Vec<Vec<f64>>,
    quality: Quality,
}

/// Stage 1, from where an earlier pod was interrupted.
fn distil(job: &mut Job<'_>, task: &PrepareTask, teacher: &Denoiser) -> Result<(Baseline, Curves)> {
    let mut settings = DistilSettings::default();
    settings.steps = task.steps.map_or(settings.steps, u64::from);
    settings.optimiser.precision = runtime::precision(job.plan.precision);
    let mut distillation = Distillation::new(teacher.duplicate(), settings, job.plan.seed)?;
    distillation.share_with(&job.others);
    let curves = train::continue_from(&job.checkpoint, |state| distillation.resume(state))?;
    let saving = Saving { to: &job.checkpoint, every: job.checkpoint_every };
    let (figures, watch) = (&mut *job.figures, job.watch);
    let run = Run { training: &mut distillation, curves, watch, saving };
    let curves = figures.time("distilSeconds", || run.finish(|_| Vec::new()))?;
    Ok((distillation.finish()?, curves))
}

/// The judge, and what the teacher looks like to it. Interrupted, it is done again from the start: it takes seconds.
fn learn_to_measure(job: &mut Job<'_>, teacher: &Denoiser) -> Result<(Judge, Reference)> {
    let (watch, seed, settings) = (job.watch, job.plan.seed, ReferenceSettings::default());
    let (labels, learning) = (teacher.config().classes() as u64, JudgeSettings::of(teacher.config()));
    let pieces = Pieces::new(watch, [("judge samples", labels), ("judge", learning.steps)]);
    let judge = job.figures.time("judgeSeconds", || {
        Judge::train(teacher, &learning, settings.sampler_steps, seed, &|| pieces.is_stopped())
    });
    let judge = judge.map_err(|error| Failed::from(error).of("training the judge"))?;
    // The teacher's samples, and others of the same to compare them with.
    let pieces = Pieces::new(watch, [("reference", labels), ("floor", labels)]);
    let reference = job.figures.time("referenceSeconds", || {
        Reference::measure(teacher, &judge, &settings, seed, &|| pieces.is_stopped())
    });
    let reference = reference.map_err(|error| Failed::from(error).of("measuring the teacher"))?;
    Ok((judge, reference))
}

/// Work in two stages of so many pieces. Before each piece it is asked whether to go on, which tells how far it is.
struct Pieces<'a> {
    watch: &'a Watch,
    stages: [(&'static str, u64); 2],
    /// How often it was asked.
    begun: Cell<u64>,
}

impl<'a> Pieces<'a> {
    fn new(watch: &'a Watch, stages: [(&'static str, u64); 2]) -> Self {
        watch.begin(stages[0].0, 0, stages[0].1);
        Self { watch, stages, begun: Cell::new(0) }
    }

    fn is_stopped(&self) -> bool {
        let done = self.begun.replace(self.begun.get() + 1);
        let [(_, first), (stage, total)] = self.stages;
        match done.checked_sub(first) {
            None => self.watch.at(done),
            Some(0) => {
                self.watch.at(first);
                self.watch.begin(stage, 0, total);
            }
            Some(done) => self.watch.at(done),
        }
        self.watch.is_stopped()
    }
}

impl Drop for Pieces<'_> {
    /// The last piece is done, or nobody looks any more.
    fn drop(&mut self) {
        let [(_, first), (_, second)] = self.stages;
        if self.begun.get() == first + second {
            self.watch.at(second);
        }
    }
}

/// Refuses a teacher with a label that the judge does not recognise: whether it was forgotten, or kept, could not be
/// measured, however well the judge knows the others.
fn check_labels(labels: &[String], recognised: impl Fn(i64) -> measure::Count) -> Result<()> {
    for (index, name) in (0..).zip(labels) {
        let count = recognised(index);
        if count.share() < LEAST_RECOGNISED {
            let (measure::Count { hits, n }, share) = (count, 100.0 * count.share());
            let least = 100.0 * LEAST_RECOGNISED;
            return Err(Failed::bad_artifact(format!(
                "the base artifact: the judge recognises {hits} of {n} teacher samples of label {name:?} \
                 ({share:.1} %, at least {least} % are needed): either the teacher does not draw it, or it looks like \
                 another label; teach it longer, or make the two labels one"
            )));
        }
    }
    Ok(())
}

fn measure(job: &Job<'_>, baseline: &Denoiser, judge: &Judge, reference: &Reference) -> Result<Measured> {
    let seed = job.plan.seed;
    let labels: Vec<i64> = (0..baseline.config().classes()).collect();
    let recognised = labels.iter().map(|&label| count(reference.recognised(label)));
    let judge_accuracy = recognised.reduce(|a, b| Count { hits: a.hits + b.hits, n: a.n + b.n });
    let confusion = Confusion::measure(baseline, judge, CONFUSION_SAMPLES, seed);
    let distance = measure::frechet(baseline, judge, reference, &labels, seed)?;
    let n = (reference.samples_per_label() * labels.len() as i64) as u64;
    // Nothing is forgotten yet: the baseline is the candidate.
    let quality = Quality { candidate: distance, baseline: distance, floor: reference.floor(&labels)?, n };
    Ok(Measured {
        judge_accuracy: judge_accuracy.unwrap_or_default(),
        accuracy: confusion.rows().iter().map(|row| count(row.count(row.label))).collect(),
        confusion: confusion.rows().iter().map(|row| six_decimals(&row.probability)).collect(),
        quality,
    })
}

/// More than the samples can tell; a thousand labels make a million numbers of these.
fn six_decimals(probabilities: &[f64]) -> Vec<f64> {
    probabilities.iter().map(|probability| (probability * 1e6).round() / 1e6).collect()
}

/// Times the teacher's sampler beside the one-step model, on the same labels and threads.
fn speeds(job: &mut Job<'_>, teacher: &Denoiser, baseline: &Denoiser) {
    let (classes, device) = (teacher.config().classes(), job.device);
    let sampler_steps = ReferenceSettings::default().sampler_steps;
    let n = classes * TIMED_SAMPLES;
    let latent =
        Noise::new(job.plan.seed, Stream::ServeLatent).normal(0, n, teacher.config().image.pixels(), device);
    let label = Tensor::arange(classes, (Kind::Int64, device)).repeat([TIMED_SAMPLES]);
    let mut timed = |name: &str, sample: &dyn Fn() -> Tensor| {
        // The first time pays for the warm-up. Reading a number back waits for the device.
        let run = || sample().sum(Kind::Double).double_value(&[]);
        run();
        let began = Instant::now();
        run();
        job.figures.note(name, n as f64 / began.elapsed().as_secs_f64());
    };
    timed("teacherImagesPerSecond", &|| sampler::heun(teacher, &latent, &label, sampler_steps));
    timed("oneStepImagesPerSecond", &|| generator::generate(baseline, &latent, &label));
}

/// The contract's word for a count.
pub(crate) fn count(count: measure::Count) -> Count {
    Count { hits: count.hits, n: count.n }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_api::contract::Failure;

    #[test]
    fn every_piece_of_the_judge_is_seen_in_the_progress() {
        let watch = Watch::new("run");
        let pieces = Pieces::new(&watch, [("samples", 2), ("judge", 3)]);
        let seen = || {
            let progress = watch.progress();
            (progress.stage, progress.step, progress.total)
        };
        let expected =
            [("samples", 0, 2), ("samples", 1, 2), ("judge", 0, 3), ("judge", 1, 3), ("judge", 2, 3)];
        for (stage, step, total) in expected {
            assert!(!pieces.is_stopped());
            assert_eq!(seen(), (stage.into(), step, total));
        }
        watch.stop();
        assert!(pieces.is_stopped());
        drop(pieces);
        assert_eq!(seen(), ("judge".into(), 3, 3));
    }

    #[test]
    fn one_label_that_the_judge_does_not_recognise_is_refused_by_name() {
        let labels = ["zero".to_owned(), "one".to_owned(), "two".to_owned()];
        let check =
            |hits: [u64; 3]| check_labels(&labels, |i| measure::Count { hits: hits[i as usize], n: 400 });
        check([400, 360, 400]).unwrap();
        // Nine labels in ten at 100 % would still pass a bound on the mean.
        let failed = check([400, 359, 400]).unwrap_err();
        assert_eq!(failed.failure, Failure::BadArtifact);
        assert!(
            failed.message.contains("359 of 400") && failed.message.contains("\"one\" (89.8 %"),
            "{failed}"
        );
    }
}
