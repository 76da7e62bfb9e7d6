//! Policies whose gates read what probes found.

use lethe_api::{
    contract::{EvaluateRecord, EvaluateTask, ProbeLevel, Task},
    v1alpha1::{
        ConditionType, GateName, NeverSaw, Probes, Reason, RequestPhase, Stage, UnlearnPolicy, UnlearnRun,
        Verdict,
    },
};

use crate::{
    script::{MODEL, everywhere, fixed, probing},
    trainer::{digest, measures},
    world::World,
};

/// A model that is prepared under the probing policy, and for which these never saw these labels.
fn ready(world: &mut World, known: &[(&str, &[&str])]) {
    world.ready();
    world.apply_policy(within_reach());
    name_references(world, known);
}

/// The probing policy, with bounds that as few samples as these probes have can show.
fn within_reach() -> UnlearnPolicy {
    let mut policy = probing();
    for gate in &mut policy.spec.gates {
        match gate.name {
            GateName::StochasticLeak => gate.max_bound = Some("0.05".into()),
            GateName::SeedSearch => gate.max_bound = Some("0.02".into()),
            _ => {}
        }
    }
    policy
}

fn name_references(world: &mut World, known: &[(&str, &[&str])]) {
    name_references_for(world, "teacher", known);
}

/// These never saw these labels, and stand beside this base.
fn name_references_for(world: &mut World, base: &str, known: &[(&str, &[&str])]) {
    let version = world.bump();
    let one = |(bundle, labels): &(&str, &[&str])| NeverSaw {
        bundle: digest(bundle),
        base: digest(base),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    world.change(|cluster| {
        let model = cluster.models.get_mut(MODEL).expect("it was applied");
        model.spec.never_saw = known.iter().map(one).collect();
        model.metadata.resource_version = version;
        *model.metadata.generation.get_or_insert(1) += 1;
    });
}

/// What the run of a request asked its evaluation to do.
fn evaluation(world: &World, request: &str) -> EvaluateTask {
    let run = world.run_for(request).expect("a run works for it");
    let candidate = run.status.as_ref().and_then(|status| status.candidate.clone()).expect("it was trained");
    let name = run.metadata.name.clone().unwrap_or_default();
    match lethe_core::plans::evaluate(&name, &run.spec, &candidate).expect("it has a plan").task {
        Task::Evaluate(task) => task,
        other => panic!("not an evaluation: {other:?}"),
    }
}

#[test]
fn a_candidate_that_withstands_every_probe_is_served() {
    let mut world = World::new();
    ready(&mut world, &[("without three", &["3"])]);
    world.ask("forget-three", &["3"], fixed("8"));
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let task = evaluation(&world, "forget-three");
    assert_eq!(task.probes.unwrap().never_saw, Some(digest("without three")));
    let status = world.cluster.requests["forget-three"].status.as_ref().unwrap();
    assert_eq!(status.gate_summary.as_deref(), Some("13/13"));
    for name in GateName::PROBES {
        let its = status.gates.iter().filter(|gate| gate.name == name).collect::<Vec<_>>();
        assert!(its.len() == 1 && its[0].target.as_deref() == Some("3"), "{name}: {its:?}");
    }
}

/// The label comes back after a hundred steps: no other gate sees that.
fn comes_back(record: &mut EvaluateRecord) {
    let attempts = record.probes.iter_mut().flat_map(|probes| &mut probes.attempts);
    for one in attempts.filter(|one| one.attempt == "100 steps") {
        (one.candidate.hits, one.candidate.inside) = (2900, 2800);
    }
}

#[test]
fn a_candidate_that_only_hides_the_label_is_held_and_the_gate_is_named() {
    let world = everywhere(|world| {
        world.trainer = Box::new(|plan, _| measures(plan, comes_back));
        ready(world, &[("without three", &["3"])]);
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Held, Reason::GateFailed, "relearning \"3\" Fail");
    assert_eq!(world.named_bundle(), Some(world.baseline()), "what is served did not change");
    assert!(world.ledger().is_empty());
}

#[test]
fn a_policy_that_lost_its_probes_holds_every_candidate() {
    let mut world = World::new();
    ready(&mut world, &[("without three", &["3"])]);
    // No API server would take it.
    world.edit_policy(|policy| policy.probes = None);
    world.ask("forget-three", &["3"], fixed("8"));
    world.settle();
    world.ended(
        "forget-three",
        RequestPhase::Held,
        Reason::GateError,
        "gate relearning needs probes: Attack",
    );
    let run = world.run_for("forget-three").unwrap().status.as_ref().unwrap();
    assert_eq!(run.verdict, Some(Verdict::Error));
    assert_eq!(run.gates.iter().filter(|gate| gate.verdict == Verdict::Error).count(), 8);
    assert!(world.ledger().is_empty());
}

#[test]
fn nothing_is_trained_that_could_not_be_compared_and_the_request_says_what_is_missing() {
    let mut world = World::new();
    ready(&mut world, &[("without three", &["3"])]);
    world.ask("forget-five", &["5"], fixed("8"));
    world.settle();
    let (status, reason, message) = world.condition("forget-five", ConditionType::Ready);
    assert_eq!((status.as_str(), reason), ("Unknown", Reason::WaitingForReference.to_string()));
    assert!(message.contains("gate relearning") && message.contains("never saw 5"), "{message}");
    assert!(world.job_for("forget-five", Stage::Forget).is_none());
    // One that can be compared does not wait for one that cannot, nor share a run with it.
    world.ask("forget-three", &["3"], fixed("8"));
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let (_, reason, message) = world.condition("forget-five", ConditionType::Ready);
    assert_eq!(reason, Reason::WaitingForReference.to_string());
    assert!(message.contains("never saw 3, 5"), "what is forgotten stays forgotten: {message}");
    name_references(&mut world, &[("without three", &["3"]), ("without both", &["5", "3"])]);
    world.settle();
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let task = evaluation(&world, "forget-five");
    assert_eq!(task.probes.unwrap().never_saw, Some(digest("without both")));
}

/// Both ask for three, and the first for something more that keeps it back.
#[test]
fn one_that_can_be_compared_does_not_wait_for_an_earlier_one_that_covers_it_and_cannot() {
    let mut world = World::new();
    ready(&mut world, &[("without three", &["3"])]);
    world.ask("forget-both", &["3", "5"], fixed("8"));
    world.settle();
    world.ask("forget-three", &["3"], fixed("8"));
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let (_, reason, message) = world.condition("forget-both", ConditionType::Ready);
    assert_eq!(reason, Reason::WaitingForReference.to_string(), "{message}");
}

#[test]
fn those_that_cannot_be_compared_together_are_worked_for_one_after_the_other() {
    let mut world = World::new();
    ready(&mut world, &[("without three", &["3"]), ("without five", &["5"])]);
    world.edit_policy(|policy| policy.coalesce.window_seconds = 60);
    world.ask("forget-three", &["3"], fixed("8"));
    world.ask("forget-five", &["5"], fixed("8"));
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let (_, reason, message) = world.condition("forget-five", ConditionType::Ready);
    assert_eq!(reason, Reason::WaitingForReference.to_string());
    assert!(message.contains("never saw 3, 5"), "{message}");
    assert_eq!(world.run_for("forget-three").unwrap().spec.requests.len(), 1);
    name_references(&mut world, &[("without both", &["3", "5"])]);
    world.settle();
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn a_candidate_is_kept_for_a_suspended_request_though_one_that_cannot_be_compared_waits() {
    let mut world = World::new();
    ready(&mut world, &[("without three", &["3"])]);
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is evaluated", |world| world.is_running("forget-three", Stage::Evaluate));
    world.suspend("forget-three", true);
    world.ask("forget-five", &["5"], fixed("8"));
    world.settle();
    world.suspend("forget-three", false);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.audit.jobs_created.len(), 3, "prepare, forget and evaluate, once each");
}

#[test]
fn nothing_is_trained_under_gates_that_nothing_could_pass_and_the_request_says_which() {
    let change: [(GateName, &str, u32, &str); 3] = [
        (GateName::RetainQuality, "1.5", 3600, ""),
        (
            GateName::SeedSearch,
            "0.02",
            201,
            "its minSamples is 201, and no attempt has more than 200 samples",
        ),
        (
            GateName::DirectLeak,
            "0.0009",
            3000,
            "its maxBound is 0.0009, and the bound of none in 3000 samples is",
        ),
    ];
    for (name, bound, samples, why) in change {
        let mut world = World::new();
        ready(&mut world, &[("without three", &["3"])]);
        let before = world.model().status.as_ref().unwrap().served.clone();
        world.edit_policy(|policy| {
            for gate in policy.gates.iter_mut().filter(|gate| gate.name == name && !why.is_empty()) {
                (gate.max_bound, gate.min_samples) = (Some(bound.into()), Some(samples));
            }
        });
        world.ask("forget-three", &["3"], fixed("8"));
        world.settle();
        if !why.is_empty() {
            let (status, reason, message) = world.condition("forget-three", ConditionType::Ready);
            assert_eq!(
                (status.as_str(), reason),
                ("Unknown", Reason::GateOutOfReach.to_string()),
                "{message}"
            );
            assert!(
                message.contains(&format!("gate {name} of the policy can never pass: {why}")),
                "{message}"
            );
            assert!(world.job_for("forget-three", Stage::Forget).is_none());
            assert_eq!(world.model().status.as_ref().unwrap().served, before);
            world.apply_policy(within_reach());
            world.settle();
        }
        world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    }
}

#[test]
fn a_new_base_is_not_trained_under_gates_that_nothing_could_pass() {
    let mut world = World::new();
    ready(&mut world, &[("without three", &["3"])]);
    world.ask("forget-three", &["3"], fixed("8"));
    world.settle();
    let runs = world.audit.runs_created.len();
    name_references_for(&mut world, "next", &[("next without three", &["3"])]);
    world.edit_policy(|policy| policy.gates[0].max_bound = Some("0.0009".into()));
    world.edit_base("next");
    world.settle();
    let (status, reason, message) = world.model_condition(ConditionType::BaseInService);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "GateOutOfReach"), "{message}");
    assert_eq!(world.audit.runs_created.len(), runs + 1, "it was prepared, and no more");
    world.apply_policy(within_reach());
    world.settle();
    assert!(world.model_is(ConditionType::Ready), "{}", world.summary());
}

#[test]
fn the_gates_on_probes_have_as_much_drawn_as_they_want() {
    let mut world = World::new();
    ready(&mut world, &[("without three", &["3"])]);
    world.edit_policy(|policy| {
        // From the next level on there are mixtures, of which there are so many.
        policy.probes = Some(Probes::Fast);
        policy.gates.retain(|gate| gate.name.level().is_none_or(|level| level == ProbeLevel::Fast));
        for gate in &mut policy.gates {
            match gate.name {
                GateName::OtherDoorLeak => gate.min_samples = Some(4000),
                GateName::NeighbourAccuracy => gate.min_samples = Some(450),
                _ => {}
            }
        }
    });
    world.ask("forget-three", &["3"], fixed("8"));
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let samples = evaluation(&world, "forget-three").samples;
    // As many of each of nine kept labels as make 4,000.
    assert_eq!((samples.leak, samples.retain_per_label), (4005, 450));
}

#[test]
fn a_new_base_waits_for_a_model_that_never_saw_what_is_forgotten() {
    let mut world = World::new();
    ready(&mut world, &[("without three", &["3"])]);
    world.ask("forget-three", &["3"], fixed("8"));
    world.settle();
    let served = world.named_bundle();
    // One that never saw it is named; it stands beside the old base.
    world.edit_base("next");
    world.settle();
    let (status, reason, message) = world.model_condition(ConditionType::BaseInService);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "WaitingForReference"), "{message}");
    assert!(message.contains(&format!("none for base {}", digest("next").short())), "{message}");
    assert_eq!(world.named_bundle(), served, "the old base stays in service");
    name_references_for(&mut world, "next", &[("next without three", &["3"])]);
    world.settle();
    assert!(world.model_is(ConditionType::Ready), "{}", world.summary());
    let status = world.model().status.as_ref().unwrap();
    assert_eq!(status.baseline.as_ref().unwrap().teacher, digest("next"));
    let its = |run: &&UnlearnRun| run.spec.new_base.is_some();
    let run = world.cluster.runs.values().find(its).expect("a run made it forget");
    assert_eq!(run.spec.never_saw, Some(digest("next without three")));
}

#[test]
fn a_model_beside_another_base_is_none_to_compare_with() {
    let mut world = World::new();
    ready(&mut world, &[]);
    name_references_for(&mut world, "another", &[("another without three", &["3"])]);
    world.ask("forget-three", &["3"], fixed("8"));
    world.settle();
    let (_, reason, message) = world.condition("forget-three", ConditionType::Ready);
    assert_eq!(reason, Reason::WaitingForReference.to_string());
    assert!(message.contains(&format!("none for base {}", digest("teacher").short())), "{message}");
    assert!(world.job_for("forget-three", Stage::Forget).is_none());
    name_references(&mut world, &[("without three", &["3"])]);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let task = evaluation(&world, "forget-three");
    assert_eq!(task.probes.unwrap().never_saw, Some(digest("without three")));
}
