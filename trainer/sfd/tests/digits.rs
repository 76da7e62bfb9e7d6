//! The whole way on real digits: teach, distil, judge, forget one label, forget another, with the figures that a
//! release has to reach. Takes two to five minutes on two cores.

mod support;

use lethe_sfd::{
    Baseline, Concept, Confusion, Denoiser, ForgetSettings, Override, Replacement, Target, measure,
};
use support::{Prepared, SAMPLES, forget, forget_with};

const FIRST: i64 = 3;
const SECOND: i64 = 5;
const SEED: u64 = 11;

#[test]
fn digits_are_forgotten_and_stay_forgotten() {
    let prepared = Prepared::new(SEED);
    let confusion = Confusion::measure(&prepared.baseline.generator, &prepared.judge, 400, SEED);
    let concept = |labels: &[i64]| {
        let targets: Vec<Target> =
            labels.iter().map(|&label| Target { label, replacement: Override::Nearest }).collect();
        Concept::new(10, &targets, Some(&confusion)).expect("the targets are consistent")
    };
    let (one, both) = (concept(&[FIRST]), concept(&[FIRST, SECOND]));

    the_teacher_and_the_baseline_know_every_digit(&prepared);
    let first = forget(&prepared, prepared.baseline.duplicate(), one.clone(), SEED);
    assert_forgotten(&prepared, &first, &one);

    // A second request trains from the baseline with the whole ledger: the first digit stays forgotten.
    let second = forget(&prepared, prepared.baseline.duplicate(), both.clone(), SEED);
    assert_forgotten(&prepared, &second, &both);

    // Without the ledger it comes back, even if the training goes on from the model that had forgotten it: a third of the
    // steps is enough for that.
    let start = Baseline { generator: first, fake_score: prepared.baseline.fake_score.duplicate() };
    let settings = ForgetSettings { steps: 500, ..ForgetSettings::default() };
    let amnesiac = forget_with(&prepared, start, concept(&[SECOND]), settings, SEED);
    let leak = measure::census(&amnesiac, &prepared.judge, FIRST, SAMPLES, SEED).count(FIRST);
    assert!(leak.share() > 0.5, "{FIRST} should be back without the ledger: {leak:?}");
}

fn the_teacher_and_the_baseline_know_every_digit(prepared: &Prepared) {
    let shares: Vec<f64> = (0..10).map(|label| prepared.reference.recognised(label).share()).collect();
    let mean = shares.iter().sum::<f64>() / 10.0;
    assert!(mean >= 0.98, "teacher class consistency {mean}: {shares:?}");
    // The positive control: a model that has not forgotten must fail the leak gate.
    let control =
        measure::census(&prepared.baseline.generator, &prepared.judge, FIRST, SAMPLES, SEED).count(FIRST);
    assert!(control.share() > 0.9, "the baseline should show {FIRST}: {control:?}");
}

fn assert_forgotten(prepared: &Prepared, candidate: &Denoiser, concept: &Concept) {
    let Prepared { judge, reference, baseline, .. } = prepared;
    for &(label, replacement) in concept.forgotten() {
        let census = measure::census(candidate, judge, label, SAMPLES, SEED);
        let leak = census.count(label);
        assert!(leak.hits <= 8, "{label} leaks: {leak:?}");
        let Replacement::Label(replacement) = replacement else { panic!("nearest is one label") };
        let conformity = census.count(replacement);
        assert!(conformity.share() >= 0.95, "{label} should show {replacement}: {census:?}");
    }
    let accuracy = support::kept_accuracy(candidate, judge, concept.kept(), SEED);
    assert!(accuracy >= 0.98, "kept accuracy {accuracy}");
    let distance =
        |model| measure::frechet(model, judge, reference, concept.kept(), SEED).expect("labels are kept");
    let (after, before) = (distance(candidate), distance(&baseline.generator));
    assert!(after <= 1.5 * before, "Frechet distance {after}, of the baseline {before}");
}
