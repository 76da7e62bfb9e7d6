//! Runs that are over and that nothing refers to any more are kept by count.

use std::{cmp::Reverse, collections::BTreeSet};

use kube::ResourceExt;
use lethe_api::v1alpha1::{ConditionType, RunType, UnlearnRun, Verdict};

use crate::{
    Effect, base,
    model::{self, Lineage},
    request, run,
};

/// Deletes the oldest. Each type is counted for itself: audits, which come by the clock, must not drive out what people look
/// for.
pub(crate) fn step(lineage: &mut Lineage<'_>) {
    let Ok(policy) = &lineage.observed.policy else { return };
    let kept = usize::try_from(policy.spec.retention.runs).unwrap_or(usize::MAX);
    if lineage.own_runs().count() <= kept {
        return;
    }
    let needed = needed(lineage);
    let is_free = |run: &&UnlearnRun| is_past(run) && !needed.contains(&run.name_any());
    for type_ in [RunType::Prepare, RunType::Forget, RunType::Audit] {
        let mut past: Vec<_> =
            lineage.own_runs().filter(|run| run.spec.type_ == type_).filter(is_free).collect();
        past.sort_by_key(|run| Reverse((run.creation_timestamp().map(|at| at.0), run.name_any())));
        for run in past.into_iter().skip(kept) {
            let uid = run.uid().unwrap_or_default();
            lineage.effects.push(Effect::DeleteRun { name: run.name_any(), uid });
        }
    }
}

/// Whether nothing will come of a run any more.
fn is_past(run: &UnlearnRun) -> bool {
    let status = run.status.clone().unwrap_or_default();
    let may_be_promoted = run.spec.type_ == RunType::Forget && status.verdict == Some(Verdict::Pass);
    run::is_over(run) && (!may_be_promoted || ConditionType::Promoted.is_decided(&status.conditions))
}

/// Runs to which the lineage, its ledger or a request without an answer refers.
fn needed(lineage: &Lineage<'_>) -> BTreeSet<String> {
    let status = &lineage.status;
    let requests = lineage.observed.requests.iter();
    let open: BTreeSet<_> =
        requests.filter(|request| !request::is_over(request)).filter_map(ResourceExt::uid).collect();
    let is_needed = |run: &&UnlearnRun| {
        base::needs(lineage, run) || run.spec.requests.iter().any(|request| open.contains(&request.uid))
    };
    let rollout = status.rollout.iter().filter_map(|rollout| rollout.run.clone());
    let recorded = status.ledger.iter().map(|entry| entry.run.clone());
    let refuted = status.compliant.iter().filter_map(|compliant| compliant.refuted.as_ref());
    let audited = status.audit.iter().chain(refuted).map(|audit| audit.run.clone());
    let of_runs = lineage.own_runs().filter(is_needed).map(ResourceExt::name_any);
    model::named_runs(status).cloned().chain(rollout).chain(recorded).chain(audited).chain(of_runs).collect()
}
