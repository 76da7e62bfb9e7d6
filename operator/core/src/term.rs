//! The legal term of a request: until when, and what people have to be told about it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use lethe_api::v1alpha1::{DataSubjectRequest, RequestPhase, UnlearnRequest};

use crate::{
    Event, deadline,
    policy::{NoPolicy, Policy},
    request::Answer,
};

/// Whether the person waits: what was held, failed or was given up was not forgotten, and what is Reexposed may be shown.
pub fn is_running(request: &UnlearnRequest) -> bool {
    use RequestPhase::{Denied, Fulfilled, Tried};
    let phase = request.status.as_ref().and_then(|status| status.phase);
    request.spec.data_subject_request.is_some() && !matches!(phase, Some(Fulfilled | Tried | Denied))
}

impl Answer<'_> {
    /// When the legal term ends. A time of receipt that cannot be right is said once.
    pub(crate) fn term(&mut self, policy: &Result<Policy, NoPolicy>) {
        let Some(subject) = &self.request.spec.data_subject_request else { return };
        let created = self.request.creation_timestamp().map(|created| created.0);
        let (begins, stated) = (deadline::begins_at(subject, created), subject.received_at.0);
        if begins < stated && self.status.due_at.is_none() {
            let note = format!(
                "receivedAt {stated} is after this request was created: the term counts from {begins}"
            );
            self.events.push(Event { warning: true, reason: "ReceivedInFuture".into(), note });
        }
        let said = policy.as_ref().map(|policy| &policy.spec.legal_terms[..]);
        let Ok(terms) = deadline::Terms::of(&subject.regulation, said.unwrap_or_default()) else { return };
        let unextended = DataSubjectRequest { extension: None, ..subject.clone() };
        let first = deadline::due_at(&unextended, created, &terms).map(Time);
        // As long as it is not known what the policy says, another term than the usual stands.
        if said.is_err() && self.status.due_at.is_some() && self.status.due_at != first {
            return;
        }
        self.status.due_at = deadline::due_at(subject, created, &terms).map(Time);
        // Said when it is first seen, not with every look.
        let before = self.request.status.as_ref().and_then(|status| status.observed_generation);
        if let (Some(extension), true) = (&subject.extension, before != self.request.meta().generation) {
            let counts = self.status.due_at != first;
            let (reason, note) = match (counts, terms.can_be_extended()) {
                (true, _) => ("TermExtended", extension.reason.clone()),
                (_, true) => {
                    ("ExtensionTooLate", "the person was told after the first term: it stands".into())
                }
                (_, false) => (
                    "ExtensionTooLate",
                    format!("the term of {} cannot be extended: it stands", subject.regulation),
                ),
            };
            self.events.push(Event { warning: !counts, reason: reason.into(), note });
        }
    }
}
