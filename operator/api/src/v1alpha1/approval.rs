//! `UnlearnApproval`: what a person other than the requester says to a request.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NAME_PATTERN, PRINTABLE_PATTERN};
use crate::Digest;

/// One person's word on one request. It is created and never changed; who `approver` is, is checked when it is created.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "lethe.dev",
    version = "v1alpha1",
    kind = "UnlearnApproval",
    namespaced,
    shortname = "ula",
    category = "lethe",
    doc = "One person's word on one request.",
    selectable = ".spec.requestRef.name",
    printcolumn(name = "Request", type_ = "string", json_path = ".spec.requestRef.name"),
    printcolumn(name = "Decision", type_ = "string", json_path = ".spec.decision"),
    printcolumn(name = "Approver", type_ = "string", json_path = ".spec.approver"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = "1")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self == oldSelf").message("an approval is immutable"))]
pub struct UnlearnApprovalSpec {
    pub request_ref: ApprovedRequest,
    pub decision: ApprovalDecision,
    /// A step of a roll-out that works for the request. Without it, this is about the request, and says nothing of a
    /// candidate that nobody had seen yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<ApprovedStep>,
    /// The API user who creates this: `kubectl auth whoami` says who that is.
    #[schemars(length(min = 1, max = 253), regex(pattern = PRINTABLE_PATTERN))]
    pub approver: String,
    /// Why. No personal data.
    #[schemars(length(min = 1, max = 512))]
    pub reason: String,
}

/// A request as it was when somebody looked at it: one that was deleted and created anew is another one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovedRequest {
    /// In the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// What somebody looked at before they let a roll-out go on: `status.rollout` of the model says both.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovedStep {
    /// The candidate.
    pub digest: Digest,
    /// The number of the policy's step, from 1.
    #[schemars(range(min = 1, max = 16))]
    pub step: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalDecision {
    Approve,
    /// The request is denied, whoever else approves of it; or the candidate, whichever step it is at.
    Deny,
}
