//! An audit log that cannot be written: nothing is put into service, and whatever has to be taken out of it is.

use jiff::SignedDuration;
use lethe_api::v1alpha1::{ConditionType, Reason, RequestPhase};
use serde_json::json;

use crate::{
    audits::pods,
    canaries::{self, names_the_baseline},
    cluster::replicas,
    schedules::{self, DAYS, WEEKLY, pass},
    script::{crashes, everywhere, fixed, watchful},
    trainer::{digest, shows},
    world::World,
};

/// Longer than any roll-out may take.
const LONG: SignedDuration = SignedDuration::from_mins(30);

fn breaks(world: &mut World) {
    world.unlogged = Some("the store is full".into());
}

fn says_so(world: &World) -> bool {
    let (_, reason, message) = world.condition("forget-three", ConditionType::Ready);
    reason == Reason::AuditLogUnavailable.to_string() && message.contains("the store is full")
}

/// Time passes, and whatever can be done is.
fn wait(world: &mut World) {
    let until = world.now + LONG;
    while world.now < until {
        if !world.step() {
            world.now += SignedDuration::from_secs(10);
        }
    }
}

#[test]
fn a_candidate_that_passed_waits_for_the_audit_log_however_long_that_takes_and_is_rolled_out_then() {
    let world = crashes(&|world: &mut World| {
        world.ready();
        breaks(world);
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it passed, and waits", says_so);
        assert_eq!(world.phase("forget-three"), Some(RequestPhase::RollingOut));
        wait(world);
        assert!(says_so(world) && names_the_baseline(world) && world.ledger().is_empty());
        assert_eq!(world.model_condition(ConditionType::Serving).1, "AuditLogUnavailable");
        assert_eq!(world.model_condition(ConditionType::Compliant).0, "True");
        world.unlogged = None;
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
}

#[test]
fn a_log_that_breaks_while_a_candidate_is_rolled_out_holds_the_promotion_and_not_the_ledger_for_good() {
    let world = everywhere(|world| {
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it is named", |world| world.named_bundle().is_some() && !names_the_baseline(world));
        breaks(world);
        world.until("it is said", says_so);
        wait(world);
        assert!(
            world.ledger().is_empty() && !names_the_baseline(world),
            "it passed, and serving it was announced"
        );
        assert_ne!(world.phase("forget-three"), Some(RequestPhase::Fulfilled));
        world.unlogged = None;
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(world.ledger(), ["3->8"]);
}

#[test]
fn the_first_publication_waits_as_well() {
    let mut world = World::new();
    breaks(&mut world);
    world.with_model();
    world.until("it is prepared", |world| world.model_is(ConditionType::Prepared));
    wait(&mut world);
    assert_eq!(world.named_bundle(), None);
    assert_eq!(world.model_condition(ConditionType::Serving).1, "AuditLogUnavailable");
    world.unlogged = None;
    world.until("the baseline is served", |world| world.model_is(ConditionType::Serving));
}

#[test]
fn a_canary_stays_where_it_is_and_goes_on_later() {
    let world = everywhere(|world| {
        canaries::begin(world, json!([{"weight": 25}, {"pause": {"seconds": 60}}]));
        canaries::ask(world);
        world.until("users get some of it", canaries::is_at(2));
        breaks(world);
        world.until("it is said", says_so);
        wait(world);
        assert!(canaries::is_at(2)(world) && names_the_baseline(world) && canaries::pods(world) == 1);
        world.unlogged = None;
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
}

#[test]
fn what_somebody_else_put_into_service_is_set_back_without_a_log() {
    let mut world = World::new();
    world.ready();
    breaks(&mut world);
    world.drift(Some(digest("something else").as_str()));
    world.until("it is set back", names_the_baseline);
}

#[test]
fn what_somebody_else_put_into_service_is_set_back_while_a_candidate_waits_for_the_log() {
    let world = everywhere(|world| {
        world.ready();
        breaks(world);
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it passed, and waits", says_so);
        world.drift(Some(digest("something else").as_str()));
        world.until("it is set back", names_the_baseline);
        world.drift(Some("not a digest"));
        world.until("it is set back", names_the_baseline);
        assert!(says_so(world));
        world.unlogged = None;
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
}

#[test]
fn a_candidate_that_does_not_come_up_is_taken_back_without_a_log() {
    let mut world = World::new();
    world.ready();
    world.comes_up = Box::new(|named| named.is_none_or(|named| *named == digest("baseline")));
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is named", |world| world.named_bundle().is_some() && !names_the_baseline(world));
    breaks(&mut world);
    world.until("it is taken back", names_the_baseline);
    world.until("it is over", |world| world.phase("forget-three") == Some(RequestPhase::Failed));
}

#[test]
fn what_leaks_loses_its_pods_without_a_log_and_gets_none_back_before_there_is_one() {
    let mut world = World::new();
    schedules::begin(&mut world, watchful(), WEEKLY);
    breaks(&mut world);
    world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
    pass(&mut world, 2 * DAYS);
    world.until("it has no pods", |world| pods(world) == 0);
    let target = world.cluster.deployment.as_ref().unwrap();
    assert_eq!(replicas(target), 0);
}
