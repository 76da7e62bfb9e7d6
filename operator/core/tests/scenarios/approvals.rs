//! Requests that other people have to agree to.

use lethe_api::v1alpha1::{ApprovalDecision, ConditionType, Reason, RequestPhase, UnlearnRequest};

use crate::{
    script::{self, crashes, everywhere, fixed},
    world::World,
};

fn by_alice(name: &str) -> UnlearnRequest {
    let mut asked = script::request(name, &["3"], fixed("8"));
    asked.spec.requested_by = Some("alice".into());
    asked
}

/// A model whose policy asks for so many approvals.
fn asks_for(world: &mut World, required: u8) {
    world.ready();
    let mut policy = script::policy();
    policy.spec.approvals.required = required;
    world.apply_policy(policy);
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
fn one_no_denies_it_for_good() {
    let world = everywhere(|world| {
        two_are_asked(world);
        for name in ["bob", "carol", "dave"] {
            world.says(name, ApprovalDecision::Approve, "forget-three");
        }
        world.says("eve", ApprovalDecision::Deny, "forget-three");
    });
    // Whoever was quicker: it was begun before the no, or never.
    let phase = world.phase("forget-three");
    assert!(matches!(phase, Some(RequestPhase::Fulfilled | RequestPhase::Denied)), "{phase:?}");
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
    let mut policy = script::policy();
    policy.spec.approvals.required = 2;
    world.apply_policy(policy);
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
