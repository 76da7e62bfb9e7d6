//! Trainers that fail, lie, hang or never start. Nothing that is served changes, and the message says why.

use kube::ResourceExt;
use lethe_api::{
    contract::{Failure, Outcome, Record, RecordBody, Status, Task},
    v1alpha1::{ConditionType, Reason, RequestPhase, Stage},
};
use lethe_core::run::RecordProblem;

use crate::{
    cluster::{Waits, Work},
    script::{everywhere, fixed},
    trainer::{Fate, digest, honest, honest_body, measures, outcome, reports},
    world::World,
};

/// A world whose trainer is honest but for the Forget stage.
fn forgetting_ends(fate: impl Fn(&lethe_api::contract::Plan) -> Fate + Clone + 'static) -> World {
    everywhere(move |world| {
        let fate = fate.clone();
        world.trainer = Box::new(move |plan, _| match plan.task {
            Task::Forget(_) => fate(plan),
            _ => honest(plan),
        });
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
    })
}

fn failed(world: &World, reason: Reason, says: &str) {
    world.ended("forget-three", RequestPhase::Failed, reason, says);
    assert_eq!(world.named_bundle(), Some(world.baseline()), "what is served did not change");
    assert!(world.ledger().is_empty());
    assert!(world.model_is(ConditionType::Ready), "the model is free for the next request");
}

fn says(message: &str) -> Fate {
    Fate::Succeeds { message: message.into(), record: vec![] }
}

#[test]
fn a_success_without_a_usable_message_is_a_failure() {
    failed(&forgetting_ends(|_| says("")), Reason::NoOutcome, "without saying anything");
    failed(&forgetting_ends(|_| says("done!")), Reason::BadOutcome, "not an outcome of this contract");
    failed(&forgetting_ends(|_| says(&"x".repeat(5000))), Reason::BadOutcome, "5000 bytes");
    let contradicts = |plan: &lethe_api::contract::Plan| {
        let failure = Outcome { record: None, ..outcome(plan, b"") };
        says(&failure.to_message())
    };
    failed(&forgetting_ends(contradicts), Reason::BadOutcome, "no record");
}

#[test]
fn a_message_or_record_of_another_plan_is_refused() {
    let stale = |plan: &lethe_api::contract::Plan| {
        let other = lethe_api::contract::Plan { seed: plan.seed ^ 1, ..plan.clone() };
        honest(&other)
    };
    failed(&forgetting_ends(stale), Reason::BadOutcome, "stale or someone else's");
    let foreign = |plan: &lethe_api::contract::Plan| {
        let other = lethe_api::contract::Plan { seed: plan.seed ^ 1, ..plan.clone() };
        let Fate::Succeeds { record, .. } = honest(&other) else { unreachable!("honest") };
        Fate::Succeeds { message: outcome(plan, &record).to_message(), record }
    };
    failed(&forgetting_ends(foreign), Reason::BadRecord, "stale or someone else's");
}

#[test]
fn a_record_that_is_missing_or_unreadable_is_a_failure() {
    let missing = |plan: &lethe_api::contract::Plan| says(&outcome(plan, b"never written").to_message());
    failed(&forgetting_ends(missing), Reason::RecordUnavailable, "is not in the store");
    let garbage = |plan: &lethe_api::contract::Plan| {
        let record = b"{\"schema\":".to_vec();
        Fate::Succeeds { message: outcome(plan, &record).to_message(), record }
    };
    failed(&forgetting_ends(garbage), Reason::BadRecord, "not a record of this contract");
    let huge = |plan: &lethe_api::contract::Plan| {
        let record = vec![b' '; Record::MAX_BYTES + 1];
        Fate::Succeeds { message: outcome(plan, &record).to_message(), record }
    };
    failed(&forgetting_ends(huge), Reason::BadRecord, "bytes; at most");
}

#[test]
fn a_record_of_another_stage_or_of_other_targets_is_refused() {
    let wrong_stage = |plan: &lethe_api::contract::Plan| {
        let Task::Forget(task) = &plan.task else { unreachable!("asked for Forget only") };
        let body = lethe_api::contract::PrepareTask {
            base: lethe_api::contract::BaseArtifact { uri: "file:///".into(), digest: task.teacher.clone() },
            steps: None,
        };
        let other = lethe_api::contract::Plan { task: Task::Prepare(body), ..plan.clone() };
        reports(plan, honest_body(&other))
    };
    failed(&forgetting_ends(wrong_stage), Reason::BadRecord, "Prepare");
    let forget_nothing = |plan: &lethe_api::contract::Plan| {
        let mut body = honest_body(plan);
        if let RecordBody::Forget(record) = &mut body {
            record.targets.clear();
        }
        reports(plan, body)
    };
    failed(&forgetting_ends(forget_nothing), Reason::BadRecord, "other targets");
    for known in ["baseline", "teacher", "distillation", "judge"] {
        let hands_back = move |plan: &lethe_api::contract::Plan| {
            let mut body = honest_body(plan);
            if let RecordBody::Forget(record) = &mut body {
                record.candidate = digest(known);
            }
            reports(plan, body)
        };
        failed(&forgetting_ends(hands_back), Reason::BadRecord, known);
    }
}

#[test]
fn a_distance_that_is_not_a_number_is_a_failure() {
    let world = everywhere(|world| {
        world.trainer = Box::new(|plan, _| measures(plan, |record| record.quality.candidate = f64::NAN));
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
    });
    failed(&world, Reason::BadRecord, "not a record of this contract");
}

#[test]
fn fatal_exit_codes_fail_at_once_with_what_the_trainer_said() {
    let exits = |code: i32, failure: Failure| {
        move |plan: &lethe_api::contract::Plan| {
            let outcome = Outcome {
                status: Status::Failed,
                record: None,
                failure: Some(failure),
                message: Some("base/model.safetensors is truncated; copy it again".into()),
                ..outcome(plan, b"")
            };
            Fate::Exits { code, message: outcome.to_message() }
        }
    };
    for (code, failure, reason) in [
        (64, Failure::BadPlan, Reason::BadPlan),
        (65, Failure::BadArtifact, Reason::BadArtifact),
        (78, Failure::BadConfiguration, Reason::BadConfiguration),
    ] {
        let world = forgetting_ends(exits(code, failure));
        failed(&world, reason, "copy it again");
        assert_eq!(world.job_for("forget-three", Stage::Forget).unwrap().pods.len(), 1, "no retry");
    }
}

#[test]
fn a_failure_that_may_pass_is_tried_again_and_then_given_up() {
    let world = everywhere(|world| {
        world.trainer = Box::new(|plan, failures| match (&plan.task, failures) {
            (Task::Forget(_), 0..2) => Fate::Exits { code: 75, message: String::new() },
            _ => honest(plan),
        });
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let world = forgetting_ends(|_| Fate::Exits { code: 75, message: String::new() });
    failed(&world, Reason::BackoffLimitExceeded, "code 75");
    assert_eq!(world.job_for("forget-three", Stage::Forget).unwrap().pods.len(), 3);
}

#[test]
fn a_trainer_that_hangs_is_ended_by_the_deadline() {
    failed(&forgetting_ends(|_| Fate::Hangs), Reason::DeadlineExceeded, "did not end in time");
}

#[test]
fn a_pod_that_cannot_start_says_why_while_it_waits_and_when_it_is_given_up() {
    for (waits, reason, text) in [
        (Waits::ImagePull, "ImageUnavailable", "lethe/trainer:none"),
        (
            Waits::Quota,
            "PodNotCreated",
            "FailedCreate: Error creating: pods \"x\" is forbidden: exceeded quota",
        ),
        (Waits::Mount, "PodNotStarted", "FailedMount: MountVolume.SetUp failed for volume \"store\""),
        (Waits::Unschedulable, "Unschedulable", "Insufficient nvidia.com/gpu"),
    ] {
        let scenario = move |world: &mut World| {
            world.trainer = Box::new(move |plan, _| match plan.task {
                Task::Forget(_) => Fate::Waits(waits),
                _ => honest(plan),
            });
            world.ready();
            world.ask("forget-three", &["3"], fixed("8"));
            world.until("it says why it waits", |world| {
                let (status, found, message) = world.condition("forget-three", ConditionType::Trained);
                status == "Unknown" && found == reason && message.contains(text)
            });
            world.until("the request is Unready for that reason", |world| {
                let (status, found, message) = world.condition("forget-three", ConditionType::Ready);
                status == "Unknown" && found == reason && message.contains(text)
            });
        };
        failed(&everywhere(scenario), Reason::DeadlineExceeded, text);
    }
}

#[test]
fn a_store_that_does_not_answer_is_asked_until_it_does() {
    let world = everywhere(|world| {
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it is trained", |world| world.is_running("forget-three", Stage::Forget));
        world.store_problem = Some(RecordProblem { transient: true, message: "timed out".into() });
        world.until("it says so", |world| {
            world.condition("forget-three", ConditionType::Ready).2.contains("the store: timed out")
        });
        world.store_problem = None;
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn a_job_that_is_gone_before_the_store_answers_is_not_run_again() {
    let world = everywhere(|world| {
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it is trained", |world| world.is_running("forget-three", Stage::Forget));
        world.store_problem = Some(RecordProblem { transient: true, message: "timed out".into() });
        world.until("it says so", |world| {
            world.condition("forget-three", ConditionType::Ready).2.contains("the store: timed out")
        });
        world.change(|cluster| cluster.jobs.clear());
        world.settle();
        world.store_problem = None;
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.audit.jobs_created.len(), 3, "each Job was made once");
}

/// The Job at work completes, and a node that is drained just then takes its pod away. Another one may be made for it.
pub fn lose_what_it_found(world: &mut World) {
    let now = world.now;
    let mut lost = String::new();
    world.change(|cluster| {
        let job = cluster.jobs.values_mut().find(|work| work.is_running()).unwrap();
        job.pods.pop();
        job.end("Complete", "CompletionsReached", "", now);
        lost = job.job.name_any();
    });
    world.audit.jobs_created.retain(|made| !made.starts_with(&format!("{lost} of ")));
}

#[test]
fn a_job_whose_pod_is_gone_with_its_message_is_made_again() {
    for (stage, pods) in [(Stage::Forget, 2), (Stage::Evaluate, 1)] {
        let world = everywhere(|world| {
            // Of two pods, the first has failed, and stays.
            world.trainer = Box::new(|plan, pod| match plan.task {
                Task::Forget(_) if pod == 0 => Fate::Exits { code: 70, message: String::new() },
                _ => honest(plan),
            });
            world.ready();
            world.ask("forget-three", &["3"], fixed("8"));
            world.until("its last pod is at work", |world| {
                let has_all = |work: &Work| work.is_running() && work.pods.len() == pods;
                world.is_running("forget-three", stage) && world.cluster.jobs.values().any(has_all)
            });
            lose_what_it_found(world);
        });
        world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
        let run = world.run_for("forget-three").unwrap();
        let job = run.status.as_ref().unwrap().job(stage).unwrap();
        assert!(job.record.is_some(), "{job:?}");
        let (lost, began) = (job.lost.as_ref().unwrap().at.0, job.started_at.as_ref().unwrap().0);
        assert!(began >= lost, "of the one that was made again: {job:?}");
    }
}

#[test]
fn a_job_whose_pod_is_gone_twice_is_a_failure() {
    let world = everywhere(|world| {
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
        for time in ["first", "second"] {
            world.until(&format!("it is at work for the {time} time"), |world| {
                world.is_running("forget-three", Stage::Forget)
            });
            lose_what_it_found(world);
        }
    });
    failed(&world, Reason::NoOutcome, "and so it was with the one before");
}

#[test]
fn a_job_that_is_made_again_is_not_taken_for_one_that_was_cleaned_up() {
    let mut world = World::new();
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is seen to be at work", |world| {
        let status = world.run_for("forget-three").and_then(|run| run.status.as_ref());
        status.and_then(|status| status.job(Stage::Forget)).is_some_and(|job| job.started_at.is_some())
    });
    // Longer than a finished Job is kept.
    world.now += jiff::SignedDuration::from_hours(30);
    lose_what_it_found(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let run = world.run_for("forget-three").unwrap();
    let worked = run.status.as_ref().unwrap().job(Stage::Forget).unwrap().earlier_seconds;
    assert!(
        (30 * 3600..31 * 3600).contains(&worked),
        "what the first one worked is counted once: {worked} s"
    );
}

#[test]
fn a_preparation_that_measured_too_little_is_refused() {
    use lethe_api::contract::{Count, PrepareRecord};
    type Change = fn(&mut PrepareRecord);
    let changes: [(Change, &str); 6] = [
        (|record| record.judge_accuracy = Count { hits: 1, n: 1 }, "tried on 1 teacher samples"),
        (|record| record.baseline_accuracy.truncate(9), "measured for 9 labels"),
        (
            |record| record.baseline_accuracy[3] = Count { hits: 1, n: 1 },
            "1 of 1 baseline samples of label \"3\"",
        ),
        (|record| record.baseline_accuracy[3].hits = 40, "40 of 100 baseline samples of label \"3\""),
        (|record| record.confusion[2][4] = -1.0, "confusion matrix"),
        (|record| record.reference = record.judge.clone(), "five different artifacts"),
    ];
    for (change, says) in changes {
        let mut world = World::new();
        world.trainer = Box::new(move |plan, _| {
            let mut body = honest_body(plan);
            if let RecordBody::Prepare(record) = &mut body {
                change(record);
            }
            reports(plan, body)
        });
        world.with_model();
        world.settle();
        let (status, reason, message) = world.model_condition(ConditionType::Prepared);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "BadRecord"), "{message}");
        assert!(message.contains(says), "{message}");
        assert_eq!(world.named_bundle(), None, "nothing is served");
    }
}

#[test]
fn a_preparation_whose_pod_is_gone_with_its_message_is_made_again() {
    let mut world = World::new();
    world.with_model();
    world.until("it is at work", |world| world.cluster.jobs.values().any(Work::is_running));
    lose_what_it_found(&mut world);
    world.settle();
    assert!(world.model_is(ConditionType::Ready));
}
