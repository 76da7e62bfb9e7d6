//! A candidate that is beside the target before it takes the target's place.

use jiff::SignedDuration;
use kube::ResourceExt;
use lethe_api::v1alpha1::{
    ApprovalDecision, Canary, ConditionType, InitialServing, Reason, RequestPhase, RolloutState, annotations,
};
use lethe_core::canary::gets_traffic;
use serde_json::{Value, json};

use crate::{
    cluster::{Beside, deployment, replicas, scale},
    script::{MODEL, careful, crashes, everywhere, fixed, model, request},
    trainer::{honest, shows},
    world::World,
};

/// A baseline is served, and its policy tries candidates beside it first.
pub fn begin(world: &mut World, steps: Value) {
    begin_with(world, steps, InitialServing::Baseline);
    world.until("the baseline is served", |world| world.model_is(ConditionType::Serving));
    world.prologue = world.calls;
}

fn begin_with(world: &mut World, steps: Value, initial: InitialServing) {
    world.apply_policy(careful(steps));
    world.change(|cluster| cluster.deployment = Some(deployment(MODEL, "server")));
    world.apply_model(model(initial));
    world.until("it is prepared", |world| world.model_is(ConditionType::Prepared));
}

/// Somebody who says who they are asks for the three to be forgotten.
pub fn ask(world: &mut World) {
    let mut asked = request("forget-three", &["3"], fixed("8"));
    asked.spec.requested_by = Some("alice".into());
    world.apply_request(asked);
}

fn canary(world: &World) -> Option<Canary> {
    let rollout = world.model().status.as_ref()?.rollout.clone()?;
    rollout.canary.filter(|_| rollout.state == RolloutState::Canary)
}

pub fn is_at(step: u32) -> impl Fn(&World) -> bool {
    move |world| canary(world).is_some_and(|canary| canary.step == step)
}

/// Every pod of the step is there.
pub fn has_come_to(step: u32) -> impl Fn(&World) -> bool {
    move |world| canary(world).is_some_and(|it| it.step == step && it.unready_since.is_none())
}

fn is_seen(world: &World) -> bool {
    let target = world.cluster.deployment.as_ref().unwrap();
    world.cluster.canary.as_ref().is_some_and(|canary| gets_traffic(&canary.deployment, target))
}

pub fn pods(world: &World) -> i32 {
    world.cluster.canary.as_ref().map_or(0, |canary| replicas(&canary.deployment))
}

pub fn names_the_baseline(world: &World) -> bool {
    world.named_bundle() == Some(world.baseline())
}

#[test]
fn a_candidate_is_asked_in_the_dark_then_gets_its_share_and_then_the_targets_place() {
    let world = everywhere(|world| {
        begin(world, json!([{"weight": 25}, {"pause": {"seconds": 60}}, {"weight": 50}]));
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it is in the dark", |world| pods(world) == 1);
        assert!(!is_seen(world) && names_the_baseline(world));
        world.until("users get some of it", is_at(2));
        assert!(is_seen(world) && names_the_baseline(world) && pods(world) == 1);
        world.until("users get half of it", |world| pods(world) == 2);
        assert!(is_at(3)(world) && names_the_baseline(world));
        let target = world.cluster.deployment.as_ref().unwrap();
        assert_eq!(replicas(target), 2, "the target's pods stay");
        assert_eq!(world.model().status.as_ref().unwrap().served.as_ref().unwrap().digest, world.baseline());
        assert_eq!(world.model_condition(ConditionType::Compliant).0, "True");
        let (_, _, says) = world.condition("forget-three", ConditionType::Ready);
        assert!(says.contains("every gate passed; canary"), "{says}");
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert!(world.model_is(ConditionType::Ready) && !names_the_baseline(&world));
    let audits = world.audit.jobs_created.iter().filter(|job| job.contains("-audit")).count();
    assert_eq!(audits, 2, "in the dark, and after");
}

#[test]
fn a_candidate_that_leaks_in_the_dark_is_never_seen_and_nothing_is_scaled_down() {
    for initial in [InitialServing::Baseline, InitialServing::None] {
        let world = crashes(&|world: &mut World| {
            begin_with(world, json!([{"weight": 25}]), initial);
            world.prologue = world.calls;
            world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
            world.ask("forget-three", &["3"], fixed("8"));
            world.until("it is in the dark", |world| pods(world) == 1);
            world.until("it is over", |world| {
                assert!(!is_seen(world), "users get what leaks");
                world.phase("forget-three") == Some(RequestPhase::Failed)
            });
        });
        world.ended("forget-three", RequestPhase::Failed, Reason::GateFailed, "300 of 3000 samples");
        assert!(
            world.condition("forget-three", ConditionType::Ready).2.contains("the target was not touched")
        );
        assert_eq!(replicas(world.cluster.deployment.as_ref().unwrap()), 2);
        assert_eq!(world.model_condition(ConditionType::Compliant).0, "True");
        assert!(world.audit.served.iter().all(|served| *served == Some(world.baseline())));
        assert!(world.model().status.as_ref().unwrap().audit.is_none(), "it says nothing of what is served");
    }
}

#[test]
fn pods_that_do_not_come_up_beside_the_target_turn_the_roll_out_back() {
    let world = crashes(&|world: &mut World| {
        begin(world, json!([{"weight": 25}]));
        let baseline = world.baseline();
        world.comes_up = Box::new(move |bundle| bundle.is_none_or(|bundle| *bundle == baseline));
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "0 of 1 pods are available");
    assert!(names_the_baseline(&world) && world.model_is(ConditionType::Ready));
}

#[test]
fn a_step_waits_for_people_who_have_not_asked_for_it_themselves() {
    let world = everywhere(|world| {
        begin(world, json!([{"weight": 50}, {"approval": {"required": 2}}]));
        ask(world);
        world.until("it waits for people", has_come_to(2));
        world.says("erin", ApprovalDecision::Approve, "forget-three");
        world.says_of_step("alice", ApprovalDecision::Approve, "forget-three", 2);
        world.says_of_step("bob", ApprovalDecision::Approve, "forget-three", 1);
        world.says_of_step("carol", ApprovalDecision::Approve, "forget-three", 2);
        world.settle();
        let (_, reason, says) = world.model_condition(ConditionType::Serving);
        assert_eq!(reason, "WaitingForApproval");
        assert!(says.contains("2 people have to agree") && says.ends_with("carol did"), "{says}");
        assert!(world.condition("forget-three", ConditionType::Ready).2.contains("carol did"));
        assert!(names_the_baseline(world) && is_seen(world), "it stays as it is, however long that takes");
        world.says_of_step("dave", ApprovalDecision::Approve, "forget-three", 2);
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
}

#[test]
fn whoever_says_no_to_the_candidate_has_it_taken_away() {
    let world = crashes(&|world: &mut World| {
        begin(world, json!([{"weight": 50}, {"approval": {}}]));
        ask(world);
        world.until("it waits for people", has_come_to(2));
        world.says_of_step("bob", ApprovalDecision::Approve, "forget-three", 1);
        world.says_of_step("carol", ApprovalDecision::Deny, "forget-three", 1);
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::ApprovalDenied, "carol said no");
    assert!(names_the_baseline(&world) && world.model_is(ConditionType::Ready));
}

#[test]
fn where_nobody_checks_who_approves_or_nobody_says_who_asks_a_step_waits() {
    for (protects, by, reason) in
        [(false, Some("alice"), "ApprovalsNotProtected"), (true, None, "RequesterUnknown")]
    {
        let mut world = World::new();
        world.protects_approvals = protects;
        begin(&mut world, json!([{"approval": {}}]));
        let mut asked = request("forget-three", &["3"], fixed("8"));
        asked.spec.requested_by = by.map(Into::into);
        world.apply_request(asked);
        world.until("it waits for people", has_come_to(1));
        world.says_of_step("bob", ApprovalDecision::Approve, "forget-three", 1);
        world.settle();
        assert_eq!(world.model_condition(ConditionType::Serving).1, reason);
        assert!(names_the_baseline(&world) && !is_seen(&world), "a step before any weight is in the dark");
    }
}

#[test]
fn a_request_that_is_suspended_stops_it_where_it_is_and_one_that_goes_ends_it() {
    let world = everywhere(|world| {
        begin(world, json!([{"weight": 50}, {"pause": {"seconds": 60}}]));
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it pauses", is_at(2));
        world.suspend("forget-three", true);
        world.settle();
        assert!(is_at(2)(world) && names_the_baseline(world) && is_seen(world));
        let (_, _, says) = world.condition("forget-three", ConditionType::Ready);
        assert!(says.contains("stays at 2/2: pause: forget-three is suspended"), "{says}");
        world.annotate("forget-three", annotations::ABORT, "now");
    });
    world.ended("forget-three", RequestPhase::Aborted, Reason::Aborted, "Nothing was rolled out");
    assert!(names_the_baseline(&world) && world.model_is(ConditionType::Ready));
    let world = crashes(&|world: &mut World| {
        begin(world, json!([{"weight": 50}, {"pause": {"seconds": 60}}]));
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it pauses", is_at(2));
        world.delete_request("forget-three");
    });
    assert!(names_the_baseline(&world) && world.ledger().is_empty() && world.model_is(ConditionType::Ready));
}

#[test]
fn what_goes_during_a_canary_leaves_nothing_behind() {
    let world = crashes(&|world: &mut World| {
        begin(world, json!([{"weight": 50}, {"pause": {"seconds": 60}}]));
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it pauses", is_at(2));
        let run = world.run_for("forget-three").unwrap().name_any();
        world.change(|cluster| cluster.runs.remove(&run));
        world.until("it is gone", |world| world.cluster.canary.is_none());
        assert!(names_the_baseline(world));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    let world = crashes(&|world: &mut World| {
        begin(world, json!([{"weight": 50}, {"approval": {}}]));
        ask(world);
        world.until("it waits for people", has_come_to(2));
        world.delete_model();
    });
    assert!(world.cluster.models.is_empty() && world.cluster.canary.is_none());
    assert!(world.cluster.service.is_none() && names_the_baseline(&world));
}

#[test]
fn what_somebody_does_to_the_canary_is_put_right() {
    let world = crashes(&|world: &mut World| {
        begin(world, json!([{"weight": 50}, {"approval": {}}]));
        ask(world);
        world.until("it waits for people", has_come_to(2));
        world.change(|cluster| (cluster.canary, cluster.service) = (None, None));
        world.until("it is a copy of the target of now, and unseen", |world| pods(world) == 1);
        assert!(!is_seen(world), "nobody has asked this one yet");
        world.until("it is there again", |world| is_seen(world) && has_come_to(2)(world));
        world.change(|cluster| cluster.canary.as_mut().unwrap().shape(&Default::default(), 7));
        world.until("it has its pods again", |world| pods(world) == 2 && has_come_to(2)(world));
        world.drift(Some(crate::trainer::digest("another").as_str()));
        world.until("the target is set back", names_the_baseline);
        world.until("it goes on", has_come_to(2));
        world.says_of_step("bob", ApprovalDecision::Approve, "forget-three", 2);
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
}

#[test]
fn what_somebody_else_has_where_the_canary_should_be_is_left_alone() {
    let others = |world: &mut World| {
        let mut theirs = deployment("digits-canary", "server");
        world.admit(&mut theirs);
        let uid = theirs.uid().unwrap();
        world.change(|cluster| cluster.canary = Some(Beside::new(theirs, uid)));
    };
    let mut world = World::new();
    begin(&mut world, json!([{"weight": 50}]));
    others(&mut world);
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it says so", |w| w.model_condition(ConditionType::Serving).1 == "CanaryNotPossible");
    world.until("it is over", |world| world.phase("forget-three") == Some(RequestPhase::Failed));
    let says = "a Deployment \"digits-canary\" that is not this model's";
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, says);
    let theirs = world.cluster.canary.take().unwrap().deployment;
    assert!(replicas(&theirs) == 2 && theirs.owner_references().is_empty() && names_the_baseline(&world));
    world.settle();
}

#[test]
fn where_there_is_no_traffic_to_share_the_candidate_stays_in_the_dark() {
    let world = crashes(&|world: &mut World| {
        begin_with(world, json!([{"weight": 25}, {"pause": {"seconds": 60}}]), InitialServing::None);
        world.prologue = world.calls;
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it pauses", is_at(2));
        assert!(!is_seen(world) && pods(world) == 1 && world.named_bundle().is_none());
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    let mut world = World::new();
    begin(&mut world, json!([{"weight": 50}, {"approval": {}}]));
    ask(&mut world);
    world.until("it waits for people", has_come_to(2));
    world.change(|cluster| scale(cluster.deployment.as_mut().unwrap(), 0));
    world.settle();
    assert_eq!(pods(&world), 0, "users would get nothing else");
    world.change(|cluster| scale(cluster.deployment.as_mut().unwrap(), 2));
    world.until("it has its pods again", |world| pods(world) == 2 && has_come_to(2)(world));
    world.now += SignedDuration::from_hours(300);
    world.says_of_step("bob", ApprovalDecision::Approve, "forget-three", 2);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
}

#[test]
fn a_policy_that_is_edited_meanwhile_is_not_that_of_the_canary() {
    let world = crashes(&|world: &mut World| {
        begin(world, json!([{"weight": 50}, {"pause": {"seconds": 60}}]));
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it pauses", is_at(2));
        world.edit_policy(|policy| policy.rollout = Default::default());
        world.until("it is over", |world| canary(world).is_none());
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert!(world.model().status.as_ref().unwrap().rollout.as_ref().unwrap().canary.is_none());
}

#[test]
fn after_a_canary_whose_target_does_not_come_up_serving_goes_back_and_nothing_is_left() {
    let world = crashes(&|world: &mut World| {
        begin(world, json!([{"weight": 50}]));
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("users get some of it", is_at(1));
        world.until("the target is changed", |world| !names_the_baseline(world));
        let baseline = world.baseline();
        world.comes_up = Box::new(move |bundle| bundle.is_none_or(|bundle| *bundle == baseline));
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "not in service within 120 s");
    assert!(names_the_baseline(&world) && world.model_is(ConditionType::Ready));
    assert!(world.audit.jobs_created.len() > 3, "it was asked before");
    let again = crashes(&|world: &mut World| {
        begin(world, json!([]));
        world.trainer = Box::new(|plan, _| honest(plan));
        world.ask("forget-three", &["3"], fixed("8"));
    });
    again.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
}
