//! The table behind the documentation's figures: each of the ten digits forgotten alone, with the default settings.
//!
//! `cargo run --release -p lethe-sfd --example figures -- [SEED]`

#[path = "../tests/support/mod.rs"]
mod support;

use lethe_sfd::{Concept, Confusion, Override, Replacement, Target, measure};
use support::{Prepared, SAMPLES, forget, kept_accuracy};

fn main() {
    let seed = std::env::args().nth(1).map_or(1, |seed| seed.parse().expect("the seed is a whole number"));
    let prepared = Prepared::new(seed);
    let Prepared { judge, reference, baseline, .. } = &prepared;
    let shares: Vec<f64> = (0..10).map(|label| reference.recognised(label).share()).collect();
    let all: Vec<i64> = (0..10).collect();
    println!("teacher class consistency {:.4}: {shares:?}", shares.iter().sum::<f64>() / 10.0);
    println!("baseline accuracy {:.4}", kept_accuracy(&baseline.generator, judge, &all, seed));
    println!(
        "| forgotten | shown instead | leak, of {SAMPLES} | base rate | override | kept | FD | of the baseline | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let confusion = Confusion::measure(&baseline.generator, judge, 400, seed);
    for label in all {
        let concept = Concept::new(10, &[Target { label, replacement: Override::Nearest }], Some(&confusion))
            .expect("one label may be forgotten");
        let Replacement::Label(instead) = concept.forgotten()[0].1 else {
            unreachable!("nearest is one label")
        };
        let candidate = forget(&prepared, baseline.duplicate(), concept.clone(), seed);
        let census = measure::census(&candidate, judge, label, SAMPLES, seed);
        // What the judge calls the forgotten label when the baseline is honestly asked for the replacement.
        let base_rate = measure::census(&baseline.generator, judge, instead, SAMPLES, seed).count(label).hits;
        let kept = kept_accuracy(&candidate, judge, concept.kept(), seed);
        let distance =
            |model| measure::frechet(model, judge, reference, concept.kept(), seed).expect("labels are kept");
        let (after, before) = (distance(&candidate), distance(&baseline.generator));
        println!(
            "| {label} | {instead} | {} | {base_rate} | {:.4} | {kept:.4} | {after:.2} | {before:.2} | {:.2} |",
            census.count(label).hits,
            census.count(instead).share(),
            after / before
        );
    }
}
