//! How much a candidate's quality depends on the seed of the forgetting: 3 shown as 8, from one prepared baseline.
//!
//! `cargo run --release -p lethe-sfd --example spread -- [RUNS]`

#[path = "../tests/support/mod.rs"]
mod support;

use lethe_sfd::{Concept, Denoiser, Override, Target, measure};
use support::{Prepared, SAMPLES, forget, kept_accuracy};

const TARGET: i64 = 3;
const INSTEAD: i64 = 8;
/// Of the teacher, the baseline and the judge.
const SEED: u64 = 1;

fn main() {
    let runs = std::env::args().nth(1).map_or(10, |runs| runs.parse().expect("RUNS is a whole number"));
    let prepared = Prepared::new(SEED);
    let Prepared { judge, reference, baseline, .. } = &prepared;
    let target = Target { label: TARGET, replacement: Override::Fixed(INSTEAD) };
    let concept = Concept::new(10, &[target], None).expect("one label may be forgotten");
    let distance = |model: &Denoiser, seed: u64| {
        measure::frechet(model, judge, reference, concept.kept(), seed).expect("labels are kept")
    };
    println!("| seed | leak, of {SAMPLES} | override | kept | FD | of the baseline | ratio |");
    println!("|---|---|---|---|---|---|---|");
    for seed in 1..=runs {
        let candidate = forget(&prepared, baseline.duplicate(), concept.clone(), seed);
        let census = measure::census(&candidate, judge, TARGET, SAMPLES, seed);
        let (leak, shown) = (census.count(TARGET).hits, census.count(INSTEAD).share());
        let kept = kept_accuracy(&candidate, judge, concept.kept(), seed);
        let (after, before) = (distance(&candidate, seed), distance(&baseline.generator, seed));
        let ratio = after / before;
        println!("| {seed} | {leak} | {shown:.4} | {kept:.4} | {after:.2} | {before:.2} | {ratio:.2} |");
    }
}
