//! What is not begun because its candidate could not pass, whatever it were: a gate may want more than is ever measured, or
//! compare with a model that never saw what is to be forgotten, and there is none.

use std::collections::BTreeSet;

use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModelStatus, GateName, NeverSaw, Reason, UnlearnPolicySpec, UnlearnRequest},
};

use crate::{plans, targets};

/// The first for this base that never saw any of these labels. How easily a label is learnt depends on what else a teacher has
/// learnt, and how: beside a model of another base, what comes back of a candidate says little.
pub(crate) fn find<'a>(
    known: &[NeverSaw],
    base: &Digest,
    labels: impl IntoIterator<Item = &'a String> + Clone,
) -> Option<Digest> {
    let covers = |one: &&NeverSaw| labels.clone().into_iter().all(|label| one.labels.contains(label));
    known.iter().filter(|one| one.base == *base).find(covers).map(|one| one.bundle.clone())
}

/// The gate that would compare with one for this base that never saw these labels, where there is none.
pub(crate) fn missing<'a>(
    known: &[NeverSaw],
    base: &Digest,
    policy: &UnlearnPolicySpec,
    labels: impl IntoIterator<Item = &'a String> + Clone,
) -> Option<GateName> {
    let gate = policy.gates.iter().find(|gate| gate.max_above_never_saw.is_some())?;
    find(known, base, labels).is_none().then_some(gate.name)
}

/// What is wanting before a request can be worked for: a policy under which something can pass, or a model that never saw
/// what is to be forgotten.
pub(crate) fn keeps_back(
    request: &UnlearnRequest,
    model: &DiffusionModelStatus,
    known: &[NeverSaw],
    policy: &UnlearnPolicySpec,
) -> Option<(Reason, String)> {
    let base = &model.baseline.as_ref()?.teacher;
    let forgotten = targets::ledger_targets(&model.ledger);
    let own = request.spec.targets.iter().map(|target| &target.label);
    let labels: BTreeSet<&String> = forgotten.keys().chain(own).collect();
    if let Some(why) = plans::out_of_reach(policy, model.labels.len().saturating_sub(labels.len())) {
        return Some((
            Reason::GateOutOfReach,
            format!("{why}. Nothing is trained until the policy is corrected"),
        ));
    }
    let gate = missing(known, base, policy, labels.iter().copied())?;
    let all: Vec<&str> = labels.iter().take(16).map(|label| label.as_str()).collect();
    let more = if labels.len() > all.len() { " and more" } else { "" };
    let message = format!(
        "gate {gate} of the policy compares with a model that never saw {}{more} (maxAboveNeverSaw), and spec.neverSaw of \
         the model names none for base {}: add one, or take the comparison out of the policy",
        all.join(", "),
        base.short()
    );
    Some((Reason::WaitingForReference, message))
}
