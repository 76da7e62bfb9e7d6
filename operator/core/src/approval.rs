//! Whether the people whom the policy asks for have agreed.

use std::collections::BTreeSet;

use kube::ResourceExt;
use lethe_api::v1alpha1::{ApprovalDecision, Mode, UnlearnApproval, UnlearnPolicySpec, UnlearnRequest};

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
    let requester = &request.spec.requested_by;
    let uid = request.uid().unwrap_or_default();
    let others = || {
        // Whoever asked may take it back by deleting the request, and has no other word.
        let is_others = |approval: &&UnlearnApproval| {
            approval.spec.request_ref.uid == uid && Some(&approval.spec.approver) != requester.as_ref()
        };
        approvals.into_iter().flatten().filter(is_others).map(|approval| &approval.spec)
    };
    // A no counts even where nobody was asked.
    if let Some(no) = others().find(|spec| spec.decision == ApprovalDecision::Deny) {
        return Standing::Denied { by: no.approver.clone(), reason: no.reason.clone() };
    }
    let required = match request.spec.mode {
        Mode::Enforce => usize::from(policy.approvals.required),
        Mode::Pilot => 0,
    };
    if required == 0 {
        return Standing::NotAsked;
    }
    if approvals.is_none() {
        return Standing::NotProtected;
    }
    if requester.is_none() {
        return Standing::RequesterUnknown;
    }
    let by: BTreeSet<String> = others().map(|spec| spec.approver.clone()).collect();
    let (count, by) = (by.len(), by.into_iter().take(MOST).collect());
    if count >= required { Standing::Approved(by) } else { Standing::Waits { by, required } }
}

impl Standing {
    /// Who approved, if a run may be started.
    pub fn may_start(self) -> Option<Vec<String>> {
        match self {
            Self::NotAsked => Some(vec![]),
            Self::Approved(by) => Some(by),
            Self::Waits { .. } | Self::Denied { .. } | Self::RequesterUnknown | Self::NotProtected => None,
        }
    }
}
