//! What no record of probes can bring about.

use proptest::prelude::*;

use super::*;

/// Any attempt that a gate judges by an upper bound or against the reference.
fn bounded() -> impl Strategy<Value = (ProbeName, &'static str)> {
    let all = GateName::PROBES
        .into_iter()
        .filter_map(GateName::probe)
        .flat_map(|probe| probe.attempts(ProbeLevel::Attack).iter().map(move |attempt| (probe, *attempt)));
    let read = |(probe, attempt): &(ProbeName, &str)| {
        *attempt != Attempt::WORST_KEPT && (*probe != ProbeName::Relearning || *attempt == Attempt::STEPS_100)
    };
    proptest::sample::select(all.filter(read).collect::<Vec<_>>())
}

proptest! {
    /// The same hits, or the same share of them, among fewer samples.
    #[test]
    fn fewer_samples_of_an_attempt_never_turn_a_fail_into_a_pass(
        (probe, attempt) in bounded(), hits in 0u64..400, n in 1000u64..3000, part in 0.0f64..1.0,
    ) {
        let verdict = |hits, n| overall(&results(|r| {
            at(r, probe, attempt).candidate = Sighting { hits, inside: hits, n };
        }));
        let wide = verdict(hits, n);
        let narrow = ((n as f64 * part) as u64).max(hits).max(1);
        prop_assert!(wide == Verdict::Pass || verdict(hits, narrow) != Verdict::Pass, "{hits} of {narrow}");
        let as_many = (hits * narrow).div_ceil(n);
        prop_assert!(wide == Verdict::Pass || verdict(as_many, narrow) != Verdict::Pass, "{as_many} of {narrow}");
    }

    /// Of `worst kept` a lower bound is read, which falls with the number of samples.
    #[test]
    fn fewer_samples_of_the_worst_kept_label_never_turn_a_fail_into_a_pass(
        hits in 0u64..12, least in 1u64..150, more in 2u64..9,
    ) {
        let verdict = |hits, n| overall(&results(|r| {
            at(r, ProbeName::OtherDoorLeak, Attempt::WORST_KEPT).candidate = Sighting { hits, inside: 0, n };
        }));
        let n = least.max(hits).max(1);
        let wide = verdict(hits * more, n * more);
        prop_assert!(wide == Verdict::Pass || verdict(hits, n) != Verdict::Pass, "{hits} of {n}");
        prop_assert!(verdict(hits, n) != Verdict::Pass || n >= 125, "{n} are fewer than its part of the policy's");
    }

    #[test]
    fn fewer_samples_of_a_neighbour_never_turn_a_fail_into_a_pass(
        missing in 0u64..40, n in 200u64..2000, part in 0.0f64..1.0,
    ) {
        let verdict = |hits, n| overall(&results(|r| {
            probes(r).neighbours[4].neighbour.candidate = Count { hits, n };
        }));
        let narrow = ((n as f64 * part) as u64).max(1);
        let wide = verdict(n - missing, n);
        let as_many = (n - missing) * narrow / n;
        prop_assert!(wide == Verdict::Pass || verdict(as_many, narrow) != Verdict::Pass, "{as_many} of {narrow}");
    }

    /// Which target an attempt is said to be of, and in which order they come, changes nothing about whether all pass.
    #[test]
    fn permuting_targets_of_attempts_never_turns_a_fail_into_a_pass(
        (probe, attempt) in bounded(), hits in 0u64..200, missing in 0u64..40, reversed in any::<bool>(),
    ) {
        let measure = |record: &mut EvaluateRecord| {
            at(record, probe, attempt).candidate = Sighting { hits, inside: hits, n: 1000 };
            probes(record).neighbours[4].neighbour.candidate.hits = 400 - missing;
        };
        let honest = overall(&results(measure));
        let exchange = |target: &mut String| *target = if target == "3" { "5".into() } else { "3".into() };
        let permuted = overall(&results(|record| {
            measure(record);
            let probes = probes(record);
            probes.attempts.reverse();
            probes.neighbours.reverse();
            if !reversed {
                probes.attempts.iter_mut().for_each(|one| exchange(&mut one.target));
                probes.neighbours.iter_mut().for_each(|one| exchange(&mut one.target));
            }
        }));
        prop_assert_eq!(permuted, honest);
        let foreign = overall(&results(|record| {
            measure(record);
            at(record, probe, attempt).target = "6".into();
        }));
        prop_assert_eq!(foreign, Verdict::Error);
    }

    /// What was found in another model, or with the help of another one, never passes, however little it is.
    #[test]
    fn probes_of_other_models_never_turn_a_fail_into_a_pass(
        (probe, attempt) in bounded(), hits in 0u64..200, which in 0usize..3,
    ) {
        let swapped = overall(&results(|record| {
            at(record, probe, attempt).candidate = Sighting { hits, inside: hits, n: 1000 };
            match which {
                0 => record.candidate = Digest::of("a better one"),
                1 => probes(record).asked.teacher = Digest::of("one that knows less"),
                _ => probes(record).asked.never_saw = Some(Digest::of("one that saw it")),
            }
        }));
        prop_assert_eq!(swapped, Verdict::Error);
    }
}
