//! Seconds from the warm baseline to a candidate that passes the gates of `examples/policy.yaml` that need samples, beside
//! the plain loop at its fixed length.
//!
//! Ours looks at what it has from time to time and ends when that is good. What a candidate is judged by afterwards are
//! other samples than those that it was looked at with. One that does not pass costs all steps on top.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use lethe_sfd::{
    Concept, Denoiser, EarlyStop, ForgetSettings, Forgetting, Measures, Override, Replacement, Target,
    Training, measure,
};
use serde_json::json;

use super::Bench;
use super::row::Row;
use super::start::{self, Net};
use super::steps::number;
use super::work::processor_seconds;
use super::worker::Worker;
use crate::data::Data;
use crate::results::statistics::upper_bound;
use crate::studio::{Bar, Studio, finish};

const SEED: u64 = 1;
/// Digits that are forgotten, each alone.
const FORGOTTEN: [&str; 3] = ["0", "3", "8"];
/// The gates of `examples/policy.yaml`, and the samples that they ask for.
const MOST_LEAK: f64 = 0.005;
const LEAST_OVERRIDE: f64 = 0.95;
const MOST_ACCURACY_LOST: f64 = 0.015;
const WORST_LABEL_FACTOR: f64 = 4.0;
const MOST_DISTANCE: f64 = 1.5;
const CONFIDENCE: f64 = 0.95;
const LEAK_SAMPLES: i64 = 3000;
const KEPT_SAMPLES: i64 = 200;

/// # Errors
/// If a program fails.
pub fn measure(bench: &Bench<'_>) -> Result<Row> {
    let (name, threads) = ("time-to-gates", 1);
    let kept = bench.args.kept.clone().unwrap_or_else(|| bench.work.join("kept"));
    let (kept, dir) = (bench.text(&kept)?, bench.text(&bench.work.join("gates"))?);
    // Made first, or taken from where they are kept: the baseline is warm.
    bench.ours(&["prepare", &kept], threads)?;
    let (mut ours, mut peer, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for label in FORGOTTEN {
        let found = bench.ours(&["gates", &kept, label, &dir], threads)?;
        ours.push(number(&found, "processorSeconds")?);
        steps.push(number(&found, "steps")?.to_string());
        eprintln!("{name}: {label}: {found}");
        let mut plain = Worker::start(&mut bench.peer_program(&["steps", &dir], threads)?)?;
        let (warm, block) = Net::Mlp.steps();
        plain.work(warm)?;
        let timed = 5 * block;
        let each = number(&plain.work(timed)?, "processorSeconds")? / timed as f64;
        peer.push(each * ForgetSettings::default().steps as f64);
    }
    let mut row = Row::of_pairs(name, ours, peer, "CPU s", threads);
    row.what = format!("digits {}; steps of ours: {}", FORGOTTEN.join(", "), steps.join(", "));
    Ok(row)
}

/// Makes the models that [`forget`] starts from, if they are not kept.
///
/// # Errors
/// As a studio.
pub fn prepare(kept: &Path) -> Result<()> {
    let studio = studio(kept);
    let teacher = studio.teacher()?;
    studio.bar(&teacher, &studio.baseline(&teacher)?).map(drop)
}

fn studio(kept: &Path) -> Studio {
    Studio { data: Data::Digits, seed: SEED, fewer: 1, cuda: false, kept: kept.to_owned() }
}

/// Has `label` forgotten until it is good, and writes what the peer needs to do the same into `dir`.
///
/// # Errors
/// If a training diverges or a file cannot be used.
pub fn forget(kept: &Path, label: i64, dir: &Path) -> Result<serde_json::Value> {
    let studio = studio(kept);
    let teacher = studio.teacher()?;
    let baseline = studio.baseline(&teacher)?;
    let bar = studio.bar(&teacher, &baseline)?;
    let target = Target { label, replacement: Override::Nearest };
    let concept = Concept::new(10, &[target], Some(&bar.confusion))?;
    start::leave(dir, &teacher, &baseline, &ForgetSettings::default(), &concept)?;
    let before = baseline.generator.duplicate();

    let (began, worked) = (Instant::now(), processor_seconds());
    let looking = ForgetSettings { early_stop: Some(EarlyStop::default()), ..ForgetSettings::default() };
    let mut steps = 0;
    let mut train = |settings| -> Result<Denoiser> {
        let Bar { judge, reference, .. } = studio.bar(&teacher, &baseline)?;
        let measures = Measures { judge, reference: Some(reference) };
        let (teacher, baseline) = (teacher.duplicate(), baseline.duplicate());
        let mut forgetting =
            Forgetting::with_measures(teacher, baseline, concept.clone(), settings, SEED, measures)?;
        finish(&mut forgetting)?;
        steps += forgetting.step();
        Ok(forgetting.finish()?)
    };
    let candidate = train(looking)?;
    let mut passed = passes(&candidate, &before, &bar, &concept)?;
    if !passed {
        passed = passes(&train(ForgetSettings::default())?, &before, &bar, &concept)?;
    }
    let (seconds, worked) = (began.elapsed().as_secs_f64(), processor_seconds() - worked);
    ensure!(passed, "digit {label}: not even all steps come to a candidate that passes");
    Ok(json!({ "seconds": seconds, "processorSeconds": worked, "steps": steps }))
}

/// Whether the gates that need samples pass.
fn passes(candidate: &Denoiser, baseline: &Denoiser, bar: &Bar, concept: &Concept) -> Result<bool> {
    let Bar { judge, reference, .. } = bar;
    let &[(label, Replacement::Label(instead))] = concept.forgotten() else {
        unreachable!("one label is forgotten, and what is nearest to it is one label")
    };
    let census = measure::census(candidate, judge, label, LEAK_SAMPLES, SEED);
    let leak = upper_bound(census.count(label).hits, LEAK_SAMPLES as u64, CONFIDENCE);
    let kept = concept.kept();
    let share = |model, label| measure::census(model, judge, label, KEPT_SAMPLES, SEED).count(label).share();
    let lost: Vec<f64> = kept.iter().map(|&label| share(baseline, label) - share(candidate, label)).collect();
    let worst = lost.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let distance = |model: &Denoiser| measure::frechet(model, judge, reference, kept, SEED);
    Ok(leak <= MOST_LEAK
        && census.count(instead).share() >= LEAST_OVERRIDE
        && lost.iter().sum::<f64>() / lost.len() as f64 <= MOST_ACCURACY_LOST
        && worst <= WORST_LABEL_FACTOR * MOST_ACCURACY_LOST
        && distance(candidate)? <= MOST_DISTANCE * distance(baseline)?)
}
