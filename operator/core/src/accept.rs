//! Whether a request makes sense for its model.

use kube::ResourceExt;
use lethe_api::v1alpha1::{
    DiffusionModelStatus, GateResult, LEDGER_CAPACITY, Reason, RequestRef, UnlearnRequest, UnlearnRun,
    UnlearnRunStatus, Verdict, conditions::ConditionType,
};

use crate::{asked, attempts, run, targets};

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

/// The run that works for a request, or has. One that was given up because another of its requests was withdrawn does not
/// count, nor does one that failed for others only, or after which the request is to be tried again: it is worked for anew.
/// One that is at work, or is rolled out, counts in any case, although people asked for another attempt meanwhile.
pub fn run_of<'a>(
    request: &UnlearnRequest,
    runs: impl Iterator<Item = &'a UnlearnRun>,
) -> Option<&'a UnlearnRun> {
    let uid = request.uid()?;
    let aside = attempts::put_aside(request);
    let works_for = |run: &&UnlearnRun| {
        let attempts = attempts::of_request(run, &uid);
        let attempts = attempts.filter(|attempts| attempts.used > aside || may_fulfil(run));
        attempts.is_some_and(|attempts| attempts.next_at.is_none()) && answers(run, &uid)
    };
    runs.filter(works_for)
        .max_by_key(|run| (attempts::number(run, &uid), run.creation_timestamp().map(|at| at.0)))
}

/// Whether a run is at work, or its candidate may be rolled out or was.
fn may_fulfil(run: &UnlearnRun) -> bool {
    let Some(status) = run.status.as_ref().filter(|_| run::is_over(run)) else { return true };
    status.verdict == Some(Verdict::Pass) && !ConditionType::Promoted.is_false(&status.conditions)
}

/// Which requests a run works for in vain, in words: those that are gone, or about to go, or were replaced by another of
/// the same name, or were denied, or are to be aborted. None if it works for all of them.
pub fn withdrawn(run: &UnlearnRun, requests: &[UnlearnRequest]) -> Option<String> {
    let why = |reference: &RequestRef| {
        let found = requests.iter().find(|r| r.uid().as_ref() == Some(&reference.uid));
        let is_aborted = |r: &UnlearnRequest| asked::is_aborted(r) || asked::abort(r).is_some();
        match found {
            Some(request) if !asked::is_withdrawn(request) => None,
            Some(request) if asked::is_denied(request) => Some(format!("{} was denied", reference.name)),
            Some(request) if is_aborted(request) => Some(format!("{} was aborted", reference.name)),
            _ => Some(format!("{} was deleted", reference.name)),
        }
    };
    let all: Vec<String> = run.spec.requests.iter().filter_map(why).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Whether what came of a run is an answer to the request of this uid, which it works for.
pub(crate) fn answers(run: &UnlearnRun, uid: &str) -> bool {
    !is_given_up(run) && !is_blameless(run, uid)
}

/// Whether a run failed only for other requests than this one, so that it is worked for again without them: every gate that
/// did not pass names a target of theirs. A gate on the whole candidate is everybody's, and so is one about what was
/// forgotten earlier.
pub fn is_blameless(run: &UnlearnRun, uid: &str) -> bool {
    let Some(status) = run.status.as_ref().filter(|status| status.verdict.is_some()) else { return false };
    let asks_for = |request: &RequestRef, gate: &GateResult| {
        gate.target.as_ref().is_some_and(|target| request.targets.contains(target))
    };
    let mut failed = status.gates.iter().filter(|gate| gate.verdict != Verdict::Pass).peekable();
    failed.peek().is_some()
        && failed.all(|gate| {
            let mut blamed = run.spec.requests.iter().filter(|request| asks_for(request, gate)).peekable();
            blamed.peek().is_some() && blamed.all(|request| request.uid != uid)
        })
}

/// Whether a run ended without an answer to its requests.
pub(crate) fn is_given_up(run: &UnlearnRun) -> bool {
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
