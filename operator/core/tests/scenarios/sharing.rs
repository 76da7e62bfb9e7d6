//! Requests that share a run: how they come together, and how one that fails leaves.

use jiff::SignedDuration;
use lethe_api::{
    contract::EvaluateRecord,
    v1alpha1::{ConditionType, GateFailureAction, GateFailurePolicy, Reason, RequestPhase, Stage},
};

use crate::{
    script::{crashes, everywhere, fixed},
    trainer::measures,
    world::{Trainer, World},
};

/// Pods that find that the five still comes, wherever it is among the targets.
fn the_five_leaks() -> Trainer {
    fn leaks(record: &mut EvaluateRecord) {
        for target in record.targets.iter_mut().filter(|target| target.label == "5") {
            target.leak.hits = 40;
        }
    }
    Box::new(|plan, _| measures(plan, leaks))
}

/// Within one window, so that whoever dies meanwhile, they share a run.
fn three_five_and_seven(world: &mut World) {
    world.ready();
    world.edit_policy(|policy| policy.coalesce.window_seconds = 300);
    for (name, label) in [("forget-three", "3"), ("forget-five", "5"), ("forget-seven", "7")] {
        world.ask(name, &[label], fixed("8"));
    }
}

#[test]
fn a_request_that_fails_is_held_and_those_that_shared_its_run_go_on_without_it() {
    let world = crashes(&|world: &mut World| {
        world.trainer = the_five_leaks();
        three_five_and_seven(world);
    });
    world.ended("forget-five", RequestPhase::Held, Reason::GateFailed, "direct-leak \"5\" Fail");
    for name in ["forget-three", "forget-seven"] {
        world.ended(name, RequestPhase::Fulfilled, Reason::Fulfilled, "");
        assert_eq!(world.attempts(name), Some((1, 1)), "the attempt that failed for another does not count");
    }
    assert_eq!(world.ledger(), ["3->8", "7->8"]);
    assert_eq!(world.audit.runs_created.len(), 3, "prepare, all three, and without the five");
}

#[test]
fn whoever_lost_a_run_to_another_goes_next_without_those_who_came_later() {
    let world = crashes(&|world: &mut World| {
        three_five_and_seven(world);
        world.until("they are worked for", |world| world.is_running("forget-five", Stage::Forget));
        world.delete_request("forget-three");
        // It comes back at once, and would be in the next run, and could go again.
        world.ask("forget-three", &["3"], fixed("8"));
    });
    for name in ["forget-three", "forget-five", "forget-seven"] {
        world.ended(name, RequestPhase::Fulfilled, Reason::Fulfilled, "");
    }
    assert_eq!(world.ledger(), ["5->8", "7->8", "3->8"]);
    assert_eq!(
        world.audit.runs_created.len(),
        4,
        "prepare, all three, without the one that went, and for its successor"
    );
}

#[test]
fn a_gate_on_the_whole_candidate_holds_all_that_share_it() {
    let world = crashes(&|world: &mut World| {
        world.trainer = Box::new(|plan, _| measures(plan, |record| record.quality.candidate = 1e6));
        three_five_and_seven(world);
    });
    for name in ["forget-three", "forget-five", "forget-seven"] {
        world.ended(name, RequestPhase::Held, Reason::GateFailed, "retain-quality");
    }
    assert_eq!(world.audit.runs_created.len(), 2);
}

#[test]
fn with_attempts_left_the_one_that_failed_is_tried_again_by_itself() {
    let world = crashes(&|world: &mut World| {
        world.trainer = the_five_leaks();
        three_five_and_seven(world);
        world.edit_policy(|policy| {
            let (action, attempts) = (GateFailureAction::Retry, Some(2));
            policy.on_gate_failure = GateFailurePolicy { action, attempts, wait_seconds: None };
        });
    });
    world.ended("forget-five", RequestPhase::Held, Reason::GateFailed, "");
    assert_eq!(world.attempts("forget-five"), Some((2, 2)));
    assert_eq!(world.ledger(), ["3->8", "7->8"]);
    assert_eq!(world.audit.runs_created.len(), 4);
}

#[test]
fn within_the_window_requests_come_together_and_say_until_when() {
    let world = everywhere(|world| {
        world.ready();
        world.edit_policy(|policy| policy.coalesce.window_seconds = 300);
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it waits", |world| {
            world.condition("forget-three", ConditionType::Ready).1 == Reason::WaitingForOthers.to_string()
        });
        world.ask("forget-five", &["5"], fixed("8"));
    });
    assert_eq!(world.audit.runs_created.len(), 2, "one to prepare, one for both");
    assert_eq!(world.ledger(), ["3->8", "5->8"]);
}

#[test]
fn the_window_ends_when_it_was_said_whatever_happens_meanwhile() {
    let mut world = World::new();
    world.ready();
    world.edit_policy(|policy| policy.coalesce.window_seconds = 300);
    world.ask("forget-three", &["3"], fixed("8"));
    let waits = |world: &World| {
        world.condition("forget-three", ConditionType::Ready).1 == Reason::WaitingForOthers.to_string()
    };
    world.until("it waits", waits);
    let ends = world.now + SignedDuration::from_secs(300);
    let (_, _, message) = world.condition("forget-three", ConditionType::Ready);
    assert!(message.contains(&ends.to_string()), "{message}");
    // An operator that starts anew has nothing but the statuses.
    world.now = ends - SignedDuration::from_secs(1);
    world.ask("forget-five", &["5"], fixed("8"));
    world.now = ends - SignedDuration::from_secs(1);
    while world.wants_something().is_some() {
        world.step();
    }
    assert_eq!(world.audit.runs_created.len(), 1, "not a second sooner");
    world.now = ends;
    world.settle();
    assert_eq!(world.run_for("forget-five").unwrap().spec.requests.len(), 2, "the later one goes with it");
    assert_eq!(world.ledger(), ["3->8", "5->8"]);
}
