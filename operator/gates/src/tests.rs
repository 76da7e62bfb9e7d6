use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    ops::Range,
};

use lethe_api::{
    Digest,
    contract::{HygieneCheck, LabelMeasurement, Override, PlannedTarget, Quality, Samples},
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::*;

fn digest(name: &str) -> Digest {
    Digest::of(name)
}

pub(crate) fn policy() -> Vec<Gate> {
    vec![
        Gate {
            max_bound: Some("0.005".into()),
            min_samples: Some(3000),
            ..Gate::named(GateName::DirectLeak)
        },
        Gate {
            min: Some("0.95".into()),
            min_samples: Some(3000),
            ..Gate::named(GateName::OverrideConformity)
        },
        Gate {
            max_drop: Some("0.015".into()),
            min_samples: Some(200),
            ..Gate::named(GateName::RetainAccuracy)
        },
        Gate {
            max_ratio: Some("1.5".into()),
            min_samples: Some(3600),
            ..Gate::named(GateName::RetainQuality)
        },
        Gate::named(GateName::Hygiene),
    ]
}

pub(crate) fn task() -> EvaluateTask {
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

pub(crate) fn good() -> EvaluateRecord {
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
        hygiene: HygieneCheck::REQUIRED
            .map(|name| HygieneCheck { name: name.into(), passed: true, detail: String::new() })
            .into(),
        probes: None,
        before: digest("before"),
        after: digest("after"),
        pictured: vec![],
    }
}

/// What was found when the baseline was made.
pub(crate) fn prepared() -> BaselineQuality {
    BaselineQuality { distance: "0.7".into(), samples: 3600 }
}

/// The verdict on a record that differs from a good one by `change`.
fn verdict(change: impl FnOnce(&mut EvaluateRecord)) -> Verdict {
    let mut record = good();
    change(&mut record);
    overall(&judge(&policy(), &task(), &prepared(), &record))
}

#[test]
fn a_good_record_passes_every_gate_for_every_target() {
    let results = judge(&policy(), &task(), &prepared(), &good());
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
fn a_baseline_in_which_nothing_is_seen_has_nothing_to_lose_and_is_an_error() {
    let nothing = |r: &mut EvaluateRecord| {
        for label in &mut r.retain {
            (label.candidate, label.baseline) = (Count { hits: 0, n: 200 }, Count { hits: 0, n: 200 });
        }
    };
    assert_eq!(verdict(nothing), Verdict::Error);
    // One such label is enough: it would stand for no loss at all.
    assert_eq!(verdict(|r| r.retain[0].baseline.hits = 170), Verdict::Error);
    assert_eq!(verdict(|r| r.retain[0].baseline.hits = 0), Verdict::Error);
    let results = judge(&policy(), &task(), &prepared(), &{
        let mut record = good();
        nothing(&mut record);
        record
    });
    let message =
        results.iter().find(|r| r.name == GateName::RetainAccuracy).unwrap().message.clone().unwrap();
    assert!(message.contains("\"8\"") && message.contains("0 of 200"), "{message}");
}

#[test]
fn a_baseline_that_is_not_where_prepare_found_it_is_an_error() {
    let far = |distance| {
        move |r: &mut EvaluateRecord| {
            r.quality = Quality { candidate: distance, baseline: distance, ..r.quality }
        }
    };
    assert_eq!(verdict(far(1e6)), Verdict::Error);
    assert_eq!(verdict(far(7.1)), Verdict::Error);
    assert_eq!(verdict(far(6.9)), Verdict::Pass);
    // Fewer samples than Prepare had may be further off, by as much as they are fewer; more are not.
    let with = |samples| {
        let prepared = BaselineQuality { samples, ..prepared() };
        let mut record = good();
        far(13.0)(&mut record);
        overall(&judge(&policy(), &task(), &prepared, &record))
    };
    assert_eq!((with(7200), with(3600), with(1800)), (Verdict::Pass, Verdict::Error, Verdict::Error));
    let unknown = BaselineQuality { distance: "near".into(), samples: 3600 };
    assert_eq!(overall(&judge(&policy(), &task(), &unknown, &good())), Verdict::Error);
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
    assert_eq!(verdict(|r| r.hygiene.truncate(3)), Verdict::Error);
    assert_eq!(verdict(|r| r.hygiene[0].name = "something-else".into()), Verdict::Error);
    assert_eq!(verdict(|r| r.hygiene[0] = r.hygiene[1].clone()), Verdict::Error);
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
    let results = judge(&policy(), &task, &prepared(), &record);
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
    assert_eq!(overall(&judge(&policy(), &task, &prepared(), &record)), Verdict::Pass);
    // A fiftieth of the labels loses a third: the mean loses less than a hundredth.
    record.retain[7].candidate.hits = 265;
    let results = judge(&policy(), &task, &prepared(), &record);
    assert_eq!(overall(&results), Verdict::Fail);
    assert!(results.iter().any(|r| r.message.as_ref().is_some_and(|m| m.contains("\"17\""))), "{results:?}");
}

#[test]
fn a_policy_without_a_gate_or_with_a_bad_number_is_an_error() {
    for missing in GateName::REQUIRED {
        let gates: Vec<_> = policy().into_iter().filter(|gate| gate.name != missing).collect();
        assert_eq!(overall(&judge(&gates, &task(), &prepared(), &good())), Verdict::Error, "{missing}");
    }
    let mut gates = policy();
    gates[0].max_bound = Some("lots".into());
    assert_eq!(overall(&judge(&gates, &task(), &prepared(), &good())), Verdict::Error);
}

#[test]
fn no_results_are_an_error() {
    assert_eq!(overall(&[]), Verdict::Error);
}

/// One in four measurements is bad, so that one in ten records passes: enough to see what passes.
fn around(good: Range<u64>, bad: Range<u64>) -> impl Strategy<Value = u64> {
    prop_oneof![7 => good, 1 => bad]
}

fn count(hits: impl Strategy<Value = u64>, n: impl Strategy<Value = u64>) -> impl Strategy<Value = Count> {
    (hits, n).prop_map(|(hits, n)| Count { hits, n })
}

fn all_but(
    missing: impl Strategy<Value = u64>,
    n: impl Strategy<Value = u64>,
) -> impl Strategy<Value = Count> {
    (missing, n).prop_map(|(missing, n)| Count { hits: n.saturating_sub(missing), n })
}

fn six_kept() -> EvaluateTask {
    EvaluateTask { kept: ["8", "9", "10", "11", "12", "13"].map(String::from).to_vec(), ..task() }
}

fn unchanged() -> LabelMeasurement {
    let count = Count { hits: 399, n: 400 };
    LabelMeasurement { label: String::new(), candidate: count, baseline: count }
}

/// Records about as good as a good one, each measurement on either side of its threshold.
fn near_good() -> impl Strategy<Value = EvaluateRecord> {
    let many = || around(3000..3200, 2900..3000);
    let target = (
        count(around(0..9, 9..12), many()),
        all_but(around(0..150, 150..170), many()),
        all_but(around(0..270, 270..320), many()),
    );
    let kept = || {
        let each = || around(395..405, 190..200);
        (all_but(prop_oneof![2 => 0u64..14, 1 => 14u64..40], each()), all_but(around(0..8, 20..60), each()))
    };
    let quality =
        (0.5f64..1.2, prop_oneof![7 => 0.6f64..0.9, 1 => 6.0f64..9.0], around(3600..3700, 3500..3600));
    // Four more labels lose nothing: one label may pay alone, or two together.
    (target, kept(), kept(), quality, prop::bool::weighted(0.95)).prop_map(
        |(target, one, other, quality, clean)| {
            let mut record = good();
            record.retain = six_kept()
                .kept
                .iter()
                .map(|label| LabelMeasurement { label: label.clone(), ..unchanged() })
                .collect();
            let (leak, override_hits, control) = target;
            let changed = TargetMeasurement {
                leak,
                override_hits,
                most_common: override_hits,
                control,
                ..record.targets[1].clone()
            };
            record.targets[1] = changed;
            for (label, (candidate, baseline)) in record.retain.iter_mut().zip([one, other]) {
                (label.candidate, label.baseline) = (candidate, baseline);
            }
            let (ratio, baseline, n) = quality;
            record.quality = Quality { candidate: ratio * 1.5 * baseline, baseline, floor: 0.25, n };
            record.hygiene[0].passed = clean;
            record
        },
    )
}

/// Every requirement of the policy that a record breaks, in the words of the policy.
fn broken(record: &EvaluateRecord) -> Vec<String> {
    let share = |count: Count| count.hits as f64 / count.n as f64;
    let surely = |count: Count| 1.0 - binomial::upper_bound(count.n - count.hits, count.n, 0.95);
    let mut all = Vec::new();
    let mut want = |holds: bool, what: &str| {
        if !holds {
            all.push(what.to_owned())
        }
    };
    for m in &record.targets {
        want(m.leak.n >= 3000 && m.override_hits.n >= 3000, "targets: minSamples");
        want(binomial::upper_bound(m.leak.hits, m.leak.n, 0.95) <= 0.005, "maxBound");
        want(share(m.override_hits) >= 0.95, "min");
        want(surely(m.control) >= 0.9, "control");
    }
    for m in &record.retain {
        want(m.candidate.n >= 200 && m.baseline.n >= 200, "retain: minSamples");
        want(surely(m.baseline) >= 0.9, "recognised baseline");
        want(share(m.baseline) - share(m.candidate) <= 4.0 * 0.015 + 1e-12, "the worst label");
    }
    let lost: f64 = record.retain.iter().map(|m| share(m.baseline) - share(m.candidate)).sum();
    want(lost / record.retain.len() as f64 <= 0.015 + 1e-12, "maxDrop");
    let Quality { candidate, baseline, n, .. } = record.quality;
    want(n >= 3600, "quality: minSamples");
    want(candidate <= 1.5 * baseline + 1e-12, "maxRatio");
    want(baseline <= 7.0, "the baseline where Prepare found it");
    want(record.hygiene.iter().all(|check| check.passed), "hygiene");
    all
}

/// The converse of gates: a Pass means that each of so many requirements holds. That says something only if records pass, and if
/// each requirement is what keeps some record from passing.
pub(crate) fn whatever_passes_meets<R: std::fmt::Debug, B: Ord + std::fmt::Debug + Clone>(
    requirements: usize,
    records: impl Strategy<Value = R>,
    verdict: impl Fn(&R) -> Verdict,
    broken: impl Fn(&R) -> Vec<B>,
) {
    let (passed, alone) = (Cell::new(0), RefCell::new(BTreeSet::new()));
    let mut runner = TestRunner::new_with_rng(
        Config { failure_persistence: None, ..Config::with_cases(4000) },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let result = runner.run(&records, |record| {
        let broken = broken(&record);
        if verdict(&record) == Verdict::Pass {
            prop_assert!(broken.is_empty(), "it passed with {broken:?}");
            passed.set(passed.get() + 1);
        } else if let [only] = &broken[..] {
            alone.borrow_mut().insert(only.clone());
        }
        Ok(())
    });
    result.unwrap();
    assert!(passed.get() > 100, "only {} of 4000 records passed", passed.get());
    assert_eq!(alone.borrow().len(), requirements, "each requirement decided alone: {:?}", alone.borrow());
}

#[test]
fn whatever_passes_meets_every_requirement() {
    let verdict = |record: &EvaluateRecord| overall(&judge(&policy(), &six_kept(), &prepared(), record));
    whatever_passes_meets(12, near_good(), verdict, broken);
}

proptest! {
    /// The same hits, or the same share of them, among fewer samples: no less of a leak.
    #[test]
    fn shrinking_the_sample_never_turns_a_fail_into_a_pass(
        hits in 0u64..60, n in 3000u64..15_000, part in 0.0f64..1.0,
    ) {
        let leak = |hits, n| verdict(|r| r.targets[0].leak = Count { hits, n });
        let wide = leak(hits, n);
        let fewer = ((n as f64 * part) as u64).max(hits).max(1);
        let enough = (3000 + ((n - 3000) as f64 * part) as u64).min(n);
        for narrow in [fewer, enough] {
            let as_many = (hits * narrow).div_ceil(n);
            prop_assert!(wide == Verdict::Pass || leak(hits, narrow) != Verdict::Pass, "{hits} of {narrow}");
            prop_assert!(wide == Verdict::Pass || leak(as_many, narrow) != Verdict::Pass, "{as_many} of {narrow}");
        }
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
