use super::*;
use crate::settings::JudgeSettings;
use crate::testing::{self, Models, models, never, tiny};
use tch::Device;

#[test]
fn measurements_are_raw_counts_that_can_be_repeated() {
    let Models { teacher, judge, baseline, reference } = models();
    for label in 0..4 {
        let Count { hits, n } = reference.recognised(label);
        assert!(n == 60 && hits >= 57, "the judge recognises {hits} of {n} teacher samples of label {label}");
    }
    let first = census(&baseline.generator, &judge, 2, 80, 5);
    assert_eq!((first.n(), first.count(2).n), (80, 80));
    assert_eq!(first.count_any(&[0, 1, 2, 3]).hits, 80);
    assert!(first.count(2).share() > 0.9, "{first:?}");
    assert!((first.probability.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    assert_eq!(first, census(&baseline.generator, &judge, 2, 80, 5));
    assert_ne!(first.probability, census(&baseline.generator, &judge, 2, 80, 6).probability);

    let confusion = Confusion::measure(&baseline.generator, &judge, 80, 5);
    assert_eq!(confusion.classes(), 4);
    assert_eq!(confusion.rows()[2], first);

    // A model that shows label 0 under every label is far from the reference, the baseline is near.
    let near = frechet(&baseline.generator, &judge, &reference, &[0, 1, 2, 3], 5).unwrap();
    let untaught = Denoiser::init(&tiny(), 3, Device::Cpu).unwrap();
    let far = frechet(&untaught, &judge, &reference, &[0, 1, 2, 3], 5).unwrap();
    assert!(near >= 0.0 && far > 4.0 * near, "near {near}, far {far}");
    assert!(frechet(&teacher, &judge, &reference, &[], 5).is_err());
}

#[test]
fn judge_and_reference_survive_a_round_trip_and_refuse_another_model() {
    let Models { judge, baseline, reference, .. } = models();
    let again = Judge::from_bytes(&tiny(), &judge.to_bytes(), Device::Cpu).unwrap();
    assert!(again.to_bytes() == judge.to_bytes());
    assert_eq!(census(&baseline.generator, &again, 1, 50, 2), census(&baseline.generator, &judge, 1, 50, 2));
    let restored = Reference::from_bytes(&tiny(), &again, &reference.to_bytes()).unwrap();
    assert!(restored.to_bytes() == reference.to_bytes());
    let distance = |reference| frechet(&baseline.generator, &judge, reference, &[0, 2], 2).unwrap();
    assert_eq!(distance(&restored), distance(&reference));

    let mut other = tiny();
    other.labels.push("e".into());
    assert!(Judge::from_bytes(&other, &judge.to_bytes(), Device::Cpu).is_err());
    assert!(Reference::from_bytes(&other, &judge, &reference.to_bytes()).is_err());
    assert!(Judge::from_bytes(&tiny(), &baseline.generator.to_bytes(), Device::Cpu).is_err());
    assert!(Reference::from_bytes(&tiny(), &judge, &judge.to_bytes()).is_err());
}

#[test]
fn teacher_samples_of_judge_and_reference_differ() {
    let Models { teacher, .. } = models();
    let draw = |stream| samples(&teacher, 2, 4, 1, stream, &never).unwrap().0;
    assert!(!draw(Stream::JudgeLatent).equal(&draw(Stream::ReferenceLatent)));
}

#[test]
fn judge_and_reference_stop_wherever_they_are_told_to() {
    let Models { teacher, judge, .. } = models();
    let settings = JudgeSettings { samples_per_label: 2, steps: 3, batch: 4, ..Default::default() };
    let train = |stop: Stop<'_>| Judge::train(&teacher, &settings, 4, 1, stop);
    let measure = |stop: Stop<'_>| Reference::measure(&teacher, &judge, &testing::REFERENCE, 1, stop);
    let asked = std::cell::Cell::new(0);
    let count = || {
        asked.set(asked.get() + 1);
        false
    };
    let whole = train(&count).unwrap();
    // Before each of four labels and three steps; twice before each of four labels.
    assert_eq!(asked.replace(0), 7);
    measure(&count).unwrap();
    assert_eq!(asked.get(), 8);
    for last in 0..7 {
        let left = std::cell::Cell::new(last);
        let stop = || left.replace(left.get() - 1_i32) == 0;
        assert!(matches!(train(&stop), Err(Error::Stopped)), "asked for the time {last}");
    }
    let left = std::cell::Cell::new(7);
    assert!(matches!(measure(&|| left.replace(left.get() - 1_i32) == 0), Err(Error::Stopped)));
    assert!(train(&never).unwrap().to_bytes() == whole.to_bytes(), "the next time comes to the same");
}

/// Two labels are forgotten, and two are kept: none of them changes another one's denominator.
#[test]
fn a_share_is_of_the_samples_under_its_own_label() {
    let Models { judge, baseline, .. } = models();
    let alone = census(&baseline.generator, &judge, 1, 40, 5);
    let rows = Confusion::measure(&baseline.generator, &judge, 40, 5);
    assert_eq!(rows.rows()[1], alone);
    assert!(rows.rows().iter().all(|census| census.n() == 40 && census.count(0).n == 40));
    assert!(alone.count(1).share() > 0.9, "{alone:?}");
}
