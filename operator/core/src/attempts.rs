//! How often a request was tried, and when it is tried again.
//!
//! The number of an attempt is frozen in the run that makes it, and its seed follows from it. So an operator that starts
//! anew, or sees old things, plans the same attempt under the same name, and not one more.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use lethe_api::v1alpha1::{Attempts, UnlearnRequest, UnlearnRun, Verdict};

use crate::accept::answers;

/// The how manyeth attempt at the request of this uid a run is; none if it does not work for it.
pub fn number(run: &UnlearnRun, uid: &str) -> Option<u32> {
    run.spec.requests.iter().find(|request| request.uid == uid).map(|request| request.attempt)
}

/// What came of attempts up to this one counts no more: somebody asked for another one since.
pub fn put_aside(request: &UnlearnRequest) -> u32 {
    let retry = request.status.as_ref().and_then(|status| status.retry.as_ref());
    retry.and_then(|retry| retry.after_attempt).unwrap_or_default()
}

/// The attempts of a run's requests, or at a new base, for its status. Once the gates have `failed`, whether there will be another.
pub fn of_run(run: &UnlearnRun, verdict: Option<Verdict>, now: Timestamp) -> Option<Attempts> {
    let policy = &run.spec.policy.on_gate_failure;
    let requests = || run.spec.requests.iter().map(|request| request.attempt);
    let attempts = || requests().chain(run.spec.new_base.as_ref().map(|new| new.attempt));
    let used = attempts().max()?;
    let again = verdict == Some(Verdict::Fail) && attempts().any(|used| used < policy.allowed());
    let next_at = again.then(|| Time(now + SignedDuration::from_secs(policy.wait().into())));
    Some(Attempts { used, allowed: policy.allowed().max(used), next_at })
}

/// The attempts at one of a run's requests.
pub fn of_request(run: &UnlearnRun, uid: &str) -> Option<Attempts> {
    let used = number(run, uid)?;
    let allowed = run.spec.policy.on_gate_failure.allowed();
    let next_at = run.status.as_ref().and_then(|status| status.attempts.as_ref()?.next_at.clone());
    Some(Attempts { used, allowed: allowed.max(used), next_at: next_at.filter(|_| used < allowed) })
}

/// The attempt that failed its gates and is to be followed by another one.
pub fn failed<'a>(
    request: &UnlearnRequest,
    runs: impl Iterator<Item = &'a UnlearnRun>,
) -> Option<(&'a UnlearnRun, Timestamp)> {
    let (uid, aside) = (request.uid()?, put_aside(request));
    let failed = |run: &'a UnlearnRun| {
        let attempts = of_request(run, &uid).filter(|attempts| attempts.used > aside)?;
        let next_at = attempts.next_at.filter(|_| answers(run, &uid))?.0;
        Some((attempts.used, run, next_at))
    };
    let last = runs.filter_map(failed).max_by_key(|(used, ..)| *used);
    last.map(|(_, run, next_at)| (run, next_at))
}

/// The number of the next attempt. One that came to nothing for it, or failed for others, does not count.
pub fn next<'a>(request: &UnlearnRequest, runs: impl Iterator<Item = &'a UnlearnRun>) -> u32 {
    let uid = request.uid().unwrap_or_default();
    let made = runs.filter(|run| answers(run, &uid)).filter_map(|run| number(run, &uid));
    made.max().unwrap_or_default().max(put_aside(request)) + 1
}
