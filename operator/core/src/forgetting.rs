//! The part of a lineage's decision that is about runs: follow the active one, or start the next.

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use lethe_api::v1alpha1::{
    ConditionType, LEDGER_CAPACITY, Mode, Reason, RequestRef, RolloutState, RunType, UnlearnRequest,
    UnlearnRun, Verdict,
};

use crate::{
    Effect, POLL, accept, approval, asked, attempts, audit, base,
    conditions::Conditions,
    duplicates,
    evidence::{self, Standing},
    model::{Lineage, NextRun},
    plans,
    policy::Policy,
    reference, request,
    run::is_over,
    serving, targets, window,
};

pub(crate) fn step(lineage: &mut Lineage<'_>) {
    audit::keep_time(lineage);
    let active = lineage.status.active_run.clone();
    let found = lineage.own_runs().find(|run| Some(run.name_any()) == active);
    match found {
        Some(run) if audit::is_scheduled(run) => {
            if audit::follow_scheduled(lineage, run) {
                start_next(lineage);
            }
        }
        Some(run) if run.spec.type_ == RunType::Prepare => {
            if base::follow(lineage, run) {
                start_next(lineage);
            }
        }
        Some(run) => follow(lineage, run),
        // Its run was deleted by somebody: serving goes back first.
        None if lineage.is_rolling_out() => {}
        // There is none, or it was announced and never created, or it was deleted by somebody.
        None => start_next(lineage),
    }
    give_up_strays(lineage);
    audit::say(lineage);
    base::say(lineage);
}

/// An operator that dies may leave the creation of a run on its way. If its successor has planned another one by the
/// time that it arrives, two would work for one lineage: only the one that the status names does.
fn give_up_strays(lineage: &mut Lineage<'_>) {
    let active = lineage.status.active_run.clone();
    let audits = lineage.status.rollout.as_ref().and_then(|rollout| match rollout.state {
        RolloutState::Auditing => rollout.audit.clone(),
        RolloutState::Canary => rollout.canary.as_ref()?.audit.clone(),
        _ => None,
    });
    let is_stray = |run: &&UnlearnRun| {
        let status = run.status.as_ref();
        let conditions = status.map(|status| &status.conditions[..]).unwrap_or_default();
        if ConditionType::Promoted.is_decided(conditions) || Some(run.name_any()) == active {
            return false;
        }
        match run.spec.type_ {
            RunType::Prepare => !is_over(run),
            RunType::Forget => !is_over(run) || status.and_then(|s| s.verdict) == Some(Verdict::Pass),
            RunType::Audit => !is_over(run) && Some(run.name_any()) != audits,
        }
    };
    for run in lineage.own_runs().filter(is_stray).collect::<Vec<_>>() {
        let message = match run.spec.type_ {
            RunType::Audit => "its roll-out was given up",
            _ => "another run was planned for the model",
        };
        mark(lineage, run, false, Reason::Superseded, message.into());
    }
}

fn is_audit_at_work(run: &UnlearnRun) -> bool {
    run.spec.type_ == RunType::Audit && !is_over(run)
}

/// What the active run's end means for serving.
fn follow(lineage: &mut Lineage<'_>, run: &UnlearnRun) {
    if !is_over(run) {
        return;
    }
    let status = run.status.clone().unwrap_or_default();
    let promotion_is_known = ConditionType::Promoted.is_decided(&status.conditions);
    if status.verdict != Some(Verdict::Pass) || promotion_is_known {
        // Its requests have their answer: the lineage is free.
        lineage.status.active_run = None;
        return start_next(lineage);
    }
    let Some(candidate) = status.candidate else {
        lineage.status.active_run = None;
        return;
    };
    if run.spec.mode == Mode::Pilot {
        let message = format!("a pilot: {} passed every gate and is not rolled out", candidate.short());
        return mark(lineage, run, false, Reason::Pilot, message);
    }
    if is_recorded(lineage, run) {
        let message = match run.spec.new_base {
            None => format!("{} is served and in the ledger", candidate.short()),
            Some(_) => format!("{} is served and honours the ledger", candidate.short()),
        };
        return mark(lineage, run, true, Reason::Promoted, message);
    }
    let rollout = lineage.status.rollout.clone().filter(|rollout| rollout.run == Some(run.name_any()));
    match rollout {
        Some(rollout) if rollout.state == RolloutState::RolledBack => {
            let why = rollout.message.unwrap_or_default();
            let reason = rollout.reason.unwrap_or(Reason::RolloutTimedOut);
            mark(lineage, run, false, reason, why);
        }
        Some(_) => {}
        None => try_to_roll_out(lineage, run, candidate),
    }
}

/// Whether the candidate was rolled out.
fn is_recorded(lineage: &Lineage<'_>, run: &UnlearnRun) -> bool {
    let (status, name) = (&lineage.status, run.name_any());
    status.ledger.iter().any(|entry| entry.run == name)
        || status.compliant.as_ref().is_some_and(|compliant| compliant.run == name)
}

/// The candidate passed every gate. It is rolled out if that still is what everybody wants.
fn try_to_roll_out(lineage: &mut Lineage<'_>, run: &UnlearnRun, candidate: lethe_api::Digest) {
    if let Some(withdrawn) = accept::withdrawn(run, &lineage.observed.requests) {
        let message = format!("withdrawn: {withdrawn} before the roll-out");
        return mark(lineage, run, false, Reason::Superseded, message);
    }
    if base::is_outdated(lineage, run) {
        let message = "spec.base was changed before the roll-out";
        return mark(lineage, run, false, Reason::Superseded, message.into());
    }
    if !serving::is_planned_for_all(lineage, run) {
        return mark(lineage, run, false, Reason::LedgerMoved, serving::MOVED.into());
    }
    let suspended = suspended(run, &lineage.observed.requests);
    // The candidate is kept for a request that is resumed, as long as nobody else could use the model in earnest.
    let all = !suspended.is_empty() && suspended.len() == run.spec.requests.len();
    if all && !is_wanted(lineage) {
        return;
    }
    if !suspended.is_empty() {
        let message = format!(
            "{} was suspended before the roll-out: the other requests are worked for again without it",
            suspended.join(", ")
        );
        return mark(lineage, run, false, Reason::Superseded, message);
    }
    // The baseline's rollout is not waited for: it may never come up, and is not what should be served.
    if lineage.is_rolling_out() {
        return;
    }
    match evidence::standing(lineage, &candidate, Some(run)) {
        Standing::Proven => serving::begin(lineage, Some(run.name_any()), candidate),
        // Why, the run says, which has it looked at as well.
        Standing::Unseen | Standing::Unknown(..) | Standing::Refused(_) => lineage.look_again_in(POLL),
    }
}

/// Writes the run's Promoted condition. The run stays active until it is seen there.
pub(crate) fn mark(
    lineage: &mut Lineage<'_>,
    run: &UnlearnRun,
    promoted: bool,
    reason: Reason,
    message: String,
) {
    if let Some(why) = lineage.unlogged().filter(|_| promoted) {
        // It is served, and was said to be about to be. That it is promoted is said once it can be written down.
        lineage.conditions.unknown(ConditionType::Serving, Reason::AuditLogUnavailable, why);
        return lineage.look_again_in(POLL);
    }
    let observed = run.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let mut conditions = Conditions::new(observed, run.meta().generation, lineage.now);
    match promoted {
        true => conditions.yes(ConditionType::Promoted, reason, message),
        false => conditions.no(ConditionType::Promoted, reason, message),
    }
    let list = conditions.into_list();
    if let Some(condition) = ConditionType::Promoted.find(&list) {
        let (uid, condition) = (run.uid().unwrap_or_default(), condition.clone());
        lineage.effects.push(Effect::MarkPromoted { run: run.name_any(), uid, condition });
    }
    lineage.look_again_in(POLL);
}

/// Names of requests that a run works for and that must not be rolled out.
pub(crate) fn suspended(run: &UnlearnRun, requests: &[UnlearnRequest]) -> Vec<String> {
    let is_suspended = |uid: &str| requests.iter().any(|r| r.uid().as_deref() == Some(uid) && r.spec.suspend);
    run.spec.requests.iter().filter(|r| is_suspended(&r.uid)).map(|r| r.name.clone()).collect()
}

/// Starts one run for every accepted request that can share it: many targets cost as much as one. A pilot runs by itself,
/// so that its verdict is about its own targets, and only while nobody waits for the model in earnest.
fn start_next(lineage: &mut Lineage<'_>) {
    lineage.status.active_run = None;
    // Of a roll-out that was given up: it is stopped first.
    if lineage.own_runs().any(is_audit_at_work) {
        return lineage.look_again_in(POLL);
    }
    // It is short, and what waits longest for a model that is never free would never come.
    if audit::start_due(lineage) || base::step(lineage) {
        return;
    }
    // The requests say so if there is none.
    let Ok(policy) = &lineage.observed.policy else { return };
    look_again_for_waiting(lineage);
    let (pilots, enforced): (Vec<_>, Vec<_>) =
        ready(lineage, policy).into_iter().partition(|ready| ready.request.spec.mode == Mode::Pilot);
    let enforced = bereaved_first(lineage, enforced);
    if !enforced.is_empty() && wait_for_others(lineage, policy, &enforced) {
        return;
    }
    let pilot = || {
        pilots.iter().find_map(|pilot| next_run(lineage, policy, std::slice::from_ref(pilot), Mode::Pilot))
    };
    let next = next_run(lineage, policy, &enforced, Mode::Enforce).or_else(pilot);
    if let Some(next) = next {
        lineage.start_run(next, policy);
    }
}

/// Whoever lost a run because another of its requests was withdrawn goes next, and with nobody who came after that run began:
/// otherwise requests that come and go could cost them one run after another.
fn bereaved_first<'a>(lineage: &Lineage<'_>, ready: Vec<Ready<'a>>) -> Vec<Ready<'a>> {
    let first_lost = |ready: &Ready<'_>| {
        let uid = ready.request.uid()?;
        let is_this_attempt = |run: &&UnlearnRun| attempts::number(run, &uid) == Some(ready.attempt);
        let lost = lineage.own_runs().filter(|run| accept::is_given_up(run)).filter(is_this_attempt);
        lost.filter_map(|run| run.creation_timestamp()).map(|at| at.0).min()
    };
    let Some(began) = ready.iter().filter_map(first_lost).min() else { return ready };
    let was_there =
        |ready: &Ready<'_>| ready.request.creation_timestamp().is_none_or(|created| created.0 <= began);
    ready.into_iter().filter(was_there).collect()
}

/// Whether nobody of those who may begin has waited as long as the policy lets them wait for others.
fn wait_for_others(lineage: &mut Lineage<'_>, policy: &Policy, ready: &[Ready<'_>]) -> bool {
    let ends_at = |ready: &Ready<'_>| {
        let status = ready.request.status.as_ref();
        window::ends_at(status.map(|status| &status.conditions[..]).unwrap_or_default(), &policy.spec)
    };
    let Some(first) = ready.iter().filter_map(ends_at).min().filter(|ends| *ends > lineage.now) else {
        return false;
    };
    lineage.look_again_at(first);
    true
}

/// The next attempts have a time, which comes without any change.
fn look_again_for_waiting(lineage: &mut Lineage<'_>) {
    let times = waiting(lineage).into_iter().filter_map(|request| not_before(lineage, request));
    if let Some(next) = times.filter(|time| *time > lineage.now).min() {
        lineage.look_again_at(next);
    }
}

/// When the next attempt at a request may begin, if an earlier one failed.
fn not_before(lineage: &Lineage<'_>, request: &UnlearnRequest) -> Option<Timestamp> {
    attempts::failed(request, lineage.own_runs()).map(|(_, next_at)| next_at)
}

/// A request that may be begun, who approved of it, and which attempt it would be.
struct Ready<'a> {
    request: &'a UnlearnRequest,
    approved_by: Vec<String>,
    attempt: u32,
}

/// The waiting requests to which as many people agreed as the policy asks for: by what they say now, not by what a status
/// says that they said.
fn ready<'a>(lineage: &Lineage<'a>, policy: &Policy) -> Vec<Ready<'a>> {
    let approvals = lineage.observed.approvals.as_deref();
    let known = &lineage.observed.model.spec.never_saw;
    let is_kept_back = |request: &UnlearnRequest| {
        reference::keeps_back(request, &lineage.status, known, &policy.spec).is_some()
    };
    let ready = |request: &'a UnlearnRequest| {
        let approved_by = approval::standing(request, &policy.spec, approvals).may_start()?;
        let is_due = not_before(lineage, request).is_none_or(|time| time <= lineage.now);
        let attempt = attempts::next(request, lineage.own_runs());
        (is_due && !is_kept_back(request)).then_some(Ready { request, approved_by, attempt })
    };
    let ready: Vec<_> = waiting(lineage).into_iter().filter_map(ready).collect();
    // What asks for the same as one that is not ready waits with it.
    let is_ready = |request: &UnlearnRequest| ready.iter().any(|ready| ready.request.uid() == request.uid());
    let others: Vec<_> = lineage.observed.requests.iter().filter(|request| !is_ready(request)).collect();
    let is_free = |ready: &Ready<'_>| {
        // But who is kept back by the policy may be so for ever. Asked of few: most others cover nothing of it.
        let covers =
            |other: &&UnlearnRequest| duplicates::may_cover(ready.request, other) && !is_kept_back(other);
        duplicates::of(ready.request, &lineage.status, others.iter().copied().filter(covers)).is_none()
    };
    ready.into_iter().filter(is_free).collect()
}

/// Whether another request could use the model in earnest.
fn is_wanted(lineage: &Lineage<'_>) -> bool {
    let ready = lineage.observed.policy.as_ref().ok().map(|policy| ready(lineage, policy));
    ready.into_iter().flatten().any(|ready| ready.request.spec.mode == Mode::Enforce)
}

/// The run for those of these requests that can share one.
fn next_run(lineage: &Lineage<'_>, policy: &Policy, waiting: &[Ready<'_>], mode: Mode) -> Option<NextRun> {
    let baseline = lineage.status.baseline.as_ref()?;
    let (model, labels) = (&lineage.observed.model, &lineage.status.labels);
    let ledger = targets::ledger_targets(&lineage.status.ledger);
    let mut forgotten = ledger.clone();
    let mut members = Vec::new();
    let mut entries = lineage.status.ledger.len();
    for Ready { request, approved_by, attempt } in waiting {
        // One that contradicts the earlier ones waits for its turn, and gets its answer then.
        let Ok(union) = targets::add_request(&forgotten, &request.spec, labels) else { continue };
        let covered = request.spec.targets.iter().all(|target| ledger.contains_key(&target.label));
        let with_it = entries + request.spec.targets.len();
        if covered || targets::resolve(&union, labels).is_err() || with_it > LEDGER_CAPACITY {
            continue;
        }
        // Each can be compared, and together they cannot.
        if reference::missing(&model.spec.never_saw, &baseline.teacher, &policy.spec, union.keys()).is_some()
        {
            continue;
        }
        (forgotten, entries) = (union, with_it);
        members.push(RequestRef {
            name: request.name_any(),
            uid: request.uid()?,
            targets: request.spec.targets.iter().map(|target| target.label.clone()).collect(),
            spec_digest: Some(evidence::of_request(&request.spec)),
            approved_by: approved_by.clone(),
            attempt: *attempt,
        });
    }
    if members.is_empty() {
        return None;
    }
    let planned = targets::resolve(&forgotten, labels).ok()?;
    let plan = plans::forget(model, baseline, labels, planned, &members, &policy.spec, lineage.installation);
    Some(NextRun { type_: RunType::Forget, mode, plan, requests: members, new_base: None })
}

/// Accepted requests that no run works for, oldest first.
fn waiting<'a>(lineage: &Lineage<'a>) -> Vec<&'a UnlearnRequest> {
    let accepted = |request: &&UnlearnRequest| {
        let conditions = request.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        ConditionType::Accepted.is_true(conditions)
            && !request::is_over(request)
            && !request.spec.suspend
            && !asked::is_withdrawn(request)
            && accept::run_of(request, lineage.own_runs()).is_none()
    };
    let mut waiting: Vec<_> = lineage.observed.requests.iter().filter(accepted).collect();
    waiting.sort_by_key(|request| (request.creation_timestamp().map(|at| at.0), request.name_any()));
    waiting
}
