//! A Job that waits in a queue of Kueue, or was put back into it: why, in Kueue's own words.
//!
//! Kueue makes a Workload for every Job that names a queue. The Job is created suspended; Kueue lets it go on once the Workload
//! has its quota, and suspends it again if that is taken away. All of this is Kueue's, and none of it is put right here.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Event, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{CustomResource, ResourceExt};
use lethe_api::v1alpha1::{QueuePolicy, Reason, Stage, UnlearnRun, labels};
use serde::{Deserialize, Serialize};

use crate::{
    job_state::{self, JobState},
    stall,
};

/// On a Job: the LocalQueue that it waits in.
pub const QUEUE_NAME: &str = "kueue.x-k8s.io/queue-name";
/// On a Job: the WorkloadPriorityClass that it has there.
const PRIORITY_CLASS: &str = "kueue.x-k8s.io/priority-class";
/// So long may Kueue take to make a Workload. Also how often a Job is looked at while it waits: its watch, and that of its
/// Workload, wake us sooner.
pub(crate) const PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// What Kueue says when nothing but a change of its objects helps: a queue is missing, stopped or wrong. The second is its word
/// where it is told to be exact.
const OUT_OF_ORDER: [&str; 3] = ["Inadmissible", "Misconfigured", "ExceedsMaxQuota"];

/// Why a Job waits in a queue, which may take days.
pub const REASONS: [Reason; 4] =
    [Reason::WaitingForQuota, Reason::Preempted, Reason::Inadmissible, Reason::NotQueued];

/// Whether a condition says that a Job waits in a queue.
pub fn is_in_a_queue(condition: &Condition) -> bool {
    REASONS.iter().any(|reason| condition.reason == reason.to_string())
}

/// What is read of Kueue's object about a Job.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kueue.x-k8s.io",
    version = "v1beta2",
    kind = "Workload",
    namespaced,
    status = "WorkloadStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// Somebody may have taken it out of the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_sets: Vec<PodSet>,
}

/// The pods of a Workload; a Job has one such set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodSet {
    #[serde(default)]
    pub template: PodTemplateSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl Workload {
    /// The run whose pods it is about; none of those of others.
    pub fn run(&self) -> Option<&str> {
        let template = &self.spec.pod_sets.first()?.template;
        let labels: &BTreeMap<_, _> = template.metadata.as_ref()?.labels.as_ref()?;
        labels.get(labels::RUN).map(String::as_str)
    }

    fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
    }

    fn is(&self, type_: &str) -> bool {
        self.condition(type_).is_some_and(|condition| condition.status == "True")
    }
}

/// What is known of Kueue when a Job is looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Queueing {
    /// Nobody asks: the operator was not told to.
    #[default]
    NotAsked,
    /// The API server knows no Workloads.
    NotInstalled,
    /// The Job's Workload, if there is one.
    Asked(Option<Box<Workload>>),
}

/// The queue in which the Job of this stage waits for its turn. An audit holds nothing that others wait for, and tells whether
/// what is served has to go: it waits for nobody.
pub fn queue(run: &UnlearnRun, stage: Stage) -> Option<&QueuePolicy> {
    run.spec.policy.trainer.queue.as_ref().filter(|_| stage != Stage::Audit)
}

/// By which Kueue knows what to do with a Job.
pub(crate) fn job_labels(queue: Option<&QueuePolicy>) -> impl Iterator<Item = (String, String)> {
    let named = |(label, value): (&str, &String)| (label.to_owned(), value.clone());
    let name = queue.map(|queue| (QUEUE_NAME, &queue.name));
    let class = queue.and_then(|queue| Some((PRIORITY_CLASS, queue.priority_class.as_ref()?)));
    name.into_iter().chain(class).map(named)
}

/// The `involvedObject.uid` of the events that may say why a Job is in no queue.
pub fn to_ask_about(job: &Job, queueing: &Queueing, now: Timestamp) -> Option<String> {
    let is_lost = job_state::is_suspended(job)
        && !job_state::is_finished(job)
        && job.labels().contains_key(QUEUE_NAME)
        && *queueing == Queueing::Asked(None);
    (is_lost && is_overdue(job, now)).then(|| job.uid()).flatten()
}

/// Kueue had its time.
fn is_overdue(job: &Job, now: Timestamp) -> bool {
    job.creation_timestamp().is_some_and(|created| now.duration_since(created.0) >= PATIENCE)
}

/// Why a suspended Job waits.
pub(crate) fn state(job: &Job, queueing: &Queueing, events: &[Event], now: Timestamp) -> JobState {
    let queue = job.labels().get(QUEUE_NAME);
    let (reason, message) = match (queueing, queue) {
        (Queueing::Asked(Some(workload)), _) => says(workload, queue.map_or("of Kueue", |name| name)),
        (_, None) => (
            Reason::Suspended,
            "the Job is suspended: a queue has not admitted it, or somebody did it".into(),
        ),
        (Queueing::NotAsked, Some(queue)) => (
            Reason::Suspended,
            format!(
                "the Job is suspended until queue {queue} of Kueue admits it. Why it waits is not known here: the operator does \
                 not read Workloads (kueue.enabled of the chart)"
            ),
        ),
        (_, Some(queue)) if !is_overdue(job, now) => {
            (Reason::WaitingForQuota, format!("Kueue is to take the Job into queue {queue}"))
        }
        (Queueing::NotInstalled, Some(queue)) => (
            Reason::NotQueued,
            format!(
                "the policy names queue {queue}, and the cluster has no Kueue (no Workloads of kueue.x-k8s.io/v1beta2): the Job \
                 stays suspended. Install it, or take trainer.queue out of the policy, abort the request and try it again"
            ),
        ),
        (Queueing::Asked(None), Some(queue)) => (Reason::NotQueued, in_no_queue(job, queue, events)),
    };
    JobState::Suspended { reason, message }
}

/// Kueue is there, and did nothing.
fn in_no_queue(job: &Job, queue: &str, events: &[Event]) -> String {
    let said = stall::last_words(events, &job.uid().unwrap_or_default());
    let why = said.unwrap_or_else(|| {
        "no event says why. See whether its controller is at work and batch/job among its integrations, and whether the priority \
         class exists"
            .into()
    });
    format!("Kueue has made no Workload for the Job, which is to wait in queue {queue}: {why}")
}

/// What Kueue says of it.
fn says(workload: &Workload, queue: &str) -> (Reason, String) {
    let quota = workload.condition("QuotaReserved");
    let evicted = workload.condition("Evicted").filter(|condition| condition.status == "True");
    if workload.spec.active == Some(false) {
        let why = evicted.map_or_else(String::new, |evicted| format!(" ({})", words(evicted)));
        let message = format!(
            "somebody took it out of queue {queue}{why}: set spec.active of Workload {} to true",
            workload.name_any()
        );
        return (Reason::Inadmissible, message);
    }
    if let Some(evicted) = evicted {
        let now = quota.map_or_else(String::new, |quota| format!(". Now: {}", words(quota)));
        let message = format!(
            "queue {queue} took the Job back: {}. It goes on where it was once it is admitted again{now}",
            words(evicted)
        );
        return (Reason::Preempted, message);
    }
    match quota {
        _ if workload.is("Admitted") => {
            (Reason::WaitingForQuota, format!("queue {queue} has admitted the Job, which is about to go on"))
        }
        None => (
            Reason::WaitingForQuota,
            format!(
                "waits in queue {queue}: Kueue says nothing of it yet, as of one behind others that wait for the same"
            ),
        ),
        Some(quota) if quota.status == "True" => {
            let checks =
                workload.condition("Admitted").map_or_else(String::new, |said| format!(": {}", words(said)));
            (
                Reason::WaitingForQuota,
                format!("queue {queue} has quota for the Job, and not admitted it yet{checks}"),
            )
        }
        Some(quota) if OUT_OF_ORDER.contains(&quota.reason.as_str()) => {
            let message = format!(
                "queue {queue} cannot admit the Job: {}. It waits until somebody makes or mends what that names, or until the \
                 policy names another queue and the request is aborted and tried again",
                words(quota)
            );
            (Reason::Inadmissible, message)
        }
        Some(quota) => (Reason::WaitingForQuota, format!("waits in queue {queue}: {}", words(quota))),
    }
}

/// `QuotaReserved=False, Pending: couldn't assign flavors ...`
fn words(condition: &Condition) -> String {
    let Condition { type_, status, reason, message, .. } = condition;
    stall::clean(&format!("{type_}={status}, {reason}: {message}"), stall::MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn job(labels: Value) -> Job {
        let metadata =
            json!({"name": "digits-1-forget", "uid": "job", "labels": labels, "creationTimestamp": time(0)});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"suspend": true, "template": {}}}))
            .unwrap()
    }

    fn queued() -> Job {
        job(json!({QUEUE_NAME: "gpus"}))
    }

    fn workload(spec: Value, conditions: &[(&str, &str, &str, &str)]) -> Queueing {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status, reason, message)| {
                json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": time(1)})
            })
            .collect();
        let workload = json!({
            "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": {"name": "job-digits-1-forget-0a1b2"},
            "spec": spec, "status": {"conditions": conditions, "admission": {"clusterQueue": "models"}},
        });
        Queueing::Asked(Some(serde_json::from_value(workload).unwrap()))
    }

    fn says_at(second: i64, job: &Job, queueing: &Queueing, events: &[Event]) -> (Reason, String) {
        match state(job, queueing, events, time(second)) {
            JobState::Suspended { reason, message } => (reason, message),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn assert_says(queueing: &Queueing, reason: Reason, words: &str) {
        let said = says_at(99, &queued(), queueing, &[]);
        assert!(said.0 == reason && said.1.contains(words), "{said:?}");
    }

    #[test]
    fn what_waits_for_quota_says_so_in_the_words_of_kueue() {
        let little = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a100, 1 more needed";
        let waits = [("QuotaReserved", "False", "Pending", little)];
        let words = format!("waits in queue gpus: QuotaReserved=False, Pending: {little}");
        assert_says(&workload(json!({}), &waits), Reason::WaitingForQuota, &words);
        assert_says(&workload(json!({}), &[]), Reason::WaitingForQuota, "Kueue says nothing of it yet");
        let reserved = ("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue models");
        let unchecked = [reserved, ("Admitted", "False", "NoChecks", "a budget is not checked yet")];
        assert_says(&workload(json!({}), &unchecked), Reason::WaitingForQuota, "a budget is not checked yet");
        let admitted = [reserved, ("Admitted", "True", "Admitted", "The workload is admitted")];
        assert_says(&workload(json!({}), &admitted), Reason::WaitingForQuota, "about to go on");
    }

    #[test]
    fn what_no_waiting_helps_is_told_apart() {
        for reason in ["Inadmissible", "Misconfigured"] {
            let missing = [("QuotaReserved", "False", reason, "LocalQueue gpus doesn't exist")];
            assert_says(
                &workload(json!({}), &missing),
                Reason::Inadmissible,
                "LocalQueue gpus doesn't exist. It waits until",
            );
        }
        let stopped = [("Evicted", "True", "Deactivated", "The workload is deactivated")];
        let words = "set spec.active of Workload job-digits-1-forget-0a1b2 to true";
        assert_says(&workload(json!({"active": false}), &stopped), Reason::Inadmissible, words);
    }

    #[test]
    fn what_was_taken_back_says_for_whom_and_where_it_stands_now() {
        let evicted = ("Evicted", "True", "Preempted", "Preempted to accommodate a workload (UID: 7)");
        let now = ("QuotaReserved", "False", "Pending", "insufficient unused quota");
        let words = "Preempted to accommodate a workload (UID: 7). It goes on where it was once it is admitted again. \
                     Now: QuotaReserved=False, Pending: insufficient unused quota";
        assert_says(&workload(json!({}), &[evicted, now]), Reason::Preempted, words);
        // So it stays in the Workload once that is admitted again.
        let before = ("Evicted", "False", "QuotaReserved", "Previously: Preempted to accommodate a workload");
        assert_says(&workload(json!({}), &[before, now]), Reason::WaitingForQuota, "waits in queue gpus");
    }

    #[test]
    fn a_job_that_nobody_queues_says_so_after_a_while() {
        for queueing in [Queueing::NotInstalled, Queueing::Asked(None)] {
            assert_eq!(says_at(9, &queued(), &queueing, &[]).0, Reason::WaitingForQuota);
            assert_eq!(says_at(10, &queued(), &queueing, &[]).0, Reason::NotQueued);
        }
        assert_says(&Queueing::NotInstalled, Reason::NotQueued, "the cluster has no Kueue");
        assert_says(
            &Queueing::Asked(None),
            Reason::NotQueued,
            "is at work and batch/job among its integrations",
        );
        assert_eq!(to_ask_about(&queued(), &Queueing::Asked(None), time(9)), None);
        assert_eq!(to_ask_about(&queued(), &Queueing::Asked(None), time(10)).as_deref(), Some("job"));
        assert_eq!(to_ask_about(&queued(), &Queueing::NotInstalled, time(10)), None);
        assert_eq!(to_ask_about(&job(json!({})), &Queueing::Asked(None), time(10)), None);
        let event = json!({
            "metadata": {}, "involvedObject": {"uid": "job"}, "type": "Warning", "reason": "Unknown",
            "message": "no such priority class", "lastTimestamp": time(50),
        });
        let said = says_at(99, &queued(), &Queueing::Asked(None), &[serde_json::from_value(event).unwrap()]);
        assert!(said.1.ends_with("in queue gpus: Unknown: no such priority class"), "{said:?}");
    }

    #[test]
    fn a_job_that_is_suspended_without_a_queue_is_somebodys() {
        let (reason, message) = says_at(99, &job(json!({})), &Queueing::Asked(None), &[]);
        assert!(reason == Reason::Suspended && message.contains("somebody did it"), "{message}");
        assert_says(&Queueing::NotAsked, Reason::Suspended, "kueue.enabled");
    }

    #[test]
    fn what_a_workload_says_is_cut_and_cleaned() {
        let long = format!("a\u{1b}[31m\nb{}", "\u{e9}".repeat(5_000));
        let waits = workload(json!({}), &[("QuotaReserved", "False", "Pending", &long)]);
        let (_, message) = says_at(99, &queued(), &waits, &[]);
        assert!(message.contains("Pending: a [31m b"), "{message}");
        assert!(message.chars().count() < stall::MAX_MESSAGE + 100, "{}", message.len());
    }

    #[test]
    fn a_workload_says_whose_pods_it_is_about() {
        let of = |labels: Value| {
            let pods = json!({"podSets": [{"name": "main", "count": 1, "template": {"metadata": {"labels": labels}, "spec": {"containers": []}}}]});
            match workload(pods, &[]) {
                Queueing::Asked(Some(workload)) => workload.run().map(String::from),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of(json!({labels::RUN: "digits-1"})).as_deref(), Some("digits-1"));
        assert_eq!(of(json!({"app": "other"})), None);
    }
}
