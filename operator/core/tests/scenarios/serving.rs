//! What is served: roll-outs that fail, pods that lie, people who change it by hand.

use std::collections::BTreeSet;

use lethe_api::v1alpha1::{ConditionType, InitialServing, Reason, RequestPhase};
use lethe_core::model::decide;

use crate::{
    cluster::scale,
    script::{crashes, everywhere, fixed, model, play},
    trainer::digest,
    world::{Patches, World},
};

fn forgets_three(world: &mut World) {
    world.ready();
    world.ask("first", &["3"], fixed("8"));
    world.until("the first is fulfilled", |world| world.phase("first") == Some(RequestPhase::Fulfilled));
}

#[test]
fn a_roll_out_that_does_not_come_up_goes_back_and_says_so() {
    let world = everywhere(|world| {
        world.comes_up = Box::new(|named| named.is_none_or(|named| *named == digest("baseline")));
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "not in service within 120 s");
    let (promoted, _, message) = world.condition("forget-three", ConditionType::Promoted);
    assert_eq!(promoted, "False");
    assert!(message.contains("pods"), "it says what it waited for: {message}");
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    assert!(world.ledger().is_empty());
    assert!(world.model_is(ConditionType::Ready));
}

#[test]
fn a_roll_out_that_is_refused_or_always_set_back_ends_in_time_and_says_so() {
    for patches in [Patches::Refused, Patches::SetBack] {
        let world = crashes(&|world| {
            world.ready();
            world.patches = patches;
            world.ask("forget-three", &["3"], fixed("8"));
        });
        world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "refused");
        assert_eq!(world.named_bundle(), Some(world.baseline()));
        assert!(world.ledger().is_empty());
        assert!(world.model_is(ConditionType::Ready));
    }
}

#[test]
fn a_refused_roll_out_is_no_reason_to_write_all_the_time() {
    let mut world = World::new();
    world.ready();
    world.patches = Patches::Refused;
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is refused once", World::is_rolling_out);
    let (started, mut versions) = (world.now, BTreeSet::new());
    while world.now.duration_since(started).as_secs() < 100 {
        world.step();
        versions.insert(world.model().metadata.resource_version.clone());
    }
    // That the roll-out is under way, and that its reference had to be written again.
    assert!(versions.len() <= 3, "{versions:?}");
}

#[test]
fn the_second_roll_out_goes_back_to_the_first_candidate_never_to_the_baseline() {
    let world = everywhere(|world| {
        forgets_three(world);
        let first = world.named_bundle();
        world.comes_up = Box::new(move |named| named == first.as_ref());
        world.ask("second", &["5"], fixed("8"));
    });
    world.ended("second", RequestPhase::Failed, Reason::RolloutTimedOut, "");
    assert_eq!(world.ledger(), ["3->8"]);
    let status = world.model().status.as_ref().unwrap();
    assert_eq!(world.named_bundle().as_ref(), Some(&status.ledger[0].digest));
    assert!(world.model_is(ConditionType::Compliant));
}

#[test]
fn pods_that_report_another_digest_are_not_believed() {
    let world = everywhere(|world| {
        world.ready();
        world.lie = Some(Ok(digest("something else")));
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "serves");
    assert!(world.ledger().is_empty());
    let world = everywhere(|world| {
        world.ready();
        world.lie = Some(Err("connection refused".into()));
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "connection refused");
}

#[test]
fn a_failed_roll_out_is_not_tried_again_even_if_the_baseline_never_came_up() {
    let scenario = |world: &mut World| {
        world.comes_up = Box::new(|_| false);
        world.with_model();
        world.ask("forget-three", &["3"], fixed("8"));
    };
    let world = everywhere(scenario);
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "");
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    for call in 0..world.calls {
        let survived = play(&scenario, |world| world.dies_before = Some(call));
        let candidates: Vec<_> =
            survived.audit.served.iter().flatten().filter(|d| **d != world.baseline()).collect();
        assert_eq!(candidates.len(), 1, "died before call {call}: {candidates:?}");
    }
}

#[test]
fn a_missing_target_or_container_is_named() {
    let world = everywhere(|world| {
        world.with_model();
        world.change(|cluster| cluster.deployment = None);
    });
    let (status, reason, message) = world.model_condition(ConditionType::Serving);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "ServingTargetNotFound"));
    assert!(message.contains("\"digits\"") && message.contains("create it"), "{message}");
    let world = everywhere(|world| {
        world.with_model();
        world.change(|cluster| cluster.deployment = Some(crate::cluster::deployment("digits", "other")));
    });
    let (_, reason, message) = world.model_condition(ConditionType::Serving);
    assert_eq!(reason, "ContainerNotFound");
    assert!(message.contains("\"server\""), "{message}");
}

#[test]
fn a_reference_that_somebody_changed_is_set_back() {
    for changed_to in [Some(digest("baseline").to_string()), Some("latest".into()), None] {
        let world = everywhere(|world| {
            forgets_three(world);
            world.drift(changed_to.as_deref());
            if changed_to.is_some() {
                world.until("it is said", |world| !world.model_is(ConditionType::Compliant));
            }
        });
        let status = world.model().status.as_ref().unwrap();
        assert_eq!(world.named_bundle().as_ref(), Some(&status.ledger[0].digest));
        assert!(world.model_is(ConditionType::Compliant) && world.model_is(ConditionType::Serving));
    }
}

#[test]
fn with_initial_none_a_reference_that_somebody_set_is_removed() {
    let world = everywhere(|world| {
        world.apply_policy(crate::script::policy());
        let target = crate::cluster::deployment("digits", "server");
        world.change(|cluster| cluster.deployment = Some(target));
        world.apply_model(crate::script::model(lethe_api::v1alpha1::InitialServing::None));
        world.until("it is prepared", |world| world.model_is(ConditionType::Prepared));
        world.drift(Some(digest("baseline").as_str()));
    });
    assert_eq!(world.named_bundle(), None);
    assert!(world.model_is(ConditionType::Ready));
}

#[test]
fn a_target_that_vanishes_during_a_roll_out_ends_it() {
    let world = everywhere(|world| {
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it is rolled out", World::is_rolling_out);
        world.change(|cluster| (cluster.deployment, cluster.serving) = (None, None));
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "does not exist");
    assert!(world.ledger().is_empty());
}

/// A second model whose name comes first, with the same target, created a second later.
fn rival() -> lethe_api::v1alpha1::DiffusionModel {
    let mut rival = crate::script::model(lethe_api::v1alpha1::InitialServing::Baseline);
    rival.metadata.name = Some("another".into());
    rival
}

#[test]
fn a_target_that_serves_another_model_is_left_alone_until_that_model_is_gone() {
    let claim = |world: &mut World| {
        world.ready();
        world.now += jiff::SignedDuration::from_secs(1);
        world.apply_model(rival());
        world.ask("first", &["3"], fixed("8"));
    };
    let world = crashes(&claim);
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let served = world.model().status.as_ref().unwrap().ledger[0].digest.clone();
    assert_eq!(world.named_bundle(), Some(served), "the first model is served as before");
    assert!(world.model_is(ConditionType::Ready) && world.model_is(ConditionType::Compliant));
    assert_eq!(world.audit.served.len(), 2, "its baseline and its candidate, nothing of the second model");
    for type_ in [ConditionType::Serving, ConditionType::Ready] {
        let (status, reason, message) = world.condition_of("another", type_);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "TargetTaken"));
        assert!(message.contains("DiffusionModel \"digits\""), "{message}");
    }
    let mut world = World::new();
    world.ready();
    world.now += jiff::SignedDuration::from_secs(1);
    world.apply_model(rival());
    world.settle();
    world.delete_model();
    world.settle();
    let (status, _, message) = world.condition_of("another", ConditionType::Ready);
    assert_eq!(status, "True", "{message}");
}

#[test]
fn a_request_for_a_model_without_a_target_says_what_it_waits_for() {
    let mut world = World::new();
    world.ready();
    world.now += jiff::SignedDuration::from_secs(1);
    world.apply_model(rival());
    world.settle();
    let mut request = crate::script::request("forget-five", &["5"], fixed("8"));
    request.spec.model_ref.name = "another".into();
    world.admit(&mut request);
    world.change(|cluster| cluster.requests.insert("forget-five".into(), request));
    world.settle();
    let (_, reason, message) = world.condition("forget-five", ConditionType::Ready);
    assert_eq!(reason, "WaitingForModel");
    assert!(message.contains("DiffusionModel \"digits\", which was first"), "{message}");
    assert_eq!(world.audit.runs_created.len(), 2, "one to prepare each model");
}

#[test]
fn pods_that_serve_something_else_afterwards_are_noticed_until_they_do_not() {
    let override_it = |world: &mut World| {
        forgets_three(world);
        world.settle();
        world.lie = Some(Ok(digest("baseline")));
    };
    let world = crashes(&override_it);
    for type_ in [ConditionType::Serving, ConditionType::Compliant, ConditionType::Ready] {
        let (status, reason, message) = world.model_condition(type_);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "DigestMismatch"), "{message}");
        assert!(message.contains("pod digits-a says that it serves"), "{message}");
    }
    assert_eq!(world.audit.served.len(), 2, "the reference is right: nothing is changed");
    let world = crashes(&|world: &mut World| {
        override_it(world);
        world.settle();
        world.lie = None;
    });
    assert!(world.model_is(ConditionType::Ready) && world.model_is(ConditionType::Compliant));
}

#[test]
fn pods_that_stop_saying_what_they_serve_are_not_believed_to_serve_it() {
    let world = crashes(&|world: &mut World| {
        forgets_three(world);
        world.settle();
        world.lie = Some(Err("connection refused".into()));
    });
    let (status, reason, message) = world.model_condition(ConditionType::Serving);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "WaitingForServing"));
    assert!(message.contains("connection refused"), "{message}");
    assert!(world.model_is(ConditionType::Compliant), "nothing says that it serves what it must not");
}

fn rename_container(world: &mut World) {
    world.change(|cluster| {
        let spec = cluster.deployment.as_mut().and_then(|d| d.spec.as_mut()).unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].name = "renamed".into();
    });
}

#[test]
fn a_renamed_container_keeps_nobody_from_going_back_or_from_setting_the_reference_back() {
    let world = crashes(&|world: &mut World| {
        world.comes_up = Box::new(|named| named.is_none_or(|named| *named == digest("baseline")));
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it is rolled out", World::is_rolling_out);
        world.until("its pods are to change", |world| world.named_bundle() != Some(world.baseline()));
        rename_container(world);
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "no container");
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    let world = crashes(&|world: &mut World| {
        forgets_three(world);
        rename_container(world);
        world.drift(Some(digest("baseline").as_str()));
    });
    assert_ne!(world.named_bundle(), Some(world.baseline()), "it is set back");
    let (status, reason, _) = world.model_condition(ConditionType::Serving);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ContainerNotFound"));
}

#[test]
fn a_model_that_is_edited_to_serve_nothing_first_is_not_called_drifted() {
    use lethe_api::v1alpha1::InitialServing;
    let edit = |world: &mut World, initial| {
        let version = world.bump();
        world.change(|cluster| {
            let model = cluster.models.get_mut("digits").unwrap();
            model.spec.serving.initial = initial;
            model.metadata.resource_version = version;
        });
    };
    let mut world = World::new();
    world.ready();
    edit(&mut world, InitialServing::None);
    world.until("nothing is named", |world| world.named_bundle().is_none());
    let (_, reason, message) = world.model_condition(ConditionType::Serving);
    assert_eq!(reason, "NotServed", "{message}");
    assert!(message.contains("spec.serving.initial"), "{message}");
    world.settle();
    assert!(world.model().status.as_ref().unwrap().served.is_none());
    edit(&mut world, InitialServing::Baseline);
    world.settle();
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    assert!(world.model_is(ConditionType::Ready));
}

#[test]
fn a_target_that_somebody_scaled_to_zero_is_not_scaled_up_and_confirms_nothing() {
    let world = everywhere(|world| {
        forgets_three(world);
        world.change(|cluster| scale(cluster.deployment.as_mut().unwrap(), 0));
        world.until("it says so", |world| {
            let (serving, reason, _) = world.model_condition(ConditionType::Serving);
            serving != "True" && reason == Reason::WaitingForServing.to_string()
        });
        assert_eq!(crate::cluster::replicas(world.cluster.deployment.as_ref().unwrap()), 0);
        world.change(|cluster| scale(cluster.deployment.as_mut().unwrap(), 2));
    });
    assert_eq!(world.model_condition(ConditionType::Serving).0, "True");
}

#[test]
fn models_that_are_served_as_they_should_be_are_asked_again_within_five_minutes_and_not_all_at_once() {
    let mut world = World::new();
    world.ready();
    let mut looks = BTreeSet::new();
    for _ in 0..4 {
        world.settle();
        let observed = world.observe_model(world.model());
        let again = decide(&observed, &world.installation, world.now).recheck.unwrap();
        assert!((240..=300).contains(&again.as_secs()), "{again:?}");
        looks.insert(again);
        // The next one has a uid of its own.
        world.delete_model();
        world.settle();
        world.apply_model(model(InitialServing::Baseline));
        world.until("the baseline is served", |world| world.model_is(ConditionType::Serving));
    }
    assert!(looks.len() > 1, "all are looked at together: {looks:?}");
}
