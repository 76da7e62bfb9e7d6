//! From a request to a model that has forgotten, or to one that has not and is not served.

use lethe_api::{
    contract::{Count, Plan, Task},
    v1alpha1::{ConditionType, InitialServing, Reason, RequestPhase, Stage, Verdict},
};

use crate::{
    cluster::deployment,
    script::{MODEL, everywhere, fixed, model, policy},
    trainer::{honest, measures},
    world::World,
};

#[test]
fn a_request_is_fulfilled_and_the_ledger_says_so() {
    let world = everywhere(|world| {
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(world.ledger(), ["3->8"]);
    let status = world.model().status.clone().unwrap();
    assert_eq!(world.named_bundle(), Some(status.ledger[0].digest.clone()));
    assert_eq!(status.served.unwrap().digest, status.ledger[0].digest);
    assert_eq!(world.cluster.serving, world.named_bundle());
    assert!(world.model_is(ConditionType::Ready) && world.model_is(ConditionType::Compliant));
    assert_eq!(world.audit.jobs_created.len(), 3, "prepare, forget and evaluate");
    let request = world.cluster.requests["forget-three"].status.as_ref().unwrap();
    assert!(request.record.as_ref().is_some_and(|record| world.store.contains_key(record)));
    assert_eq!(request.gate_summary.as_deref(), Some("5/5"));
}

/// A world in which an evaluation finds what `change` makes of a good one.
fn evaluated(change: fn(&mut lethe_api::contract::EvaluateRecord)) -> World {
    everywhere(move |world| {
        world.trainer = Box::new(move |plan, _| measures(plan, change));
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
    })
}

fn is_held(world: &World, reason: Reason, verdict: Verdict, says: &str) {
    world.ended("forget-three", RequestPhase::Held, reason, says);
    assert_eq!(world.run_for("forget-three").unwrap().status.as_ref().unwrap().verdict, Some(verdict));
    assert_eq!(world.named_bundle(), Some(world.baseline()), "what is served did not change");
    assert!(world.ledger().is_empty());
    assert!(world.model_is(ConditionType::Ready), "the model is free for the next request");
}

#[test]
fn a_leak_is_held_and_named() {
    let world = evaluated(|record| record.targets[0].leak.hits = 40);
    is_held(&world, Reason::GateFailed, Verdict::Fail, "direct-leak \"3\" Fail");
}

#[test]
fn too_few_samples_are_held_as_inconclusive() {
    let world = evaluated(|record| record.targets[0].leak = Count { hits: 0, n: 100 });
    is_held(&world, Reason::GateInconclusive, Verdict::Inconclusive, "100 samples are too few");
}

#[test]
fn a_blind_judge_is_held_as_an_error() {
    let world = evaluated(|record| record.targets[0].control.hits = 0);
    is_held(&world, Reason::GateError, Verdict::Error, "positive control");
}

#[test]
fn a_measurement_of_another_candidate_is_held_as_an_error() {
    let world = evaluated(|record| record.candidate = crate::trainer::digest("another"));
    is_held(&world, Reason::GateError, Verdict::Error, "the measurement is of candidate");
}

#[test]
fn absurd_numbers_are_held_and_fit_into_a_status() {
    let world = evaluated(|record| record.quality.candidate = 1e300);
    is_held(&world, Reason::GateFailed, Verdict::Fail, "retain-quality");
    let gates = &world.run_for("forget-three").unwrap().status.as_ref().unwrap().gates;
    assert!(gates.iter().flat_map(|gate| &gate.value).all(|value| value.len() <= 32), "{gates:#?}");
    let world = evaluated(|record| record.targets[0].leak = Count { hits: u64::MAX, n: u64::MAX });
    is_held(&world, Reason::GateError, Verdict::Error, "direct-leak");
    let gates = &world.run_for("forget-three").unwrap().status.as_ref().unwrap().gates;
    let numbers = gates.iter().flat_map(|gate| [gate.hits, gate.n]).flatten();
    assert!(numbers.max() < Some(1 << 53), "no JSON reader keeps more: {gates:#?}");
}

#[test]
fn the_baseline_is_served_before_anything_had_to_be_forgotten() {
    let world = everywhere(World::with_model);
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    assert!(world.model_is(ConditionType::Ready));
    assert_eq!(world.model_condition(ConditionType::Compliant).1, "NothingForgotten");
}

#[test]
fn with_initial_none_nothing_is_served_before_the_first_fulfilled_request() {
    let prepare = |world: &mut World| {
        world.apply_policy(policy());
        world.change(|cluster| cluster.deployment = Some(deployment(MODEL, "server")));
        world.apply_model(model(InitialServing::None));
        world.until("it is prepared", |world| world.model_is(ConditionType::Prepared));
    };
    let world = everywhere(prepare);
    assert_eq!(world.named_bundle(), None);
    assert!(world.model_is(ConditionType::Ready), "{}", world.summary());
    let world = everywhere(|world| {
        prepare(world);
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["3->8"]);
    let world = everywhere(|world| {
        prepare(world);
        world.comes_up = Box::new(|named| named.is_none());
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "");
    assert_eq!(world.named_bundle(), None);
    assert!(world.model_is(ConditionType::Ready), "it serves nothing, as it should: {}", world.summary());
}

#[test]
fn a_failed_preparation_is_tried_again_when_the_policy_changed() {
    let world = everywhere(|world| {
        world.trainer = Box::new(|plan, _| match &plan.task {
            Task::Prepare(task) if task.steps.is_none() => {
                crate::trainer::Fate::Exits { code: 64, message: String::new() }
            }
            _ => honest(plan),
        });
        world.with_model();
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it failed", |world| world.model_condition(ConditionType::Prepared).0 == "False");
        let (_, reason, message) = world.model_condition(ConditionType::Prepared);
        assert_eq!(reason, "BadPlan", "{message}");
        assert!(message.contains("change trainer or training of the policy, or delete the run"), "{message}");
        world.edit_policy(|policy| policy.training.prepare_steps = Some(1500));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.audit.runs_created.len(), 3);
}

#[test]
fn a_failed_preparation_is_not_tried_again_by_itself() {
    let mut world = World::new();
    world.trainer = Box::new(|_, _| crate::trainer::Fate::Exits { code: 65, message: String::new() });
    world.with_model();
    world.ask("forget-three", &["3"], fixed("8"));
    world.settle();
    assert_eq!(world.audit.jobs_created.len(), 1);
    let (_, _, message) = world.condition("forget-three", ConditionType::Ready);
    assert!(message.contains("not prepared"), "{message}");
    assert!(world.job_for("forget-three", Stage::Forget).is_none());
}

#[test]
fn a_policy_that_asks_for_robustness_has_the_candidate_trained_for_it() {
    for robustness in [None, Some(lethe_api::contract::Robustness::Harden)] {
        let mut world = World::new();
        let mut policy = crate::script::policy();
        policy.spec.training.robustness = robustness;
        world.ready();
        world.apply_policy(policy);
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it is trained", |world| world.is_running("forget-three", Stage::Forget));
        let plan: Plan = serde_json::from_str(&world.run_for("forget-three").unwrap().spec.plan).unwrap();
        let Task::Forget(task) = plan.task else { panic!("no plan to forget") };
        assert_eq!(task.robustness, robustness);
    }
}

#[test]
fn a_policy_that_asks_for_probes_has_the_candidate_attacked_with_the_teacher_at_hand() {
    let mut world = World::new();
    let mut policy = crate::script::policy();
    policy.spec.probes = Some(lethe_api::v1alpha1::Probes::Attack);
    world.ready();
    world.apply_policy(policy);
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is evaluated", |world| world.is_running("forget-three", Stage::Evaluate));
    let run = world.run_for("forget-three").unwrap();
    let candidate = run.status.as_ref().unwrap().candidate.clone().unwrap();
    let plan =
        lethe_core::plans::evaluate(&run.metadata.name.clone().unwrap(), &run.spec, &candidate).unwrap();
    let lethe_api::contract::Task::Evaluate(task) = plan.task else { panic!("{plan:?}") };
    let probes = task.probes.expect("the policy asks for them");
    assert_eq!(probes.level, lethe_api::contract::ProbeLevel::Attack);
    assert_eq!(probes.teacher, crate::trainer::digest("teacher"));
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}
