//! What is served is audited from time to time, and whoever changes it exposes what was forgotten.

use jiff::SignedDuration;
use lethe_api::v1alpha1::{
    AuditSpec, ConditionType, NoCompliantDigest, Reason, RequestPhase, RunType, UnlearnPolicy, Verdict,
};

use crate::{
    audits::pods,
    script::{crashes, fixed, watchful},
    trainer::{honest, shows},
    world::World,
};

/// Sundays. Every world begins on a Friday at that time.
pub const WEEKLY: &str = "0 8 * * SUN";
pub const DAYS: i64 = 24;

pub fn begin(world: &mut World, policy: UnlearnPolicy, schedule: &str) {
    world.apply_policy(policy);
    world.change(|cluster| cluster.deployment = Some(crate::cluster::deployment("digits", "server")));
    let mut model = crate::script::model(lethe_api::v1alpha1::InitialServing::Baseline);
    model.spec.audit = Some(AuditSpec { schedule: schedule.into() });
    world.apply_model(model);
    world.until("the baseline is served", |world| world.model_is(ConditionType::Serving));
    world.ask("first", &["3"], fixed("8"));
    world.until("the first is fulfilled", |w| w.phase("first") == Some(RequestPhase::Fulfilled));
    world.prologue = world.calls;
}

fn leaving() -> UnlearnPolicy {
    let mut policy = watchful();
    policy.spec.rollout.no_compliant_digest = NoCompliantDigest::Leave;
    policy
}

pub fn audits(world: &World) -> usize {
    world.cluster.runs.values().filter(|run| run.spec.type_ == RunType::Audit).count()
}

fn verdict(world: &World) -> Option<Verdict> {
    world.model().status.as_ref()?.audit.as_ref().map(|audit| audit.verdict)
}

/// Lets so many hours pass at once, as if the operator had been away.
pub fn pass(world: &mut World, hours: i64) {
    world.settle();
    world.now += SignedDuration::from_hours(hours);
}

#[test]
fn what_is_served_is_audited_when_it_is_time() {
    let world = crashes(&|world: &mut World| {
        begin(world, watchful(), WEEKLY);
        let due = world.model().status.as_ref().unwrap().next_audit.clone();
        assert_eq!(due.map(|due| due.0.to_string()).as_deref(), Some("2027-01-17T08:00:00Z"));
        pass(world, 2 * DAYS);
        world.until("the second audit is over", |w| audits(w) == 2 && w.model_is(ConditionType::Ready));
    });
    let status = world.model().status.clone().unwrap();
    assert_eq!((audits(&world), verdict(&world)), (2, Some(Verdict::Pass)), "one of the roll-out");
    assert_eq!(status.next_audit.unwrap().0.to_string(), "2027-01-24T08:00:00Z");
    let (audited, reason, message) = world.model_condition(ConditionType::Audited);
    assert_eq!((audited.as_str(), reason.as_str()), ("True", "Audited"), "{message}");
    assert_eq!(status.active_run, None);
}

#[test]
fn of_missed_times_one_audit_comes() {
    let world = crashes(&|world: &mut World| {
        begin(world, watchful(), WEEKLY);
        pass(world, 31 * DAYS);
    });
    assert_eq!(audits(&world), 2);
    assert_eq!(verdict(&world), Some(Verdict::Pass));
    let next = world.model().status.clone().unwrap().next_audit.unwrap().0;
    assert_eq!(next.to_string(), "2027-02-21T08:00:00Z");
}

#[test]
fn a_failed_audit_takes_the_model_down_and_exposes_its_requests_until_one_passes() {
    let fails = |world: &mut World| {
        world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
        pass(world, 2 * DAYS);
        world.until("it is said", |w| w.phase("first") == Some(RequestPhase::Reexposed));
    };
    let world = crashes(&|world: &mut World| {
        begin(world, watchful(), WEEKLY);
        fails(world);
    });
    world.ended(
        "first",
        RequestPhase::Reexposed,
        Reason::Reexposed,
        "300 of 3000 samples of the live server",
    );
    assert_eq!(pods(&world), 0);
    for type_ in [ConditionType::Compliant, ConditionType::Audited] {
        let (status, reason, _) = world.model_condition(type_);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "GateFailed"));
    }
    let world = crashes(&|world: &mut World| {
        begin(world, leaving(), WEEKLY);
        fails(world);
        world.trainer = Box::new(|plan, _| honest(plan));
        pass(world, 7 * DAYS);
        world.until("it is over", |w| w.phase("first") == Some(RequestPhase::Fulfilled));
    });
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "not shown any more");
    assert_eq!((pods(&world), audits(&world)), (2, 3));
    assert!(world.model_is(ConditionType::Compliant) && world.model_is(ConditionType::Audited));
}

#[test]
fn an_audit_on_a_schedule_that_measures_nothing_accuses_nobody() {
    let world = crashes(&|world: &mut World| {
        begin(world, watchful(), WEEKLY);
        world.trainer = Box::new(|plan, _| shows(plan, |record| record.kept.hits = 60));
        pass(world, 2 * DAYS);
        world.until("it is said", |w| verdict(w) == Some(Verdict::Error));
    });
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let (status, reason, message) = world.model_condition(ConditionType::Audited);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "GateError"), "{message}");
    assert!(world.model_is(ConditionType::Compliant) && world.model_is(ConditionType::Ready));
}

#[test]
fn an_audit_goes_before_requests_that_wait() {
    let world = crashes(&|world: &mut World| {
        begin(world, watchful(), WEEKLY);
        pass(world, 2 * DAYS);
        world.ask("second", &["5"], fixed("8"));
    });
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(audits(&world), 3, "one of the schedule, two of roll-outs");
}

#[test]
fn a_schedule_that_is_none_is_said() {
    let mut world = World::new();
    begin(&mut world, watchful(), "0 0 30 2 *");
    world.settle();
    let (status, reason, message) = world.model_condition(ConditionType::Audited);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "BadSchedule"));
    assert!(message.contains("0 0 30 2 *"), "{message}");
    assert!(world.model_is(ConditionType::Ready));
}

#[test]
fn a_roll_back_exposes_what_was_forgotten_since_and_nothing_else() {
    let roll_back = |world: &mut World| {
        begin(world, watchful(), WEEKLY);
        world.ask("second", &["5"], fixed("8"));
        world.until("the second is fulfilled", |w| w.phase("second") == Some(RequestPhase::Fulfilled));
        world.settle();
        let older = world.model().status.as_ref().unwrap().ledger[0].digest.clone();
        world.drift(Some(older.as_str()));
    };
    let mut world = World::new();
    roll_back(&mut world);
    world.until("it is said", |w| w.phase("second") == Some(RequestPhase::Reexposed));
    assert_eq!(world.phase("first"), Some(RequestPhase::Fulfilled), "the older one forgot that as well");
    world.settle();
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "not shown any more");
    // Whoever dies meanwhile may find it set back already.
    let world = crashes(&roll_back);
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let status = world.model().status.clone().unwrap();
    assert_eq!(world.named_bundle(), Some(status.ledger[1].digest.clone()), "it was set back");
    assert!(status.exposed.is_empty() && world.model_is(ConditionType::Compliant));
}
