//! `probes`: is it forgotten, or only hidden? The digits' models beside each other, under every probe: one that has
//! forgotten nothing, one of each robustness, and one whose teacher never saw the label. With `--frontier` also models
//! that start more and more of the way to fresh weights.

mod frontier;
mod matrix;
mod models;
mod row;
mod summary;

use std::path::{Path, PathBuf};

use anyhow::Result;
use lethe_sfd::measure;
use lethe_sfd::probes::{self, Effort, Evidence, Trial};
use serde::{Deserialize, Serialize};

use self::models::{Contestant, Trained};
use self::row::{FewSteps, Model, Row};
use crate::data::Data;
use crate::studio::Studio;
use crate::workers::{Task, Workers};

/// Forgetting under attack
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The digits to forget, each alone
    #[arg(long, value_delimiter = ',', default_values_t = [3], value_parser = clap::value_parser!(i64).range(0..10))]
    labels: Vec<i64>,
    /// What the networks predict
    #[arg(long, value_enum, default_value_t = Form::Edm)]
    form: Form,
    /// Everything is made anew for each
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    seeds: Vec<u64>,
    /// Also start from weights of which these parts are fresh (the rest as in the level Harden)
    #[arg(long, value_delimiter = ',')]
    frontier: Vec<f64>,
    /// For so many steps each
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 2_000])]
    frontier_steps: Vec<u64>,
    /// Another model to compare: a level, and settings that replace its defaults, as in `suppress={"steps":500}`
    #[arg(long, value_parser = Contestant::parse)]
    also: Vec<Contestant>,
    /// A fiftieth of the training steps: shows that the bench works, and nothing else
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    workers: Workers,
}

/// In which form the models are, and which of them are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// EDM's preconditioning, and the three levels
    Edm,
    /// The noise of DDPM's timesteps, and the recipes that were published for it
    Epsilon,
}

/// Samples per kept label behind its accuracy.
const KEPT_SAMPLES: i64 = 400;

/// Steps in which the one-step generators are also tried.
const FEW_STEPS: [u64; 2] = [2, 4];

/// A model to make and to attack.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Exam {
    studio: Studio,
    label: i64,
    contestant: Contestant,
}

/// # Errors
/// If a training diverges, or a file cannot be written.
pub fn run(args: &Args, out: &Path) -> Result<()> {
    let kept = args.workers.keep()?;
    let studio = |&seed: &u64| Studio {
        data: args.form.data(),
        seed,
        fewer: if args.quick { 50 } else { 1 },
        cuda: false,
        kept: PathBuf::new(),
    };
    let studios: Vec<Studio> = args.seeds.iter().map(studio).collect();
    args.workers.run("results-prepare", kept.path(), &studios, |_, ()| Ok(()))?;
    let exams = exams(args, &studios);
    let mut rows: Vec<Vec<Row>> = vec![Vec::new(); exams.len()];
    args.workers.run("probes-rows", kept.path(), &exams, |index, found: Vec<Row>| {
        rows[index] = found;
        Ok(())
    })?;
    row::publish(out, args.form.file(), &args.labels, &rows.concat())
}

impl Form {
    fn data(self) -> Data {
        match self {
            Self::Edm => Data::Digits,
            Self::Epsilon => Data::DigitsEpsilon,
        }
    }

    fn contestants(self) -> Vec<Contestant> {
        match self {
            Self::Edm => Contestant::levels(),
            Self::Epsilon => Contestant::published(),
        }
    }

    /// Name of the files of the result.
    fn file(self) -> &'static str {
        match self {
            Self::Edm => "probes",
            Self::Epsilon => "probes-epsilon",
        }
    }
}

fn exams(args: &Args, studios: &[Studio]) -> Vec<Exam> {
    let frontier = Contestant::frontier(&args.frontier, &args.frontier_steps);
    let contestants = [args.form.contestants(), args.also.clone(), frontier].concat();
    let of = |studio: &Studio, label, contestant: &Contestant| Exam {
        studio: studio.clone(),
        label,
        contestant: contestant.clone(),
    };
    // The longest first, so that no worker is left with one at the end.
    let mut exams: Vec<Exam> = studios
        .iter()
        .flat_map(|studio| args.labels.iter().map(move |&label| (studio, label)))
        .flat_map(|(studio, label)| contestants.iter().map(move |contestant| of(studio, label, contestant)))
        .collect();
    exams.sort_by_key(|exam| exam.contestant != Contestant::NeverSaw);
    exams
}

/// Makes one model, tries everything on it and prints the rows.
///
/// # Errors
/// If a training diverges or a file cannot be used.
pub fn work(task: &Task) -> Result<()> {
    let (exam, kept): (Exam, PathBuf) = task.read()?;
    let studio = Studio { kept, ..exam.studio };
    println!("{}", serde_json::to_string(&Exam { studio, ..exam }.rows()?)?);
    Ok(())
}

impl Exam {
    fn rows(&self) -> Result<Vec<Row>> {
        let (studio, label, effort) = (&self.studio, self.label, Effort::default());
        let teacher = studio.teacher()?;
        let baseline = studio.baseline(&teacher)?;
        let bar = studio.bar(&teacher, &baseline)?;
        let attacker = studio.attacker(&teacher)?;
        let kept: Vec<i64> = (0..10).filter(|&other| other != label).collect();
        let evidence = Evidence::gather(&teacher, label, &kept, &effort, studio.seed)?;
        let Trained { model, seconds, steps } = self.contestant.train(studio, label)?;
        let trial = Trial {
            label,
            kept: &kept,
            judge: &bar.judge,
            attacker: Some(&attacker),
            radius: probes::radius(&baseline.generator)?,
            evidence: &evidence,
            effort: &effort,
            seed: studio.seed,
        };
        let mut findings = Vec::new();
        for &probe in self.contestant.probes() {
            findings.extend(trial.run(probe, &model)?);
        }
        let census = |&label: &i64| measure::census(&model, &bar.judge, label, KEPT_SAMPLES, studio.seed);
        let accuracy: f64 = kept.iter().map(|label| census(label).count(*label).share()).sum();
        let few_steps: Result<Vec<FewSteps>> = FEW_STEPS
            .map(|steps| {
                let (judge, seed) = (&bar.judge, studio.seed);
                let fd = measure::frechet_in_steps(&model, judge, &bar.reference, &kept, steps, seed)?;
                let census = measure::census_in_steps(&model, judge, label, effort.samples, steps, seed);
                Ok(FewSteps { steps, fd, leak: census.count(label).share() })
            })
            .into_iter()
            .collect();
        let of = Model {
            name: self.contestant.name(),
            fresh: self.contestant.fresh(),
            label,
            seed: studio.seed,
            fd: measure::frechet(&model, &bar.judge, &bar.reference, &kept, studio.seed)?,
            kept: accuracy / kept.len() as f64,
            few_steps: few_steps?,
            seconds,
            steps,
        };
        eprintln!("{} without {label}, seed {}: trained in {seconds:.0} s", of.name, of.seed);
        Ok(findings.into_iter().map(|finding| Row::new(&of, finding)).collect())
    }
}
