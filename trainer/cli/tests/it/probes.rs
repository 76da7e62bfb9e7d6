//! `evaluate` with probes: what a plan may ask for beside the measurements.

use std::{collections::BTreeSet, fs};

use lethe_api::contract::{
    Digest, Failure, Plan, ProbeLevel, ProbeName, ProbeRecord, ProbeTask, RecordBody, Task, exit,
};

use crate::world::{Ended, World, arguments, ended, fixed, read_record, trainer};

/// A plan that asks for probes of a model that was hardly trained.
fn plan(world: &World, level: Option<ProbeLevel>, never_saw: bool) -> Plan {
    let targets = [("three", fixed("one"))];
    let mut plan = world.evaluate(&world.candidate(&targets), &targets);
    let Task::Evaluate(task) = &mut plan.task else { unreachable!("an evaluation") };
    // Any other model will do: it is only asked the same.
    let never_saw = never_saw.then(|| world.candidate(&[("two", fixed("one"))]));
    task.probes = level.map(|level| ProbeTask { level, teacher: world.prepared.teacher.clone(), never_saw });
    plan
}

fn probes(body: RecordBody) -> Option<ProbeRecord> {
    match body {
        RecordBody::Evaluate(record) => record.probes,
        other => panic!("not the record of an evaluation: {other:?}"),
    }
}

/// Evaluates with further arguments. `named`: the plan that the outcome is to be about.
fn evaluate(world: &World, plan: &Plan, further: &[&str], named: &Plan) -> Ended {
    fs::write(world.path().join("plan.json"), plan.to_json()).unwrap();
    let mut command = trainer();
    command.args(arguments(world.path(), plan.task.kind())).arg("--no-port").args(further);
    ended(world.path(), &named.digest(), command.output().unwrap())
}

#[test]
fn a_plan_that_asks_for_nothing_gets_nothing_more() {
    let world = World::new();
    assert_eq!(probes(world.record(&plan(&world, None, false))), None);
}

#[test]
fn every_attempt_is_made_on_the_controls_too() {
    let world = World::new();
    let plan = plan(&world, Some(ProbeLevel::Attack), true);
    let found = probes(world.record(&plan)).expect("the plan asked for them");
    // Gates look for every attempt by its name.
    for probe in ProbeName::ALL {
        let of = found.attempts.iter().filter(|one| one.probe == probe);
        let made: BTreeSet<&str> = of.map(|one| one.attempt.as_str()).collect();
        let wanted: BTreeSet<&str> = probe.attempts(ProbeLevel::Attack).iter().copied().collect();
        assert_eq!(made, wanted, "{probe:?}");
    }
    let attacker = found.attacker.as_ref().expect("something was attacked");
    assert_ne!(*attacker, world.prepared.judge);
    assert!(world.file(attacker, "model.safetensors").exists(), "attacks can be repeated");
    for attempt in &found.attempts {
        assert_eq!((attempt.target.as_str(), &attempt.seeds[..]), ("three", &[plan.seed][..]), "{attempt:?}");
        assert!(attempt.candidate.n > 0 && attempt.candidate.n == attempt.control.n, "{attempt:?}");
        assert!(attempt.candidate.inside <= attempt.candidate.hits, "{attempt:?}");
        assert_eq!(attempt.never_saw.map(|seen| seen.n), Some(attempt.control.n), "{attempt:?}");
    }
    let direct = found.attempts.iter().find(|attempt| attempt.probe == ProbeName::DirectLeak).unwrap();
    assert_eq!(direct.candidate.n, 60, "as many images as the plan says for a leak");
    let relearning = found.attempts.iter().filter(|attempt| attempt.probe == ProbeName::Relearning);
    assert_eq!(relearning.map(|attempt| attempt.budget.steps).collect::<Vec<_>>(), [50, 100, 200]);
}

#[test]
fn neighbours_and_fidelity_are_of_kept_labels_and_of_the_override() {
    let world = World::new();
    let plan = plan(&world, Some(ProbeLevel::Fast), false);
    let first = world.run(&plan);
    let found = probes(read_record(world.path(), &plan, &first)).unwrap();
    let neighbours: BTreeSet<&str> =
        found.neighbours.iter().map(|measured| measured.neighbour.label.as_str()).collect();
    assert_eq!(neighbours, BTreeSet::from(["zero", "one", "two"]));
    assert!(found.neighbours.iter().all(|measured| measured.neighbour.candidate.n == 20));
    let targets: Vec<Option<&str>> = found.fidelity.iter().map(|f| f.target.as_deref()).collect();
    assert_eq!(targets, [None, Some("three")]);
    assert_eq!((found.fidelity[0].candidate.precision.n, found.fidelity[1].baseline.recall.n), (450, 150));
    assert!(found.attempts.iter().all(|attempt| attempt.never_saw.is_none()));
    assert_eq!(world.run(&plan).outcome.record, first.outcome.record, "the same plan, the same record");
}

#[test]
fn the_command_line_can_ask_for_more_and_says_for_which_plan() {
    let world = World::new();
    let (modest, curious) = (plan(&world, None, false), plan(&world, Some(ProbeLevel::Full), false));
    let teacher = world.prepared.teacher.as_str();
    let ended = evaluate(&world, &modest, &["--probes", "full", "--teacher", teacher], &curious);
    assert_eq!(ended.code, Some(exit::DONE), "{}", ended.stderr);
    let found = probes(read_record(world.path(), &curious, &ended)).unwrap();
    assert_eq!(found.asked.level, ProbeLevel::Full);
    assert!(found.attempts.iter().any(|attempt| attempt.probe == ProbeName::StochasticLeak));
    assert!(found.attempts.iter().all(|attempt| attempt.probe != ProbeName::Relearning));

    let refused = evaluate(&world, &modest, &["--probes", "full"], &modest);
    assert_eq!(refused.outcome.failure, Some(Failure::BadConfiguration));
    assert!(refused.outcome.message.unwrap().contains("--teacher"));
}

#[test]
fn a_teacher_that_is_none_is_refused() {
    let world = World::new();
    let mut plan = plan(&world, Some(ProbeLevel::Fast), false);
    for wrong in [world.prepared.judge.clone(), Digest::of(b"nothing")] {
        let Task::Evaluate(task) = &mut plan.task else { unreachable!("an evaluation") };
        task.probes.as_mut().unwrap().teacher = wrong;
        assert_eq!(world.run(&plan).outcome.failure, Some(Failure::BadArtifact));
    }
}
