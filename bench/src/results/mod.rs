//! `results`: what forgetting comes to. Each label alone, and five one after the other in either order; with the settings
//! that are the defaults, and more samples than the gates ask for.

mod candidate;
mod row;
pub mod statistics;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, ensure};

use self::candidate::Candidate;
use self::row::Row;
use crate::data::Data;
use crate::studio::Studio;
use crate::workers::{Task, Workers};

/// What forgetting comes to
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Teacher, baseline, judge and forgetting are made anew for each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3])]
    seeds: Vec<u64>,
    /// Leave out the five requests that follow each other
    #[arg(long)]
    alone: bool,
    /// Only forget these labels at once, as in `--together 6,9`; may be given again
    #[arg(long)]
    together: Vec<Together>,
    /// A fiftieth of the training steps and of the samples: shows that the bench works, and nothing else
    #[arg(long)]
    quick: bool,
    /// Other settings of the forgetting, as JSON; those that are not named keep their defaults
    #[arg(long, default_value = "{}", value_parser = json)]
    settings: serde_json::Value,
    /// MNIST instead of the small digits: the directory with its files. A perceptron, or with `--cuda` a small U-Net
    #[arg(long)]
    mnist: Option<PathBuf>,
    /// Train and measure on the first GPU
    #[arg(long)]
    cuda: bool,
    #[command(flatten)]
    workers: Workers,
}

fn json(text: &str) -> serde_json::Result<serde_json::Value> {
    serde_json::from_str(text)
}

/// Labels that are forgotten in one run.
#[derive(Debug, Clone)]
struct Together(Vec<i64>);

impl FromStr for Together {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let labels = text.split(',').map(str::parse).collect::<Result<Vec<i64>, _>>()?;
        ensure!(labels.iter().all(|label| (0..10).contains(label)), "a label is a digit");
        Ok(Self(labels))
    }
}

/// Five requests, in the order in which they come; the other order is the reverse.
const REQUESTS: [i64; 5] = [0, 3, 5, 6, 9];

/// # Errors
/// If a training diverges, or a file cannot be written.
pub fn run(args: &Args, out: &Path) -> Result<()> {
    let kept = args.workers.keep()?;
    let studios: Vec<Studio> = args.seeds.iter().map(|&seed| studio(args, seed)).collect();
    let name = studios.first().map_or("results", |studio| match studio.data {
        Data::Digits | Data::DigitsEpsilon => "results",
        Data::Mnist(_) | Data::MnistUnet(_) => "mnist",
    });
    args.workers.run("results-prepare", kept.path(), &studios, |_, ()| Ok(()))?;
    let candidates: Vec<Candidate> = studios.iter().flat_map(|studio| candidates(args, studio)).collect();
    let mut rows: Vec<Option<Row>> = vec![None; candidates.len()];
    args.workers.run("results-row", kept.path(), &candidates, |index, row: Row| {
        eprintln!("{}, seed {}: {:.0} s", row.run, row.seed, row.seconds);
        rows[index] = Some(row);
        // A long run that is ended leaves what it has found.
        row::publish(out, name, &rows.iter().flatten().cloned().collect::<Vec<_>>())
    })?;
    println!("\n{}", row::markdown(&rows.into_iter().flatten().collect::<Vec<_>>()));
    Ok(())
}

/// Makes what all candidates of a seed start from.
///
/// # Errors
/// As [`Studio::prepare`].
pub fn prepare(task: &Task) -> Result<()> {
    let (studio, kept) = task.read()?;
    Studio { kept, ..studio }.prepare()?;
    println!("null");
    Ok(())
}

/// Makes and measures one candidate.
///
/// # Errors
/// As [`Candidate::measure`].
pub fn work(task: &Task) -> Result<()> {
    let (candidate, kept): (Candidate, PathBuf) = task.read()?;
    let studio = Studio { kept, ..candidate.studio.clone() };
    println!("{}", serde_json::to_string(&Candidate { studio, ..candidate }.measure()?)?);
    Ok(())
}

fn studio(args: &Args, seed: u64) -> Studio {
    Studio {
        data: args.mnist.clone().map_or(Data::Digits, if args.cuda { Data::MnistUnet } else { Data::Mnist }),
        seed,
        fewer: if args.quick { 50 } else { 1 },
        cuda: args.cuda,
        kept: PathBuf::new(),
    }
}

/// Each label alone; the same five at once; the requests in both orders, each with everything before it; and each going on
/// from the last candidate instead of the baseline.
fn candidates(args: &Args, studio: &Studio) -> Vec<Candidate> {
    let candidate = |run: String, labels: &[i64], seed| Candidate {
        studio: studio.clone(),
        run,
        labels: labels.to_vec(),
        going_on: false,
        seed,
        settings: args.settings.clone(),
    };
    let seed = studio.seed;
    if !args.together.is_empty() {
        return args
            .together
            .iter()
            .map(|Together(labels)| candidate("together".into(), labels, seed))
            .collect();
    }
    let mut all: Vec<_> = (0..10).map(|label| candidate(row::ALONE.into(), &[label], seed)).collect();
    if args.alone {
        return all;
    }
    all.push(candidate(row::AT_ONCE.into(), &REQUESTS, seed));
    let reversed: Vec<i64> = REQUESTS.into_iter().rev().collect();
    for (number, (order, requests)) in (0..).zip([("in order", &REQUESTS[..]), ("in reverse", &reversed[..])])
    {
        for count in 2..=requests.len() {
            let run = format!("request {count} of 5, {order}");
            all.push(candidate(run, &requests[..count], run_seed(seed, number, count)));
        }
        let run = format!("{}, {order}{}", row::LAST, row::GOING_ON);
        let going_on = candidate(run, requests, run_seed(seed, 2 + number, 1));
        all.push(Candidate { going_on: true, ..going_on });
    }
    all
}

/// As in a cluster, every run that follows another has a seed of its own. Who goes on adds one for each further request.
fn run_seed(studio: u64, order: u64, count: usize) -> u64 {
    studio.wrapping_mul(1000).wrapping_add(100 * (order + 1) + count as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn every_run_that_follows_another_has_a_seed_of_its_own() {
        let args = Command::parse_from(["results"]).args;
        let all = args.seeds.iter().flat_map(|&seed| candidates(&args, &studio(&args, seed)));
        let seeds: Vec<u64> = all
            .filter(|candidate| candidate.run.starts_with("request"))
            .flat_map(|Candidate { seed, going_on, labels, .. }| {
                seed..seed + if going_on { labels.len() as u64 } else { 1 }
            })
            .collect();
        // Four that start again and five that go on, in two orders, for three seeds.
        assert_eq!((seeds.len(), seeds.iter().collect::<BTreeSet<_>>().len()), (54, 54));
        assert!(args.seeds.iter().all(|seed| !seeds.contains(seed)));
    }
}
