//! An audit log that cannot be written. **Nothing is put into service, and nothing is promoted, that it cannot say**; whatever
//! takes out of service or puts back goes on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lethe_api::{
    Digest,
    v1alpha1::{ConditionType, DiffusionModel, Reason, Rollout, RolloutState},
};

use crate::{
    Change, Event,
    conditions::Conditions,
    evidence,
    model::Lineage,
    rollout::{self, Next},
};

impl Lineage<'_> {
    /// Why nothing may be put into service, if that is so.
    pub(crate) fn unlogged(&self) -> Option<String> {
        let why = self.observed.unlogged.as_ref()?;
        Some(format!("the audit log cannot be written: {why}. Nothing is put into service until it can"))
    }
}

/// Holds what would put something into service. What is held does not use up its time: the first write is made however late
/// it is. As long as it is held, the target names what it did before.
pub(crate) fn guard(lineage: &mut Lineage<'_>, rollout: &Rollout, next: Next) -> Next {
    let Some(why) = lineage.unlogged() else { return next };
    match &next {
        // What is published already stays so.
        Next::Patch(bundle @ Some(_)) if is_published(lineage, bundle.as_ref()) => next,
        Next::Patch(Some(_)) if rollout.state != RolloutState::RollingBack => {
            set_back(lineage, rollout);
            Next::Hold(Reason::AuditLogUnavailable, why)
        }
        Next::Complete => Next::Hold(Reason::AuditLogUnavailable, why),
        _ => next,
    }
}

fn is_published(lineage: &Lineage<'_>, bundle: Option<&Digest>) -> bool {
    lineage.status.published.as_ref().is_some_and(|published| published.bundle.as_ref() == bundle)
}

/// Somebody else may have changed it.
fn set_back(lineage: &mut Lineage<'_>, rollout: &Rollout) {
    let Some(target) = &lineage.observed.deployment else { return };
    let is_proven = rollout.from.as_ref().is_none_or(|from| evidence::refusal(lineage, from).is_none());
    if rollout::annotation(target) == rollout.from.as_ref().map(Digest::as_str) || !is_proven {
        return;
    }
    lineage.change_serving(rollout.from.clone(), Change::SetBack);
}

/// That something waits is no event, but for what somebody has to put right.
pub(crate) fn event(before: &[Condition], after: &[Condition]) -> Option<Event> {
    match (held(before), held(after)) {
        (None, Some(now)) => {
            let (reason, note) = (now.reason.clone(), now.message.clone());
            Some(Event { warning: true, reason, note })
        }
        _ => None,
    }
}

/// What a model says of it, for its requests.
pub(crate) fn said_by(model: &DiffusionModel) -> Option<String> {
    held(&model.status.as_ref()?.conditions).map(|serving| serving.message.clone())
}

/// A request whose candidate passed, and waits.
pub(crate) fn wait(conditions: &mut Conditions, why: &str) {
    let message = format!("every gate passed; {why}");
    for type_ in [ConditionType::Promoted, ConditionType::Ready] {
        conditions.unknown(type_, Reason::AuditLogUnavailable, message.clone());
    }
}

fn held(conditions: &[Condition]) -> Option<&Condition> {
    let reason = Reason::AuditLogUnavailable.to_string();
    ConditionType::Serving.find(conditions).filter(|serving| serving.reason == reason)
}
