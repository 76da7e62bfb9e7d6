//! What a ledger's archive says that comes late, is another, or is gone: nothing that was ever forgotten comes into service by it,
//! and nobody calls it compliant.

use kube::ResourceExt;
use lethe_api::v1alpha1::{
    ConditionType, InitialServing, NoCompliantDigest, Reason, RequestPhase, RolloutState,
};
use lethe_core::names;
use serde_json::json;

use crate::{
    audits::{self, pods},
    deletion::archive_found_late,
    script::{MODEL, careful, everywhere, fixed, model, policy, watchful},
    trainer::shows,
    world::{Patches, World},
};

fn rollout_is(world: &World, state: RolloutState) -> bool {
    let rollout = world.model().status.as_ref().and_then(|status| status.rollout.as_ref());
    rollout.is_some_and(|rollout| rollout.state == state && rollout.run.is_some())
}

/// Three was forgotten, and is in the archive.
fn forgotten(world: &mut World) {
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is fulfilled", |world| world.phase("forget-three") == Some(RequestPhase::Fulfilled));
    world.settle();
}

fn says(world: &World, type_: ConditionType, reason: Reason) {
    let (status, found, message) = world.model_condition(type_);
    assert_eq!((status.as_str(), found.as_str()), ("False", reason.to_string().as_str()), "{message}");
}

/// The model came back without its archive, and another request is on its way into service when that is found.
#[test]
fn an_archive_that_is_found_during_a_roll_out_turns_it_back() {
    for (policy, state) in [
        (policy(), RolloutState::Progressing),
        (watchful(), RolloutState::Auditing),
        (careful(json!([{"pause": {"seconds": 300}}])), RolloutState::Canary),
    ] {
        let mut world = World::new();
        let archive = archive_found_late(&mut world);
        world.apply_policy(policy);
        world.ask("forget-five", &["5"], fixed("8"));
        world.until("it is rolled out", |world| rollout_is(world, state));
        let first = world.run_for("forget-five").unwrap().clone();
        let candidate = first.status.as_ref().unwrap().candidate.clone().unwrap();
        world.until("it is seen", |world| match state {
            RolloutState::Canary => world.cluster.canary.is_some(),
            _ => world.named_bundle().as_ref() == Some(&candidate),
        });
        let named = world.audit.served.len();
        world.change(|cluster| cluster.config_maps.insert(archive.name_any(), archive.clone()));
        world.settle();
        let later = &world.audit.served[named..];
        let forgetful = [Some(candidate.clone()), Some(world.baseline())];
        assert!(later.iter().all(|served| !forgetful.contains(served)), "{state:?}: {later:?}");
        assert_eq!(world.ledger(), ["3->8", "5->8"], "{state:?}");
        assert!(world.model().status.as_ref().unwrap().ledger.iter().all(|entry| entry.digest != candidate));
        world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
        assert!(world.model_is(ConditionType::Compliant), "{}", world.summary());
    }
}

#[test]
fn what_is_known_to_be_forgotten_is_kept_out_of_service_while_the_archive_cannot_be_read() {
    let mut spoilt = World::new();
    forgotten(&mut spoilt);
    spoilt.change(|cluster| {
        let archive = cluster.config_maps.get_mut(&names::ledger_archive(MODEL)).unwrap();
        archive.data = Some([("ledger.json".to_owned(), "{".to_owned())].into());
    });
    spoilt.ask("forget-five", &["5"], fixed("8"));
    let forgetful = spoilt.baseline();
    spoilt.drift(Some(forgetful.as_str()));
    spoilt.settle();
    let status = spoilt.model().status.clone().unwrap();
    assert_eq!(spoilt.named_bundle(), Some(status.ledger[0].digest.clone()), "drift is healed");
    says(&spoilt, ConditionType::Compliant, Reason::LedgerUnreadable);
    says(&spoilt, ConditionType::Prepared, Reason::LedgerUnreadable);
    let (_, reason, message) = spoilt.condition("forget-five", ConditionType::Scheduled);
    assert!(reason == "WaitingForModel" && message.contains("cannot be read"), "{reason}: {message}");
}

#[test]
fn a_candidate_goes_back_when_the_archive_cannot_be_read_any_more() {
    let mut world = World::new();
    forgotten(&mut world);
    world.ask("forget-five", &["5"], fixed("8"));
    world.until("it is rolled out", |world| rollout_is(world, RolloutState::Progressing));
    let archive = world.cluster.config_maps[&names::ledger_archive(MODEL)].clone();
    world.change(|cluster| {
        cluster.config_maps.get_mut(&archive.name_any()).unwrap().data = None;
    });
    world.settle();
    assert_eq!(world.ledger(), ["3->8"]);
    assert_eq!(world.named_bundle(), Some(world.model().status.as_ref().unwrap().ledger[0].digest.clone()));
    world.change(|cluster| cluster.config_maps.insert(archive.name_any(), archive.clone()));
    world.settle();
    world.ended("forget-five", RequestPhase::Failed, Reason::LedgerUnreadable, "");
    let is_well = world.model_is(ConditionType::Compliant) && world.model_is(ConditionType::Ready);
    assert!(is_well, "{}", world.summary());
}

/// The model and its archive are gone, and the requests that it fulfilled are still there.
#[test]
fn a_model_that_comes_back_without_its_ledger_is_not_taken_for_one_that_has_forgotten_nothing() {
    let lost = |world: &mut World| {
        forgotten(world);
        world.delete_model();
        world.until("it is gone", |world| world.cluster.models.is_empty());
        world.change(|cluster| cluster.config_maps.remove(&names::ledger_archive(MODEL)));
        world.audit.ledgers.clear();
        world.apply_model(model(InitialServing::Baseline));
    };
    let world = everywhere(lost);
    says(&world, ConditionType::Compliant, Reason::LedgerLost);
    let (.., message) = world.model_condition(ConditionType::Prepared);
    assert!(message.contains("forget-three") && message.contains("ConfigMap"), "{message}");
    assert_ne!(world.named_bundle(), Some(world.baseline()), "the baseline knows three");
    assert_eq!(world.phase("forget-three"), Some(RequestPhase::Reexposed));
    assert_eq!(world.model().status.as_ref().unwrap().exposed, ["3"]);
    // As the message says: it starts anew.
    let world = everywhere(|world| {
        lost(world);
        world.until("it is said", |world| world.phase("forget-three") == Some(RequestPhase::Reexposed));
        world.delete_request("forget-three");
        world.ask("again", &["3"], fixed("8"));
    });
    world.ended("again", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["3->8"]);
    assert!(world.model_is(ConditionType::Compliant), "{}", world.summary());
}

/// A status of earlier days comes back, and what it says was rolled out last is named by the target, which cannot be changed.
#[test]
fn what_an_old_status_says_was_rolled_out_does_not_honour_a_ledger_that_has_grown() {
    let mut world = World::new();
    forgotten(&mut world);
    let (before, old) = (world.model().status.clone(), world.named_bundle().unwrap());
    world.ask("forget-five", &["5"], fixed("8"));
    world.until("it is fulfilled", |world| world.phase("forget-five") == Some(RequestPhase::Fulfilled));
    world.settle();
    world.patches = Patches::Refused;
    world.drift(Some(old.as_str()));
    world.audit.ledgers.clear();
    world.change(|cluster| cluster.models.get_mut(MODEL).unwrap().status = before.clone());
    world.until("it is said", |world| world.phase("forget-five") == Some(RequestPhase::Reexposed));
    assert_eq!(world.ledger(), ["3->8", "5->8"], "from the archive");
    let (status, reason, message) = world.model_condition(ConditionType::Compliant);
    assert!(
        status == "False" && ["Drifted", "DigestMismatch"].contains(&reason.as_str()),
        "{reason}: {message}"
    );
}

/// What was served before does not come up, or may not be named: the pods of what leaks make room for nothing.
#[test]
fn a_candidate_that_leaks_and_does_not_go_is_taken_out_of_service_all_the_same() {
    let leaks = |world: &mut World| {
        audits::begin(world, watchful(), InitialServing::Baseline);
        world.ask("first", &["3"], fixed("8"));
        world.until("the first is fulfilled", |w| w.phase("first") == Some(RequestPhase::Fulfilled));
        world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
        world.ask("second", &["5"], fixed("8"));
        world.until("the live server is asked", |world| rollout_is(world, RolloutState::Auditing));
    };
    // Old pods stay for as long as no new one is ready.
    let world = everywhere(|world| {
        leaks(world);
        let before = world.model().status.as_ref().unwrap().ledger[0].digest.clone();
        world.comes_up = Box::new(move |named| named != Some(&before));
        world.until("it goes back", |world| rollout_is(world, RolloutState::RollingBack));
        world.until("nothing is served", |world| pods(world) == 0);
        world.comes_up = Box::new(|_| true);
    });
    world.ended("second", RequestPhase::Failed, Reason::GateFailed, "300 of 3000 samples of the live server");
    assert_eq!(world.named_bundle(), Some(world.model().status.as_ref().unwrap().ledger[0].digest.clone()));
    assert_eq!(pods(&world), 2, "what was served before is served again");
    assert!(world.model_is(ConditionType::Compliant), "{}", world.summary());
    // The target may not be changed back.
    let mut world = World::new();
    leaks(&mut world);
    world.patches = Patches::Refused;
    world.until("nothing is served", |world| pods(world) == 0);
    says(&world, ConditionType::Compliant, Reason::GateFailed);
    world.patches = Patches::Kept;
    world.settle();
    world.ended("second", RequestPhase::Failed, Reason::GateFailed, "300 of 3000 samples of the live server");
    assert_eq!((pods(&world), world.model_is(ConditionType::Ready)), (2, true), "{}", world.summary());
}

#[test]
fn what_leaks_is_left_in_service_if_the_policy_said_so_before_it_was_deleted() {
    let mut leaving = watchful();
    leaving.spec.rollout.no_compliant_digest = NoCompliantDigest::Leave;
    let mut world = World::new();
    crate::schedules::begin(&mut world, leaving, crate::schedules::WEEKLY);
    world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
    crate::schedules::pass(&mut world, 2 * crate::schedules::DAYS);
    world.until("it is said", |world| world.phase("first") == Some(RequestPhase::Reexposed));
    world.change(|cluster| cluster.policies.clear());
    world.settle();
    assert_eq!(pods(&world), 2);
    says(&world, ConditionType::Compliant, Reason::GateFailed);
}

/// The policy says to leave what leaks: its request has its answer all the same, and the lineage is free.
#[test]
fn a_candidate_that_leaks_and_is_left_keeps_nobody_waiting_for_its_pods_to_go() {
    let mut leaving = watchful();
    leaving.spec.rollout.no_compliant_digest = NoCompliantDigest::Leave;
    let mut world = World::new();
    audits::begin(&mut world, leaving, InitialServing::Baseline);
    world.ask("first", &["3"], fixed("8"));
    world.until("the first is fulfilled", |w| w.phase("first") == Some(RequestPhase::Fulfilled));
    world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
    world.ask("second", &["5"], fixed("8"));
    world.until("the live server is asked", |world| rollout_is(world, RolloutState::Auditing));
    let before = world.model().status.as_ref().unwrap().ledger[0].digest.clone();
    world.comes_up = Box::new(move |named| named != Some(&before));
    world.settle();
    world.ended("second", RequestPhase::Failed, Reason::GateFailed, "300 of 3000 samples of the live server");
    assert_eq!(pods(&world), 2);
    assert!(!world.model_is(ConditionType::Compliant), "pods of what leaks are still there");
}

#[test]
fn a_preparation_that_failed_is_not_repeated_for_another_threshold() {
    let mut world = World::new();
    world.trainer = Box::new(|_, _| crate::trainer::Fate::Exits { code: 65, message: String::new() });
    world.with_model();
    world.settle();
    assert_eq!(world.audit.runs_created.len(), 1);
    world.edit_policy(|policy| policy.gates[0].max_bound = Some("0.02".parse().unwrap()));
    world.settle();
    assert_eq!(world.audit.runs_created.len(), 1, "the same would be done once more");
    let (.., message) = world.model_condition(ConditionType::Prepared);
    assert!(message.contains("trainer or training of the policy"), "{message}");
    world.trainer = Box::new(|plan, _| crate::trainer::honest(plan));
    world.edit_policy(|policy| policy.training.prepare_steps = Some(77));
    world.settle();
    assert!(world.model_is(ConditionType::Ready), "{}", world.summary());
}
