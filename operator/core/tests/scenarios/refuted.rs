//! What an audit saw leak stays out of service, whatever is rolled out, taken back or lost after it, until an audit of that
//! very bundle passes.

use jiff::SignedDuration;
use lethe_api::{
    Digest,
    contract::Count,
    v1alpha1::{
        ConditionType, InitialServing, NoCompliantDigest, Reason, RequestPhase, RolloutState, UnlearnPolicy,
        Verdict,
    },
};
use serde_json::json;

use crate::{
    audits::{self, pods},
    bases::{NEW, base_is},
    cluster::{deployment, scale},
    schedules::{self, DAYS, WEEKLY, audits, pass},
    script::{MODEL, careful, crashes, everywhere, fixed, model, watchful},
    trainer::{honest, measures, shows},
    world::{Patches, World},
};

fn leaks(world: &mut World) {
    world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
}

fn leaving() -> UnlearnPolicy {
    let mut policy = watchful();
    policy.spec.rollout.no_compliant_digest = NoCompliantDigest::Leave;
    policy
}

/// The first request is fulfilled, and an audit on a schedule sees what it had to forget.
fn refuted(world: &mut World, policy: UnlearnPolicy) {
    schedules::begin(world, policy, WEEKLY);
    leaks(world);
    pass(world, 2 * DAYS);
    world.until("it is said", is_exposed);
    world.prologue = world.calls;
}

fn is_exposed(world: &World) -> bool {
    world.phase("first") == Some(RequestPhase::Reexposed)
}

fn compliant(world: &World) -> Digest {
    world.model().status.as_ref().unwrap().ledger[0].digest.clone()
}

#[test]
fn whoever_deletes_what_is_exposed_again_does_not_make_the_model_compliant() {
    let world = everywhere(|world| {
        refuted(world, watchful());
        world.delete_request("first");
    });
    assert_eq!(world.ledger(), ["3->8"]);
    assert_eq!(pods(&world), 0, "{}", world.summary());
    let (status, reason, message) = world.model_condition(ConditionType::Compliant);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "GateFailed"), "{message}");
}

/// The first digest has no pods, and nobody calls it compliant.
#[track_caller]
fn stays_refuted(world: &World, replicas: i32) {
    assert_eq!(pods(world), replicas, "{}", world.summary());
    assert_eq!(world.named_bundle(), Some(compliant(world)));
    for type_ in [ConditionType::Compliant, ConditionType::Audited] {
        let (status, reason, message) = world.model_condition(type_);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "GateFailed"), "{message}");
    }
    world.ended(
        "first",
        RequestPhase::Reexposed,
        Reason::Reexposed,
        "300 of 3000 samples of the live server",
    );
    assert_eq!(world.model().status.as_ref().unwrap().exposed, ["3"]);
}

#[test]
fn a_candidate_that_fails_as_well_does_not_bring_back_what_was_refuted_before() {
    type Shows = fn(&mut World);
    let trainers: [(Shows, Reason); 3] = [
        (leaks, Reason::GateFailed),
        (
            |world| world.trainer = Box::new(|plan, _| shows(plan, |record| record.kept.hits = 60)),
            Reason::GateError,
        ),
        (
            |world| {
                let scant =
                    |plan: &_| shows(plan, |record| record.targets[0].leak = Count { hits: 0, n: 10 });
                world.trainer = Box::new(move |plan, _| scant(plan));
            },
            Reason::GateInconclusive,
        ),
    ];
    for (trainer, reason) in trainers {
        for (policy, replicas) in [(watchful(), 0), (leaving(), 2)] {
            let world = crashes(&|world: &mut World| {
                refuted(world, policy.clone());
                trainer(world);
                world.ask("second", &["5"], fixed("8"));
            });
            world.ended("second", RequestPhase::Failed, reason, "serving went back");
            stays_refuted(&world, replicas);
        }
    }
}

#[test]
fn an_audit_that_measures_nothing_acquits_nobody() {
    let world = crashes(&|world: &mut World| {
        refuted(world, leaving());
        world.trainer = Box::new(|plan, _| shows(plan, |record| record.kept.hits = 60));
        pass(world, 7 * DAYS);
        world.until("it was asked again", |world| {
            let audit = world.model().status.as_ref().and_then(|status| status.audit.clone());
            audit.is_some_and(|audit| audit.verdict == Verdict::Error)
        });
    });
    stays_refuted(&world, 2);
}

#[test]
fn a_candidate_that_does_not_come_up_gives_what_was_refuted_no_pods_on_the_way_back() {
    let world = crashes(&|world: &mut World| {
        refuted(world, watchful());
        let first = Some(compliant(world));
        world.comes_up = Box::new(move |named| named == first.as_ref());
        world.ask("second", &["5"], fixed("8"));
    });
    world.ended("second", RequestPhase::Failed, Reason::RolloutTimedOut, "serving went back");
    stays_refuted(&world, 0);
}

#[test]
fn a_candidate_that_fails_in_the_dark_leaves_what_was_refuted_without_pods() {
    let world = crashes(&|world: &mut World| {
        refuted(world, careful(json!([{"weight": 50}])));
        world.ask("second", &["5"], fixed("8"));
        world.until("it is beside the target", |world| world.cluster.canary.is_some());
        world.change(|cluster| scale(cluster.deployment.as_mut().unwrap(), 2));
    });
    world.ended("second", RequestPhase::Failed, Reason::GateFailed, "");
    stays_refuted(&world, 0);
}

#[test]
fn what_was_refuted_is_replaced_by_a_candidate_that_shows_nothing() {
    let world = crashes(&|world: &mut World| {
        refuted(world, watchful());
        world.ask("second", &["5"], fixed("8"));
        world.until("it has failed", |w| w.phase("second") == Some(RequestPhase::Failed));
        world.trainer = Box::new(|plan, _| honest(plan));
        world.ask("third", &["5"], fixed("8"));
    });
    for name in ["first", "third"] {
        world.ended(name, RequestPhase::Fulfilled, Reason::Fulfilled, "");
    }
    assert_eq!(pods(&world), 2, "as many as there were");
    assert!(world.model_is(ConditionType::Compliant) && world.model_is(ConditionType::Audited));
    let status = world.model().status.as_ref().unwrap();
    assert!(status.scaled_down.is_none() && status.exposed.is_empty());
}

#[test]
fn what_was_refuted_stays_so_while_another_base_fails_and_goes_with_the_base_that_passes() {
    let world = crashes(&|world: &mut World| {
        refuted(world, watchful());
        world.edit_base(NEW);
        world.until("its candidate is asked", |world| {
            world.model_condition(ConditionType::BaseInService).1 == Reason::GateFailed.to_string()
        });
    });
    stays_refuted(&world, 0);
    let world = crashes(&|world: &mut World| {
        refuted(world, watchful());
        world.trainer = Box::new(|plan, _| honest(plan));
        world.edit_base(NEW);
        world.until("it is in service", |world| base_is(world, NEW));
    });
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "not shown any more");
    assert!(pods(&world) == 2 && world.model_is(ConditionType::Compliant), "{}", world.summary());
}

#[test]
fn a_model_that_comes_back_without_its_status_still_knows_what_was_refuted() {
    let comes_back = |world: &mut World| {
        refuted(world, watchful());
        world.settle();
        let mut anew = world.model().clone();
        world.delete_model();
        world.until("it is gone", |world| world.cluster.models.is_empty());
        (anew.status, anew.metadata) = (None, model(InitialServing::Baseline).metadata);
        world.change(|cluster| cluster.deployment = Some(deployment(MODEL, "server")));
        world.apply_model(anew);
    };
    let world = crashes(&comes_back);
    assert_eq!((pods(&world), world.named_bundle()), (0, Some(compliant(&world))));
    let (status, reason, message) = world.model_condition(ConditionType::Compliant);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "GateFailed"), "{message}");
    assert_eq!(world.model().status.as_ref().unwrap().exposed, ["3"]);
}

/// As a backup brings it back: it knows no less of what was forgotten.
#[test]
fn a_status_from_before_the_audit_does_not_bring_back_what_was_refuted() {
    let mut world = World::new();
    schedules::begin(&mut world, watchful(), WEEKLY);
    world.settle();
    let before = world.model().status.clone();
    leaks(&mut world);
    pass(&mut world, 2 * DAYS);
    world.until("it is said", is_exposed);
    world.settle();
    let asked = audits(&world);
    world.change(|cluster| cluster.models.get_mut(MODEL).unwrap().status = before.clone());
    world.settle();
    let (status, reason, message) = world.model_condition(ConditionType::Compliant);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "GateFailed"), "{message}");
    assert_eq!((pods(&world), audits(&world)), (0, asked));
}

#[test]
fn what_leaks_loses_its_pods_even_if_its_annotation_may_not_be_changed() {
    type Leaks = fn(&mut World);
    let errs: Leaks = |world| {
        world.trainer = Box::new(|plan, _| shows(plan, |record| record.kept.hits = 60));
    };
    for trainer in [leaks, errs] {
        let world = crashes(&|world: &mut World| {
            audits::begin(world, watchful(), InitialServing::None);
            trainer(world);
            world.ask("first", &["3"], fixed("8"));
            world.until("the live server is asked", |world| {
                let rollout = world.model().status.as_ref().and_then(|status| status.rollout.as_ref());
                rollout.is_some_and(|rollout| rollout.state == RolloutState::Auditing)
            });
            world.patches = Patches::Refused;
            world.until("it has no pods", |world| pods(world) == 0);
            world.patches = Patches::Kept;
            world.now += SignedDuration::from_secs(1);
        });
        assert_eq!((pods(&world), world.named_bundle()), (0, None));
        assert_eq!(world.phase("first"), Some(RequestPhase::Failed));
    }
}

/// That the gates of a candidate fail says nothing of what is served.
#[test]
fn a_candidate_that_is_held_changes_nothing_of_what_was_refuted() {
    let world = crashes(&|world: &mut World| {
        refuted(world, watchful());
        world.trainer = Box::new(|plan, _| measures(plan, |record| record.targets[0].leak.hits = 40));
        world.ask("second", &["5"], fixed("8"));
    });
    world.ended("second", RequestPhase::Held, Reason::GateFailed, "");
    stays_refuted(&world, 0);
}

/// Without pods nobody can ask it. Whoever has put the server right lets it have them for the time of an audit.
#[test]
fn a_server_that_was_put_right_is_asked_once_the_policy_leaves_it() {
    let leaves = |world: &mut World, policy| {
        world.edit_policy(|spec| spec.rollout.no_compliant_digest = policy);
    };
    let asked_again = |world: &mut World| {
        refuted(world, watchful());
        pass(world, 7 * DAYS);
        world.settle();
        assert_eq!((pods(world), audits(world)), (0, 2), "nothing can be asked without pods");
        leaves(world, NoCompliantDigest::Leave);
    };
    let world = crashes(&|world: &mut World| {
        asked_again(world);
        world.trainer = Box::new(|plan, _| honest(plan));
        world.until("it is said", |w| w.phase("first") == Some(RequestPhase::Fulfilled));
        leaves(world, NoCompliantDigest::ScaleToZero);
    });
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "not shown any more");
    assert!(pods(&world) == 2 && world.model_is(ConditionType::Compliant), "{}", world.summary());
    let world = crashes(&|world: &mut World| {
        asked_again(world);
        world.until("it was asked", |world| audits(world) == 3);
        world.settle();
        leaves(world, NoCompliantDigest::ScaleToZero);
    });
    stays_refuted(&world, 0);
}
