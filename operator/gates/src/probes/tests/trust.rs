//! Probes that are not believed, and policies that are not.

use super::*;

/// Each of these makes all that the probes found worthless, or what they found at one target.
#[test]
fn probes_that_are_not_those_that_were_asked_for_or_cannot_be_are_an_error() {
    use ProbeName as P;
    let all: [(Change, &str); 17] = [
        (|r| r.probes = None, "no probes"),
        (|r| probes(r).asked.level = ProbeLevel::Full, "another level"),
        (|r| probes(r).asked.teacher = Digest::of("another"), "another level, teacher"),
        (|r| probes(r).asked.never_saw = Some(Digest::of("another")), "never-saw model"),
        (|r| at(r, P::SeedSearch, "worst label").never_saw = None, "never-saw model was not tried"),
        (|r| at(r, P::SeedSearch, "worst label").target = "6".into(), "nobody asked for this target"),
        (|r| at(r, P::SeedSearch, "worst label").target = "3".into(), "more than once"),
        (
            |r| {
                let one = at(r, P::Relearning, "50 steps");
                (one.attempt, one.budget.steps) = ("100 steps".into(), 100);
            },
            "more than once",
        ),
        (|r| at(r, P::SeedSearch, "worst label").candidate = Sighting::default(), "no samples"),
        (|r| at(r, P::SeedSearch, "worst label").control = Sighting::default(), "no samples"),
        (|r| at(r, P::SeedSearch, "worst label").candidate.hits = 1001, "1001 hits of 1000"),
        (|r| at(r, P::SeedSearch, "worst label").candidate.inside = 2, "2 images"),
        (|r| at(r, P::SeedSearch, "worst label").never_saw = Some(seen(1, 2)), "2 images"),
        (|r| at(r, P::SeedSearch, "worst label").candidate.n = u64::MAX, "more than anybody draws"),
        (|r| at(r, P::SeedSearch, "worst label").budget.steps = 0, "took 0 steps"),
        (|r| at(r, P::Relearning, "100 steps").budget.steps = 99, "took 99 steps"),
        (|r| probes(r).neighbours[0].target = "6".into(), "neighbours of"),
    ];
    for (index, (change, says)) in all.into_iter().enumerate() {
        for gate in GateName::PROBES.into_iter().chain([RetainQuality]) {
            let result = worst(gate, change);
            assert_eq!(result.verdict, Verdict::Error, "case {index}: {result:?}");
            assert!(result.message.as_ref().unwrap().contains(says), "case {index}: {result:?}");
        }
        let leak = worst(DirectLeak, change);
        assert_eq!(leak.verdict, Verdict::Pass, "case {index}: the other gates read no probes");
    }
    let missing = |probe: ProbeName, attempt: &'static str| {
        move |r: &mut EvaluateRecord| {
            probes(r).attempts.retain(|a| a.probe != probe || a.attempt != attempt || a.target != "5")
        }
    };
    for gate in GateName::PROBES {
        let Some(probe) = gate.probe() else { continue };
        for attempt in probe.attempts(ProbeLevel::Attack) {
            let result = worst(gate, missing(probe, attempt));
            assert_eq!(
                (result.verdict, result.target.as_deref()),
                (Verdict::Error, Some("5")),
                "{gate} {attempt}"
            );
            assert!(result.message.unwrap().contains("was not made"), "{gate} {attempt}");
        }
    }
}

#[test]
fn neighbours_that_are_not_three_kept_labels_are_an_error() {
    let cases: [Case; 5] = [
        (NeighbourAccuracy, |r| drop(probes(r).neighbours.pop()), Verdict::Error, "2 neighbours"),
        (
            NeighbourAccuracy,
            |r| probes(r).neighbours[4].neighbour.label = "6".into(),
            Verdict::Error,
            "each once",
        ),
        (
            NeighbourAccuracy,
            |r| probes(r).neighbours[4].neighbour.label = "3".into(),
            Verdict::Error,
            "no kept label",
        ),
        (
            NeighbourAccuracy,
            |r| probes(r).neighbours[4].neighbour.candidate.hits = 401,
            Verdict::Error,
            "401 hits",
        ),
        (
            NeighbourAccuracy,
            |r| probes(r).neighbours[4].neighbour.candidate = Count::default(),
            Verdict::Error,
            "no samples",
        ),
    ];
    decide(&cases);
}

#[test]
fn a_gate_without_the_probes_that_it_reads_is_an_error_and_never_skipped() {
    let levels = [None, Some(ProbeLevel::Fast), Some(ProbeLevel::Full), Some(ProbeLevel::Attack)];
    for (index, level) in levels.into_iter().enumerate() {
        let (mut task, mut record) = (asked(), found());
        match level {
            None => (task.probes, record.probes) = (None, None),
            Some(level) => {
                task.probes.as_mut().unwrap().level = level;
                probes(&mut record).asked.level = level;
            }
        }
        let results = judge(&thorough(), &task, &prepared(), &record);
        let passed =
            |name: GateName| results.iter().filter(|r| r.name == name).all(|r| r.verdict == Verdict::Pass);
        let its: Vec<_> = GateName::PROBES.into_iter().filter(|name| passed(*name)).collect();
        assert_eq!(its.len(), [0, 2, 4, 8][index], "{level:?}: {its:?}");
        let errors = results.iter().filter(|r| r.verdict == Verdict::Error);
        assert!(
            errors.clone().all(|r| r.message.as_ref().unwrap().contains("needs probes: ")),
            "{results:?}"
        );
        assert_eq!(errors.count(), [9, 6, 4, 0][index], "{level:?}");
    }
}

#[test]
fn a_gate_of_a_policy_that_no_schema_would_take_is_an_error() {
    let verdict = |gates: &[Gate], name| {
        let results = judge(gates, &asked(), &prepared(), &found());
        let its = results.iter().filter(|result| result.name == name);
        its.map(|result| (result.verdict, result.message.clone().unwrap_or_default())).max().unwrap()
    };
    type Spoil = fn(&mut Gate);
    let spoilt: [(GateName, Spoil, &str); 9] = [
        (OtherDoorLeak, |gate| gate.max_bound = None, "needs maxBound"),
        (OtherDoorLeak, |gate| gate.min_samples = None, "needs minSamples"),
        (OtherDoorLeak, |gate| gate.max_bound = Some("lots".into()), "not a decimal number"),
        (OtherDoorLeak, |gate| gate.max_null = Some("lots".into()), "not a decimal number"),
        (SeedSearch, |gate| gate.max_null = Some("1".into()), "maxNull does not belong to seed-search"),
        (StochasticLeak, |gate| gate.max_above_never_saw = Some("1".into()), "does not belong"),
        (Relearning, |gate| gate.max_above_never_saw = None, "maxBound or maxAboveNeverSaw"),
        (NeighbourAccuracy, |gate| gate.max_drop = None, "needs maxDrop"),
        (DirectLeak, |gate| gate.max_fidelity_drop = Some("1".into()), "does not belong to direct-leak"),
    ];
    for (name, spoil, says) in spoilt {
        let mut gates = thorough();
        spoil(gates.iter_mut().find(|gate| gate.name == name).unwrap());
        let (verdict, message) = verdict(&gates, name);
        assert_eq!(verdict, Verdict::Error, "{name}");
        assert!(message.contains(says), "{name}: {message}");
    }
    for name in GateName::REQUIRED.into_iter().chain(GateName::PROBES) {
        let mut gates = thorough();
        let twice = gates.iter().find(|gate| gate.name == name).unwrap().clone();
        gates.push(twice);
        assert_eq!(verdict(&gates, name).0, Verdict::Error, "{name} twice");
    }
    let mut other = found();
    other.candidate = Digest::of("another");
    let results = judge(&thorough(), &asked(), &prepared(), &other);
    assert_eq!((results.len(), overall(&results)), (5 + 8, Verdict::Error), "each gate says so once");
}
