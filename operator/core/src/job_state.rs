//! What a Job and its pods say about a stage.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerStateTerminated, Event, Pod},
};
use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{Outcome, exit},
    printable::printable,
    v1alpha1::Reason,
};

use crate::{
    job::CONTAINER,
    kueue::{self, Queueing},
    stall,
};

/// How long after a Job's completion its pod may still be missing from a cache.
const POD_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// The state of a stage's Job.
#[derive(Clone, Debug)]
pub enum JobState {
    Absent,
    /// It exists and does not run yet, for a reason that people should know.
    Waiting {
        reason: Reason,
        message: String,
    },
    /// A queue has not admitted it, or took it back: it has no pods, and nothing is lost.
    Suspended {
        reason: Reason,
        message: String,
    },
    Running,
    /// The Job of this uid succeeded, and its pod is gone with what it said.
    Lost {
        uid: String,
    },
    /// The Job succeeded and its pod left an outcome for this plan.
    Succeeded(Box<Outcome>),
    Failed {
        reason: Reason,
        message: String,
    },
}

/// What is seen of a stage's Job.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub job: Option<&'a Job>,
    pub pods: &'a [Pod],
    /// About what [`stall::find`] found, or what [`kueue::to_ask_about`] names.
    pub events: &'a [Event],
    pub queueing: &'a Queueing,
}

/// Reads the state of the Job that was given the plan with digest `plan`.
pub fn state(seen: Seen<'_>, plan: &Digest, now: Timestamp) -> JobState {
    let Seen { job, pods, events, queueing } = seen;
    let Some(job) = job else { return JobState::Absent };
    if has_condition(job, "Complete") {
        return succeeded(job, pods, plan, now);
    }
    if let Some(failure) = condition(job, "Failed") {
        let (reason, message) = failed(failure.reason.as_deref(), failure.message.as_deref(), pods, plan);
        return JobState::Failed { reason, message };
    }
    if is_suspended(job) {
        return kueue::state(job, queueing, events, now);
    }
    let stalled = || stall::find(job, pods, now)?.explain(events);
    match pods.iter().find_map(why_waiting).or_else(stalled) {
        Some((reason, message)) => JobState::Waiting { reason, message },
        None => JobState::Running,
    }
}

/// Whether the Job has ended, one way or the other.
pub fn is_finished(job: &Job) -> bool {
    has_condition(job, "Complete") || has_condition(job, "Failed")
}

/// Whether it is to have no pods for now.
pub fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

fn succeeded(job: &Job, pods: &[Pod], plan: &Digest, now: Timestamp) -> JobState {
    let done = pods.iter().filter_map(terminated).find(|t| t.exit_code == exit::DONE);
    let Some(done) = done else {
        if completed_at(job).is_some_and(|at| now.duration_since(at) < POD_GRACE) {
            return JobState::Running;
        }
        return JobState::Lost { uid: job.uid().unwrap_or_default() };
    };
    match Outcome::parse(done.message.as_deref().unwrap_or_default(), plan) {
        Ok(outcome) if outcome.failure.is_none() => JobState::Succeeded(Box::new(outcome)),
        Ok(outcome) => JobState::Failed {
            reason: Reason::BadOutcome,
            message: format!("the trainer exited 0 but says {:?}", outcome.status),
        },
        Err(error) => {
            let missing = matches!(error, lethe_api::contract::OutcomeError::Missing);
            let reason = if missing { Reason::NoOutcome } else { Reason::BadOutcome };
            JobState::Failed { reason, message: format!("the trainer exited 0, but {error}") }
        }
    }
}

/// Why a Job failed: what its last pod said, if it said anything, and what Kubernetes says.
fn failed(reason: Option<&str>, message: Option<&str>, pods: &[Pod], plan: &Digest) -> (Reason, String) {
    let mut ends: Vec<_> = pods.iter().filter_map(terminated).filter(|t| t.exit_code != exit::DONE).collect();
    ends.sort_by_key(|t| t.finished_at.as_ref().map(|at| at.0));
    let last = ends.last();
    let said = last.map(|end| Outcome::parse(end.message.as_deref().unwrap_or_default(), plan));
    let reason = match (reason, last.map(|end| end.exit_code)) {
        (Some("DeadlineExceeded"), _) => Reason::DeadlineExceeded,
        (_, Some(exit::BAD_PLAN)) => Reason::BadPlan,
        (_, Some(exit::BAD_ARTIFACT)) => Reason::BadArtifact,
        (_, Some(exit::BAD_CONFIGURATION)) => Reason::BadConfiguration,
        (Some("BackoffLimitExceeded"), _) => Reason::BackoffLimitExceeded,
        _ => Reason::TrainerFailed,
    };
    let detail = match (said, last) {
        (Some(Ok(outcome)), _) if outcome.message.is_some() => outcome.message.unwrap_or_default(),
        (_, Some(end)) => match end.reason.as_deref() {
            Some("OOMKilled") => "the pod was killed: it used more memory than its limit".into(),
            _ => format!("the pod exited with code {}; see its log", end.exit_code),
        },
        (_, None) => match pods.iter().find_map(why_waiting) {
            Some((_, waiting)) => waiting,
            None => message.unwrap_or("Kubernetes gives no reason").to_owned(),
        },
    };
    let prefix = if reason == Reason::DeadlineExceeded { "the Job did not end in time: " } else { "" };
    (reason, format!("{prefix}{detail}"))
}

/// Why a pod does not run: it found no node, or its image cannot be had.
fn why_waiting(pod: &Pod) -> Option<(Reason, String)> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Pending") {
        return None;
    }
    let unschedulable =
        status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unschedulable {
        let message = condition.message.as_deref().unwrap_or("no node takes the pod");
        return Some((Reason::Unschedulable, message.to_owned()));
    }
    let waiting =
        status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.waiting.as_ref())?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    if reason.contains("Image") {
        let detail = waiting.message.as_deref().unwrap_or(reason);
        return Some((Reason::ImageUnavailable, format!("the trainer image cannot be pulled: {detail}")));
    }
    if reason.contains("CreateContainer") {
        let detail = waiting.message.as_deref().unwrap_or(reason);
        return Some((Reason::BadConfiguration, format!("the pod's container cannot be created: {detail}")));
    }
    None
}

/// When the trainer first ran, in any of a Job's pods, and not before `since`: resources are held from then on.
pub fn started_at(pods: &[Pod], since: Option<Timestamp>) -> Option<Timestamp> {
    let started = |pod: &Pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        let state = statuses.iter().find(|c| c.name == CONTAINER)?.state.as_ref()?;
        let running = state.running.as_ref().and_then(|running| running.started_at.as_ref());
        let ended = state.terminated.as_ref().and_then(|ended| ended.started_at.as_ref());
        running.or(ended).map(|at| at.0)
    };
    pods.iter().filter_map(started).filter(|at| since.is_none_or(|since| *at >= since)).min()
}

/// Since when the Job is not suspended.
pub fn begun_at(job: &Job) -> Option<Timestamp> {
    job.status.as_ref()?.start_time.as_ref().map(|at| at.0)
}

/// When the Job was seen to have succeeded.
pub fn completed_at(job: &Job) -> Option<Timestamp> {
    job.status.as_ref()?.completion_time.as_ref().map(|at| at.0)
}

/// When the trainer last ended, in any of a Job's pods.
pub fn finished_at(pods: &[Pod]) -> Option<Timestamp> {
    pods.iter().filter_map(|pod| terminated(pod)?.finished_at.as_ref().map(|at| at.0)).max()
}

/// What the trainer's last pod ran, as the container runtime names it.
pub fn image(pods: &[Pod]) -> Option<String> {
    const MOST: usize = 512;
    let last = pods.iter().max_by_key(|pod| terminated(pod)?.finished_at.as_ref().map(|at| at.0))?;
    let statuses = last.status.as_ref()?.container_statuses.as_ref()?;
    let image = &statuses.iter().find(|c| c.name == CONTAINER)?.image_id;
    (!image.is_empty()).then(|| printable(image).chars().take(MOST).collect())
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|c| c.name == CONTAINER)?.state.as_ref()?.terminated.as_ref()
}

fn has_condition(job: &Job, type_: &str) -> bool {
    condition(job, type_).is_some()
}

fn condition<'a>(job: &'a Job, type_: &str) -> Option<&'a k8s_openapi::api::batch::v1::JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == type_ && c.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_finished_once_it_says_so() {
        let with = |type_, status| {
            let job = json!({"status": {"conditions": [{"type": type_, "status": status}]}});
            is_finished(&serde_json::from_value(job).unwrap())
        };
        assert!(with("Complete", "True") && with("Failed", "True"));
        assert!(!with("Complete", "False") && !with("Suspended", "True"));
        // The pods may still be ending.
        assert!(!with("SuccessCriteriaMet", "True"));
        assert!(!is_finished(&Job::default()));
    }
}
