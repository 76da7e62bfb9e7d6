//! A new base artifact: it forgets everything that was forgotten before anything of it is served, and the old one stays in
//! service until then.

use jiff::SignedDuration;
use lethe_api::{
    contract::{Plan, RecordBody, Task},
    v1alpha1::{
        ConditionType, GateFailureAction, InitialServing, ModelPhase, Reason, RequestPhase, RolloutState,
        RunType, Stage, UnlearnRun,
    },
};

use crate::{
    script::{MODEL, crashes, everywhere, fixed, model, play, watchful},
    trainer::{Fate, digest, honest, honest_body, made_of, measures, reports, shows},
    world::World,
};

pub const NEW: &str = "teacher of next year";

/// Something was forgotten by the first base.
pub fn forgotten(world: &mut World) {
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is fulfilled", |world| is_fulfilled(world, "forget-three"));
    world.prologue = world.calls;
}

fn is_fulfilled(world: &World, request: &str) -> bool {
    world.phase(request) == Some(RequestPhase::Fulfilled)
}

/// The base in service.
pub fn base_is(world: &World, base: &str) -> bool {
    let status = world.model().status.as_ref();
    let baseline = status.and_then(|status| status.baseline.as_ref());
    baseline.is_some_and(|baseline| baseline.teacher == digest(base))
}

/// The runs that make a base forget everything.
fn runs<'a>(world: &'a World, base: &str) -> Vec<&'a UnlearnRun> {
    let of = |run: &&UnlearnRun| run.spec.new_base.as_ref().is_some_and(|new| new.digest == digest(base));
    world.cluster.runs.values().filter(of).collect()
}

fn is_at_work(world: &World, stage: Stage) -> bool {
    let jobs = world.cluster.jobs.iter();
    jobs.into_iter().any(|(name, work)| name.ends_with(stage.as_str()) && work.is_running())
}

fn is_rolled_out(world: &World) -> bool {
    let rollout = world.model().status.as_ref().and_then(|status| status.rollout.as_ref());
    rollout.is_some_and(|rollout| rollout.run.is_some() && rollout.state == RolloutState::Progressing)
}

/// The old base is served, and the model says why the new one is not.
#[track_caller]
fn stayed(world: &World, reason: Reason, says: &str) {
    let (status, found, message) = world.model_condition(ConditionType::BaseInService);
    let is_said = (status.as_str(), found) == ("False", reason.to_string()) && message.contains(says);
    assert!(is_said, "{message}\n{}", world.summary());
    assert_eq!(world.model_condition(ConditionType::Ready).2, message);
    assert!(base_is(world, "teacher") && world.model_is(ConditionType::Compliant));
    assert!(world.model_is(ConditionType::Serving) && world.model_is(ConditionType::Prepared));
    let first = &world.model().status.as_ref().unwrap().ledger[0];
    assert_eq!(world.named_bundle().as_ref(), Some(&first.digest), "what is served did not change");
    assert!(is_fulfilled(world, "forget-three"), "its answer stands");
}

/// What goes the same way as another scenario up to its particular moment is disturbed nowhere else.
fn once_or_everywhere(is_everywhere: bool, scenario: impl Fn(&mut World)) -> World {
    if is_everywhere { everywhere(scenario) } else { play(&scenario, |_| ()) }
}

#[test]
fn a_new_base_forgets_the_whole_ledger_before_it_is_served() {
    let world = everywhere(|world| {
        forgotten(world);
        world.ask("forget-five", &["5"], fixed("1"));
        world.until("it is fulfilled", |world| is_fulfilled(world, "forget-five"));
        let old = world.named_bundle();
        world.edit_base(NEW);
        world.until("the model says so", |world| {
            let ready = world.model_condition(ConditionType::Ready);
            ready.0 == "Unknown"
                && world.model().status.as_ref().unwrap().phase == Some(ModelPhase::Preparing)
        });
        world.until("it is made to forget", |world| is_at_work(world, Stage::Forget));
        assert_eq!(world.named_bundle(), old, "the old base stays in service");
        assert!(world.model_is(ConditionType::Compliant) && is_fulfilled(world, "forget-three"));
    });
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready));
    let status = world.model().status.clone().unwrap();
    let compliant = status.compliant.unwrap();
    assert_eq!(compliant.base, digest(NEW));
    assert_eq!(world.named_bundle(), Some(compliant.digest.clone()));
    assert_ne!(compliant.digest, status.ledger[1].digest, "what was first fulfilled with is as it was");
    assert_eq!(world.ledger(), ["3->8", "5->1"]);
    let Task::Forget(plan) = Plan::parse(runs(&world, NEW)[0].spec.plan.as_bytes()).unwrap().task else {
        panic!("it is a Forget run")
    };
    let targets: Vec<_> = plan.targets.iter().map(|target| target.label.as_str()).collect();
    assert_eq!((targets, plan.baseline), (vec!["3", "5"], made_of(&digest(NEW), "baseline")));
    assert_eq!(status.new_base, None);
}

#[test]
fn a_base_of_which_nothing_was_forgotten_is_served_as_it_is() {
    let world = everywhere(|world| {
        world.ready();
        world.edit_base(NEW);
    });
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready));
    assert_eq!(world.named_bundle(), Some(made_of(&digest(NEW), "baseline")));
    let world = everywhere(|world| {
        world.with_model();
        world.change(|cluster| {
            cluster.models.get_mut(MODEL).unwrap().spec.serving.initial = InitialServing::None;
        });
        world.until("it is prepared", |world| world.model_is(ConditionType::Prepared));
        world.edit_base(NEW);
    });
    assert!(base_is(&world, NEW) && world.named_bundle().is_none());
}

/// It may be why there is another base.
#[test]
fn a_first_baseline_that_never_comes_up_does_not_keep_the_next_one_out() {
    let new = made_of(&digest(NEW), "baseline");
    let world = everywhere(|world| {
        world.comes_up = Box::new(|named| named == Some(&made_of(&digest(NEW), "baseline")));
        world.with_model();
        world.until("it is prepared", |world| world.model_is(ConditionType::Prepared));
        world.edit_base(NEW);
    });
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready), "{}", world.summary());
    assert_eq!(world.named_bundle(), Some(new));
}

#[test]
fn a_new_baseline_that_does_not_come_up_goes_back_to_the_old_one() {
    let world = crashes(&|world: &mut World| {
        world.ready();
        world.comes_up = Box::new(|named| named == Some(&digest("baseline")));
        world.edit_base(NEW);
    });
    let (status, reason, message) = world.model_condition(ConditionType::BaseInService);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "RolloutTimedOut"), "{message}");
    assert!(base_is(&world, "teacher"));
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    assert_eq!(
        world.audit.served.len(),
        3,
        "the old one, the new one, the old one: {:?}",
        world.audit.served
    );
}

#[test]
fn a_base_whose_candidate_fails_its_gates_is_not_served_and_requests_go_on_with_the_old_one() {
    let world = everywhere(|world| {
        forgotten(world);
        world.trainer = Box::new(|plan, _| match &plan.task {
            Task::Evaluate(task) if task.baseline == made_of(&digest(NEW), "baseline") => {
                measures(plan, |record| record.targets[0].leak.hits = 300)
            }
            _ => honest(plan),
        });
        world.edit_base(NEW);
        world
            .until("it has failed", |world| world.model_condition(ConditionType::BaseInService).0 == "False");
    });
    stayed(&world, Reason::GateFailed, "direct-leak \"3\" Fail");
    assert_eq!(runs(&world, NEW).len(), 1, "it is not tried again by itself");
    let world = crashes(&|world: &mut World| {
        forgotten(world);
        world.trainer = Box::new(|plan, _| match &plan.task {
            Task::Evaluate(task) if task.baseline == made_of(&digest(NEW), "baseline") => {
                measures(plan, |record| record.targets[0].leak.hits = 300)
            }
            _ => honest(plan),
        });
        world.edit_base(NEW);
        world.until("it is made to forget", |world| is_at_work(world, Stage::Forget));
        world.ask("forget-five", &["5"], fixed("8"));
    });
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert!(base_is(&world, "teacher"));
    assert_eq!(runs(&world, NEW).len(), 1);
}

#[test]
fn a_base_is_tried_as_often_as_the_policy_says_and_then_until_people_see_to_it() {
    let scenario = |world: &mut World| {
        forgotten(world);
        world.edit_policy(|policy| {
            policy.on_gate_failure.action = GateFailureAction::Retry;
            policy.on_gate_failure.attempts = Some(2);
        });
        world.trainer = Box::new(|plan, _| match &plan.task {
            Task::Evaluate(task) if task.baseline == made_of(&digest(NEW), "baseline") => {
                measures(plan, |record| record.targets[0].leak.hits = 300)
            }
            _ => honest(plan),
        });
        world.edit_base(NEW);
    };
    let world = crashes(&scenario);
    stayed(&world, Reason::GateFailed, "change the policy or delete the run");
    let seeds: std::collections::BTreeSet<_> =
        runs(&world, NEW).iter().map(|run| Plan::parse(run.spec.plan.as_bytes()).unwrap().seed).collect();
    assert_eq!((runs(&world, NEW).len(), seeds.len()), (2, 2));
    let world = crashes(&|world: &mut World| {
        scenario(world);
        world.until("it is given up", |world| {
            world.model_condition(ConditionType::BaseInService).2.contains("change the policy")
        });
        world.trainer = Box::new(|plan, _| honest(plan));
        world.edit_policy(|policy| policy.training.forget_steps = Some(77));
    });
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready), "{}", world.summary());
    assert_eq!(runs(&world, NEW).len(), 3);
}

#[test]
fn a_base_that_cannot_be_prepared_leaves_the_old_one_in_service() {
    let world = everywhere(|world| {
        forgotten(world);
        world.trainer = Box::new(|plan, _| match plan.task {
            Task::Prepare(_) => Fate::Exits { code: 65, message: String::new() },
            _ => honest(plan),
        });
        world.edit_base(NEW);
        world
            .until("it has failed", |world| world.model_condition(ConditionType::BaseInService).0 == "False");
        world.ask("forget-five", &["5"], fixed("8"));
        world.until("the old one forgets more", |world| is_fulfilled(world, "forget-five"));
    });
    assert!(base_is(&world, "teacher") && world.model_is(ConditionType::Compliant));
    let (status, reason, message) = world.model_condition(ConditionType::BaseInService);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "BadArtifact"), "{message}");
    assert!(message.contains("stays in service") && message.contains("delete the run"), "{message}");
}

#[test]
fn a_base_that_lacks_a_label_of_the_ledger_is_refused_by_name() {
    let lacks = |label: &'static str| {
        move |world: &mut World| {
            forgotten(world);
            world.trainer = Box::new(move |plan, _| {
                let mut body = honest_body(plan);
                if let RecordBody::Prepare(record) = &mut body
                    && let Some(name) = record.labels.iter_mut().find(|name| **name == *label)
                {
                    *name = "other".into();
                }
                reports(plan, body)
            });
            world.edit_base(NEW);
        }
    };
    let world = everywhere(lacks("3"));
    stayed(&world, Reason::BaseLacksLabels, "it does not know \"3\", which is forgotten");
    assert!(runs(&world, NEW).is_empty(), "no GPU is used for it");
    let world = crashes(&lacks("8"));
    stayed(&world, Reason::BaseLacksLabels, "it does not know \"8\", which \"3\" yields");
}

#[test]
fn labels_are_known_by_name_wherever_they_stand() {
    let world = crashes(&|world: &mut World| {
        forgotten(world);
        world.trainer = Box::new(|plan, _| {
            let mut body = honest_body(plan);
            if let RecordBody::Prepare(record) = &mut body {
                record.labels.reverse();
            }
            reports(plan, body)
        });
        world.edit_base(NEW);
    });
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready));
    assert_eq!(world.model().status.as_ref().unwrap().labels[0].name, "9");
}

#[test]
fn a_base_that_is_changed_again_is_not_worked_for_any_more() {
    type Moment = (&'static str, fn(&World) -> bool, bool);
    let moments: [Moment; 4] = [
        ("it is prepared", |world| is_at_work(world, Stage::Prepare), true),
        ("it is made to forget", |world| is_at_work(world, Stage::Forget), true),
        ("it is evaluated", |world| is_at_work(world, Stage::Evaluate), true),
        // What has begun to be rolled out has passed every gate.
        ("it is rolled out", is_rolled_out, false),
    ];
    for (what, reached, is_stopped) in moments {
        for (last, next) in [("another teacher", "another"), ("teacher", "the old one")] {
            let world = once_or_everywhere(last != "teacher" && !is_stopped, |world| {
                forgotten(world);
                world.edit_base(NEW);
                world.until(what, reached);
                world.edit_base(last);
            });
            assert!(base_is(&world, last) && world.model_is(ConditionType::Ready), "{what}, then {next}");
            let named = world.named_bundle().unwrap();
            let served = world.audit.served.iter().flatten().collect::<Vec<_>>();
            let old = &world.model().status.as_ref().unwrap().ledger[0].digest;
            match (is_stopped, last) {
                (true, "teacher") => assert_eq!((named, served.len()), (old.clone(), 2), "{what}"),
                (true, _) => assert_eq!(served.len(), 3, "{what}"),
                (false, _) => assert_eq!(served.len(), 4, "{what}"),
            }
        }
    }
}

#[test]
fn a_base_that_was_prepared_before_is_not_prepared_again() {
    let world = everywhere(|world| {
        forgotten(world);
        world.edit_base(NEW);
        world.until("it is in service", |world| base_is(world, NEW));
        world.edit_base("teacher");
    });
    assert!(base_is(&world, "teacher") && world.model_is(ConditionType::Ready));
    let prepared = world.cluster.runs.values().filter(|run| run.spec.type_ == RunType::Prepare);
    assert_eq!(prepared.count(), 2, "each base once");
}

#[test]
fn requests_wait_for_a_new_base_and_are_fulfilled_by_it() {
    for stage in [Stage::Prepare, Stage::Forget, Stage::Evaluate] {
        let world = once_or_everywhere(stage == Stage::Forget, |world| {
            forgotten(world);
            world.edit_base(NEW);
            world.until("it is worked for", |world| is_at_work(world, stage));
            world.ask("forget-five", &["5"], fixed("8"));
        });
        world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
        assert_eq!(world.ledger(), ["3->8", "5->8"]);
        assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready));
    }
    let world = everywhere(|world| {
        forgotten(world);
        world.ask("forget-five", &["5"], fixed("8"));
        world.until("it is trained", |world| world.is_running("forget-five", Stage::Forget));
        world.edit_base(NEW);
    });
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready));
    let attempts = runs(&world, NEW);
    assert_eq!(attempts.len(), 1, "what was at work comes to its end first");
}

#[test]
fn a_roll_out_of_a_new_base_that_fails_goes_back_to_the_old_one() {
    let world = crashes(&|world: &mut World| {
        forgotten(world);
        let old = world.named_bundle();
        world.comes_up = Box::new(move |named| named == old.as_ref());
        world.edit_base(NEW);
    });
    stayed(&world, Reason::RolloutTimedOut, "serving went back");
    assert_eq!(runs(&world, NEW).len(), 1);
}

#[test]
fn the_live_server_is_asked_with_the_judge_of_its_own_base() {
    let begin = |world: &mut World| {
        forgotten(world);
        world.edit_policy(|policy| *policy = watchful().spec);
        world.edit_base(NEW);
    };
    let world = everywhere(begin);
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready));
    let audit = world.model().status.as_ref().unwrap().audit.clone().unwrap();
    let plan = Plan::parse(world.cluster.runs[&audit.run].spec.plan.as_bytes()).unwrap();
    let Task::Audit(task) = plan.task else { panic!("it is an audit") };
    assert_eq!(task.judge, made_of(&digest(NEW), "judge"));
    let world = crashes(&|world: &mut World| {
        begin(world);
        world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
    });
    stayed(&world, Reason::GateFailed, "300 of 3000 samples of the live server");
}

#[test]
fn a_model_can_be_deleted_and_come_back_while_it_gets_a_new_base() {
    type Moment = (&'static str, fn(&World) -> bool);
    let moments: [Moment; 5] = [
        ("it is prepared", |world| is_at_work(world, Stage::Prepare)),
        ("it is made to forget", |world| is_at_work(world, Stage::Forget)),
        ("it is evaluated", |world| is_at_work(world, Stage::Evaluate)),
        ("it is rolled out", is_rolled_out),
        ("it is in service", |world| base_is(world, NEW)),
    ];
    for (what, reached) in moments {
        for base in [NEW, "teacher"] {
            let world = once_or_everywhere(base == NEW && what == "it is made to forget", |world| {
                forgotten(world);
                world.edit_base(NEW);
                world.until(what, reached);
                world.delete_model();
                world.until("it is gone", |world| world.cluster.models.is_empty());
                let mut again = model(InitialServing::Baseline);
                again.spec.base.digest = digest(base);
                world.apply_model(again);
            });
            assert!(base_is(&world, base) && world.model_is(ConditionType::Ready), "{what}, then {base}");
            assert_eq!(world.ledger(), ["3->8"]);
        }
    }
}

#[test]
fn a_run_for_a_new_base_that_somebody_deletes_is_made_again() {
    for stage in [Stage::Prepare, Stage::Forget, Stage::Evaluate] {
        let world = crashes(&|world: &mut World| {
            forgotten(world);
            world.edit_base(NEW);
            world.until("it is worked for", |world| is_at_work(world, stage));
            let old: Vec<_> =
                world.model().status.as_ref().unwrap().ledger.iter().map(|e| e.run.clone()).collect();
            world.change(|cluster| {
                cluster.runs.retain(|name, run| {
                    old.contains(name) || (run.spec.type_ == RunType::Prepare) != (stage == Stage::Prepare)
                });
            });
        });
        assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready), "{}", world.summary());
    }
    let world = crashes(&|world: &mut World| {
        forgotten(world);
        world.edit_base(NEW);
        world.until("it is rolled out", is_rolled_out);
        world.change(|cluster| cluster.runs.retain(|_, run| run.spec.new_base.is_none()));
    });
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready), "{}", world.summary());
}

#[test]
fn a_digest_of_the_old_base_is_drift_and_is_set_back() {
    let world = crashes(&|world: &mut World| {
        forgotten(world);
        let old = world.named_bundle();
        world.edit_base(NEW);
        world.until("it is in service", |world| base_is(world, NEW) && world.model_is(ConditionType::Ready));
        world.drift(old.as_ref().map(|old| old.as_str()));
        world.until("that is seen", |world| !world.model_is(ConditionType::Serving));
        // It did honour the ledger when it was replaced. What was found out about it since then, nobody remembers.
        assert!(!world.model_is(ConditionType::Compliant));
        assert!(is_fulfilled(world, "forget-three"), "nothing is known to be shown");
    });
    let compliant = world.model().status.clone().unwrap().compliant.unwrap();
    assert_eq!(world.named_bundle(), Some(compliant.digest));
    assert!(world.model_is(ConditionType::Ready));
}

#[test]
fn a_base_that_is_only_elsewhere_is_the_same() {
    let mut world = World::new();
    forgotten(&mut world);
    let jobs = world.audit.jobs_created.clone();
    world.edit_base("teacher");
    world.settle();
    assert_eq!(world.audit.jobs_created, jobs);
    assert!(world.model_is(ConditionType::Ready));
}

#[test]
fn a_failed_base_does_not_become_a_new_one_when_its_runs_are_old() {
    let mut world = World::new();
    forgotten(&mut world);
    world.edit_policy(|policy| policy.retention.runs = 1);
    world.trainer = Box::new(|plan, _| match &plan.task {
        Task::Evaluate(task) if task.baseline == made_of(&digest(NEW), "baseline") => {
            measures(plan, |record| record.targets[0].leak.hits = 300)
        }
        _ => honest(plan),
    });
    world.edit_base(NEW);
    world.settle();
    for label in ["5", "6", "7"] {
        world.now += SignedDuration::from_secs(60);
        world.ask(&format!("forget-{label}"), &[label], fixed("8"));
        world.settle();
    }
    assert_eq!(runs(&world, NEW).len(), 1);
    assert_eq!(world.audit.runs_created.iter().filter(|run| !run.is_empty()).count(), 7);
    assert!(base_is(&world, "teacher") && world.model_is(ConditionType::Compliant));
}
