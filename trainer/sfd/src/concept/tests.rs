use super::*;
use crate::measure::Census;

fn target(label: i64, replacement: Override) -> Target {
    Target { label, replacement }
}

/// A judge to whom label 2 looks most like 0, then 3, then 1; and 3 passes for 0, but not the other way round.
fn confusion() -> Confusion {
    let row = |label, probability: [f64; 4]| Census {
        label,
        predicted: vec![0; 4],
        probability: probability.to_vec(),
    };
    Confusion::from_rows(vec![
        row(0, [0.99, 0.001, 0.002, 0.007]),
        row(1, [0.002, 0.99, 0.004, 0.004]),
        row(2, [0.06, 0.01, 0.9, 0.03]),
        row(3, [0.1, 0.0, 0.001, 0.899]),
    ])
}

#[test]
fn contradictions_are_refused() {
    let refusal = |targets: &[Target]| Concept::new(4, targets, None).unwrap_err();
    assert_eq!(refusal(&[target(4, Override::Random)]), ConceptError::UnknownLabel { label: 4, last: 3 });
    assert_eq!(refusal(&[target(-1, Override::Random)]), ConceptError::UnknownLabel { label: -1, last: 3 });
    assert_eq!(refusal(&[target(1, Override::Fixed(9))]), ConceptError::UnknownLabel { label: 9, last: 3 });
    assert_eq!(
        refusal(&[target(1, Override::Random), target(1, Override::Fixed(2))]),
        ConceptError::Duplicate(1)
    );
    let into_forgotten = [target(1, Override::Fixed(2)), target(2, Override::Random)];
    assert_eq!(refusal(&into_forgotten), ConceptError::OverrideForgotten { target: 1, replacement: 2 });
    let into_itself = [target(1, Override::Fixed(1))];
    assert_eq!(refusal(&into_itself), ConceptError::OverrideForgotten { target: 1, replacement: 1 });
    let all: Vec<Target> = (0..4).map(|label| target(label, Override::Random)).collect();
    assert_eq!(refusal(&all), ConceptError::NothingKept);
    assert_eq!(refusal(&[target(1, Override::Nearest)]), ConceptError::NoConfusion(1));
    let small = Concept::new(5, &[target(1, Override::Nearest)], Some(&confusion())).unwrap_err();
    assert_eq!(small, ConceptError::ConfusionSize { given: 4, expected: 5 });
}

#[test]
fn nearest_is_the_kept_label_that_the_judge_finds_most_alike() {
    let resolve = |targets: &[Target]| Concept::new(4, targets, Some(&confusion())).unwrap();
    let alone = resolve(&[target(2, Override::Nearest)]);
    assert_eq!(alone.forgotten(), [(2, Replacement::Label(0))]);
    let without_zero = resolve(&[target(2, Override::Nearest), target(0, Override::Fixed(1))]);
    assert_eq!(without_zero.forgotten(), [(0, Replacement::Label(1)), (2, Replacement::Label(3))]);
}

#[test]
fn nearest_avoids_a_label_that_shows_the_target_itself_unless_there_is_no_other() {
    let resolve = |forgotten: &[i64]| {
        let targets: Vec<Target> = forgotten.iter().map(|&label| target(label, Override::Nearest)).collect();
        Concept::new(4, &targets, Some(&confusion())).unwrap().forgotten()[0].1
    };
    assert_eq!(
        resolve(&[0]),
        Replacement::Label(1),
        "2 and 3 are more like 0, but 6 and 10 in 100 of them pass for it"
    );
    assert_eq!(resolve(&[0, 1, 2]), Replacement::Label(3));
}

#[test]
fn the_order_of_targets_does_not_matter() {
    let targets = [target(3, Override::Random), target(0, Override::Fixed(2))];
    let reversed = [targets[1], targets[0]];
    assert_eq!(Concept::new(4, &targets, None), Concept::new(4, &reversed, None));
    assert_eq!(Concept::new(4, &targets, None).unwrap().kept(), [1, 2]);
}

#[test]
fn a_draw_covers_kept_and_forgotten_labels_evenly() {
    let targets = [target(3, Override::Random), target(0, Override::Fixed(2))];
    let draw = Concept::new(4, &targets, None).unwrap().draw(1, 0, 4000, 4000);
    let share = |labels: &[i64], of: i64| labels.iter().filter(|&&label| label == of).count() as f64 / 4000.0;
    for (label, part) in [(1, 0), (2, 0), (0, 1), (3, 1)] {
        let labels = &draw.shown[part * 4000..(part + 1) * 4000];
        assert!((share(labels, label) - 0.5).abs() < 0.04, "label {label}");
    }
    assert_eq!(draw.shown[..4000], draw.taught[..4000]);
    // Half of the forget part is taught 2 for 0; the other half any kept label for 3.
    assert!((share(&draw.taught[4000..], 2) - 0.75).abs() < 0.04);
    assert!((share(&draw.taught[4000..], 1) - 0.25).abs() < 0.04);
}

#[test]
fn keeping_all_forgets_nothing() {
    let concept = Concept::keep_all(4);
    assert!(concept.forgotten().is_empty());
    let draw = concept.draw(1, 0, 100, 0);
    assert_eq!(draw.shown, draw.taught);
    assert!((0..4).all(|label| draw.shown.contains(&label)));
}

fn shares(labels: &[i64], classes: usize) -> Vec<f64> {
    let count = |label: usize| labels.iter().filter(|&&drawn| drawn == label as i64).count();
    (0..classes).map(|label| count(label) as f64 / labels.len() as f64).collect()
}

/// Whatever the number of labels is: neither ten of them nor the last one are anything special.
#[test]
fn a_random_override_is_any_kept_label_and_no_other() {
    let targets = [target(12, Override::Random), target(0, Override::Random)];
    let concept = Concept::new(13, &targets, None).unwrap();
    let Draw { taught, .. } = concept.draw(1, 0, 0, 6000);
    let shares = shares(&taught, 13);
    assert_eq!((shares[0], shares[12]), (0.0, 0.0));
    assert!(shares[1..12].iter().all(|share| (share - 1.0 / 11.0).abs() < 0.02), "{shares:?}");
}

#[test]
fn a_forgotten_label_is_never_shown_or_taught_as_kept() {
    let targets = [target(1, Override::Fixed(0)), target(2, Override::Random)];
    let prior = LabelPrior::Weights([(0, 5.0)].into());
    for concept in [
        Concept::new(4, &targets, None).unwrap(),
        Concept::new(4, &targets, None).unwrap().with_prior(&prior, None).unwrap(),
        Concept::new(4, &targets, None).unwrap().with_null(Some(4), 0.3),
    ] {
        let Draw { shown, taught } = concept.draw(3, 0, 2000, 2000);
        assert!(shown[..2000].iter().all(|label| [0, 3, 4].contains(label)));
        assert!(taught.iter().all(|label| [0, 3].contains(label)));
    }
}

#[test]
fn kept_labels_are_shown_as_often_as_the_prior_says() {
    let concept = || Concept::new(4, &[target(1, Override::Random)], None).unwrap();
    let drawn = |prior: &LabelPrior, confusion| {
        let concept = concept().with_prior(prior, confusion).unwrap();
        shares(&concept.draw(1, 0, 6000, 0).shown, 4)
    };
    let close = |found: Vec<f64>, expected: [f64; 4]| {
        let near = |(found, expected): (&f64, &f64)| (found - expected).abs() < 0.02;
        assert!(found.iter().zip(&expected).all(near), "{found:?} is not {expected:?}");
    };
    close(
        drawn(&LabelPrior::Weights([(0, 3.0), (3, 0.5)].into()), None),
        [3.0 / 4.5, 0.0, 1.0 / 4.5, 0.5 / 4.5],
    );
    // To label 1, labels 2 and 3 are twice as alike as 0: they are shown 1 + 2 times as often as a stranger, 0 1 + 1.
    close(drawn(&LabelPrior::Neighbours(2.0), Some(&confusion())), [0.25, 0.0, 0.375, 0.375]);
    assert_eq!(concept().with_prior(&LabelPrior::Uniform, None).unwrap(), concept());
}

#[test]
fn a_prior_that_cannot_be_followed_is_refused() {
    let concept = || Concept::new(4, &[target(1, Override::Random)], None).unwrap();
    let refusal = |prior: LabelPrior| concept().with_prior(&prior, None).unwrap_err();
    assert_eq!(refusal(LabelPrior::Weights([(1, 2.0)].into())), ConceptError::WeightOfNotKept(1));
    assert_eq!(refusal(LabelPrior::Weights([(9, 2.0)].into())), ConceptError::WeightOfNotKept(9));
    assert_eq!(refusal(LabelPrior::Neighbours(1.0)), ConceptError::NoNeighbours);
}

#[test]
fn a_hidden_label_is_still_taught() {
    let concept = || Concept::new(4, &[target(1, Override::Fixed(0))], None).unwrap();
    let Draw { shown, taught } = concept().with_null(Some(4), 0.25).draw(1, 0, 4000, 100);
    assert!((shares(&shown[..4000], 5)[4] - 0.25).abs() < 0.03);
    let plain = concept().draw(1, 0, 4000, 100);
    assert_eq!(taught, plain.taught);
    assert_eq!(shown[4000..], plain.shown[4000..], "a forgotten label is not hidden");
    // A model that cannot be asked without a label, or a share of zero, changes nothing.
    assert_eq!(concept().with_null(None, 0.25), concept());
    assert_eq!(concept().with_null(Some(4), 0.0), concept());
}
