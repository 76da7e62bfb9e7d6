//! What people ask for once: another attempt, or none.

use kube::ResourceExt;
use lethe_api::v1alpha1::{
    ConditionType, GateFailureAction, GateFailurePolicy, Reason, RequestPhase, Stage, annotations,
};
use lethe_core::{Effect, request, run};

use crate::{
    attempts::fails_at_first,
    script::{everywhere, fixed},
    trainer::measures,
    world::{Key, World},
};

fn asks_for_three(world: &mut World) {
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
}

fn has_phase(phase: RequestPhase) -> impl Fn(&World) -> bool {
    move |world| world.phase("forget-three") == Some(phase)
}

fn forget_three_is_held(world: &mut World) {
    world.trainer = Box::new(|plan, _| measures(plan, |record| record.targets[0].leak.hits = 40));
    asks_for_three(world);
    world.until("it is held", has_phase(RequestPhase::Held));
}

#[test]
fn what_was_held_is_tried_once_more_when_somebody_asks() {
    let world = everywhere(|world| {
        forget_three_is_held(world);
        world.annotate("forget-three", annotations::RETRY, "monday");
    });
    world.ended("forget-three", RequestPhase::Held, Reason::GateFailed, "direct-leak");
    assert_eq!(world.attempts("forget-three"), Some((2, 2)), "as many are allowed as were asked for");
    let (token, message) = world.acknowledged("forget-three", annotations::RETRY).unwrap();
    assert_eq!((token.as_str(), message.as_str()), ("monday", "attempt 2 is planned"));
    assert_eq!(world.audit.runs_created.len(), 3);
    let mut world = world;
    world.annotate("forget-three", annotations::RETRY, "monday");
    world.settle();
    assert_eq!(world.audit.runs_created.len(), 3, "the same word acts once");
    world.trainer = Box::new(|plan, _| crate::trainer::honest(plan));
    world.annotate("forget-three", annotations::RETRY, "tuesday");
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.attempts("forget-three"), Some((3, 3)));
}

#[test]
fn whoever_asks_does_not_wait_for_the_next_attempt() {
    let mut world = World::new();
    world.trainer = fails_at_first(1, |record| record.targets[0].leak.hits = 40);
    asks_for_three(&mut world);
    world.edit_policy(|policy| {
        let (action, attempts) = (GateFailureAction::Retry, Some(2));
        policy.on_gate_failure = GateFailurePolicy { action, attempts, wait_seconds: Some(86_400) };
    });
    let began = world.now;
    world.until("it waits", |world| {
        world.condition("forget-three", ConditionType::Ready).1 == Reason::WaitingForAttempt.to_string()
    });
    world.annotate("forget-three", annotations::RETRY, "now");
    world.until("it is fulfilled", has_phase(RequestPhase::Fulfilled));
    assert!(world.now.duration_since(began).as_hours() < 24);
    let (_, message) = world.acknowledged("forget-three", annotations::RETRY).unwrap();
    assert!(message.contains("attempt 2 does not wait"), "{message}");
}

#[test]
fn another_attempt_at_what_did_not_fail_is_refused_in_words() {
    let mut world = World::new();
    asks_for_three(&mut world);
    world.until("it trains", |world| world.is_running("forget-three", Stage::Forget));
    world.annotate("forget-three", annotations::RETRY, "1");
    world.until("it is fulfilled", has_phase(RequestPhase::Fulfilled));
    let (_, message) = world.acknowledged("forget-three", annotations::RETRY).unwrap();
    assert!(message.contains("has not failed"), "{message}");
    world.annotate("forget-three", annotations::RETRY, "2");
    world.annotate("forget-three", annotations::ABORT, "2");
    world.settle();
    for annotation in [annotations::RETRY, annotations::ABORT] {
        let (token, message) = world.acknowledged("forget-three", annotation).unwrap();
        assert!(token == "2" && message.starts_with("nothing was done"), "{message}");
    }
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.audit.runs_created.len(), 2);
}

#[test]
fn what_is_aborted_stops_and_the_others_go_on() {
    let world = everywhere(|world| {
        world.ready();
        world.edit_policy(|policy| policy.coalesce.window_seconds = 300);
        world.ask("forget-three", &["3"], fixed("8"));
        world.ask("forget-five", &["5"], fixed("8"));
        world.until("it trains", |world| world.is_running("forget-three", Stage::Forget));
        world.annotate("forget-three", annotations::ABORT, "stop");
    });
    world.ended("forget-three", RequestPhase::Aborted, Reason::Aborted, "Nothing was rolled out");
    let (token, _) = world.acknowledged("forget-three", annotations::ABORT).unwrap();
    assert_eq!(token, "stop");
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["5->8"]);
}

#[test]
fn a_candidate_that_passed_and_waits_is_aborted_and_tried_again_on_request() {
    let world = everywhere(|world| {
        asks_for_three(world);
        world.until("it is evaluated", |world| world.is_running("forget-three", Stage::Evaluate));
        world.suspend("forget-three", true);
        world.until("it passed", has_phase(RequestPhase::RollingOut));
        world.annotate("forget-three", annotations::ABORT, "stop");
        world.until("it is aborted", has_phase(RequestPhase::Aborted));
    });
    world.ended("forget-three", RequestPhase::Aborted, Reason::Aborted, "");
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    let mut world = world;
    world.suspend("forget-three", false);
    world.annotate("forget-three", annotations::RETRY, "after all");
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn an_abort_that_comes_after_the_roll_out_has_begun_says_that_it_is_too_late() {
    let mut world = World::new();
    asks_for_three(&mut world);
    world.until("it rolls out", World::is_rolling_out);
    world.annotate("forget-three", annotations::ABORT, "stop");
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let (_, message) = world.acknowledged("forget-three", annotations::ABORT).unwrap();
    assert!(message.contains("too late") || message.contains("had its answer"), "{message}");
    assert_eq!(world.ledger(), ["3->8"]);
}

/// A run was deleted and planned anew, under the number that it had, while an answer was on its way that puts all attempts up
/// to that one aside.
#[test]
fn a_run_at_work_counts_although_its_attempt_was_put_aside_when_it_was_planned() {
    let mut world = World::new();
    world.trainer = fails_at_first(1, |record| record.targets[0].leak.hits = 40);
    asks_for_three(&mut world);
    world.edit_policy(|policy| {
        let (action, attempts) = (GateFailureAction::Retry, Some(2));
        policy.on_gate_failure = GateFailurePolicy { action, attempts, wait_seconds: Some(600) };
    });
    world.until("it waits", |world| {
        world.condition("forget-three", ConditionType::Ready).1 == Reason::WaitingForAttempt.to_string()
    });
    let before = world.cluster.requests["forget-three"].status.clone();
    let failed = world.run_for("forget-three").map(ResourceExt::name_any).expect("it failed");
    world.change(|cluster| cluster.runs.remove(&failed));
    world.trainer = Box::new(|plan, _| crate::trainer::honest(plan));
    world.until("it is planned anew", |world| world.run_for("forget-three").is_some());
    world.annotate("forget-three", annotations::RETRY, "now");
    let version = world.bump();
    let mut observed = world.observe_request(&world.cluster.requests["forget-three"]);
    (observed.request.status, observed.runs) = (before, vec![]);
    let retried = request::decide(&observed, world.now).status;
    assert!(retried.retry.as_ref().is_some_and(|retry| retry.after_attempt == Some(1)), "{retried:?}");
    world.change(|cluster| {
        let request = cluster.requests.get_mut("forget-three").expect("it was asked for");
        (request.status, request.metadata.resource_version) = (Some(retried), version);
    });
    world.until("it is rolled out", World::is_rolling_out);
    world.annotate("forget-three", annotations::ABORT, "stop");
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let (_, message) = world.acknowledged("forget-three", annotations::ABORT).expect("it was read");
    assert!(message.contains("too late"), "{message}");
}

#[test]
fn what_waits_for_its_model_is_aborted_at_once() {
    let world = everywhere(|world| {
        world.ask("forget-three", &["3"], fixed("8"));
        world.annotate("forget-three", annotations::ABORT, &"stop ".repeat(100));
    });
    world.ended("forget-three", RequestPhase::Aborted, Reason::Aborted, "no run worked for it");
    let (token, _) = world.acknowledged("forget-three", annotations::ABORT).unwrap();
    assert_eq!(token.len(), annotations::LENGTH);
}

#[test]
fn a_word_is_acknowledged_as_one_line_that_shows_what_it_says() {
    let world = everywhere(|world| {
        world.ask("forget-three", &["3"], fixed("8"));
        world.annotate("forget-three", annotations::ABORT, "st\u{202e}op\u{1b}[2K\n");
    });
    let (token, _) = world.acknowledged("forget-three", annotations::ABORT).unwrap();
    assert_eq!(token, "st op [2K");
}

/// A slow admission webhook held its creation back until nobody wanted it any more.
#[test]
fn a_job_that_is_created_after_its_run_was_given_up_is_stopped() {
    for stage in [Stage::Forget, Stage::Evaluate] {
        let mut world = World::new();
        asks_for_three(&mut world);
        world.until("its Job is about to be created", |world| {
            world.run_for("forget-three").is_some_and(|run| run::stage(run) == Some(stage))
        });
        let run = world.run_for("forget-three").expect("it is there").clone();
        let sent = run::decide(&world.observe_run(&run), &world.installation, world.now).effects;
        assert!(sent.iter().any(|effect| matches!(effect, Effect::CreateJob(_))), "{sent:?}");
        world.annotate("forget-three", annotations::ABORT, "stop");
        world.until("it is aborted", has_phase(RequestPhase::Aborted));
        assert!(world.job_for("forget-three", stage).is_none(), "{}", world.summary());
        for effect in sent {
            assert!(world.carry_out(&Key::Run(run.name_any()), effect));
        }
        world.settle();
        assert!(world.job_for("forget-three", stage).is_none(), "no GPU works for nobody");
        world.ended("forget-three", RequestPhase::Aborted, Reason::Aborted, "");
    }
}
