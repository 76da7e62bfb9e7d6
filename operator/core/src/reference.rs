//! Models that never saw what is to be forgotten. A gate may compare with one: a run for which there is none would end with
//! an Error, and is not begun.

use std::collections::BTreeSet;

use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModelStatus, GateName, NeverSaw, UnlearnPolicySpec, UnlearnRequest},
};

use crate::targets;

/// The first that never saw any of these labels.
pub(crate) fn find<'a>(
    known: &[NeverSaw],
    labels: impl IntoIterator<Item = &'a String> + Clone,
) -> Option<Digest> {
    let covers = |one: &&NeverSaw| labels.clone().into_iter().all(|label| one.labels.contains(label));
    known.iter().find(covers).map(|one| one.bundle.clone())
}

/// The gate that would compare with one that never saw these labels, where there is none.
pub(crate) fn missing<'a>(
    known: &[NeverSaw],
    policy: &UnlearnPolicySpec,
    labels: impl IntoIterator<Item = &'a String> + Clone,
) -> Option<GateName> {
    let gate = policy.gates.iter().find(|gate| gate.max_above_never_saw.is_some())?;
    find(known, labels).is_none().then_some(gate.name)
}

/// What a request waits for, if that is such a model.
pub(crate) fn missing_for(
    request: &UnlearnRequest,
    model: &DiffusionModelStatus,
    known: &[NeverSaw],
    policy: &UnlearnPolicySpec,
) -> Option<String> {
    let forgotten = targets::ledger_targets(&model.ledger);
    let own = request.spec.targets.iter().map(|target| &target.label);
    let labels: BTreeSet<&String> = forgotten.keys().chain(own).collect();
    let gate = missing(known, policy, labels.iter().copied())?;
    let all: Vec<&str> = labels.iter().take(16).map(|label| label.as_str()).collect();
    let more = if labels.len() > all.len() { " and more" } else { "" };
    Some(format!(
        "gate {gate} of the policy compares with a model that never saw {}{more} (maxAboveNeverSaw), and spec.neverSaw of \
         the model names none: add one, or take the comparison out of the policy",
        all.join(", ")
    ))
}
