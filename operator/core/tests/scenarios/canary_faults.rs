//! A candidate beside the target, and what leaks, old statuses, refusals and dying operators do to it.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use lethe_api::{
    Digest,
    v1alpha1::{ApprovalDecision, ApprovedStep, ConditionType, Reason, RequestPhase, Rollout, RolloutState},
};
use serde_json::{Value, json};

use crate::{
    canaries::{ask, begin, has_come_to, is_at, names_the_baseline, pods},
    cluster::{replicas, scale},
    schedules,
    script::{MODEL, careful, crashes, fixed},
    trainer::{honest, shows},
    world::{Patches, World},
};

/// The bundle of the run that is served last.
fn candidate(world: &World, request: &str) -> Digest {
    world.run_for(request).unwrap().status.as_ref().unwrap().candidate.clone().unwrap()
}

fn target_pods(world: &World) -> i32 {
    replicas(world.cluster.deployment.as_ref().unwrap())
}

fn is_fulfilled(world: &World) -> bool {
    world.phase("forget-three") == Some(RequestPhase::Fulfilled)
}

fn fulfill(world: &mut World, steps: Value) {
    begin(world, steps);
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is fulfilled", is_fulfilled);
    world.prologue = world.calls;
}

fn rollout(world: &World) -> Rollout {
    world.model().status.as_ref().unwrap().rollout.clone().unwrap()
}

#[test]
fn what_leaks_stays_without_pods_while_another_candidate_is_beside_it() {
    let world = crashes(&|world: &mut World| {
        schedules::begin(world, careful(json!([{"pause": {"seconds": 300}}])), schedules::WEEKLY);
        let leaks = candidate(world, "first");
        world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
        schedules::pass(world, 2 * schedules::DAYS);
        world.until("it is out of service", |world| target_pods(world) == 0);
        world.trainer = Box::new(|plan, _| honest(plan));
        world.ask("second", &["5"], fixed("1"));
        world.until("another is beside it", has_come_to(1));
        let other = candidate(world, "second");
        world.drift(Some(other.as_str()));
        world.until("what the target names is set back", |world| world.named_bundle() == Some(leaks.clone()));
        world.until("it goes on", has_come_to(1));
        assert_eq!(target_pods(world), 0, "what leaks is put back into service");
        world.change(|cluster| scale(cluster.deployment.as_mut().unwrap(), 3));
        world.until("it is scaled down again", |world| target_pods(world) == 0);
        assert!(is_at(1)(world));
    });
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert!(target_pods(&world) == 2 && world.model_is(ConditionType::Compliant));
}

#[test]
fn during_a_canary_the_target_is_kept_at_what_should_be_served_whatever_an_old_status_says() {
    let world = crashes(&|world: &mut World| {
        fulfill(world, json!([{"pause": {"seconds": 60}}]));
        let wanted = world.named_bundle();
        let baseline = world.baseline();
        world.change(|cluster| {
            let status = cluster.models.get_mut(MODEL).unwrap().status.as_mut().unwrap();
            status.served.as_mut().unwrap().digest = baseline;
        });
        world.ask("second", &["5"], fixed("1"));
        world.until("another is beside it", is_at(1));
        assert_eq!((world.named_bundle(), rollout(world).from), (wanted.clone(), wanted));
    });
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
}

/// Its pods stay for as long as somebody's finalizer does.
fn hold(world: &mut World) {
    let now = Time(world.now);
    world.change(|cluster| {
        cluster.canary.as_mut().unwrap().deployment.metadata.deletion_timestamp = Some(now);
    });
}

#[test]
fn a_canary_that_is_not_gone_keeps_another_roll_out_waiting_and_nobody_busy() {
    let mut world = World::new();
    let world = &mut world;
    begin(world, json!([{"weight": 50}]));
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("the target is changed", |world| !names_the_baseline(world));
    hold(world);
    world.until("it is fulfilled", is_fulfilled);
    let to = rollout(world).to;
    world.edit_policy(|policy| policy.rollout = Default::default());
    world.ask("second", &["5"], fixed("1"));
    world.until("another has passed", |world| world.phase("second") == Some(RequestPhase::RollingOut));
    let calls = world.calls;
    for _ in 0..50 {
        world.now += SignedDuration::from_secs(10);
        world.step();
    }
    assert!(world.calls < calls + 10, "it is deleted again and again");
    assert_eq!(rollout(world).to, to, "who serves it is forgotten");
    world.change(|cluster| cluster.canary = None);
    world.settle();
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
}

#[test]
fn a_canary_goes_before_its_model_does() {
    crashes(&|world: &mut World| {
        begin(world, json!([{"weight": 50}, {"approval": {}}]));
        ask(world);
        world.until("it waits for people", has_come_to(2));
        world.delete_model();
        world.until("the model may go", |world| {
            world.cluster.models.get(MODEL).is_none_or(|model| model.finalizers().is_empty())
        });
        assert!(world.cluster.canary.is_none(), "whoever orphans it leaves it with its users");
    });
}

#[test]
fn what_is_refuted_goes_even_if_the_target_may_not_go_back() {
    let mut world = World::new();
    begin(&mut world, json!([{"weight": 50}]));
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("the target is changed", |world| !names_the_baseline(world));
    let baseline = world.baseline();
    world.comes_up = Box::new(move |bundle| bundle.is_none_or(|bundle| *bundle == baseline));
    world.until("it is turned back", |world| rollout(world).state == RolloutState::RollingBack);
    // The operator dies with what it was about to do.
    (world.dies_before, world.patches) = (Some(world.calls), Patches::Refused);
    world.until("the canary is gone", |world| world.cluster.canary.is_none());
    assert!(!names_the_baseline(&world));
    world.patches = Patches::Kept;
    world.settle();
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "serving went back");
}

#[test]
fn a_target_that_was_scaled_to_zero_gives_the_canary_its_whole_time_again() {
    let world = crashes(&|world: &mut World| {
        begin(world, json!([{"weight": 50}]));
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("users are to get some of it", is_at(1));
        let baseline = world.baseline();
        world.comes_up = Box::new(move |bundle| bundle.is_none_or(|bundle| *bundle == baseline));
        world.now += SignedDuration::from_secs(30);
        world.until("its pods are to come", |world| pods(world) == 2);
        world.change(|cluster| scale(cluster.deployment.as_mut().unwrap(), 0));
        world.until("it waits for the target", |world| {
            world.model_condition(ConditionType::Serving).2.contains("scaled to zero: the canary waits")
        });
        world.now += SignedDuration::from_hours(3);
        world.comes_up = Box::new(|_| true);
        world.change(|cluster| scale(cluster.deployment.as_mut().unwrap(), 2));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
}

/// Another base has forgotten everything, and is beside the one in service.
fn another_base(world: &mut World) {
    world.edit_base("teacher of next year");
    world.until("the new base waits", |world| {
        is_at(1)(world) && world.model_condition(ConditionType::Serving).1 == "WaitingForApproval"
    });
}

#[test]
fn a_new_base_that_nobody_wants_any_more_is_taken_away_from_beside_the_old_one() {
    let world = crashes(&|world: &mut World| {
        fulfill(world, json!([]));
        world.edit_policy(|policy| policy.rollout = careful(json!([{"approval": {}}])).spec.rollout);
        another_base(world);
        let old = world.named_bundle();
        world.edit_base("teacher");
        world.until("it is gone", |world| world.cluster.canary.is_none());
        assert_eq!(world.named_bundle(), old);
    });
    assert!(world.model_is(ConditionType::Ready) && world.model_is(ConditionType::BaseInService));
    assert_eq!(world.model().status.as_ref().unwrap().baseline.as_ref().unwrap().bundle, world.baseline());
}

#[test]
fn for_a_new_base_whoever_names_its_candidate_agrees_to_it() {
    let world = crashes(&|world: &mut World| {
        fulfill(world, json!([]));
        world.edit_policy(|policy| policy.rollout = careful(json!([{"approval": {}}])).spec.rollout);
        another_base(world);
        let (_, _, says) = world.model_condition(ConditionType::Serving);
        assert!(says.contains("requestRef may name any request"), "{says}");
        let digest = rollout(world).to;
        world.says("bob", ApprovalDecision::Approve, "forget-three");
        world.change(|cluster| {
            cluster.approvals.last_mut().unwrap().spec.rollout = Some(ApprovedStep { digest, step: 1 });
        });
    });
    assert!(world.model_is(ConditionType::Ready) && world.model_is(ConditionType::BaseInService));
    assert_ne!(world.model().status.as_ref().unwrap().baseline.as_ref().unwrap().bundle, world.baseline());
}
