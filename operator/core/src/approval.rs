//! Whether the people whom the policy asks for have agreed.

use std::collections::BTreeSet;

use kube::ResourceExt;
use lethe_api::v1alpha1::{
    ApprovalDecision, ConditionType, Mode, UnlearnApproval, UnlearnPolicySpec, UnlearnRequest,
};

/// Most approvers that a status names.
const MOST: usize = 64;

/// Where a request stands with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    NotAsked,
    /// By these people.
    Approved(Vec<String>),
    /// So many people agreed, and more are needed.
    Waits {
        by: Vec<String>,
        required: usize,
    },
    Denied {
        by: String,
        reason: String,
    },
    /// It does not say who asks: anybody might approve of their own request.
    RequesterUnknown,
    /// Nothing in this installation checks who creates an approval.
    NotProtected,
}

/// Counts what people said about this very request. `approvals` is `None` if they cannot be trusted.
pub fn standing(
    request: &UnlearnRequest,
    policy: &UnlearnPolicySpec,
    approvals: Option<&[UnlearnApproval]>,
) -> Standing {
    let required = required(request, policy);
    if required == 0 {
        return Standing::NotAsked;
    }
    let Some(approvals) = approvals else { return Standing::NotProtected };
    let Some(requester) = &request.spec.requested_by else { return Standing::RequesterUnknown };
    let uid = request.uid().unwrap_or_default();
    let is_of = |approval: &&UnlearnApproval| approval.spec.request_ref.uid == uid;
    let of: Vec<_> = approvals.iter().filter(is_of).map(|approval| &approval.spec).collect();
    // Whoever asked may take it back by deleting the request, and has no other word.
    let others = || of.iter().filter(|spec| spec.approver != *requester);
    if let Some(no) = others().find(|spec| spec.decision == ApprovalDecision::Deny) {
        return Standing::Denied { by: no.approver.clone(), reason: no.reason.clone() };
    }
    let by: BTreeSet<String> = others().map(|spec| spec.approver.clone()).collect();
    let (count, by) = (by.len(), by.into_iter().take(MOST).collect());
    if count >= required { Standing::Approved(by) } else { Standing::Waits { by, required } }
}

/// Whether a run may be started for a request, by what its status says.
pub fn is_given(request: &UnlearnRequest, policy: &UnlearnPolicySpec) -> bool {
    let required = required(request, policy);
    let given = request.status.as_ref().is_some_and(|status| {
        ConditionType::Approved.is_true(&status.conditions) && status.approved_by.len() >= required
    });
    required == 0 || given
}

fn required(request: &UnlearnRequest, policy: &UnlearnPolicySpec) -> usize {
    match request.spec.mode {
        Mode::Enforce => policy.approvals.required.into(),
        Mode::Pilot => 0,
    }
}
