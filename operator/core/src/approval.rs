//! Whether the people whom the policy asks for have agreed.

use std::collections::BTreeSet;

use kube::ResourceExt;
use lethe_api::{
    Digest,
    v1alpha1::{
        ApprovalDecision, ConditionType, Mode, Reason, UnlearnApproval, UnlearnApprovalSpec,
        UnlearnPolicySpec, UnlearnRequest, UnlearnRun, annotations,
    },
};

use crate::{
    Event,
    model::Observed,
    request::{self, Answer},
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

impl Answer<'_> {
    /// A no that comes once a run has begun stops nothing: it must not pass in silence.
    pub(crate) fn hear(&mut self, observed: &request::Observed) {
        use ConditionType::Approved;
        let Ok(policy) = &observed.policy else { return };
        let approved = self.conditions.find(Approved);
        let reason = Reason::ApprovalDenied.to_string();
        let was_heard = approved.is_some_and(|c| c.status == "Unknown" && c.reason == reason);
        match standing(self.request, &policy.spec, observed.approvals.as_deref()) {
            Standing::Denied { by, reason } => {
                let message = format!(
                    "{by} said no, after a run had begun, which goes on: {reason}. Until the roll-out begins the \
                     annotation {} gives the request up",
                    annotations::ABORT
                );
                if !was_heard {
                    let note = message.clone();
                    self.events.push(Event { warning: true, reason: "DeniedTooLate".into(), note });
                }
                self.conditions.unknown(Approved, Reason::ApprovalDenied, message);
            }
            // It was taken back.
            Standing::Approved(by) if was_heard => {
                self.conditions.yes(Approved, Reason::Approved, format!("by {}", by.join(", ")));
            }
            _ if was_heard => self.conditions.remove(Approved),
            _ => {}
        }
    }
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
        // What is about a step of a roll-out is not about the request.
        let is_others = |approval: &&UnlearnApproval| {
            approval.spec.rollout.is_none()
                && approval.spec.request_ref.uid == uid
                && Some(&approval.spec.approver) != requester.as_ref()
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

/// Where a step of a roll-out stands with the people who have to agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepStanding {
    Agreed,
    Waits {
        by: Vec<String>,
    },
    /// This request does not say who asks: anybody might approve of their own.
    RequesterUnknown(String),
    /// Nothing in this installation checks who creates an approval.
    NotProtected,
}

/// Whether so many people let the candidate of a run go on from a step.
pub fn of_step(
    run: &UnlearnRun,
    candidate: &Digest,
    step: u32,
    required: u8,
    observed: &Observed,
) -> StepStanding {
    if observed.approvals.is_none() {
        return StepStanding::NotProtected;
    }
    if let Some(nobodys) = requests_of(run, observed).find(|request| request.spec.requested_by.is_none()) {
        return StepStanding::RequesterUnknown(nobodys.name_any());
    }
    let agrees = |spec: &&UnlearnApprovalSpec| {
        spec.decision == ApprovalDecision::Approve && spec.rollout.as_ref().is_some_and(|it| it.step == step)
    };
    let by: BTreeSet<_> =
        about(run, candidate, observed).filter(agrees).map(|s| s.approver.clone()).collect();
    match by.len() >= usize::from(required) {
        true => StepStanding::Agreed,
        false => StepStanding::Waits { by: by.into_iter().take(MOST).collect() },
    }
}

/// Who said no to the candidate of a run, at whichever step, in words.
pub fn denied(run: &UnlearnRun, candidate: &Digest, observed: &Observed) -> Option<String> {
    let no = about(run, candidate, observed).find(|spec| spec.decision == ApprovalDecision::Deny)?;
    Some(format!("{} said no to the candidate: {}", no.approver, no.reason))
}

fn requests_of<'a>(run: &UnlearnRun, observed: &'a Observed) -> impl Iterator<Item = &'a UnlearnRequest> {
    let uids: BTreeSet<_> = run.spec.requests.iter().map(|request| request.uid.clone()).collect();
    observed.requests.iter().filter(move |request| request.uid().is_some_and(|uid| uids.contains(&uid)))
}

/// What was said about the candidate, by people who have made none of the requests.
fn about<'a>(
    run: &UnlearnRun,
    candidate: &Digest,
    observed: &'a Observed,
) -> impl Iterator<Item = &'a UnlearnApprovalSpec> {
    let uids: BTreeSet<_> = run.spec.requests.iter().map(|request| request.uid.clone()).collect();
    let requesters: BTreeSet<_> =
        requests_of(run, observed).filter_map(|request| request.spec.requested_by.clone()).collect();
    let candidate = candidate.clone();
    // What was said of the same candidate when another run had it rolled out was said of other steps.
    let since = run.creation_timestamp();
    let is_later = move |approval: &&UnlearnApproval| {
        approval.creation_timestamp().is_none_or(|said| since.as_ref().is_none_or(|since| said >= *since))
    };
    let said = observed.approvals.iter().flatten().filter(is_later).map(|approval| &approval.spec);
    said.filter(move |spec| {
        spec.rollout.as_ref().is_some_and(|it| it.digest == candidate)
            // A run for another base works for none: whoever names its candidate means it.
            && (uids.is_empty() || uids.contains(&spec.request_ref.uid))
            && !requesters.contains(&spec.approver)
    })
}
