//! Candidates that fail their gates, and are tried again with another seed.

use std::cell::RefCell;

use jiff::SignedDuration;
use lethe_api::{
    contract::{EvaluateRecord, Plan, Task},
    v1alpha1::{ConditionType, GateFailureAction, GateFailurePolicy, Reason, RequestPhase, annotations},
};

use crate::{
    script::{everywhere, fixed},
    trainer::{honest, measures},
    world::{Trainer, World},
};

fn leaks(record: &mut EvaluateRecord) {
    record.targets[0].leak.hits = 40;
}

/// What pods do if the first runs that are evaluated fail.
pub fn fails_at_first(times: usize, how: fn(&mut EvaluateRecord)) -> Trainer {
    let seen = RefCell::new(Vec::<String>::new());
    Box::new(move |plan, _| {
        if !matches!(plan.task, Task::Evaluate(_)) {
            return honest(plan);
        }
        let mut seen = seen.borrow_mut();
        if !seen.contains(&plan.run) {
            seen.push(plan.run.clone());
        }
        let which = seen.iter().position(|run| *run == plan.run);
        if which < Some(times) { measures(plan, how) } else { honest(plan) }
    })
}

/// The model is ready, under a policy that tries so often.
fn tries(world: &mut World, attempts: u32) {
    world.ready();
    world.edit_policy(|policy| {
        policy.on_gate_failure = GateFailurePolicy {
            action: GateFailureAction::Retry,
            attempts: Some(attempts),
            wait_seconds: None,
        };
    });
}

fn waits_for_attempt(world: &World) -> bool {
    world.condition("forget-three", ConditionType::Ready).1 == Reason::WaitingForAttempt.to_string()
}

#[test]
fn a_candidate_that_fails_is_tried_again_with_another_seed() {
    let world = everywhere(|world| {
        world.trainer = fails_at_first(1, leaks);
        tries(world, 3);
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(world.attempts("forget-three"), Some((2, 3)));
    let plans: Vec<Plan> = world
        .cluster
        .runs
        .values()
        .filter(|run| !run.spec.requests.is_empty())
        .map(|run| Plan::parse(run.spec.plan.as_bytes()).unwrap())
        .collect();
    assert_eq!(plans.len(), 2);
    assert_ne!(plans[0].seed, plans[1].seed);
    assert_eq!(plans[0].task, plans[1].task, "but for the seed it is the same");
    assert_eq!(world.audit.jobs_created.len(), 5, "prepare, and two for each attempt");
}

#[test]
fn after_the_last_attempt_a_request_is_held() {
    let world = everywhere(|world| {
        world.trainer = Box::new(|plan, _| measures(plan, leaks));
        tries(world, 2);
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Held, Reason::GateFailed, "direct-leak \"3\" Fail");
    assert_eq!(world.attempts("forget-three"), Some((2, 2)));
    assert_eq!(world.audit.runs_created.len(), 3);
    assert!(world.ledger().is_empty());
}

#[test]
fn between_two_attempts_the_request_says_what_failed_and_when_the_next_begins() {
    let mut world = World::new();
    world.trainer = fails_at_first(1, leaks);
    tries(&mut world, 2);
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it waits", waits_for_attempt);
    let (_, _, message) = world.condition("forget-three", ConditionType::Ready);
    let status = world.cluster.requests["forget-three"].status.clone().unwrap();
    let next_at = status.attempts.unwrap().next_at.expect("it will be tried again").0;
    for says in ["attempt 1 of 2", "direct-leak \"3\" Fail", &next_at.to_string(), annotations::RETRY] {
        assert!(message.contains(says), "{says}: {message}");
    }
    assert_eq!(status.gate_summary.as_deref(), Some("4/5"));
    assert_eq!(
        world.run_for("forget-three").unwrap().status.as_ref().unwrap().attempts.clone().unwrap().used,
        1
    );
    let runs = world.audit.runs_created.len();
    world.now = next_at - SignedDuration::from_secs(1);
    assert_eq!(world.wants_something(), None, "not a second sooner");
    world.now = next_at;
    world.settle();
    assert_eq!(world.audit.runs_created.len(), runs + 1);
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn whoever_waits_goes_before_the_next_attempt_of_another() {
    let mut world = World::new();
    world.trainer = fails_at_first(1, leaks);
    tries(&mut world, 2);
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it waits", waits_for_attempt);
    world.ask("forget-five", &["5"], fixed("8"));
    world.settle();
    assert_eq!(world.ledger(), ["5->8", "3->8"]);
}

#[test]
fn a_measurement_that_proves_nothing_is_held_whatever_the_policy_says() {
    for (how, reason) in [
        ((|record| record.targets[0].leak.n = 100) as fn(&mut EvaluateRecord), Reason::GateInconclusive),
        (|record| record.targets[0].control.hits = 0, Reason::GateError),
    ] {
        let mut world = World::new();
        world.trainer = Box::new(move |plan, _| measures(plan, how));
        tries(&mut world, 3);
        world.ask("forget-three", &["3"], fixed("8"));
        world.settle();
        world.ended("forget-three", RequestPhase::Held, reason, "");
        assert_eq!(world.audit.runs_created.len(), 2);
    }
}

#[test]
fn a_job_that_was_cleaned_up_before_anybody_looked_is_not_made_again() {
    let mut world = World::new();
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it trains", |world| world.is_running("forget-three", lethe_api::v1alpha1::Stage::Forget));
    let made = world.audit.jobs_created.len();
    world.change(|cluster| cluster.jobs.clear());
    world.now += SignedDuration::from_hours(25);
    world.settle();
    world.ended("forget-three", RequestPhase::Failed, Reason::NoOutcome, annotations::RETRY);
    assert_eq!(world.audit.jobs_created.len(), made);
}
