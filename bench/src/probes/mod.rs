//! `probes`: is it forgotten, or only hidden? The digits' models beside each other, under every probe: one that has
//! forgotten nothing, one of each robustness, one that starts from nothing, and one whose teacher never saw the label.

mod matrix;
mod models;
mod row;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use lethe_sfd::probes::{Effort, Evidence, Finding, Level, Probe, Trial, second_judge};
use lethe_sfd::{Judge, JudgeSettings, Reference, ReferenceSettings, Stop, measure};

use self::models::{Contestant, Studio};
use self::row::Row;

/// Forgetting under attack
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The digit to forget
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i64).range(0..10))]
    label: i64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A fiftieth of the training steps: shows that the bench works, and nothing else
    #[arg(long)]
    quick: bool,
}

/// Samples per kept label behind its accuracy.
const KEPT_SAMPLES: i64 = 400;
/// Nobody stops a bench but by ending it.
const GO_ON: Stop<'_> = &|| false;

/// # Errors
/// If a training diverges, or a file cannot be written.
pub fn run(args: &Args, out: &Path) -> Result<()> {
    let studio = Studio::new(args.label, args.seed, if args.quick { 50 } else { 1 })?;
    let bench = Bench::prepare(&studio)?;
    let mut rows = Vec::new();
    for contestant in Contestant::ALL {
        rows.extend(bench.examine(contestant)?);
    }
    row::publish(out, args.label, &rows)
}

/// What every model is measured with.
struct Bench<'a> {
    studio: &'a Studio,
    judge: Judge,
    attacker: Judge,
    reference: Reference,
    evidence: Evidence,
    effort: Effort,
    kept: Vec<i64>,
}

impl<'a> Bench<'a> {
    fn prepare(studio: &'a Studio) -> Result<Self> {
        let (teacher, seed, effort) = (&studio.teacher, studio.seed, Effort::default());
        let (judging, drawing) = (JudgeSettings::default(), ReferenceSettings::default());
        let judge = Judge::train(teacher, &judging, drawing.sampler_steps, seed, GO_ON)?;
        let kept: Vec<i64> = (0..10).filter(|&label| label != studio.label).collect();
        Ok(Self {
            attacker: second_judge(teacher, &judging, drawing.sampler_steps, seed, GO_ON)?,
            reference: Reference::measure(teacher, &judge, &drawing, seed, GO_ON)?,
            evidence: Evidence::gather(teacher, studio.label, &kept, &effort, seed)?,
            studio,
            judge,
            effort,
            kept,
        })
    }

    /// Trains the model and tries everything on it.
    fn examine(&self, contestant: Contestant) -> Result<Vec<Row>> {
        let (seed, kept) = (self.studio.seed, &self.kept[..]);
        let began = Instant::now();
        let model = self.studio.train(contestant, &self.judge)?;
        let training_seconds = began.elapsed().as_secs_f64();
        eprintln!("{}: trained in {training_seconds:.0} s", contestant.name());
        let trial = Trial {
            label: self.studio.label,
            kept,
            judge: &self.judge,
            attacker: Some(&self.attacker),
            evidence: &self.evidence,
            effort: &self.effort,
            seed,
        };
        let findings = Probe::of(Level::Attack).iter().map(|&probe| {
            let began = Instant::now();
            let found = trial.run(probe, &model)?;
            eprintln!("  {} in {:.1} s", row::name(probe), began.elapsed().as_secs_f64());
            Ok(found)
        });
        let findings: Vec<Vec<Finding>> = findings.collect::<Result<_>>()?;
        let census = |&label: &i64| measure::census(&model, &self.judge, label, KEPT_SAMPLES, seed);
        let accuracy: f64 = kept.iter().map(|label| census(label).count(*label).share()).sum();
        let frechet = measure::frechet(&model, &self.judge, &self.reference, kept, seed)?;
        let row =
            |finding| Row::new(contestant, finding, frechet, accuracy / kept.len() as f64, training_seconds);
        Ok(findings.into_iter().flatten().map(row).collect())
    }
}
