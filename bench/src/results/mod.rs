//! `results`: what forgetting comes to on the digits. Each digit alone, and five one after the other in either order; with
//! the settings that are the defaults, and more samples than the gates ask for.

mod row;
mod statistics;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use lethe_sfd::probes::{fidelity_of, teacher_samples};
use lethe_sfd::{
    Baseline, Concept, Confusion, Denoiser, ForgetSettings, Forgetting, Judge, JudgeSettings, Override,
    Reference, ReferenceSettings, Replacement, Stop, Target, Training, measure,
};
use tch::Tensor;

use self::row::{Forgotten, Row};
use crate::digits::{distil, finish, teach};

/// What forgetting comes to
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Teacher, baseline, judge and forgetting are made anew for each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3])]
    seeds: Vec<u64>,
    /// Leave out the five requests that follow each other
    #[arg(long)]
    alone: bool,
    /// A fiftieth of the training steps and of the samples: shows that the bench works, and nothing else
    #[arg(long)]
    quick: bool,
}

/// Five requests, in the order in which they come; the other order is the reverse.
const REQUESTS: [i64; 5] = [0, 3, 5, 6, 9];
/// Samples behind a leak, an accuracy per label, and precision and recall per label.
const LEAK_SAMPLES: i64 = 10_000;
const KEPT_SAMPLES: i64 = 1_000;
const FIDELITY_SAMPLES: i64 = 150;
const CONFUSION_SAMPLES: i64 = 400;
/// Nobody stops a bench but by ending it.
const GO_ON: Stop<'_> = &|| false;

/// # Errors
/// If a training diverges, or a file cannot be written.
pub fn run(args: &Args, out: &Path) -> Result<()> {
    let mut rows = Vec::new();
    for &seed in &args.seeds {
        let bench = Bench::prepare(seed, if args.quick { 50 } else { 1 })?;
        for label in 0..10 {
            rows.push(bench.forget("alone".into(), &[label], seed)?);
            // A long run that is ended leaves what it has found.
            row::publish(out, &rows)?;
        }
        if !args.alone {
            rows.extend(bench.sequences()?);
            row::publish(out, &rows)?;
        }
    }
    Ok(())
}

/// Everything that forgetting and measuring start from, for one seed.
struct Bench {
    teacher: Denoiser,
    baseline: Baseline,
    judge: Judge,
    reference: Reference,
    confusion: Confusion,
    seed: u64,
    /// Steps and samples are fewer by this factor.
    fewer: u64,
}

impl Bench {
    fn prepare(seed: u64, fewer: u64) -> Result<Self> {
        let (judging, drawing) = (JudgeSettings::default(), ReferenceSettings::default());
        let teacher = teach(None, seed, fewer)?;
        let baseline = distil(&teacher, seed, fewer)?;
        let judge = Judge::train(&teacher, &judging, drawing.sampler_steps, seed, GO_ON)?;
        let reference = Reference::measure(&teacher, &judge, &drawing, seed, GO_ON)?;
        let confusion = Confusion::measure(&baseline.generator, &judge, CONFUSION_SAMPLES, seed);
        Ok(Self { teacher, baseline, judge, reference, confusion, seed, fewer })
    }

    /// The requests in both orders, each with everything before it, and the same five at once.
    fn sequences(&self) -> Result<Vec<Row>> {
        let mut rows = vec![self.forget("five at once".into(), &REQUESTS, self.seed)?];
        let reversed: Vec<i64> = REQUESTS.into_iter().rev().collect();
        for (order, requests, first) in [("in order", &REQUESTS[..], 100), ("in reverse", &reversed[..], 200)]
        {
            for count in 2..=requests.len() {
                let run = format!("request {count} of 5, {order}");
                // As in a cluster, every run has a seed of its own.
                rows.push(self.forget(run, &requests[..count], self.seed + first + count as u64)?);
            }
        }
        Ok(rows)
    }

    fn forget(&self, run: String, labels: &[i64], seed: u64) -> Result<Row> {
        let targets: Vec<Target> =
            labels.iter().map(|&label| Target { label, replacement: Override::Nearest }).collect();
        let concept = Concept::new(10, &targets, Some(&self.confusion))?;
        let mut settings = ForgetSettings::default();
        settings.steps = settings.steps.div_ceil(self.fewer);
        let began = Instant::now();
        let (teacher, start) = (self.teacher.duplicate(), self.baseline.duplicate());
        let mut forgetting = Forgetting::new(teacher, start, concept.clone(), settings, seed)?;
        finish(&mut forgetting)?;
        let (steps, seconds) = (forgetting.step(), began.elapsed().as_secs_f64());
        let candidate = forgetting.finish()?;
        eprintln!("{run} {labels:?}: {seconds:.0} s");
        self.measure(&candidate, &concept, Row { run, seed, steps, seconds, ..Row::default() })
    }

    fn measure(&self, candidate: &Denoiser, concept: &Concept, row: Row) -> Result<Row> {
        let (judge, kept) = (&self.judge, concept.kept());
        let n = self.samples(KEPT_SAMPLES);
        let share =
            |&label: &i64| measure::census(candidate, judge, label, n, self.seed).count(label).share();
        let recognised = |&label: &i64| self.reference.recognised(label).share();
        let mean = |shares: Vec<f64>| shares.iter().sum::<f64>() / shares.len() as f64;
        let accuracy = mean(kept.iter().map(share).collect());
        let distance = |model| measure::frechet(model, judge, &self.reference, kept, self.seed);
        let samples: Vec<Tensor> =
            kept.iter().map(|&label| self.teacher_samples(label, 1 << 30, FIDELITY_SAMPLES)).collect();
        let real = Tensor::cat(&samples, 0);
        let fidelity =
            |model| fidelity_of(model, judge, &real, kept, self.samples(FIDELITY_SAMPLES), self.seed);
        let (after, before) = (fidelity(candidate)?, fidelity(&self.baseline.generator)?);
        Ok(Row {
            forgotten: concept
                .forgotten()
                .iter()
                .map(|&(label, by)| self.leak(candidate, label, by))
                .collect(),
            kept: accuracy,
            kept_lost: mean(kept.iter().map(recognised).collect()) - accuracy,
            distance: distance(candidate)?,
            baseline_distance: distance(&self.baseline.generator)?,
            precision_gained: after.precision.share() - before.precision.share(),
            recall_gained: after.recall.share() - before.recall.share(),
            ..row
        })
    }

    fn leak(&self, candidate: &Denoiser, label: i64, replacement: Replacement) -> Forgotten {
        let Replacement::Label(instead) = replacement else { unreachable!("nearest is one label") };
        let n = self.samples(LEAK_SAMPLES);
        let census = measure::census(candidate, &self.judge, label, n, self.seed);
        let honest = self.judge.look(&self.teacher_samples(instead, 0, LEAK_SAMPLES)).1.argmax(1, false);
        let base_hits = honest.eq(label).sum(tch::Kind::Int64).int64_value(&[]) as u64;
        let conformity = census.count(instead).share();
        Forgotten::new(label, instead, census.count(label).hits, base_hits, n as u64, conformity)
    }

    fn teacher_samples(&self, label: i64, first: u64, n: i64) -> Tensor {
        let steps = ReferenceSettings::default().sampler_steps;
        teacher_samples(&self.teacher, label, first, self.samples(n), steps, self.seed)
    }

    fn samples(&self, n: i64) -> i64 {
        (n / self.fewer as i64).max(10)
    }
}
