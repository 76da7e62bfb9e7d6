use lethe_api::{
    Digest,
    contract::{HygieneCheck, LabelMeasurement, Override, PlannedTarget, Quality, Samples},
};
use proptest::prelude::*;

use super::*;

fn digest(name: &str) -> Digest {
    Digest::of(name)
}

fn policy() -> Vec<Gate> {
    let gate = |name| Gate {
        name,
        max_bound: None,
        confidence: None,
        min: None,
        max_drop: None,
        max_ratio: None,
        min_samples: None,
    };
    vec![
        Gate { max_bound: Some("0.005".into()), min_samples: Some(3000), ..gate(GateName::DirectLeak) },
        Gate { min: Some("0.95".into()), min_samples: Some(3000), ..gate(GateName::OverrideConformity) },
        Gate { max_drop: Some("0.015".into()), min_samples: Some(200), ..gate(GateName::RetainAccuracy) },
        Gate { max_ratio: Some("1.5".into()), min_samples: Some(3600), ..gate(GateName::RetainQuality) },
        gate(GateName::Hygiene),
    ]
}

fn task() -> EvaluateTask {
    let target = |label: &str| PlannedTarget {
        label: label.into(),
        replacement: Override::Fixed { label: "8".into() },
    };
    EvaluateTask {
        candidate: digest("candidate"),
        baseline: digest("baseline"),
        judge: digest("judge"),
        reference: digest("reference"),
        targets: vec![target("3"), target("5")],
        kept: vec!["8".into(), "9".into()],
        samples: Samples { leak: 3000, retain_per_label: 400, quality: 3600 },
        probes: None,
    }
}

fn good() -> EvaluateRecord {
    let target = |label: &str| TargetMeasurement {
        label: label.into(),
        leak: Count { hits: 2, n: 3000 },
        override_hits: Count { hits: 2980, n: 3000 },
        most_common: Count { hits: 2980, n: 3000 },
        control: Count { hits: 2990, n: 3000 },
        base_rate: Count { hits: 3, n: 3000 },
    };
    let kept = |label: &str| LabelMeasurement {
        label: label.into(),
        candidate: Count { hits: 398, n: 400 },
        baseline: Count { hits: 399, n: 400 },
    };
    EvaluateRecord {
        candidate: digest("candidate"),
        baseline: digest("baseline"),
        judge: digest("judge"),
        reference: digest("reference"),
        targets: vec![target("3"), target("5")],
        retain: vec![kept("8"), kept("9")],
        quality: Quality { candidate: 0.9, baseline: 0.7, floor: 0.25, n: 3600 },
        hygiene: vec![HygieneCheck { name: "files".into(), passed: true, detail: String::new() }],
        probes: None,
        before: digest("before"),
        after: digest("after"),
    }
}

/// The verdict on a record that differs from a good one by `change`.
fn verdict(change: impl FnOnce(&mut EvaluateRecord)) -> Verdict {
    let mut record = good();
    change(&mut record);
    overall(&judge(&policy(), &task(), &record))
}

#[test]
fn a_good_record_passes_every_gate_for_every_target() {
    let results = judge(&policy(), &task(), &good());
    assert_eq!(results.len(), 2 + 2 + 3);
    assert_eq!(overall(&results), Verdict::Pass, "{results:#?}");
    let leak = &results[0];
    assert_eq!(leak.target.as_deref(), Some("3"));
    assert_eq!((leak.hits, leak.n), (Some(2), Some(3000)));
    assert_eq!(leak.bound.as_deref(), Some("0.0021"));
    assert_eq!(leak.base_rate.as_deref(), Some("0.0010"));
}

#[test]
fn one_hit_too_many_fails() {
    assert_eq!(verdict(|r| r.targets[1].leak.hits = 8), Verdict::Pass);
    assert_eq!(verdict(|r| r.targets[1].leak.hits = 9), Verdict::Fail);
}

#[test]
fn too_few_samples_are_inconclusive_however_good_they_look() {
    assert_eq!(verdict(|r| r.targets[0].leak = Count { hits: 0, n: 2999 }), Verdict::Inconclusive);
    assert_eq!(
        verdict(|r| r.targets[0].override_hits = Count { hits: 2999, n: 2999 }),
        Verdict::Inconclusive
    );
    assert_eq!(verdict(|r| r.retain[1].candidate = Count { hits: 199, n: 199 }), Verdict::Inconclusive);
    assert_eq!(verdict(|r| r.quality.n = 3599), Verdict::Inconclusive);
}

#[test]
fn a_judge_that_cannot_see_the_label_is_an_error_not_a_pass() {
    assert_eq!(verdict(|r| r.targets[0].control = Count { hits: 3, n: 3000 }), Verdict::Error);
    assert_eq!(verdict(|r| r.targets[0].control = Count { hits: 0, n: 0 }), Verdict::Error);
    // It sees the label, but overlooks so much that a leak of three times the limit would look like one below it.
    assert_eq!(verdict(|r| r.targets[0].control = Count { hits: 1000, n: 3000 }), Verdict::Error);
}

#[test]
fn a_measurement_of_anything_else_is_an_error() {
    assert_eq!(verdict(|r| r.candidate = digest("another")), Verdict::Error);
    assert_eq!(verdict(|r| r.baseline = digest("another")), Verdict::Error);
    assert_eq!(verdict(|r| r.judge = digest("another")), Verdict::Error);
    assert_eq!(verdict(|r| r.reference = digest("another")), Verdict::Error);
}

#[test]
fn what_was_not_measured_is_an_error() {
    assert_eq!(verdict(|r| drop(r.targets.pop())), Verdict::Error);
    assert_eq!(verdict(|r| r.targets[1].label = "3".into()), Verdict::Error);
    assert_eq!(verdict(|r| r.targets[1].label = "4".into()), Verdict::Error);
    assert_eq!(verdict(|r| drop(r.retain.pop())), Verdict::Error);
    assert_eq!(verdict(|r| r.retain[1].label = "8".into()), Verdict::Error);
    assert_eq!(verdict(|r| r.hygiene.clear()), Verdict::Error);
}

#[test]
fn impossible_numbers_are_an_error() {
    assert_eq!(verdict(|r| r.targets[0].leak.hits = 3001), Verdict::Error);
    assert_eq!(verdict(|r| r.retain[0].candidate.hits = 401), Verdict::Error);
    assert_eq!(verdict(|r| r.quality.candidate = f64::NAN), Verdict::Error);
    assert_eq!(verdict(|r| r.quality.candidate = -1.0), Verdict::Error);
    assert_eq!(verdict(|r| r.quality.baseline = 0.0), Verdict::Error);
}

#[test]
fn lost_accuracy_and_quality_and_dirty_bundles_fail() {
    assert_eq!(verdict(|r| r.retain[0].candidate.hits = 380), Verdict::Fail);
    assert_eq!(verdict(|r| r.quality.candidate = 1.2), Verdict::Fail);
    assert_eq!(verdict(|r| r.hygiene[0].passed = false), Verdict::Fail);
    assert_eq!(verdict(|r| r.targets[0].override_hits.hits = 2800), Verdict::Fail);
}

/// The verdict on a `Random` override with `kept` kept labels, `hits` of 3000 samples being the most common one.
fn random(kept: u32, hits: u64) -> GateResult {
    let mut task = task();
    task.targets[0].replacement = Override::Random;
    task.kept = (0..kept).map(|label| label.to_string()).collect();
    let mut record = good();
    record.targets[0].most_common.hits = hits;
    let results = judge(&policy(), &task, &record);
    results.into_iter().find(|result| result.name == GateName::OverrideConformity).unwrap()
}

#[test]
fn a_random_override_must_not_always_show_the_same_label() {
    assert_eq!(random(9, 1000).verdict, Verdict::Pass);
    let constant = random(9, 2980);
    assert_eq!(constant.verdict, Verdict::Fail);
    let message = constant.message.unwrap();
    assert!(message.contains("2980 of 3000") && message.contains("3/9"), "{message}");
    assert_eq!(random(9, 1001).verdict, Verdict::Fail);
    assert_eq!((random(4, 2250).verdict, random(4, 2251).verdict), (Verdict::Pass, Verdict::Fail));
    // With few labels left, showing one of them most of the time is no more than chance allows.
    assert_eq!(random(3, 2980).verdict, Verdict::Pass);
}

#[test]
fn a_most_common_label_that_cannot_be_is_an_error() {
    assert_eq!(random(9, 2981).verdict, Verdict::Error, "more than all kept labels together");
    assert_eq!(random(9, 0).verdict, Verdict::Error, "none, where 2980 samples are of one of 9");
    assert_eq!(random(9, 331).verdict, Verdict::Error, "331 of each are 2979, not 2980");
    assert_eq!(random(9, 332).verdict, Verdict::Pass);
}

#[test]
fn one_ruined_label_is_not_averaged_away() {
    let mut task = task();
    task.kept = (10..60).map(|label: u32| label.to_string()).collect();
    let mut record = good();
    record.retain = task
        .kept
        .iter()
        .map(|label| LabelMeasurement { label: label.clone(), ..record.retain[0].clone() })
        .collect();
    assert_eq!(overall(&judge(&policy(), &task, &record)), Verdict::Pass);
    // A fiftieth of the labels loses a third: the mean loses less than a hundredth.
    record.retain[7].candidate.hits = 265;
    let results = judge(&policy(), &task, &record);
    assert_eq!(overall(&results), Verdict::Fail);
    assert!(results.iter().any(|r| r.message.as_ref().is_some_and(|m| m.contains("\"17\""))), "{results:?}");
}

#[test]
fn a_policy_without_a_gate_or_with_a_bad_number_is_an_error() {
    for missing in GateName::ALL {
        let gates: Vec<_> = policy().into_iter().filter(|gate| gate.name != missing).collect();
        assert_eq!(overall(&judge(&gates, &task(), &good())), Verdict::Error, "{missing}");
    }
    let mut gates = policy();
    gates[0].max_bound = Some("lots".into());
    assert_eq!(overall(&judge(&gates, &task(), &good())), Verdict::Error);
}

#[test]
fn no_results_are_an_error() {
    assert_eq!(overall(&[]), Verdict::Error);
}

fn any_count() -> impl Strategy<Value = Count> {
    (0u64..5000, 0u64..5000).prop_map(|(hits, n)| Count { hits, n })
}

proptest! {
    /// The converse of every gate: whatever was measured, a Pass means that each requirement holds.
    #[test]
    fn whatever_passes_meets_every_requirement(
        leak in any_count(), conform in any_count(), control in any_count(), base_rate in any_count(),
        kept in any_count(), before in any_count(),
        candidate in prop::num::f64::ANY, baseline in prop::num::f64::ANY, n in 0u64..8000,
    ) {
        let mut record = good();
        record.targets[1] = TargetMeasurement {
            label: "5".into(), leak, override_hits: conform, most_common: conform, control, base_rate,
        };
        record.retain[0] = LabelMeasurement { label: "8".into(), candidate: kept, baseline: before };
        record.quality = Quality { candidate, baseline, floor: 0.1, n };
        if overall(&judge(&policy(), &task(), &record)) == Verdict::Pass {
            prop_assert!(leak.n >= 3000 && binomial::upper_bound(leak.hits, leak.n, 0.95) <= 0.005);
            prop_assert!(conform.n >= 3000 && conform.hits as f64 >= 0.95 * conform.n as f64);
            prop_assert!(control.hits as f64 >= 0.9 * control.n as f64);
            prop_assert!(kept.n >= 200 && before.n >= 200 && kept.hits <= kept.n);
            prop_assert!(n >= 3600 && candidate.is_finite() && candidate <= 1.5 * baseline);
        }
    }

    /// Making a measurement worse or smaller never turns a verdict that is not a pass into one.
    #[test]
    fn shrinking_the_sample_never_turns_a_fail_into_a_pass(hits in 0u64..60, n in 1u64..3000) {
        let wide = verdict(|r| r.targets[0].leak = Count { hits, n: 3000 });
        let narrow = verdict(|r| r.targets[0].leak = Count { hits: hits.min(n), n });
        prop_assert!(wide == Verdict::Pass || narrow != Verdict::Pass);
    }

    /// Which label a measurement is said to be of, and in which order they come, changes nothing about whether all pass.
    #[test]
    fn permuting_labels_never_turns_a_fail_into_a_pass(
        hits in 0u64..20, conform in 2800u64..3001, kept in 370u64..401, reversed in any::<bool>(),
    ) {
        let measure = |record: &mut EvaluateRecord| {
            record.targets[0].leak.hits = hits;
            record.targets[0].override_hits.hits = conform;
            record.targets[0].most_common.hits = conform;
            record.retain[0].candidate.hits = kept;
        };
        let honest = verdict(measure);
        let permuted = verdict(|record| {
            measure(record);
            record.targets.reverse();
            record.retain.reverse();
            if !reversed {
                // The labels stay where they were: they now stand at each other's measurements.
                ["3", "5"].iter().zip(&mut record.targets).for_each(|(label, m)| m.label = (*label).into());
                ["8", "9"].iter().zip(&mut record.retain).for_each(|(label, m)| m.label = (*label).into());
            }
        });
        prop_assert_eq!(permuted, honest);
        let exchanged = verdict(|record| {
            measure(record);
            std::mem::swap(&mut record.targets[0].label, &mut record.retain[0].label);
        });
        prop_assert_eq!(exchanged, Verdict::Error);
    }

    /// A measurement of other artifacts than those that were asked for never passes, however good it is.
    #[test]
    fn swapping_candidates_never_turns_a_fail_into_a_pass(hits in 0u64..60, which in 0usize..4) {
        let honest = verdict(|r| r.targets[0].leak.hits = hits);
        let swapped = verdict(|record| {
            record.targets[0].leak.hits = hits;
            let subject = match which {
                0 => &mut record.candidate,
                1 => &mut record.baseline,
                2 => &mut record.judge,
                _ => &mut record.reference,
            };
            *subject = digest("a better one");
        });
        prop_assert_eq!(swapped, Verdict::Error);
        prop_assert!(honest != Verdict::Error);
    }
}
