//! Trying a target before anybody commits to it.

use kube::ResourceExt;
use lethe_api::v1alpha1::{ConditionType, Reason, RequestPhase, Stage};

use crate::{
    script::{everywhere, fixed},
    trainer::measures,
    world::World,
};

#[test]
fn a_pilot_that_passes_changes_neither_what_is_served_nor_the_ledger() {
    let world = everywhere(|world| {
        world.ready();
        world.try_out("try-three", &["3"], fixed("8"));
    });
    world.ended("try-three", RequestPhase::Tried, Reason::Pilot, "mode Enforce");
    let request = &world.cluster.requests["try-three"];
    let status = request.status.as_ref().unwrap();
    assert_eq!(status.gate_summary.as_deref(), Some("5/5"));
    assert!(ConditionType::GatesPassed.is_true(&status.conditions));
    assert!(ConditionType::Promoted.is_false(&status.conditions));
    assert!(ConditionType::Fulfilled.find(&status.conditions).is_none(), "nothing is forgotten by it");
    assert_eq!(world.ledger(), Vec::<String>::new());
    assert_eq!(world.audit.served.len(), 1, "the baseline, and nothing after it");
}

#[test]
fn a_pilot_that_does_not_pass_is_held() {
    let world = everywhere(|world| {
        world.ready();
        world.trainer = Box::new(|plan, _| measures(plan, |record| record.targets[0].leak.hits = 40));
        world.try_out("try-three", &["3"], fixed("8"));
    });
    world.ended("try-three", RequestPhase::Held, Reason::GateFailed, "did not change");
}

#[test]
fn what_was_tried_is_forgotten_when_it_is_asked_for_in_earnest() {
    let world = everywhere(|world| {
        world.ready();
        world.try_out("try-three", &["3"], fixed("8"));
        world.until("it was tried", |world| world.phase("try-three") == Some(RequestPhase::Tried));
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(world.ledger(), ["3->8"]);
}

#[test]
fn a_pilot_lets_requests_in_earnest_go_first_and_shares_no_run_with_them() {
    let mut world = World::new();
    world.ready();
    world.ask("first", &["0"], fixed("8"));
    world.until("the model is busy", |world| world.is_running("first", Stage::Forget));
    world.try_out("try-three", &["3"], fixed("8"));
    world.try_out("try-four", &["4"], fixed("8"));
    world.ask("forget-five", &["5"], fixed("6"));
    world.settle();
    let begun = |name: &str| {
        let run = world.run_for(name).unwrap().name_any();
        world.audit.runs_created.iter().position(|created| *created == run).unwrap()
    };
    assert_eq!(["first", "forget-five", "try-three", "try-four"].map(begun), [1, 2, 3, 4]);
    for name in ["forget-five", "try-three", "try-four"] {
        assert_eq!(world.run_for(name).unwrap().spec.requests.len(), 1, "{name}");
    }
    assert_eq!(world.ledger(), ["0->8", "5->6"]);
}

/// Thousands may wait for one model, and each would be written with every run of it.
#[test]
fn who_waits_says_the_same_whichever_run_is_at_work() {
    let mut world = World::new();
    world.ready();
    world.ask("first", &["0"], fixed("8"));
    world.until("the model is busy", |world| world.is_running("first", Stage::Forget));
    world.try_out("try-three", &["3"], fixed("8"));
    world.ask("forget-five", &["5"], fixed("6"));
    world.until("it waits", |world| {
        world.cluster.requests["try-three"]
            .status
            .as_ref()
            .is_some_and(|it| it.phase == Some(RequestPhase::Queued))
    });
    let waits = |world: &World| world.cluster.requests["try-three"].metadata.resource_version.clone();
    let before = waits(&world);
    world.until("another run is at work", |world| world.is_running("forget-five", Stage::Evaluate));
    assert_eq!(waits(&world), before, "it was written meanwhile");
}

#[test]
fn a_request_says_which_kept_labels_are_most_like_what_it_forgets_before_a_gpu_is_spent() {
    let mut world = World::new();
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is accepted", |world| {
        let status = world.cluster.requests["forget-three"].status.as_ref();
        status.is_some_and(|status| ConditionType::Accepted.find(&status.conditions).is_some())
    });
    assert!(world.job_for("forget-three", Stage::Forget).is_none(), "a GPU is spent already");
    let status = world.cluster.requests["forget-three"].status.clone().unwrap();
    assert!(!status.at_risk.is_empty() && !status.at_risk.contains(&"3".to_owned()), "{:?}", status.at_risk);
    let (_, _, message) = world.condition("forget-three", ConditionType::Accepted);
    assert!(message.contains(&status.at_risk.join(", ")), "{message}");
}

#[test]
fn a_pilot_of_what_is_forgotten_already_fulfils_nothing() {
    let mut world = World::new();
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
    world.settle();
    world.try_out("try-three", &["3"], fixed("8"));
    world.settle();
    world.ended("try-three", RequestPhase::Tried, Reason::AlreadyForgotten, "earlier requests");
    let conditions = &world.cluster.requests["try-three"].status.as_ref().unwrap().conditions;
    assert!(ConditionType::Fulfilled.find(conditions).is_none());
}
