//! Audits beside attempts, retries, aborts and shared runs: no audit is an attempt, and none asks for one.

use jiff::SignedDuration;
use lethe_api::v1alpha1::{
    AuditSpec, ConditionType, GateFailureAction, GateFailurePolicy, InitialServing, NoCompliantDigest,
    Reason, RequestPhase, RolloutState, RunType, Stage, UnlearnPolicy, Verdict, annotations,
};

use crate::{
    cluster::deployment,
    script::{MODEL, crashes, everywhere, fixed, model, watchful},
    trainer::{honest, measures, shows},
    world::World,
};

/// Has the live server asked on Sundays, and tries three times whatever fails its gates. Every world begins on a Friday.
fn begin(world: &mut World, change: impl FnOnce(&mut UnlearnPolicy)) {
    let mut policy = watchful();
    let (action, attempts) = (GateFailureAction::Retry, Some(3));
    policy.spec.on_gate_failure = GateFailurePolicy { action, attempts, wait_seconds: None };
    change(&mut policy);
    world.apply_policy(policy);
    world.change(|cluster| cluster.deployment = Some(deployment(MODEL, "server")));
    let mut model = model(InitialServing::Baseline);
    model.spec.audit = Some(AuditSpec { schedule: "0 8 * * SUN".into() });
    world.apply_model(model);
    world.until("the baseline is served", |world| world.model_is(ConditionType::Serving));
    world.prologue = world.calls;
}

fn leaks(world: &mut World) {
    world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
}

fn fulfilled(name: &str) -> impl Fn(&World) -> bool {
    move |world| world.phase(name) == Some(RequestPhase::Fulfilled)
}

fn is_auditing(world: &World) -> bool {
    let rollout = world.model().status.as_ref().and_then(|status| status.rollout.as_ref());
    rollout.is_some_and(|rollout| rollout.state == RolloutState::Auditing)
}

/// How many runs of a kind there are.
fn runs(world: &World, type_: RunType) -> usize {
    world.cluster.runs.values().filter(|run| run.spec.type_ == type_).count()
}

/// Whether the audit that is due has begun and not ended.
fn is_audited_on_time(world: &World) -> bool {
    let active = world.model().status.as_ref().and_then(|status| status.active_run.as_ref());
    let active = active.and_then(|name| world.cluster.runs.get(name));
    active.is_some_and(|run| run.spec.type_ == RunType::Audit)
}

#[test]
fn a_live_server_that_leaks_has_nothing_trained_again_until_somebody_asks() {
    let world = everywhere(|world| {
        begin(world, |_| {});
        leaks(world);
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::GateFailed, "serving went back");
    assert_eq!(world.attempts("forget-three"), Some((1, 3)), "two are left, and none is made");
    assert_eq!((runs(&world, RunType::Forget), runs(&world, RunType::Audit)), (1, 1));
    let world = everywhere(|world| {
        begin(world, |_| {});
        leaks(world);
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it failed", |w| w.phase("forget-three") == Some(RequestPhase::Failed));
        world.trainer = Box::new(|plan, _| honest(plan));
        world.annotate("forget-three", annotations::RETRY, "the server was put right");
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(world.attempts("forget-three"), Some((2, 3)));
    assert_eq!((runs(&world, RunType::Forget), runs(&world, RunType::Audit)), (2, 2));
    assert!(world.model_is(ConditionType::Compliant));
}

#[test]
fn an_abort_while_the_live_server_is_asked_is_too_late_whatever_it_shows() {
    for leaking in [false, true] {
        let world = everywhere(|world| {
            begin(world, |_| {});
            if leaking {
                leaks(world);
            }
            world.ask("forget-three", &["3"], fixed("8"));
            world.until("the live server is asked", is_auditing);
            world.annotate("forget-three", annotations::ABORT, "stop");
        });
        let (phase, reason) = match leaking {
            true => (RequestPhase::Failed, Reason::GateFailed),
            false => (RequestPhase::Fulfilled, Reason::Fulfilled),
        };
        world.ended("forget-three", phase, reason, "");
        let (token, message) = world.acknowledged("forget-three", annotations::ABORT).unwrap();
        assert!(token == "stop" && message.starts_with("nothing was done"), "{message}");
        assert_eq!(runs(&world, RunType::Forget), 1);
    }
}

#[test]
fn what_waits_behind_an_audit_is_aborted_and_the_audit_goes_on() {
    let world = crashes(&|world: &mut World| {
        begin(world, |_| {});
        world.ask("first", &["3"], fixed("8"));
        world.until("the first is fulfilled", fulfilled("first"));
        world.settle();
        world.now += SignedDuration::from_hours(48);
        world.until("it is time", is_audited_on_time);
        world.ask("second", &["5"], fixed("8"));
        world.annotate("second", annotations::ABORT, "stop");
    });
    world.ended("second", RequestPhase::Aborted, Reason::Aborted, "no run worked for it");
    assert_eq!((runs(&world, RunType::Forget), runs(&world, RunType::Audit)), (1, 2));
    let status = world.model().status.clone().unwrap();
    assert_eq!(status.audit.map(|audit| audit.verdict), Some(Verdict::Pass));
    assert_eq!((status.active_run, world.phase("first")), (None, Some(RequestPhase::Fulfilled)));
}

#[test]
fn what_is_exposed_is_neither_tried_again_nor_given_up_until_it_is_not() {
    let exposed = |world: &mut World| {
        begin(world, |policy| policy.spec.rollout.no_compliant_digest = NoCompliantDigest::Leave);
        world.ask("first", &["3"], fixed("8"));
        world.until("the first is fulfilled", fulfilled("first"));
        world.settle();
        leaks(world);
        world.now += SignedDuration::from_hours(48);
        world.until("it is said", |w| w.phase("first") == Some(RequestPhase::Reexposed));
        world.annotate("first", annotations::RETRY, "again");
        world.annotate("first", annotations::ABORT, "stop");
    };
    let world = crashes(&exposed);
    world.ended("first", RequestPhase::Reexposed, Reason::Reexposed, "may be shown again");
    for annotation in [annotations::RETRY, annotations::ABORT] {
        let (_, message) = world.acknowledged("first", annotation).unwrap();
        assert!(message.starts_with("nothing was done"), "{message}");
    }
    assert_eq!((world.ledger(), runs(&world, RunType::Forget)), (vec!["3->8".to_owned()], 1));
    let mut world = world;
    world.trainer = Box::new(|plan, _| honest(plan));
    world.now += SignedDuration::from_hours(7 * 24);
    world.until("an audit has passed", fulfilled("first"));
    world.settle();
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "not shown any more");
    assert_eq!((world.attempts("first"), runs(&world, RunType::Forget)), (Some((1, 3)), 1));
}

#[test]
fn an_audit_between_two_attempts_is_no_attempt() {
    let world = crashes(&|world: &mut World| {
        begin(world, |policy| policy.spec.on_gate_failure.wait_seconds = Some(86_400));
        world.ask("first", &["3"], fixed("8"));
        world.until("the first is fulfilled", fulfilled("first"));
        world.settle();
        world.now += SignedDuration::from_hours(40);
        world.trainer = Box::new(|plan, _| measures(plan, |record| record.targets[0].leak.hits = 40));
        world.ask("second", &["5"], fixed("8"));
        world.until("it waits for its next attempt", |world| {
            world.condition("second", ConditionType::Ready).1 == Reason::WaitingForAttempt.to_string()
        });
        world.trainer = Box::new(|plan, _| honest(plan));
        world.now += SignedDuration::from_hours(10);
        world.until("it is time", is_audited_on_time);
        world.now += SignedDuration::from_hours(20);
        world.until("it was tried again", fulfilled("second"));
    });
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(world.attempts("second"), Some((2, 3)));
    assert_eq!((runs(&world, RunType::Forget), runs(&world, RunType::Audit)), (3, 3));
}

#[test]
fn a_member_that_was_split_off_is_fulfilled_by_an_audit_of_its_own_roll_out() {
    let world = crashes(&|world: &mut World| {
        begin(world, |policy| {
            policy.spec.on_gate_failure = GateFailurePolicy::default();
            policy.spec.coalesce.window_seconds = 300;
        });
        world.trainer = Box::new(|plan, _| {
            measures(plan, |record| {
                let three = record.targets.iter_mut().filter(|target| target.label == "3");
                three.for_each(|target| target.leak.hits = 40);
            })
        });
        world.ask("forget-three", &["3"], fixed("8"));
        world.ask("forget-five", &["5"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Held, Reason::GateFailed, "direct-leak");
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(world.attempts("forget-five"), Some((1, 1)));
    assert_eq!((runs(&world, RunType::Forget), runs(&world, RunType::Audit)), (2, 1));
}

/// Which of them is to blame is known, but what was served went back, and all of it was one bundle.
#[test]
fn a_live_server_that_leaks_one_label_fails_everyone_who_shared_the_roll_out() {
    let world = crashes(&|world: &mut World| {
        begin(world, |policy| policy.spec.coalesce.window_seconds = 300);
        leaks(world);
        world.ask("forget-three", &["3"], fixed("8"));
        world.ask("forget-five", &["5"], fixed("8"));
    });
    for name in ["forget-three", "forget-five"] {
        world.ended(name, RequestPhase::Failed, Reason::GateFailed, "serving went back");
        assert_eq!(world.attempts(name), Some((1, 3)));
    }
    assert_eq!((runs(&world, RunType::Forget), runs(&world, RunType::Audit)), (1, 1));
    assert!(world.ledger().is_empty());
}

#[test]
fn an_audit_whose_job_was_cleaned_up_while_nobody_looked_measured_nothing_and_asks_for_no_attempt() {
    let mut world = World::new();
    begin(&mut world, |_| {});
    world.ask("first", &["3"], fixed("8"));
    world.until("the first is fulfilled", fulfilled("first"));
    world.settle();
    world.now += SignedDuration::from_hours(48);
    world.until("it is time", is_audited_on_time);
    let run = world.model().status.clone().unwrap().active_run.unwrap();
    let job = lethe_core::names::job(&run, Stage::Audit);
    world.until("its Job is there", |world| world.cluster.jobs.contains_key(&job));
    world.change(|cluster| cluster.jobs.remove(&job));
    world.now += SignedDuration::from_hours(30 * 24);
    world.settle();
    let status = world.cluster.runs[&run].status.clone().unwrap();
    let ready = ConditionType::Ready.find(&status.conditions).unwrap();
    assert_eq!(ready.reason, Reason::NoOutcome.to_string());
    assert!(!ready.message.contains(annotations::RETRY), "{}", ready.message);
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(runs(&world, RunType::Forget), 1);
    assert!(world.model_is(ConditionType::Compliant));
}
