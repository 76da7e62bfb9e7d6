//! A plan's settings: merged over those of the level, part of what names a training, and refused before anything is done.

use std::fs;

use lethe_api::contract::{Digest, Plan, RecordBody, Task, exit};
use serde_json::{Value, json};

use crate::world::{Ended, World, fixed};

/// A forgetting with these settings.
fn plan(world: &World, steps: Option<u32>, settings: Value) -> Plan {
    let mut plan = world.forget(&[("three", fixed("one"))], 3);
    let Task::Forget(task) = &mut plan.task else { unreachable!("made above") };
    task.steps = steps;
    task.settings = Some(settings.as_object().unwrap().clone());
    plan
}

fn candidate(world: &World, plan: &Plan) -> Digest {
    match world.record(plan) {
        RecordBody::Forget(record) => record.candidate,
        other => panic!("not the record of a forgetting: {other:?}"),
    }
}

fn assert_refused(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(exit::BAD_PLAN), "{words}: {:?}", ended.outcome);
    let message = ended.outcome.message.as_ref().unwrap();
    assert!(message.contains(words) && !message.contains(char::is_control), "{words}: {message}");
}

#[test]
fn the_settings_of_a_plan_are_those_of_its_training() {
    let world = World::new();
    let usual = world.candidate(&[("three", fixed("one"))]);
    assert_eq!(candidate(&world, &plan(&world, Some(3), json!({}))), usual);
    let mut seen = vec![usual];
    for settings in [
        json!({"stages": "one"}),
        json!({"optimiser": {"gradient": "diffInstruct"}}),
        json!({"stages": "one", "optimiser": {"gradient": "diffInstruct"}}),
        json!({"generatorWeights": {"forget": 0.01}, "labelPrior": {"weights": {"1": 3.0}}}),
        // Neighbours are found by the judge, whether the plan has a reference or not.
        json!({"labelPrior": {"neighbours": 2.0}, "reentry": {"forget": 0.5}}),
        json!({"forgetWarmup": 1.0, "generatorWeights": {"forget": 0.0}}),
        json!({"optimiser": {"generatorRange": 1.0}}),
        json!({"adversary": {"every": 1, "steps": 2, "share": 0.5}}),
    ] {
        let candidate = candidate(&world, &plan(&world, Some(3), settings.clone()));
        assert!(!seen.contains(&candidate), "{settings} changes something");
        seen.push(candidate);
    }
}

#[test]
fn a_setting_that_cannot_be_is_refused_by_name_before_anything_is_read() {
    let world = World::new();
    // Nothing can be loaded: whoever gets as far says so, with another exit code.
    fs::remove_dir_all(world.store().join("bundles")).unwrap();
    for (settings, words) in [
        (json!({"stagez": "one"}), "task.settings: stagez"),
        (json!({"optimiser": {"alpa": 1.0}}), "optimiser.alpa"),
        (json!({"optimiser": {"alpha\n\u{1b}[31m": 1.0}}), "optimiser.alpha\\n"),
        (json!({"stages": "three"}), "task.settings: stages"),
        (json!({"nullShare": 7}), "forget.nullShare is 7"),
        (json!({"optimiser": {"alpha": -1.0}}), "optimiser.alpha is -1"),
        (json!({"remainBatch": 1_000_000}), "forget.remainBatch is 1000000"),
        (json!({"steps": 5}), "task.settings.steps: say it in task.steps"),
        (json!({"optimiser": {"precision": "bf16"}}), "say it in precision of the plan"),
        (json!({"earlyStop": {"every": 1}}), "task.reference"),
    ] {
        assert_refused(&world.run(&plan(&world, Some(3), settings)), words);
    }
    let mut stops = plan(&world, Some(3), json!({"earlyStop": null}));
    let Task::Forget(task) = &mut stops.task else { unreachable!("made above") };
    task.reference = Some(world.prepared.reference.clone());
    assert_refused(&world.run(&stops), "leave task.reference out");
}

#[test]
fn a_label_that_is_not_kept_cannot_be_shown_more_often() {
    let world = World::new();
    let ended = world.run(&plan(&world, Some(3), json!({"labelPrior": {"weights": {"3": 2.0}}})));
    assert_refused(&ended, "label 3, which is not kept");
}

#[test]
fn how_a_training_ends_early_is_a_setting_too() {
    let world = World::new();
    let anything = json!({
        "every": 1, "leastSteps": 1, "mostLeak": 1.0, "leastOverride": 0.0, "mostAccuracyLost": 1.0,
        "mostDistance": 1e6, "samplesPerTarget": 20, "samplesPerKept": 20,
    });
    let mut plan = plan(&world, Some(50), json!({"earlyStop": anything}));
    let Task::Forget(task) = &mut plan.task else { unreachable!("made above") };
    task.reference = Some(world.prepared.reference.clone());
    let RecordBody::Forget(record) = world.record(&plan) else { panic!("not the record of a forgetting") };
    assert_eq!(record.steps, 2, "good twice in a row");
}
