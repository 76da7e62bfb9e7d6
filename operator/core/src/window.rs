//! How long a request waits for others to share its run.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lethe_api::v1alpha1::{ConditionType, UnlearnPolicySpec};

/// When a request waits no longer for others; none if the policy lets nobody wait. It counts from when the request was
/// accepted, and approved of if people are asked: both are in its status, so that an operator that starts anew goes on
/// counting from there.
pub fn ends_at(conditions: &[Condition], policy: &UnlearnPolicySpec) -> Option<Timestamp> {
    let seconds = policy.coalesce.window_seconds;
    if seconds == 0 {
        return None;
    }
    let yes = [ConditionType::Accepted, ConditionType::Approved].into_iter().filter_map(|type_| {
        let condition = type_.find(conditions).filter(|condition| condition.status == "True")?;
        Some(condition.last_transition_time.0)
    });
    Some(yes.max()? + SignedDuration::from_secs(seconds.into()))
}
