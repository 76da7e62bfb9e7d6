//! Several requests for one model, and requests that make no sense.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lethe_api::contract::{Plan, Task};
use lethe_api::v1alpha1::{
    ConditionType, DataSubjectRequest, GateResult, LegalTerm, Reason, RequestPhase, Stage, Term, annotations,
};
use lethe_core::{Effect, model, request};

use crate::{
    script::{self, crashes, everywhere, fixed, nearest, play},
    trainer::measures,
    world::{Key, World},
};

fn forget_three_then(world: &mut World, then: impl Fn(&mut World)) {
    world.ready();
    world.ask("first", &["3"], fixed("8"));
    world.until("the first is fulfilled", |world| world.phase("first") == Some(RequestPhase::Fulfilled));
    then(world);
}

/// The targets of a run's plan, with what is yielded instead.
fn planned(world: &World, request: &str) -> Vec<String> {
    let run = world.run_for(request).expect("the request has a run");
    let Ok(Task::Forget(task)) = Plan::parse(run.spec.plan.as_bytes()).map(|plan| plan.task) else {
        panic!("not a Forget plan")
    };
    let json = |target: &lethe_api::contract::PlannedTarget| {
        let to = serde_json::to_value(&target.replacement).unwrap();
        format!("{}->{}", target.label, to["label"].as_str().unwrap_or("any"))
    };
    task.targets.iter().map(json).collect()
}

#[test]
fn a_second_request_keeps_the_first_target_in_its_plan_and_its_gates() {
    let world = everywhere(|world| forget_three_then(world, |world| world.ask("second", &["5"], fixed("6"))));
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(planned(&world, "second"), ["3->8", "5->6"]);
    assert_eq!(world.ledger(), ["3->8", "5->6"]);
    let targets =
        |gates: &[GateResult]| gates.iter().filter_map(|gate| gate.target.clone()).collect::<Vec<_>>();
    let run = world.run_for("second").unwrap().status.as_ref().unwrap();
    assert_eq!(targets(&run.gates), ["3", "5", "3", "5"], "leak and override of both");
    let request = world.cluster.requests["second"].status.as_ref().unwrap();
    assert_eq!(targets(&request.gates), ["5", "5"], "a request shows its own");
    assert_eq!(request.gate_summary, Some(format!("{0}/{0}", run.gates.len())));
}

#[test]
fn an_override_that_is_forgotten_later_hands_on_to_its_own() {
    let world = everywhere(|world| forget_three_then(world, |world| world.ask("second", &["8"], fixed("1"))));
    assert_eq!(planned(&world, "second"), ["3->1", "8->1"]);
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn the_nearest_override_is_one_that_stays() {
    let world = everywhere(|world| forget_three_then(world, |world| world.ask("second", &["2"], nearest())));
    assert_eq!(world.ledger(), ["3->8", "2->4"], "3 is nearest to 2, and gone");
}

#[test]
fn what_is_forgotten_already_is_answered_without_a_run() {
    let world = everywhere(|world| forget_three_then(world, |world| world.ask("again", &["3"], fixed("1"))));
    world.ended("again", RequestPhase::Fulfilled, Reason::AlreadyForgotten, "earlier requests");
    assert!(world.run_for("again").is_none());
    assert_eq!(world.ledger(), ["3->8"]);
    world.ended("again", RequestPhase::Fulfilled, Reason::AlreadyForgotten, "\"3\" yields \"8\"");
    let (_, _, message) = world.condition("first", ConditionType::Accepted);
    assert!(!message.contains("yields"), "{message}");
}

#[test]
fn an_override_that_the_ledger_overrules_is_said_once_in_an_event_and_in_the_conditions() {
    let mut world = World::new();
    forget_three_then(&mut world, |world| world.ask("more", &["3", "5"], fixed("6")));
    let kept = |world: &World| {
        let asked = world.cluster.requests["more"].clone();
        let events = request::decide(&world.observe_request(&asked), world.now).events;
        events.into_iter().filter(|event| event.reason == "OverrideKept").collect::<Vec<_>>()
    };
    let events = kept(&world);
    assert!(events.len() == 1 && events[0].warning && events[0].note.contains("\"3\" yields \"8\""));
    world.until("a run works for it", |world| world.is_running("more", Stage::Forget));
    assert_eq!(kept(&world), [], "it was said");
    world.settle();
    assert_eq!(world.ledger(), ["3->8", "3->8", "5->6"]);
    world.ended("more", RequestPhase::Fulfilled, Reason::Fulfilled, "\"3\" yields \"8\"");
}

#[test]
fn requests_that_make_no_sense_are_denied_with_the_reason() {
    let world = everywhere(|world| {
        forget_three_then(world, |world| {
            world.ask("unknown", &["42"], fixed("8"));
            world.ask("gone", &["5"], fixed("3"));
            world.ask("itself", &["5", "6"], fixed("6"));
            world.ask("all", &["0", "1", "2", "4", "5", "6", "7", "8", "9"], nearest());
        });
    });
    world.ended("unknown", RequestPhase::Denied, Reason::UnknownLabel, "it knows 0, 1, 2");
    world.ended("gone", RequestPhase::Denied, Reason::OverrideIsForgotten, "choose a label that stays");
    world.ended("itself", RequestPhase::Denied, Reason::OverrideIsTarget, "choose a label that stays");
    world.ended("all", RequestPhase::Denied, Reason::NothingWouldRemain, "keep at least one");
    assert_eq!(world.audit.jobs_created.len(), 3, "no work for any of them");
}

#[test]
fn a_request_waits_for_its_model_and_policy_and_says_so() {
    let mut world = World::new();
    world.ask("early", &["3"], fixed("8"));
    world.settle();
    let (status, reason, message) = world.condition("early", ConditionType::Accepted);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "ModelNotFound"), "{message}");
    assert!(message.contains("create it"), "{message}");
    world.ready();
    world.settle();
    world.ended("early", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn a_missing_policy_is_named_by_model_and_request() {
    let world = crashes(&|world: &mut World| {
        world.ready();
        world.change(|cluster| cluster.policies.clear());
        world.ask("forget-three", &["3"], fixed("8"));
    });
    let (status, reason, message) = world.condition("forget-three", ConditionType::Accepted);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "PolicyNotFound"));
    assert!(message.contains("\"standard\"") && message.contains("create it"), "{message}");
}

#[test]
fn requests_that_wait_together_share_one_run() {
    let world = play(
        &|world| {
            world.with_model();
            world.ask("one", &["3"], fixed("8"));
            world.ask("two", &["5"], nearest());
            world.ask("three", &["3", "7"], fixed("1"));
        },
        |_| {},
    );
    for name in ["one", "two", "three"] {
        world.ended(name, RequestPhase::Fulfilled, Reason::Fulfilled, "");
    }
    assert_eq!(world.audit.runs_created.len(), 2, "one to prepare, one for all");
    assert_eq!(world.ledger(), ["3->8", "5->6", "3->8", "7->1"]);
}

#[test]
fn requests_that_contradict_each_other_take_turns() {
    let world = crashes(&|world: &mut World| {
        world.with_model();
        world.ask("eight", &["8"], fixed("1"));
        world.ask("three-to-eight", &["3"], fixed("8"));
    });
    world.ended("eight", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    world.ended("three-to-eight", RequestPhase::Denied, Reason::OverrideIsForgotten, "\"8\"");
    assert_eq!(world.ledger(), ["8->1"]);
}

#[test]
fn a_suspended_request_starts_nothing_until_it_is_resumed() {
    let mut world = World::new();
    world.ready();
    world.ask("later", &["3"], fixed("8"));
    world.suspend("later", true);
    world.settle();
    let (status, reason, _) = world.condition("later", ConditionType::Scheduled);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "Suspended"));
    assert_eq!(world.audit.runs_created.len(), 1);
    world.suspend("later", false);
    world.settle();
    world.ended("later", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn a_request_that_is_suspended_while_it_is_worked_for_is_not_rolled_out() {
    let world = everywhere(|world| {
        world.ready();
        world.ask("later", &["3"], fixed("8"));
        world.until("it is evaluated", |world| world.is_running("later", Stage::Evaluate));
        world.suspend("later", true);
    });
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    assert_eq!(world.phase("later"), Some(RequestPhase::RollingOut));
    let (_, _, message) = world.condition("later", ConditionType::Ready);
    assert!(message.contains("suspend"), "{message}");
}

#[test]
fn a_policy_that_changes_does_not_change_a_run_at_work() {
    let strict = |world: &mut World| {
        world.edit_policy(|policy| {
            policy.gates[0].max_bound = Some("0.001".into());
            policy.rollout.progress_deadline_seconds = 5;
        });
    };
    let world = everywhere(|world| {
        world.ready();
        world.ask("before", &["3"], fixed("8"));
        world.until("it is trained", |world| world.is_running("before", Stage::Forget));
        strict(world);
    });
    world.ended("before", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let world = play(
        &|world| {
            forget_three_then(world, |world| {
                strict(world);
                world.ask("after", &["5"], fixed("8"));
            })
        },
        |_| {},
    );
    world.ended("after", RequestPhase::Held, Reason::GateFailed, "");
}

#[test]
fn a_ledger_without_room_denies_a_request() {
    let mut world = World::new();
    world.ready();
    world.ask("first", &["3"], fixed("8"));
    world.settle();
    world.change(|cluster| {
        let status = cluster.models.get_mut("digits").and_then(|model| model.status.as_mut()).unwrap();
        let entry = status.ledger[0].clone();
        let copies = 1..lethe_api::v1alpha1::LEDGER_CAPACITY;
        status.ledger.extend(copies.map(|i| {
            let mut copy = entry.clone();
            copy.request.uid = format!("uid-{i}");
            copy
        }));
    });
    world.ask("one-too-many", &["5"], fixed("8"));
    world.settle();
    world.ended("one-too-many", RequestPhase::Denied, Reason::LedgerFull, "256");
}

#[test]
fn a_request_that_is_suspended_before_the_roll_out_does_not_hold_up_the_others() {
    let world = play(
        &|world| {
            world.ready();
            world.ask("one", &["3"], fixed("8"));
            world.ask("two", &["5"], fixed("8"));
            world.until("they are worked for", |world| world.is_running("two", Stage::Evaluate));
            assert_eq!(world.run_for("one").unwrap().spec.requests.len(), 2, "they share a run");
            world.suspend("one", true);
        },
        |_| {},
    );
    world.ended("two", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["5->8"]);
    let (status, reason, _) = world.condition("one", ConditionType::Ready);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "Suspended"));
    let mut world = world;
    world.suspend("one", false);
    world.settle();
    world.ended("one", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["5->8", "3->8"]);
}

#[test]
fn a_suspended_request_whose_candidate_is_ready_gives_way_to_one_that_waits() {
    let mut world = World::new();
    world.ready();
    world.ask("one", &["3"], fixed("8"));
    world.until("it is evaluated", |world| world.is_running("one", Stage::Evaluate));
    world.ask("two", &["5"], fixed("8"));
    world.suspend("one", true);
    world.settle();
    world.ended("two", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["5->8"]);
    world.suspend("one", false);
    world.settle();
    world.ended("one", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["5->8", "3->8"]);
}

#[test]
fn a_finished_request_does_not_say_that_it_waits() {
    let mut world = World::new();
    world.ready();
    world.ask("one", &["3"], fixed("8"));
    world.until("it is worked for", |world| world.is_running("one", Stage::Forget));
    world.ask("same", &["3"], fixed("8"));
    world.ask("denied", &["5"], fixed("3"));
    world.settle();
    world.ended("same", RequestPhase::Fulfilled, Reason::AlreadyForgotten, "");
    world.ended("denied", RequestPhase::Denied, Reason::OverrideIsForgotten, "");
    for request in ["same", "denied"] {
        assert_eq!(world.condition(request, ConditionType::Scheduled), Default::default(), "{request}");
    }
}

#[test]
fn a_request_shows_its_targets_in_a_few_words() {
    let shown = |targets: &[&str]| {
        let mut world = World::new();
        world.ask("it", targets, nearest());
        world.settle();
        world.cluster.requests["it"].status.clone().unwrap().targets.unwrap()
    };
    assert_eq!(shown(&["3"]), "3");
    assert_eq!(shown(&["3", "7"]), "3, 7");
    assert_eq!(shown(&["3", "7", "1", "2", "5"]), "3 and 4 more");
}

#[test]
fn a_time_of_receipt_in_the_future_is_said_and_moves_no_term() {
    let mut world = World::new();
    world.ready();
    let mut asked = script::request("slip", &["3"], fixed("8"));
    asked.spec.data_subject_request = Some(DataSubjectRequest {
        reference: "DSR-1".into(),
        received_at: Time(world.now + SignedDuration::from_hours(24 * 365 * 30)),
        regulation: "GDPR".into(),
        extension: None,
    });
    world.apply_request(asked);
    let decide = |world: &World| {
        let asked = world.cluster.requests["slip"].clone();
        request::decide(&world.observe_request(&asked), world.now)
    };
    let decision = decide(&world);
    let warned = |event: &lethe_core::Event| event.warning && event.reason == "ReceivedInFuture";
    assert!(decision.events.iter().any(warned), "{:?}", decision.events);
    let due = decision.status.due_at.expect("it has a term").0;
    assert!(due <= world.now + SignedDuration::from_hours(24 * 31), "{due}");
    world.until("a run works for it", |world| world.is_running("slip", Stage::Forget));
    assert!(!decide(&world).events.iter().any(warned), "it was said");
}

/// A request that waits for its model, with a term, and what its next decision says.
fn waits_with_a_term() -> World {
    let mut world = World::new();
    let mut asked = script::request("waits", &["3"], fixed("8"));
    asked.spec.data_subject_request = Some(DataSubjectRequest {
        reference: "DSR-1".into(),
        received_at: Time(world.now),
        regulation: "CCPA".into(),
        extension: None,
    });
    world.apply_request(asked);
    world.settle();
    world
}

fn extended_after(days: i64) -> (Vec<lethe_core::Event>, i64) {
    let mut world = waits_with_a_term();
    let received = world.cluster.requests["waits"].spec.data_subject_request.as_ref().unwrap().received_at.0;
    world.now = received + SignedDuration::from_hours(24 * days);
    world.extend_term("waits", "the model is trained anew this month");
    let asked = world.cluster.requests["waits"].clone();
    let decision = request::decide(&world.observe_request(&asked), world.now);
    world.settle();
    let again = world.cluster.requests["waits"].clone();
    let later =
        request::decide(&world.observe_request(&again), world.now + SignedDuration::from_hours(2_000));
    assert_eq!(later.status.due_at, decision.status.due_at, "what was decided stands");
    assert_eq!(later.events, [], "it was said");
    let due = decision.status.due_at.unwrap().0;
    (decision.events, due.duration_since(received).as_hours() / 24)
}

#[test]
fn a_term_is_extended_before_it_ends_and_not_after() {
    let (events, days) = extended_after(40);
    assert!(events.iter().any(|e| !e.warning && e.reason == "TermExtended" && e.note.contains("this month")));
    assert_eq!(days, 90);
    let (events, days) = extended_after(46);
    assert!(events.iter().any(|e| e.warning && e.reason == "ExtensionTooLate"), "{events:?}");
    assert_eq!(days, 45);
}

#[test]
fn a_request_under_a_law_that_nobody_named_waits_for_its_term_and_has_that_of_its_policy() {
    let mut world = World::new();
    world.ready();
    let mut asked = script::request("lawful", &["3"], fixed("8"));
    asked.spec.data_subject_request = Some(DataSubjectRequest {
        reference: "DSR-1".into(),
        received_at: Time(world.now),
        regulation: "LGPD".into(),
        extension: None,
    });
    world.apply_request(asked);
    world.settle();
    let status = world.cluster.requests["lawful"].status.clone().unwrap();
    let accepted = ConditionType::Accepted.find(&status.conditions).unwrap();
    assert_eq!(accepted.reason, "LegalTermUnknown");
    assert!(
        accepted.message.contains("LGPD") && accepted.message.contains("spec.legalTerms"),
        "{accepted:?}"
    );
    assert_eq!((status.due_at, world.run_for("lawful").is_none()), (None, true));
    let term = Term { days: Some(15), ..Term::default() };
    let lgpd = LegalTerm { regulation: "LGPD".into(), term, extended: None, time_zone: None };
    world.edit_policy(|policy| policy.legal_terms.push(lgpd));
    world.settle();
    world.ended("lawful", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(days_of(&world, "lawful"), 15);
    // Who takes it away again, or the policy, takes no term away that somebody counts on.
    world.change(|cluster| cluster.policies.clear());
    world.settle();
    assert_eq!(days_of(&world, "lawful"), 15);
}

/// The days from its receipt to the end of its term.
fn days_of(world: &World, name: &str) -> i64 {
    let request = &world.cluster.requests[name];
    let received = request.spec.data_subject_request.as_ref().expect("it has a term").received_at.0;
    let due = request.status.as_ref().and_then(|status| status.due_at.as_ref()).expect("it has a term").0;
    due.duration_since(received).as_hours() / 24
}

/// Nobody has forgotten for the person yet: the clock goes on, and the law lets it be moved.
#[test]
fn a_term_is_extended_for_what_was_held_or_aborted_and_not_for_what_is_fulfilled() {
    for phase in [RequestPhase::Held, RequestPhase::Aborted, RequestPhase::Fulfilled] {
        let mut world = waits_with_a_term();
        match phase {
            RequestPhase::Held => {
                world.trainer = Box::new(|plan, _| measures(plan, |record| record.targets[0].leak.hits = 40));
            }
            RequestPhase::Aborted => world.annotate("waits", annotations::ABORT, "stop"),
            _ => {}
        }
        world.with_model();
        world.until("it has its answer", |world| world.phase("waits") == Some(phase));
        world.extend_term("waits", "the model is trained anew this month");
        let asked = world.cluster.requests["waits"].clone();
        let events = request::decide(&world.observe_request(&asked), world.now).events;
        let is_said = events.iter().any(|event| event.reason == "TermExtended");
        world.settle();
        let expected = if phase == RequestPhase::Fulfilled { (45, false) } else { (90, true) };
        assert_eq!((days_of(&world, "waits"), is_said), expected, "{phase:?}: {}", world.summary());
        assert_eq!(world.phase("waits"), Some(phase));
    }
}

/// What an operator had sent before it died, and its successor plans otherwise.
#[test]
fn a_run_that_arrives_late_gives_way_to_the_one_that_was_planned_since() {
    let mut world = World::new();
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is accepted", |world| world.phase("forget-three") == Some(RequestPhase::Queued));
    let sent = model::decide(&world.observe_model(world.model()), &world.installation, world.now).effects;
    world.suspend("forget-three", true);
    world.ask("forget-five", &["5"], fixed("8"));
    world.until("another run is at work", |world| world.is_running("forget-five", Stage::Forget));
    world.suspend("forget-three", false);
    for effect in sent {
        let Effect::CreateRun(run) = &effect else { panic!("a run was to be created, not {effect:?}") };
        world.audit.arrived_late.extend(run.metadata.name.clone());
        assert!(world.carry_out(&Key::Model("digits".into()), effect));
    }
    world.settle();
    let late = &world.cluster.runs[&world.audit.arrived_late[0]];
    assert!(lethe_core::run::is_over(late), "{}", world.summary());
    assert_eq!(world.ledger(), ["5->8", "3->8"]);
    for name in ["forget-three", "forget-five"] {
        assert_eq!(world.phase(name), Some(RequestPhase::Fulfilled), "{name}\n{}", world.summary());
    }
}
