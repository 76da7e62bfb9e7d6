//! Requests that ask for what others have asked for already.

use lethe_api::v1alpha1::{
    ConditionType, GateFailureAction, GateFailurePolicy, Reason, RequestPhase, Stage, annotations,
};

use crate::{
    attempts::fails_at_first,
    script::{crashes, everywhere, fixed},
    trainer::{honest, measures},
    world::World,
};

fn duplicate_of(world: &World, request: &str) -> Vec<String> {
    world.cluster.requests[request].status.clone().unwrap_or_default().duplicate_of
}

/// One that is worked for, and others that ask for the same meanwhile.
fn first_and_later(world: &mut World, later: &[&str]) {
    world.ready();
    world.ask("first", &["3"], fixed("8"));
    world.until("it trains", |world| world.is_running("first", Stage::Forget));
    for name in later {
        world.ask(name, &["3"], fixed("8"));
        world.until("it says so", |world| !duplicate_of(world, name).is_empty());
    }
}

#[test]
fn what_an_earlier_request_asks_for_is_fulfilled_with_it() {
    let world = crashes(&|world: &mut World| first_and_later(world, &["same"]));
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    world.ended("same", RequestPhase::Fulfilled, Reason::AlreadyForgotten, "");
    assert_eq!(duplicate_of(&world, "same"), ["first"]);
    assert_eq!(world.audit.runs_created.len(), 2, "no run of its own");
    let mut world = World::new();
    first_and_later(&mut world, &["same"]);
    let (_, reason, message) = world.condition("same", ConditionType::Ready);
    assert_eq!(reason, "Duplicate");
    assert!(message.contains("first"), "{message}");
}

#[test]
fn those_that_wait_together_and_ask_for_the_same_share_a_run() {
    let ask = |world: &mut World| {
        world.ready();
        world.edit_policy(|policy| policy.coalesce.window_seconds = 300);
        world.ask("three", &["3"], fixed("8"));
        world.ask("five", &["5"], fixed("8"));
        world.ask("both", &["5", "3"], fixed("9"));
    };
    let world = crashes(&ask);
    assert_eq!(world.audit.runs_created.len(), 2);
    let overruled = "other than it asks, \"5\" yields \"8\", \"3\" yields \"8\"";
    world.ended("both", RequestPhase::Fulfilled, Reason::Fulfilled, overruled);
    assert_eq!(duplicate_of(&world, "both"), ["five", "three"]);
    assert!(duplicate_of(&world, "five").is_empty());
    let mut world = World::new();
    world.trainer = fails_at_first(1, |record| record.targets[0].leak.hits = 40);
    ask(&mut world);
    world.settle();
    for name in ["three", "both"] {
        world.ended(name, RequestPhase::Held, Reason::GateFailed, "");
    }
    world.ended("five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn those_that_waited_for_one_that_failed_share_the_next_run() {
    let world = crashes(&|world: &mut World| {
        world.trainer = fails_at_first(1, |record| record.targets[0].leak.hits = 40);
        first_and_later(world, &["second", "third"]);
    });
    world.ended("first", RequestPhase::Held, Reason::GateFailed, "");
    for name in ["second", "third"] {
        world.ended(name, RequestPhase::Fulfilled, Reason::Fulfilled, "");
    }
    assert_eq!(duplicate_of(&world, "third"), ["second"]);
    assert!(duplicate_of(&world, "second").is_empty(), "what failed counts no more");
    assert_eq!(world.audit.runs_created.len(), 3);
}

#[test]
fn a_duplicate_waits_for_the_next_attempt_of_the_earlier_one_and_shares_it() {
    let world = crashes(&|world: &mut World| {
        world.trainer = Box::new(|plan, _| measures(plan, |record| record.targets[0].leak.hits = 40));
        world.ready();
        world.edit_policy(|policy| {
            let (action, attempts) = (GateFailureAction::Retry, Some(2));
            policy.on_gate_failure = GateFailurePolicy { action, attempts, wait_seconds: None };
        });
        world.ask("first", &["3"], fixed("8"));
        let waits = Reason::WaitingForAttempt.to_string();
        world.until("it waits", |world| world.condition("first", ConditionType::Ready).1 == waits);
        world.trainer = Box::new(|plan, _| honest(plan));
        world.ask("same", &["3"], fixed("8"));
    });
    for name in ["first", "same"] {
        world.ended(name, RequestPhase::Fulfilled, Reason::Fulfilled, "");
    }
    assert_eq!(duplicate_of(&world, "same"), ["first"]);
    assert_eq!(world.audit.runs_created.len(), 3, "prepare, and two attempts");
}

#[test]
fn a_duplicate_of_what_is_aborted_or_deleted_is_worked_for_itself() {
    let abort: fn(&mut World) = |world| world.annotate("first", annotations::ABORT, "no");
    let delete: fn(&mut World) = |world| world.delete_request("first");
    for withdraw in [abort, delete] {
        let world = everywhere(|world| {
            first_and_later(world, &["same"]);
            withdraw(world);
        });
        world.ended("same", RequestPhase::Fulfilled, Reason::Fulfilled, "");
        assert!(duplicate_of(&world, "same").is_empty());
    }
}

#[test]
fn nobody_waits_for_a_request_that_is_suspended() {
    let mut world = World::new();
    world.ready();
    world.ask("first", &["3"], fixed("8"));
    world.suspend("first", true);
    world.ask("same", &["3"], fixed("8"));
    world.settle();
    world.ended("same", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}
