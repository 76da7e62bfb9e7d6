//! Requests that other people have to agree to.

use lethe_api::v1alpha1::{ApprovalDecision, ConditionType, Reason, RequestPhase, Stage, UnlearnRequest};

use lethe_core::request;

use crate::{
    script::{self, crashes, everywhere, fixed},
    world::World,
};

fn asked_by(who: &str, name: &str, target: &str) -> UnlearnRequest {
    let mut asked = script::request(name, &[target], fixed("8"));
    asked.spec.requested_by = Some(who.into());
    asked
}

fn by_alice(name: &str) -> UnlearnRequest {
    asked_by("alice", name, "3")
}

fn require(world: &mut World, required: u8) {
    let mut policy = script::policy();
    policy.spec.approvals.required = required;
    world.apply_policy(policy);
}

/// A model whose policy asks for so many approvals.
fn asks_for(world: &mut World, required: u8) {
    world.ready();
    require(world, required);
}

fn two_are_asked(world: &mut World) {
    asks_for(world, 2);
    world.apply_request(by_alice("forget-three"));
}

fn waits(world: &World, reason: Reason, says: &str) {
    let (status, found, message) = world.condition("forget-three", ConditionType::Approved);
    assert_eq!((status.as_str(), found), ("Unknown", reason.to_string()), "{message}");
    assert!(message.contains(says), "{message}");
    assert_eq!(world.phase("forget-three"), Some(RequestPhase::AwaitingApproval));
    assert!(world.run_for("forget-three").is_none(), "nothing was begun");
}

#[test]
fn nothing_is_begun_before_enough_others_agreed() {
    let world = crashes(&|world: &mut World| {
        two_are_asked(world);
        world.says("bob", ApprovalDecision::Approve, "forget-three");
        world.says("bob", ApprovalDecision::Approve, "forget-three");
        world.says("alice", ApprovalDecision::Approve, "forget-three");
    });
    waits(&world, Reason::WaitingForApproval, "1 of 2 approvals");
}

#[test]
fn a_request_that_enough_others_agreed_to_is_carried_out_and_its_run_says_who() {
    let world = everywhere(|world| {
        two_are_asked(world);
        world.says("carol", ApprovalDecision::Approve, "forget-three");
        world.says("bob", ApprovalDecision::Approve, "forget-three");
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(world.run_for("forget-three").unwrap().spec.requests[0].approved_by, ["bob", "carol"]);
}

#[test]
fn one_no_denies_it_for_good_whoever_else_agrees() {
    let world = everywhere(|world| {
        two_are_asked(world);
        for name in ["bob", "carol"] {
            world.says(name, ApprovalDecision::Approve, "forget-three");
        }
        world.says("eve", ApprovalDecision::Deny, "forget-three");
        world.settle();
        world.says("dave", ApprovalDecision::Approve, "forget-three");
    });
    // Who was quicker is chance: it had begun before the no, or it never does.
    match world.run_for("forget-three") {
        Some(_) => world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served"),
        None => world.ended("forget-three", RequestPhase::Denied, Reason::ApprovalDenied, "eve said no"),
    }
    let mut world = World::new();
    two_are_asked(&mut world);
    world.says("eve", ApprovalDecision::Deny, "forget-three");
    world.settle();
    world.says("bob", ApprovalDecision::Approve, "forget-three");
    world.says("carol", ApprovalDecision::Approve, "forget-three");
    world.settle();
    world.ended("forget-three", RequestPhase::Denied, Reason::ApprovalDenied, "eve said no: looked at it");
    assert!(world.run_for("forget-three").is_none());
}

#[test]
fn a_no_counts_where_nobody_was_asked() {
    let mut world = World::new();
    world.ready();
    world.apply_request(by_alice("forget-three"));
    world.suspend("forget-three", true);
    world.settle();
    world.says("eve", ApprovalDecision::Deny, "forget-three");
    world.settle();
    world.ended("forget-three", RequestPhase::Denied, Reason::ApprovalDenied, "eve said no");
}

/// Two approved requests share a run; one of them is refused while it works, and the other one is withdrawn.
#[test]
fn a_run_that_begins_again_asks_what_people_say_now() {
    let mut world = World::new();
    asks_for(&mut world, 1);
    for (name, target) in [("forget-three", "3"), ("forget-five", "5")] {
        world.apply_request(asked_by("alice", name, target));
        world.suspend(name, true);
        world.says("bob", ApprovalDecision::Approve, name);
    }
    world.settle();
    world.suspend("forget-three", false);
    world.suspend("forget-five", false);
    world.until("a run works for both", |world| {
        world.run_for("forget-three").is_some_and(|run| run.spec.requests.len() == 2)
    });
    world.says("eve", ApprovalDecision::Deny, "forget-three");
    world.delete_request("forget-five");
    world.settle();
    world.ended("forget-three", RequestPhase::Denied, Reason::ApprovalDenied, "eve said no");
    assert_eq!(world.ledger(), Vec::<String>::new());
    assert_eq!(world.audit.runs_created.len(), 2, "one to prepare, one for both, and no other");
}

/// The no comes when a run is planned already, and whoever answers the request has not seen that run yet.
#[test]
fn a_request_that_was_denied_while_its_run_was_being_created_is_not_worked_for() {
    let mut world = World::new();
    asks_for(&mut world, 1);
    world.apply_request(by_alice("forget-three"));
    world.says("bob", ApprovalDecision::Approve, "forget-three");
    world.until("a run works for it", |world| world.run_for("forget-three").is_some());
    world.says("eve", ApprovalDecision::Deny, "forget-three");
    let mut observed = world.observe_request(&world.cluster.requests["forget-three"]);
    observed.runs.clear();
    let denied = request::decide(&observed, world.now).status;
    assert_eq!(denied.phase, Some(RequestPhase::Denied));
    let version = world.bump();
    world.change(|cluster| {
        let request = cluster.requests.get_mut("forget-three").expect("it was asked for");
        (request.status, request.metadata.resource_version) = (Some(denied), version);
    });
    world.settle();
    world.ended("forget-three", RequestPhase::Denied, Reason::ApprovalDenied, "eve said no");
    assert_eq!(world.ledger(), Vec::<String>::new());
    let run = world.run_for("forget-three").and_then(|run| run.status.clone()).expect("it had begun");
    let ready = ConditionType::Ready.find(&run.conditions).expect("it ended");
    assert!(ready.message.contains("forget-three was denied"), "{}", ready.message);
}

#[test]
fn a_no_that_comes_once_a_run_has_begun_is_said_once_and_stops_nothing() {
    let mut world = World::new();
    asks_for(&mut world, 1);
    world.apply_request(by_alice("forget-three"));
    world.says("bob", ApprovalDecision::Approve, "forget-three");
    world.until("it trains", |world| {
        world.is_running("forget-three", Stage::Forget)
            && world.phase("forget-three") == Some(RequestPhase::Training)
    });
    world.says("eve", ApprovalDecision::Deny, "forget-three");
    let decide = |world: &World| {
        request::decide(&world.observe_request(&world.cluster.requests["forget-three"]), world.now)
    };
    let is_said = |event: &lethe_core::Event| event.warning && event.reason == "DeniedTooLate";
    assert!(decide(&world).events.iter().any(is_said), "{:?}", decide(&world).events);
    let approved = |world: &World| world.condition("forget-three", ConditionType::Approved);
    world.until("it is in the status", |world| approved(world).1 == Reason::ApprovalDenied.to_string());
    assert!(!decide(&world).events.iter().any(is_said), "it was said");
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let (status, _, message) = approved(&world);
    assert!(
        status == "Unknown" && message.contains("eve said no") && message.contains("lethe.dev/abort"),
        "{message}"
    );
}

/// A candidate that passed waits for its suspended request; whoever may not begin does not push it aside.
#[test]
fn a_request_that_nobody_approved_and_a_pilot_do_not_cost_a_suspended_one_its_candidate() {
    let mut world = World::new();
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is evaluated", |world| world.is_running("forget-three", Stage::Evaluate));
    world.suspend("forget-three", true);
    world.settle();
    require(&mut world, 1);
    world.try_out("try-four", &["4"], fixed("8"));
    world.apply_request(asked_by("mallory", "forget-five", "5"));
    world.settle();
    let before = world.run_for("forget-three").unwrap().metadata.uid.clone();
    world.suspend("forget-three", false);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(world.run_for("forget-three").unwrap().metadata.uid, before, "it was trained once");
}

#[test]
fn a_request_that_another_one_fulfils_waits_for_nobody() {
    let mut world = World::new();
    asks_for(&mut world, 1);
    world.apply_request(by_alice("first"));
    world.apply_request(by_alice("second"));
    world.settle();
    world.says("bob", ApprovalDecision::Approve, "first");
    world.settle();
    world.ended("second", RequestPhase::Fulfilled, Reason::AlreadyForgotten, "");
    let conditions = &world.cluster.requests["second"].status.as_ref().unwrap().conditions;
    assert!(ConditionType::Approved.find(conditions).is_none(), "{conditions:?}");
}

#[test]
fn an_approval_of_an_earlier_request_of_the_same_name_is_none_of_this_one() {
    let mut world = World::new();
    asks_for(&mut world, 1);
    world.apply_request(by_alice("forget-three"));
    world.suspend("forget-three", true);
    world.says("bob", ApprovalDecision::Approve, "forget-three");
    world.delete_request("forget-three");
    world.apply_request(by_alice("forget-three"));
    world.settle();
    waits(&world, Reason::WaitingForApproval, "0 of 1");
}

#[test]
fn without_knowing_who_asks_or_who_approves_nothing_counts() {
    let mut world = World::new();
    asks_for(&mut world, 1);
    world.ask("forget-three", &["3"], fixed("8"));
    world.says("bob", ApprovalDecision::Approve, "forget-three");
    world.settle();
    waits(&world, Reason::RequesterUnknown, "spec.requestedBy");

    let mut world = World::new();
    world.protects_approvals = false;
    asks_for(&mut world, 1);
    world.apply_request(by_alice("forget-three"));
    world.says("bob", ApprovalDecision::Approve, "forget-three");
    world.settle();
    waits(&world, Reason::ApprovalsNotProtected, "admission.enabled");
}

#[test]
fn a_policy_that_asks_for_more_than_were_asked_before_is_obeyed() {
    let mut world = World::new();
    asks_for(&mut world, 1);
    world.apply_request(by_alice("forget-three"));
    world.suspend("forget-three", true);
    world.says("bob", ApprovalDecision::Approve, "forget-three");
    world.settle();
    assert_eq!(world.phase("forget-three"), Some(RequestPhase::Queued));
    require(&mut world, 2);
    world.suspend("forget-three", false);
    world.settle();
    waits(&world, Reason::WaitingForApproval, "1 of 2");
}

#[test]
fn a_pilot_needs_nobody() {
    let mut world = World::new();
    asks_for(&mut world, 2);
    world.try_out("try-three", &["3"], fixed("8"));
    world.settle();
    world.ended("try-three", RequestPhase::Tried, Reason::Pilot, "");
}
