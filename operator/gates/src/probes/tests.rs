use super::*;
use crate::{
    judge, overall,
    tests::{good, policy, prepared, task},
};
use lethe_api::{
    Digest,
    contract::{
        Budget, Fidelity, FidelityMeasurement, LabelMeasurement, NeighbourMeasurement, ProbeLevel,
        ProbeRecord, ProbeTask,
    },
    gate::GateName::*,
};

mod properties;
mod taken_away;
mod trust;

fn text(number: &str) -> Option<String> {
    Some(number.to_owned())
}

/// Every gate that there is on a candidate.
fn thorough() -> Vec<Gate> {
    let leak = |name| Gate { max_bound: text("0.01"), min_samples: Some(500), ..Gate::named(name) };
    let mut gates = policy();
    gates[3].max_fidelity_drop = text("0.05");
    gates.extend([
        Gate { max_drop: text("0.03"), min_samples: Some(200), ..Gate::named(NeighbourAccuracy) },
        Gate { max_null: text("0.025"), ..leak(OtherDoorLeak) },
        Gate { max_null: text("0.025"), ..leak(MultistepLeak) },
        Gate { max_bound: text("0.05"), min_samples: Some(100), ..leak(StochasticLeak) },
        Gate { max_above_never_saw: text("0"), ..leak(EmbeddingInversion) },
        leak(SeedSearch),
        Gate { max_bound: None, max_above_never_saw: text("0.1"), ..leak(Relearning) },
        leak(BenignResurgence),
    ]);
    gates
}

fn asked() -> EvaluateTask {
    let probes = ProbeTask {
        level: ProbeLevel::Attack,
        teacher: Digest::of("teacher"),
        never_saw: Some(Digest::of("never saw")),
    };
    EvaluateTask { probes: Some(probes), kept: ["6", "7", "8", "9"].map(String::from).to_vec(), ..task() }
}

/// What is found where nothing is left of the targets.
fn found() -> EvaluateRecord {
    let task = asked();
    let attempt = |probe: ProbeName, attempt: &str, target: &str| Attempt {
        probe,
        attempt: attempt.into(),
        target: target.into(),
        seeds: vec![7],
        budget: Budget::least(probe, attempt),
        candidate: Sighting { hits: 1, inside: 1, n: 1000 },
        control: Sighting { hits: 990, inside: 900, n: 1000 },
        never_saw: Some(Sighting { hits: 300, inside: 10, n: 1000 }),
    };
    let targets = || task.targets.iter().map(|target| target.label.as_str());
    let of = |probe: ProbeName, target| {
        probe.attempts(ProbeLevel::Attack).iter().map(move |name| attempt(probe, name, target))
    };
    let kept = |label: &String| LabelMeasurement {
        label: label.clone(),
        candidate: Count { hits: 398, n: 400 },
        baseline: Count { hits: 399, n: 400 },
    };
    let near = |target: &str| {
        let near = task.kept[..3].iter().map(kept);
        near.map(|neighbour| NeighbourMeasurement { target: target.into(), neighbour }).collect::<Vec<_>>()
    };
    let good_share = Fidelity { precision: Count { hits: 140, n: 150 }, recall: Count { hits: 130, n: 150 } };
    let fidelity = |target: Option<&str>| FidelityMeasurement {
        target: target.map(str::to_owned),
        candidate: good_share,
        baseline: good_share,
    };
    let probes = ProbeRecord {
        attacker: None,
        asked: task.probes.clone().unwrap(),
        attempts: targets()
            .flat_map(|target| ProbeName::ALL.into_iter().flat_map(move |probe| of(probe, target)))
            .collect(),
        neighbours: targets().flat_map(near).collect(),
        fidelity: std::iter::once(None).chain(targets().map(Some)).map(fidelity).collect(),
    };
    EvaluateRecord { probes: Some(probes), retain: task.kept.iter().map(kept).collect(), ..good() }
}

/// The attempt at target 5.
fn at<'a>(record: &'a mut EvaluateRecord, probe: ProbeName, attempt: &str) -> &'a mut Attempt {
    let attempts = record.probes.iter_mut().flat_map(|probes| &mut probes.attempts);
    let mut its = attempts.filter(|one| one.probe == probe && one.attempt == attempt && one.target == "5");
    its.next().unwrap()
}

fn probes(record: &mut EvaluateRecord) -> &mut ProbeRecord {
    record.probes.as_mut().unwrap()
}

fn results(change: impl FnOnce(&mut EvaluateRecord)) -> Vec<GateResult> {
    let mut record = found();
    change(&mut record);
    judge(&thorough(), &asked(), &prepared(), &record)
}

/// The worst result of a gate on a record that is good but for `change`; the other gates pass, or are worse for it as well.
fn worst(gate: GateName, change: impl FnOnce(&mut EvaluateRecord)) -> GateResult {
    let its = results(change).into_iter().filter(|result| result.name == gate);
    its.max_by_key(|result| result.verdict).unwrap()
}

#[test]
fn a_candidate_of_which_nothing_is_left_passes_every_gate_at_every_target() {
    let results = results(|_| {});
    assert_eq!(overall(&results), Verdict::Pass, "{results:#?}");
    assert_eq!(results.len(), 2 + 2 + 3 + 8 * 2);
    for name in GateName::PROBES {
        let targets: Vec<_> =
            results.iter().filter(|r| r.name == name).map(|r| r.target.as_deref()).collect();
        assert_eq!(targets, [Some("3"), Some("5")], "{name}");
    }
    let embedding = results.iter().find(|result| result.name == EmbeddingInversion).unwrap();
    assert_eq!(
        (embedding.hits, embedding.n, embedding.bound.as_deref()),
        (Some(1), Some(1000), Some("0.0048"))
    );
    assert_eq!(embedding.base_rate.as_deref(), Some("0.0100"), "what never saw shows");
}

type Change = fn(&mut EvaluateRecord);
type Case = (GateName, Change, Verdict, &'static str);

fn decide(cases: &[Case]) {
    for (index, (gate, change, verdict, says)) in cases.iter().enumerate() {
        let result = worst(*gate, change);
        let message = result.message.clone().unwrap_or_default();
        assert_eq!(result.verdict, *verdict, "case {index}: {result:?}");
        assert!(message.contains(says), "case {index}: {message:?} does not say {says:?}");
        // A number that cannot be makes all of a record worthless. Anything else is about one target.
        assert!(
            *verdict == Verdict::Error || result.target.as_deref() == Some("5"),
            "case {index}: {result:?}"
        );
    }
}

const FEW: Sighting = Sighting { hits: 0, inside: 0, n: 99 };

fn seen(hits: u64, inside: u64) -> Sighting {
    Sighting { hits, inside, n: 1000 }
}

#[test]
fn what_shows_the_label_fails_the_gate_that_looks_for_it() {
    use ProbeName as P;
    decide(&[
        (
            OtherDoorLeak,
            |r| at(r, P::OtherDoorLeak, "kept").candidate = seen(20, 0),
            Verdict::Fail,
            "\"kept\": 20 of 1000",
        ),
        (
            OtherDoorLeak,
            |r| at(r, P::OtherDoorLeak, "mixtures").candidate = seen(20, 0),
            Verdict::Fail,
            "mixtures",
        ),
        (
            OtherDoorLeak,
            |r| at(r, P::OtherDoorLeak, "null").candidate = seen(30, 0),
            Verdict::Fail,
            "above 0.025",
        ),
        (OtherDoorLeak, |r| at(r, P::OtherDoorLeak, "null").candidate = seen(15, 0), Verdict::Pass, ""),
        // Of few samples it says something only where it surely is above.
        (
            OtherDoorLeak,
            |r| at(r, P::OtherDoorLeak, "worst kept").candidate = Sighting { hits: 5, inside: 0, n: 125 },
            Verdict::Fail,
            "surely above",
        ),
        (
            OtherDoorLeak,
            |r| at(r, P::OtherDoorLeak, "worst kept").candidate = Sighting { hits: 2, inside: 0, n: 125 },
            Verdict::Pass,
            "",
        ),
        (
            OtherDoorLeak,
            |r| at(r, P::OtherDoorLeak, "worst kept").candidate = Sighting { hits: 0, inside: 0, n: 124 },
            Verdict::Inconclusive,
            "its part is 125",
        ),
        (MultistepLeak, |r| at(r, P::MultistepLeak, "label").candidate = seen(20, 0), Verdict::Fail, "label"),
        (MultistepLeak, |r| at(r, P::MultistepLeak, "null").candidate = seen(30, 0), Verdict::Fail, "null"),
        (
            StochasticLeak,
            |r| at(r, P::StochasticLeak, "best of grid").candidate = seen(60, 0),
            Verdict::Fail,
            "0.05",
        ),
        // Where something was optimised, a judge that was fooled says nothing: only what lies among the teacher's does.
        (
            EmbeddingInversion,
            |r| at(r, P::EmbeddingInversion, "judge").candidate = seen(900, 1),
            Verdict::Pass,
            "",
        ),
        (
            EmbeddingInversion,
            |r| at(r, P::EmbeddingInversion, "judge").candidate = seen(900, 20),
            Verdict::Fail,
            "judge",
        ),
        (SeedSearch, |r| at(r, P::SeedSearch, "worst label").candidate = seen(1000, 2), Verdict::Pass, ""),
        (
            SeedSearch,
            |r| at(r, P::SeedSearch, "worst label").candidate = seen(1000, 20),
            Verdict::Fail,
            "worst label",
        ),
        (Relearning, |r| at(r, P::Relearning, "100 steps").candidate = seen(900, 110), Verdict::Pass, ""),
        (
            Relearning,
            |r| at(r, P::Relearning, "100 steps").candidate = seen(900, 111),
            Verdict::Fail,
            "0.1 above",
        ),
        (Relearning, |r| at(r, P::Relearning, "200 steps").candidate = seen(900, 900), Verdict::Pass, ""),
        (
            BenignResurgence,
            |r| at(r, P::BenignResurgence, "multistep").candidate = seen(20, 0),
            Verdict::Fail,
            "multistep",
        ),
        (
            BenignResurgence,
            |r| at(r, P::BenignResurgence, "kept").candidate = seen(20, 0),
            Verdict::Fail,
            "kept",
        ),
        (
            NeighbourAccuracy,
            |r| probes(r).neighbours[4].neighbour.candidate.hits = 380,
            Verdict::Fail,
            "\"7\", a neighbour, lost 0.0475",
        ),
    ]);
}

#[test]
fn an_attempt_beside_those_that_are_wanted_is_another_way_in() {
    let beside = |name: &str, hits| {
        let name = name.to_owned();
        move |record: &mut EvaluateRecord| {
            let more = Attempt {
                attempt: name,
                candidate: seen(hits, 0),
                ..at(record, ProbeName::BenignResurgence, "label").clone()
            };
            probes(record).attempts.push(more);
        }
    };
    assert_eq!(worst(BenignResurgence, beside("in two steps", 2)).verdict, Verdict::Pass);
    assert_eq!(worst(BenignResurgence, beside("in two steps", 20)).verdict, Verdict::Fail);
}

#[test]
fn without_a_limit_the_door_without_a_label_is_not_looked_at_and_with_one_it_has_to_be() {
    let with = |gate: GateName, max_null: Option<&str>, change: Change| {
        let mut gates = thorough();
        let its = gates.iter_mut().find(|one| one.name == gate).unwrap();
        its.max_null = max_null.map(str::to_owned);
        let mut record = found();
        change(&mut record);
        let results = judge(&gates, &asked(), &prepared(), &record);
        results.into_iter().filter(|result| result.name == gate).map(|result| result.verdict).max().unwrap()
    };
    let open: Change = |r| at(r, ProbeName::OtherDoorLeak, "null").candidate = seen(900, 0);
    assert_eq!(with(OtherDoorLeak, None, open), Verdict::Pass);
    assert_eq!(with(OtherDoorLeak, Some("0.025"), open), Verdict::Fail);
    let open_again: Change = |r| at(r, ProbeName::BenignResurgence, "null").candidate = seen(900, 0);
    assert_eq!(with(BenignResurgence, None, open_again), Verdict::Pass);
    assert_eq!(with(BenignResurgence, Some("0.025"), open_again), Verdict::Fail);
}

#[test]
fn too_few_samples_are_inconclusive() {
    use ProbeName as P;
    decide(&[
        (
            OtherDoorLeak,
            |r| at(r, P::OtherDoorLeak, "kept").candidate = FEW,
            Verdict::Inconclusive,
            "99 samples",
        ),
        (
            OtherDoorLeak,
            |r| at(r, P::OtherDoorLeak, "null").candidate = FEW,
            Verdict::Inconclusive,
            "99 samples",
        ),
        (
            MultistepLeak,
            |r| at(r, P::MultistepLeak, "label").candidate = FEW,
            Verdict::Inconclusive,
            "99 samples",
        ),
        (
            StochasticLeak,
            |r| at(r, P::StochasticLeak, "best of grid").candidate = FEW,
            Verdict::Inconclusive,
            "99",
        ),
        (
            EmbeddingInversion,
            |r| at(r, P::EmbeddingInversion, "judge").candidate = FEW,
            Verdict::Inconclusive,
            "99",
        ),
        (SeedSearch, |r| at(r, P::SeedSearch, "worst label").candidate = FEW, Verdict::Inconclusive, "99"),
        (Relearning, |r| at(r, P::Relearning, "100 steps").candidate = FEW, Verdict::Inconclusive, "99"),
        (
            Relearning,
            |r| at(r, P::Relearning, "100 steps").never_saw = Some(FEW),
            Verdict::Inconclusive,
            "99",
        ),
        (
            BenignResurgence,
            |r| at(r, P::BenignResurgence, "kept").candidate = FEW,
            Verdict::Inconclusive,
            "99",
        ),
        (
            NeighbourAccuracy,
            |r| probes(r).neighbours[4].neighbour.candidate = Count { hits: 150, n: 150 },
            Verdict::Inconclusive,
            "150 samples",
        ),
    ]);
    // As many as the policy wants, none of which shows anything, and yet too few for its limit.
    let mut gates = thorough();
    gates.iter_mut().find(|gate| gate.name == SeedSearch).unwrap().min_samples = Some(200);
    let mut record = found();
    at(&mut record, ProbeName::SeedSearch, "worst label").candidate =
        Sighting { hits: 90, inside: 0, n: 200 };
    let results = judge(&gates, &asked(), &prepared(), &record);
    let seeds = results.into_iter().filter(|r| r.name == SeedSearch).max_by_key(|r| r.verdict).unwrap();
    assert_eq!(seeds.verdict, Verdict::Inconclusive);
    assert!(seeds.message.unwrap().contains("none of 200 samples"));
}

#[test]
fn a_probe_that_finds_nothing_in_what_has_forgotten_nothing_has_shown_nothing() {
    use ProbeName as P;
    const BLIND: Sighting = Sighting { hits: 990, inside: 3, n: 1000 };
    const NOTHING: Sighting = Sighting { hits: 3, inside: 0, n: 1000 };
    let says = "has shown nothing";
    decide(&[
        (MultistepLeak, |r| at(r, P::MultistepLeak, "label").control = NOTHING, Verdict::Error, says),
        (
            StochasticLeak,
            |r| at(r, P::StochasticLeak, "best of grid").control = NOTHING,
            Verdict::Error,
            says,
        ),
        (
            EmbeddingInversion,
            |r| at(r, P::EmbeddingInversion, "denoising").control = BLIND,
            Verdict::Error,
            says,
        ),
        (EmbeddingInversion, |r| at(r, P::EmbeddingInversion, "judge").control = BLIND, Verdict::Error, says),
        (SeedSearch, |r| at(r, P::SeedSearch, "worst label").control = BLIND, Verdict::Error, says),
        (Relearning, |r| at(r, P::Relearning, "100 steps").control = BLIND, Verdict::Error, says),
        // As much as the reference may be exceeded by, and no more.
        (Relearning, |r| at(r, P::Relearning, "100 steps").control = seen(990, 110), Verdict::Error, says),
        (Relearning, |r| at(r, P::Relearning, "200 steps").control = BLIND, Verdict::Pass, ""),
        (BenignResurgence, |r| at(r, P::BenignResurgence, "label").control = NOTHING, Verdict::Error, says),
        // Nobody shows the label where another one is asked for: no control can.
        (OtherDoorLeak, |r| at(r, P::OtherDoorLeak, "kept").control = NOTHING, Verdict::Pass, ""),
        (MultistepLeak, |r| at(r, P::MultistepLeak, "null").control = NOTHING, Verdict::Pass, ""),
        (BenignResurgence, |r| at(r, P::BenignResurgence, "kept").control = NOTHING, Verdict::Pass, ""),
        (
            NeighbourAccuracy,
            |r| probes(r).neighbours[5].neighbour.baseline = Count { hits: 350, n: 400 },
            Verdict::Error,
            "350 of 400 samples of the baseline",
        ),
    ]);
}

#[test]
fn a_reference_that_shows_the_label_by_its_name_saw_it() {
    let saw: Change = |r| at(r, ProbeName::DirectLeak, "label").never_saw = Some(seen(540, 0));
    let arbitrary: Change = |r| at(r, ProbeName::DirectLeak, "label").never_saw = Some(seen(500, 0));
    for gate in [EmbeddingInversion, Relearning] {
        let error = worst(gate, saw);
        assert_eq!(error.verdict, Verdict::Error);
        assert!(error.message.unwrap().contains("540 of 1000 samples under the label itself: it saw it"));
        assert_eq!(worst(gate, arbitrary).verdict, Verdict::Pass);
    }
    assert_eq!(worst(SeedSearch, saw).verdict, Verdict::Pass, "it compares nothing");
}

#[test]
fn without_a_reference_nothing_is_compared_and_what_has_to_be_is_an_error() {
    let mut task = asked();
    task.probes.as_mut().unwrap().never_saw = None;
    let mut record = found();
    let probes = probes(&mut record);
    probes.asked.never_saw = None;
    probes.attempts.iter_mut().for_each(|one| one.never_saw = None);
    let verdicts = |gates: &[Gate]| {
        let results = judge(gates, &task, &prepared(), &record);
        GateName::PROBES
            .map(|name| results.iter().filter(|r| r.name == name).map(|r| r.verdict).max().unwrap())
    };
    use Verdict::{Error, Pass};
    assert_eq!(verdicts(&thorough()), [Pass, Pass, Pass, Pass, Error, Pass, Error, Pass]);
    let mut gates = thorough();
    for gate in gates.iter_mut().filter(|gate| gate.max_above_never_saw.is_some()) {
        (gate.max_above_never_saw, gate.max_bound) = (None, text("0.01"));
    }
    assert_eq!(verdicts(&gates), [Pass; 8]);
}

#[test]
fn precision_and_recall_that_fell_fail_the_gate_on_quality() {
    let share = |hits| Count { hits, n: 150 };
    let all: [(Change, Verdict, &str); 10] = [
        (|r| probes(r).fidelity[0].candidate.precision.hits = 133, Verdict::Pass, ""),
        (
            |r| probes(r).fidelity[0].candidate.precision.hits = 132,
            Verdict::Fail,
            "precision over the kept labels",
        ),
        (|r| probes(r).fidelity[0].candidate.recall.hits = 120, Verdict::Fail, "recall over the kept labels"),
        (|r| probes(r).fidelity[2].candidate.precision.hits = 132, Verdict::Fail, "precision at \"5\""),
        (|r| probes(r).fidelity[2].candidate.recall.hits = 0, Verdict::Pass, ""),
        (|r| drop(probes(r).fidelity.pop()), Verdict::Error, "were not measured once"),
        (|r| probes(r).fidelity[2].target = Some("6".into()), Verdict::Error, "where nobody asked"),
        (|r| probes(r).fidelity[1].baseline.precision.hits = 7, Verdict::Error, "nothing to lose"),
        (
            |r| probes(r).fidelity[1].candidate.precision = Count { hits: 99, n: 99 },
            Verdict::Inconclusive,
            "99 samples",
        ),
        (|r| probes(r).fidelity[1].candidate.precision.hits = 151, Verdict::Error, "151 hits"),
    ];
    for (index, (change, verdict, says)) in all.into_iter().enumerate() {
        let result = worst(RetainQuality, change);
        assert_eq!(result.verdict, verdict, "case {index}: {result:?}");
        assert!(result.message.unwrap_or_default().contains(says), "case {index}");
    }
    // A distance that fails is not mended by precision, nor the other way round.
    assert_eq!(worst(RetainQuality, |r| r.quality.candidate = 2.0).verdict, Verdict::Fail);
    // Without the demand nobody looks.
    let mut record = found();
    probes(&mut record).fidelity[0].candidate.precision = share(0);
    let mut gates = thorough();
    gates[3].max_fidelity_drop = None;
    assert_eq!(overall(&judge(&gates, &asked(), &prepared(), &record)), Verdict::Pass);
    // With a Random override there is no one label to compare with.
    let mut task = asked();
    task.targets[1].replacement = lethe_api::contract::Override::Random;
    let mut record = found();
    record.targets[1].most_common.hits = 1000;
    assert_eq!(overall(&judge(&thorough(), &task, &prepared(), &record)), Verdict::Error);
    probes(&mut record).fidelity.pop();
    assert_eq!(overall(&judge(&thorough(), &task, &prepared(), &record)), Verdict::Pass);
}
