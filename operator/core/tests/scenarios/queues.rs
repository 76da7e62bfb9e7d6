//! Jobs that wait in a queue of Kueue, are admitted, taken back and admitted again. Nothing is done twice, nothing is lost, and
//! what Kueue changes stays as it is.

use jiff::SignedDuration;
use lethe_api::v1alpha1::{ConditionType, QueuePolicy, Reason, RequestPhase, Stage};
use lethe_core::kueue::{QUEUE_NAME, Workload};
use serde_json::json;

use crate::{
    cluster::Work,
    script::{crashes, everywhere, fixed, policy, watchful},
    trainer::{Fate, honest},
    world::World,
};

const REQUEST: &str = "forget-three";

/// What Kueue says of a Job, one condition after the other: type, status, reason and message.
fn workload(conditions: &[[&str; 4]]) -> Option<Workload> {
    let condition = |[type_, status, reason, message]: &[&str; 4]| {
        json!({
            "type": type_, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-11-24T21:00:00Z",
        })
    };
    let conditions: Vec<_> = conditions.iter().map(condition).collect();
    let workload = json!({
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": {"name": "job-1"}, "spec": {},
        "status": {"conditions": conditions},
    });
    serde_json::from_value(workload).expect("as Kueue writes it")
}

const LITTLE: [&str; 4] = ["QuotaReserved", "False", "Pending", "1 more needed"];

/// Kueue is there, and the policy names a queue.
fn begin(world: &mut World) {
    world.ready();
    world.change(|cluster| cluster.has_kueue = true);
    world.edit_policy(|policy| {
        policy.trainer.queue =
            Some(QueuePolicy { name: "gpus".into(), priority_class: Some("erasure".into()) });
    });
    world.ask(REQUEST, &["3"], fixed("8"));
}

/// Kueue, or a person, does something about the Job of a stage, which is there.
fn touch(world: &mut World, stage: Stage, change: impl FnOnce(&mut Work)) {
    world.until("the Job is there", |world| world.job_for(REQUEST, stage).is_some());
    let name = world.job_for(REQUEST, stage).expect("it is there").job.metadata.name.clone();
    world.change(|cluster| change(cluster.jobs.get_mut(&name.expect("it has a name")).expect("it is there")));
}

fn admit(world: &mut World, stage: Stage) {
    touch(world, stage, |work| {
        work.workload = workload(&[["Admitted", "True", "Admitted", ""]]);
        work.suspend(Some(false));
    });
}

fn take_back(world: &mut World, stage: Stage) {
    touch(world, stage, |work| {
        work.workload = workload(&[["Evicted", "True", "Preempted", "for another one"], LITTLE]);
        work.suspend(Some(true));
    });
}

fn says(world: &mut World, reason: Reason, words: &str) {
    for type_ in [ConditionType::Ready, ConditionType::Trained] {
        world.until("the request says why it waits", |world| {
            let (status, found, message) = world.condition(REQUEST, type_);
            status == "Unknown" && found == reason.to_string() && message.contains(words)
        });
    }
}

/// And the operator has seen it.
fn works(world: &mut World, stage: Stage) {
    world.until("its pod is at work", |world| {
        let known =
            world.run_for(REQUEST).and_then(|run| run.status.as_ref()?.job(stage)?.started_at.clone());
        known.is_some() && world.is_running(REQUEST, stage)
    });
}

fn fulfilled(world: &World) {
    world.ended(REQUEST, RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.attempts(REQUEST), Some((1, 1)));
    assert_eq!(world.audit.runs_created.len(), 2, "prepare and forget");
}

#[test]
fn a_run_waits_in_its_queue_and_says_for_what_and_is_worked_for_once() {
    let world = everywhere(|world| {
        begin(world);
        says(world, Reason::WaitingForQuota, "Kueue is to take the Job into queue gpus");
        touch(world, Stage::Forget, |work| work.workload = workload(&[LITTLE]));
        says(world, Reason::WaitingForQuota, "QuotaReserved=False, Pending: 1 more needed");
        // Far longer than a Job may take.
        world.now += SignedDuration::from_hours(300);
        says(world, Reason::WaitingForQuota, "1 more needed");
        admit(world, Stage::Forget);
        admit(world, Stage::Evaluate);
    });
    fulfilled(&world);
    let job = &world.job_for(REQUEST, Stage::Forget).unwrap().job;
    let labels = job.metadata.labels.as_ref().unwrap();
    assert_eq!(labels[QUEUE_NAME], "gpus");
    assert_eq!(labels["kueue.x-k8s.io/priority-class"], "erasure");
    let template = job.spec.as_ref().unwrap().template.metadata.as_ref().unwrap();
    assert!(!template.labels.as_ref().unwrap().contains_key(QUEUE_NAME), "Kueue would queue each pod");
}

#[test]
fn a_job_that_is_taken_back_goes_on_in_the_same_run_however_often() {
    let world = crashes(&|world: &mut World| {
        begin(world);
        world.trainer = Box::new(|_, _| Fate::Hangs);
        // More often than pods may fail.
        for _ in 0..4 {
            admit(world, Stage::Forget);
            works(world, Stage::Forget);
            says(world, Reason::Training, "at work");
            world.now += SignedDuration::from_secs(60);
            take_back(world, Stage::Forget);
            let words =
                "took the Job back: Evicted=True, Preempted: for another one. It goes on where it was";
            says(world, Reason::Preempted, words);
            world.until("its pods are gone", |world| !world.is_running(REQUEST, Stage::Forget));
            world.now += SignedDuration::from_hours(2);
        }
        world.trainer = Box::new(|plan, _| honest(plan));
        admit(world, Stage::Forget);
        admit(world, Stage::Evaluate);
    });
    fulfilled(&world);
    let job = world.run_for(REQUEST).unwrap().status.as_ref().unwrap().job(Stage::Forget).unwrap().clone();
    assert_eq!(job.preemptions, 4);
    assert!((240..600).contains(&job.earlier_seconds), "only what pods worked: {job:?}");
    assert!(job.started_at.is_some() && job.finished_at.is_some());
}

#[test]
fn pods_that_are_told_to_stop_are_no_failures() {
    let world = crashes(&|world: &mut World| {
        begin(world);
        world.trainer = Box::new(|_, _| Fate::Exits { code: 143, message: String::new() });
        admit(world, Stage::Forget);
        world.until("there were many", |world| {
            world.job_for(REQUEST, Stage::Forget).is_some_and(|work| work.pods.len() > 6)
        });
        world.trainer = Box::new(|plan, _| honest(plan));
        admit(world, Stage::Evaluate);
    });
    fulfilled(&world);
}

#[test]
fn what_is_wrong_with_a_queue_is_said_and_waited_for() {
    let world = everywhere(|world| {
        begin(world);
        world.change(|cluster| cluster.has_kueue = false);
        world.now += SignedDuration::from_secs(60);
        says(world, Reason::NotQueued, "the cluster has no Kueue");
        world.change(|cluster| cluster.has_kueue = true);
        says(world, Reason::NotQueued, "Kueue has made no Workload for the Job");
        let missing = ["QuotaReserved", "False", "Inadmissible", "LocalQueue gpus doesn't exist"];
        touch(world, Stage::Forget, |work| work.workload = workload(&[missing]));
        says(world, Reason::Inadmissible, "LocalQueue gpus doesn't exist");
        admit(world, Stage::Forget);
        admit(world, Stage::Evaluate);
    });
    fulfilled(&world);
}

#[test]
fn a_model_says_that_its_preparation_waits_in_a_queue() {
    let world = crashes(&|world: &mut World| {
        let mut queued = policy();
        queued.spec.trainer.queue = Some(QueuePolicy { name: "gpus".into(), priority_class: None });
        world.with_model();
        world.change(|cluster| cluster.has_kueue = true);
        world.apply_policy(queued);
        world.until("its Job is there", |world| !world.cluster.jobs.is_empty());
        world.change(|cluster| {
            let work = cluster.jobs.values_mut().next().expect("it is there");
            work.workload = workload(&[LITTLE]);
        });
        world.until("the model says why it waits", |world| {
            let (status, _, message) = world.model_condition(ConditionType::Prepared);
            status == "Unknown" && message.contains("is to distil the baseline: waits in queue gpus")
        });
        world.change(|cluster| {
            cluster.jobs.values_mut().next().expect("it is there").suspend(Some(false));
        });
    });
    assert!(world.model_is(ConditionType::Ready));
}

#[test]
fn a_request_that_is_deleted_takes_its_job_out_of_the_queue() {
    let world = everywhere(|world| {
        begin(world);
        touch(world, Stage::Forget, |work| work.workload = workload(&[LITTLE]));
        says(world, Reason::WaitingForQuota, "1 more needed");
        world.delete_request(REQUEST);
    });
    assert!(
        world.cluster.jobs.keys().all(|name| name.ends_with("-prepare")),
        "{:?}",
        world.cluster.jobs.keys()
    );
}

#[test]
fn an_audit_waits_for_nobody() {
    let world = crashes(&|world: &mut World| {
        begin(world);
        world.edit_policy(|policy| policy.gates = watchful().spec.gates);
        admit(world, Stage::Forget);
        admit(world, Stage::Evaluate);
    });
    world.ended(REQUEST, RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let (name, audit) = world.cluster.jobs.iter().find(|(name, _)| name.ends_with("-audit")).unwrap();
    assert!(audit.is_finished(), "{name}");
    assert!(!audit.job.metadata.labels.as_ref().unwrap().contains_key(QUEUE_NAME));
}
