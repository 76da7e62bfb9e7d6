//! Whether a request makes sense for its model.

use kube::{Resource, ResourceExt};
use lethe_api::v1alpha1::{
    DiffusionModelStatus, LEDGER_CAPACITY, Reason, UnlearnRequest, UnlearnRun, UnlearnRunStatus,
    conditions::ConditionType,
};

use crate::targets;

/// The answer to a request that no run works for yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Accepted,
    /// Every target is in the ledger already, by other requests.
    AlreadyForgotten,
    Denied(Reason, String),
}

/// Checks a request against a prepared model.
pub fn check(request: &UnlearnRequest, model: &DiffusionModelStatus) -> Acceptance {
    let forgotten = targets::ledger_targets(&model.ledger);
    if request.spec.targets.iter().all(|target| forgotten.contains_key(&target.label)) {
        return Acceptance::AlreadyForgotten;
    }
    let all = targets::add_request(&forgotten, &request.spec, &model.labels);
    if let Err(error) = all.and_then(|all| targets::resolve(&all, &model.labels)) {
        return Acceptance::Denied(error.reason(), error.to_string());
    }
    if model.ledger.len() + request.spec.targets.len() > LEDGER_CAPACITY {
        let message = format!("the ledger holds {} entries of at most {LEDGER_CAPACITY}", model.ledger.len());
        return Acceptance::Denied(Reason::LedgerFull, message);
    }
    Acceptance::Accepted
}

/// The run that works for a request, or has. A run that was given up because another of its requests was
/// withdrawn does not count: the request is worked for again.
pub fn run_of<'a>(
    request: &UnlearnRequest,
    runs: impl Iterator<Item = &'a UnlearnRun>,
) -> Option<&'a UnlearnRun> {
    let uid = request.uid()?;
    let works_for = |run: &&UnlearnRun| run.spec.requests.iter().any(|r| r.uid == uid) && !is_given_up(run);
    runs.filter(works_for).max_by_key(|run| run.creation_timestamp().map(|at| at.0))
}

/// Names of requests that a run works for and that are gone, or about to go, or were replaced by another of the
/// same name.
pub fn withdrawn(run: &UnlearnRun, requests: &[UnlearnRequest]) -> Vec<String> {
    let is_there = |uid: &str| {
        requests.iter().any(|r| r.uid().as_deref() == Some(uid) && r.meta().deletion_timestamp.is_none())
    };
    run.spec.requests.iter().filter(|r| !is_there(&r.uid)).map(|r| r.name.clone()).collect()
}

/// Whether a run ended without an answer to its requests.
fn is_given_up(run: &UnlearnRun) -> bool {
    let given_up = |status: &UnlearnRunStatus| {
        [ConditionType::Ready, ConditionType::Promoted].into_iter().any(|type_| {
            type_.find(&status.conditions).is_some_and(|condition| {
                let reasons = [Reason::Superseded, Reason::LedgerMoved];
                condition.status == "False" && reasons.iter().any(|r| r.to_string() == condition.reason)
            })
        })
    };
    run.status.as_ref().is_some_and(given_up)
}
