//! What early stopping saves and what it costs: digits forgotten alone, with all steps and with the first state that is
//! good twice in a row, from one prepared baseline.
//!
//! `cargo run --release -p lethe-sfd --example early_stop -- [DIGIT]...`

#[path = "../tests/support/mod.rs"]
mod support;

use lethe_sfd::{
    Concept, Confusion, Denoiser, Device, EarlyStop, ForgetSettings, Forgetting, Judge, Measures, Override,
    Reference, Replacement, Target, Training, measure,
};
use std::time::Instant;
use support::{Prepared, SAMPLES, config, forget, kept_accuracy, run};

/// Of the teacher, the baseline, the judge and the forgetting.
const SEED: u64 = 1;

fn main() {
    let labels: Vec<i64> = std::env::args().skip(1).map(|label| label.parse().expect("a digit")).collect();
    let labels = if labels.is_empty() { (0..10).collect() } else { labels };
    let prepared = Prepared::new(SEED);
    let Prepared { judge, baseline, .. } = &prepared;
    let confusion = Confusion::measure(&baseline.generator, judge, 400, SEED);
    println!("| forgotten | steps | s | leak, of {SAMPLES} | override | kept | FD ratio |");
    println!("|---|---|---|---|---|---|---|");
    for label in labels {
        let target = Target { label, replacement: Override::Nearest };
        let concept = Concept::new(10, &[target], Some(&confusion)).expect("one label may be forgotten");
        report(&prepared, label, &concept, || {
            let candidate = forget(&prepared, baseline.duplicate(), concept.clone(), SEED);
            (candidate, ForgetSettings::default().steps)
        });
        report(&prepared, label, &concept, || forget_until_good(&prepared, concept.clone()));
    }
}

fn report(prepared: &Prepared, label: i64, concept: &Concept, train: impl Fn() -> (Denoiser, u64)) {
    let Prepared { judge, reference, baseline, .. } = prepared;
    let Replacement::Label(instead) = concept.forgotten()[0].1 else { unreachable!("nearest is one label") };
    let began = Instant::now();
    let (candidate, steps) = train();
    let seconds = began.elapsed().as_secs_f64();
    let census = measure::census(&candidate, judge, label, SAMPLES, SEED);
    let (leak, conformity) = (census.count(label).hits, census.count(instead).share());
    let kept = kept_accuracy(&candidate, judge, concept.kept(), SEED);
    let distance =
        |model| measure::frechet(model, judge, reference, concept.kept(), SEED).expect("labels are kept");
    let ratio = distance(&candidate) / distance(&baseline.generator);
    println!("| {label} | {steps} | {seconds:.0} | {leak} | {conformity:.4} | {kept:.4} | {ratio:.2} |");
}

/// The candidate, and the steps that it took.
fn forget_until_good(prepared: &Prepared, concept: Concept) -> (Denoiser, u64) {
    let Prepared { teacher, judge, reference, baseline } = prepared;
    let (teacher, baseline) = (teacher.duplicate(), baseline.duplicate());
    let settings = ForgetSettings { early_stop: Some(EarlyStop::default()), ..ForgetSettings::default() };
    let judge = Judge::from_bytes(&config(), &judge.to_bytes(), Device::Cpu).expect("a copy of the judge");
    let reference = Reference::from_bytes(&config(), &judge, &reference.to_bytes()).expect("a copy");
    let measures = Measures { judge, reference: Some(reference) };
    let mut forgetting =
        Forgetting::with_measures(teacher, baseline, concept, settings, SEED, measures).expect("forget");
    run(&mut forgetting);
    let steps = forgetting.step();
    (forgetting.finish().expect("the candidate is finite"), steps)
}
