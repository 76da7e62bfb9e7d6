//! A candidate beside the serving target, before it takes the target's place: the policy's steps, and where one stands.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutStrategy {
    /// The target's pods are replaced as the Deployment says.
    #[default]
    Immediate,
    /// A second Deployment serves the candidate first: to nobody but the audit, and then, step by step, to a share of the
    /// users. The target's pods are replaced after that.
    Canary,
}

/// One of: weight, pause, approval.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.weight), has(self.pause), has(self.approval)].filter(is, is).size() == 1").message("a step is one of weight, pause and approval"))]
pub struct RolloutStep {
    /// Give the candidate at least this share of the pods, in per cent. They come beside the target's, which stay: 50 doubles
    /// their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub weight: Option<u8>,
    /// Go on after a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseStep>,
    /// Go on once people have agreed, each by an `UnlearnApproval` that names the candidate and this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalStep>,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PauseStep {
    #[schemars(range(min = 1, max = 2_592_000))]
    pub seconds: u32,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalStep {
    /// How many people who have not made one of the requests.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    pub required: u8,
}

/// Where a candidate stands that is served by a second Deployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// The name of that Deployment, and of the Service where audits ask it.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Which of the policy's steps it is at, from 1; 0 before the first, while it is asked where nobody sees it.
    pub step: u32,
    /// The same for people.
    #[schemars(length(max = 64))]
    pub at: String,
    /// Since when it is at this step.
    pub since: Time,
    /// The share of the pods that the last step of that kind has given it, in per cent; absent while it gets no traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u8>,
    /// How many pods that was.
    pub replicas: i32,
    /// Since when its pods are not as they should be. Absent while they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready_since: Option<Time>,
    /// The run that asks it where nobody sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub audit: Option<String>,
}

fn one() -> u8 {
    1
}
