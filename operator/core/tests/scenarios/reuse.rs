//! What passed every gate and was kept from service by something else is not trained again.

use lethe_api::v1alpha1::{ConditionType, Reason, RequestPhase, Stage, UnlearnRun, annotations};

use crate::{
    attempts::fails_at_first,
    script::{crashes, everywhere, fixed, watchful},
    trainer::{digest, honest, measures, shows},
    world::World,
};

/// How many Jobs of a stage were created.
fn jobs(world: &World, stage: Stage) -> usize {
    let end = format!("-{}", stage.as_str());
    world.audit.jobs_created.iter().filter(|name| name.split(' ').any(|word| word.ends_with(&end))).count()
}

fn asks_for_three(world: &mut World) {
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
}

fn has_phase(phase: RequestPhase) -> impl Fn(&World) -> bool {
    move |world| world.phase("forget-three") == Some(phase)
}

/// Its candidate passed, and its pods do not come up.
fn times_out(world: &mut World) {
    world.comes_up = Box::new(|named| named.is_none_or(|named| *named == digest("baseline")));
    asks_for_three(world);
    world.until("it was taken back", has_phase(RequestPhase::Failed));
}

fn is_tried_again(world: &mut World) {
    world.comes_up = Box::new(|_| true);
    world.annotate("forget-three", annotations::RETRY, "the nodes are back");
}

fn last(world: &World) -> UnlearnRun {
    world.run_for("forget-three").cloned().expect("a run works for it")
}

#[test]
fn a_candidate_whose_roll_out_timed_out_is_measured_again_and_not_trained_again() {
    let world = everywhere(|world| {
        times_out(world);
        is_tried_again(world);
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!((jobs(&world, Stage::Forget), jobs(&world, Stage::Evaluate)), (1, 2));
    assert_eq!(world.attempts("forget-three"), Some((2, 2)));
    let (run, before) = (last(&world), world.audit.runs_created[1].clone());
    let made = run.spec.made_before.as_ref().expect("it was made before");
    let (_, _, message) = world.condition("forget-three", ConditionType::Trained);
    assert!(
        made.run == before && message.contains(&before) && message.contains("not trained again"),
        "{message}"
    );
    assert_eq!(world.named_bundle().as_ref(), Some(&made.candidate));
    assert_eq!(world.ledger(), ["3->8"]);
}

#[test]
fn an_operator_that_dies_trains_it_no_more_often_than_one_that_does_not() {
    let world = crashes(&|world| {
        times_out(world);
        is_tried_again(world);
    });
    assert_eq!((jobs(&world, Stage::Forget), jobs(&world, Stage::Evaluate)), (1, 2));
}

#[test]
fn a_candidate_that_is_taken_back_again_and_again_is_still_the_same() {
    let mut world = World::new();
    times_out(&mut world);
    for word in ["tuesday", "wednesday"] {
        world.annotate("forget-three", annotations::RETRY, word);
        world.until("it begins", |world| world.phase("forget-three") != Some(RequestPhase::Failed));
        world.until("it was taken back", has_phase(RequestPhase::Failed));
    }
    is_tried_again(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!((jobs(&world, Stage::Forget), jobs(&world, Stage::Evaluate)), (1, 4));
    assert_eq!(
        last(&world).spec.made_before.unwrap().run,
        world.audit.runs_created[1],
        "who trained it is named"
    );
}

#[test]
fn what_a_pilot_trained_is_rolled_out_when_it_is_asked_for_in_earnest() {
    let world = everywhere(|world| {
        world.ready();
        world.try_out("try-three", &["3"], fixed("8"));
        world.until("it was tried", |world| world.phase("try-three") == Some(RequestPhase::Tried));
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!((jobs(&world, Stage::Forget), jobs(&world, Stage::Evaluate)), (1, 2));
}

#[test]
fn what_was_suspended_until_others_needed_the_model_is_not_trained_again() {
    let mut world = World::new();
    asks_for_three(&mut world);
    world.until("it is evaluated", |world| world.is_running("forget-three", Stage::Evaluate));
    world.suspend("forget-three", true);
    world.until("it passed", has_phase(RequestPhase::RollingOut));
    world.annotate("forget-three", annotations::ABORT, "stop");
    world.until("it is aborted", has_phase(RequestPhase::Aborted));
    world.suspend("forget-three", false);
    world.annotate("forget-three", annotations::RETRY, "after all");
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(jobs(&world, Stage::Forget), 1);
}

#[test]
fn what_would_be_trained_otherwise_today_is_trained() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 4] = [
        ("another image", |world| world.edit_policy(|policy| policy.trainer.image = "trainer:2".into())),
        ("other steps", |world| world.edit_policy(|policy| policy.training.forget_steps = Some(77))),
        ("more is forgotten", |world| {
            world.ask("forget-five", &["5"], fixed("8"));
            world.until("it is forgotten", |world| world.ledger() == ["5->8"]);
        }),
        ("another base", |world| {
            world.edit_base(crate::bases::NEW);
            world.until("it is served", |world| crate::bases::base_is(world, crate::bases::NEW));
        }),
    ];
    for (what, change) in changes {
        let mut world = World::new();
        times_out(&mut world);
        world.comes_up = Box::new(|_| true);
        change(&mut world);
        let before = jobs(&world, Stage::Forget);
        is_tried_again(&mut world);
        world.settle();
        world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
        assert_eq!(jobs(&world, Stage::Forget), before + 1, "{what}");
    }
}

#[test]
fn it_is_judged_by_the_policy_of_today() {
    let mut world = World::new();
    world.ready();
    let strict = world.cluster.policies["standard"].spec.clone();
    world.edit_policy(|policy| policy.gates[0].max_bound = Some("0.5".into()));
    world.trainer = Box::new(|plan, _| measures(plan, |record| record.targets[0].leak.hits = 40));
    world.comes_up = Box::new(|named| named.is_none_or(|named| *named == digest("baseline")));
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it was taken back", has_phase(RequestPhase::Failed));
    world.edit_policy(|policy| *policy = strict);
    is_tried_again(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Held, Reason::GateFailed, "direct-leak");
    assert_eq!((jobs(&world, Stage::Forget), jobs(&world, Stage::Evaluate)), (1, 2));
    assert!(world.ledger().is_empty());
}

#[test]
fn what_does_not_pass_a_second_time_is_not_gone_on_with() {
    let mut world = World::new();
    times_out(&mut world);
    world.trainer = fails_at_first(1, |record| record.targets[0].leak.hits = 40);
    is_tried_again(&mut world);
    world.until("it is held", has_phase(RequestPhase::Held));
    assert_eq!(jobs(&world, Stage::Forget), 1);
    world.annotate("forget-three", annotations::RETRY, "once more");
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(jobs(&world, Stage::Forget), 2);
}

#[test]
fn what_the_live_server_showed_is_not_gone_on_with() {
    let mut world = World::new();
    world.with_model();
    world.apply_policy(watchful());
    world.until("the baseline is served", |world| world.model_is(ConditionType::Serving));
    world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it was taken back", |world| {
        matches!(world.phase("forget-three"), Some(RequestPhase::Failed | RequestPhase::Held))
    });
    world.trainer = Box::new(|plan, _| honest(plan));
    world.annotate("forget-three", annotations::RETRY, "once more");
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(jobs(&world, Stage::Forget), 2);
}

#[test]
fn a_new_base_that_was_taken_back_is_not_trained_again_for_another_deadline() {
    let mut world = World::new();
    world.ready();
    world.ask("first", &["3"], fixed("8"));
    world.until("it is fulfilled", |world| world.phase("first") == Some(RequestPhase::Fulfilled));
    let old = world.named_bundle();
    world.comes_up = Box::new(move |named| named == old.as_ref());
    world.edit_base(crate::bases::NEW);
    world.until("it was taken back", |world| {
        world.model_condition(ConditionType::BaseInService).1 == Reason::RolloutTimedOut.to_string()
    });
    let before = jobs(&world, Stage::Forget);
    world.comes_up = Box::new(|_| true);
    world.edit_policy(|policy| policy.rollout.progress_deadline_seconds *= 2);
    world.settle();
    assert!(crate::bases::base_is(&world, crate::bases::NEW), "{}", world.summary());
    assert_eq!(jobs(&world, Stage::Forget), before);
}

#[test]
fn a_pilot_is_always_trained() {
    let mut world = World::new();
    times_out(&mut world);
    world.comes_up = Box::new(|_| true);
    world.try_out("try-three", &["3"], fixed("8"));
    world.until("it was tried", |world| world.phase("try-three") == Some(RequestPhase::Tried));
    assert_eq!(jobs(&world, Stage::Forget), 2);
    assert!(world.cluster.runs.values().all(|run| run.spec.made_before.is_none()));
}
