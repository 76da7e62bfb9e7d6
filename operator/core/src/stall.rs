//! A Job that gets no pod, or a pod that gets no container: why, in the words of the cluster's own warnings.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use kube::ResourceExt;
use lethe_api::{printable::printable, v1alpha1::Reason};

use crate::job_state;

/// So long may either take before its events are read.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// Longest reason and message that are repeated, in characters. The API server limits neither.
const MAX_REASON: usize = 64;
pub(crate) const MAX_MESSAGE: usize = 512;

/// Something of a Job that gets no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The `involvedObject.uid` of the events that may say why.
    pub uid: String,
    what: Stalled,
    /// Warnings from before are about something else.
    since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stalled {
    /// The Job never had a pod.
    Job,
    /// All pods of the Job have ended, and the next one does not come. It may only be backing off.
    Retry,
    /// The pod is on a node and its container is not created. The image may only be a large one.
    Pod,
}

/// What to ask the events about, if anything is stuck.
pub fn find(job: &Job, pods: &[Pod], now: Timestamp) -> Option<Stall> {
    if job_state::is_finished(job) || job_state::is_suspended(job) {
        return None;
    }
    let active = || pods.iter().filter(|pod| !has_ended(pod));
    let stall = match active().next() {
        None => without_pod(job, pods),
        Some(_) => active().find_map(without_container),
    }?;
    (now.duration_since(stall.since) >= PATIENCE).then_some(stall)
}

fn without_pod(job: &Job, pods: &[Pod]) -> Option<Stall> {
    let uid = job.uid()?;
    if let Some(since) = job_state::finished_at(pods) {
        return Some(Stall { uid, what: Stalled::Retry, since });
    }
    let started = job.status.as_ref().and_then(|status| status.start_time.as_ref());
    let since = started.or(job.metadata.creation_timestamp.as_ref())?.0;
    Some(Stall { uid, what: Stalled::Job, since })
}

fn without_container(pod: &Pod) -> Option<Stall> {
    let status = pod.status.as_ref()?;
    let waiting =
        status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.waiting.as_ref())?;
    if !matches!(waiting.reason.as_deref(), Some("ContainerCreating" | "PodInitializing")) {
        return None;
    }
    let scheduled =
        status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "True");
    let since = scheduled
        .and_then(|condition| condition.last_transition_time.as_ref())
        .or(status.start_time.as_ref())
        .or(pod.metadata.creation_timestamp.as_ref())?;
    Some(Stall { uid: pod.uid()?, what: Stalled::Pod, since: since.0 })
}

impl Stall {
    /// Why nothing moves, by the newest warning of `events`. None if it may just take its time.
    pub fn explain(&self, events: &[Event]) -> Option<(Reason, String)> {
        let warnings = events.iter().filter(|event| {
            event.type_.as_deref() == Some("Warning")
                && event.involved_object.uid.as_ref() == Some(&self.uid)
                && at(event).is_some_and(|at| at >= self.since)
        });
        let words = warnings.max_by_key(|event| at(event)).map(words);
        match (self.what, words) {
            (Stalled::Job | Stalled::Retry, Some(words)) => {
                Some((Reason::PodNotCreated, format!("the Job's pod cannot be created: {words}")))
            }
            (Stalled::Pod, Some(words)) => {
                Some((Reason::PodNotStarted, format!("the pod's container cannot be started: {words}")))
            }
            (Stalled::Job, None) => {
                Some((Reason::PodNotCreated, "the Job has no pod yet, and no event says why".into()))
            }
            (Stalled::Retry | Stalled::Pod, None) => None,
        }
    }
}

/// When an event last happened: which of its times is set depends on who publishes it.
fn at(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let times = [
        series.map(|at| at.0),
        event.last_timestamp.as_ref().map(|at| at.0),
        event.event_time.as_ref().map(|at| at.0),
        event.metadata.creation_timestamp.as_ref().map(|at| at.0),
    ];
    times.into_iter().flatten().max()
}

/// The newest warning about the object with this uid.
pub(crate) fn last_words(events: &[Event], uid: &str) -> Option<String> {
    let is_warning = |event: &&Event| {
        event.type_.as_deref() == Some("Warning") && event.involved_object.uid.as_deref() == Some(uid)
    };
    events.iter().filter(is_warning).max_by_key(|event| at(event)).map(words)
}

/// Anybody who may write events can write anything into them.
fn words(event: &Event) -> String {
    let reason = clean(event.reason.as_deref().unwrap_or_default(), MAX_REASON);
    format!("{reason}: {}", clean(event.message.as_deref().unwrap_or_default(), MAX_MESSAGE))
}

/// At most so many characters, none of which steers a terminal.
pub(crate) fn clean(text: &str, max: usize) -> String {
    printable(text).chars().take(max).collect::<String>().trim().to_owned()
}

/// Whether nothing of it runs any more, or ever will.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn job(status: serde_json::Value) -> Job {
        let metadata = json!({"name": "digits-1", "uid": "job", "creationTimestamp": time(0)});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    fn pod(waiting: &str) -> Pod {
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": time(20)});
        let container = json!({
            "name": "trainer", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": waiting}},
        });
        let status = json!({"phase": "Pending", "conditions": [scheduled], "containerStatuses": [container]});
        serde_json::from_value(json!({"metadata": {"uid": "pod"}, "status": status})).unwrap()
    }

    fn event(uid: &str, type_: &str, message: &str, second: i64) -> Event {
        serde_json::from_value(json!({
            "metadata": {"name": message}, "involvedObject": {"uid": uid}, "type": type_, "reason": "Failed",
            "message": message, "lastTimestamp": time(second),
        }))
        .unwrap()
    }

    #[test]
    fn a_job_without_a_pod_is_stuck_after_a_while_unless_it_is_suspended_or_over() {
        assert_eq!(find(&job(json!({})), &[], time(9)), None);
        assert_eq!(find(&job(json!({})), &[], time(10)).unwrap().uid, "job");
        // It was suspended until then.
        assert_eq!(find(&job(json!({"startTime": time(60)})), &[], time(65)), None);
        let over = json!({"conditions": [{"type": "Failed", "status": "True"}]});
        assert_eq!(find(&job(over), &[], time(99)), None);
        let mut suspended = job(json!({}));
        suspended.spec = Some(serde_json::from_value(json!({"suspend": true, "template": {}})).unwrap());
        assert_eq!(find(&suspended, &[], time(99)), None);
    }

    #[test]
    fn a_pod_is_stuck_only_while_its_container_is_being_created() {
        assert_eq!(find(&job(json!({})), &[pod("ContainerCreating")], time(29)), None);
        assert_eq!(find(&job(json!({})), &[pod("ContainerCreating")], time(30)).unwrap().uid, "pod");
        assert_eq!(find(&job(json!({})), &[pod("ImagePullBackOff")], time(99)), None);
    }

    #[test]
    fn the_newest_warning_about_it_counts() {
        let stall = find(&job(json!({})), &[pod("ContainerCreating")], time(99)).unwrap();
        let events = [
            event("pod", "Warning", "no node", 19),
            event("pod", "Warning", "newest", 90),
            event("pod", "Warning", "older", 50),
            event("pod", "Normal", "pulling", 95),
            event("other", "Warning", "not about it", 95),
        ];
        let (reason, message) = stall.explain(&events).unwrap();
        assert_eq!(reason, Reason::PodNotStarted);
        assert!(message.ends_with("Failed: newest"), "{message}");
        assert_eq!(stall.explain(&events[..1]), None, "it was about another trouble");
        let stuck = find(&job(json!({})), &[], time(99)).unwrap().explain(&[]).unwrap();
        assert_eq!(stuck.0, Reason::PodNotCreated, "a Job always gets a pod");
    }

    #[test]
    fn words_of_strangers_are_cut_and_cleaned() {
        let stall = find(&job(json!({})), &[], time(99)).unwrap();
        let long = format!("a\u{1b}[31m\nb{}", "\u{e9}".repeat(5_000));
        let (_, message) = stall.explain(&[event("job", "Warning", &long, 20)]).unwrap();
        assert!(message.chars().count() < MAX_MESSAGE + 100 && !message.chars().any(char::is_control));
        assert!(message.contains("a [31m b"), "{message}");
    }
}
