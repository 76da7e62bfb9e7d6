//! The part of a lineage's decision that is about what is served.

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{Override, Plan, PlannedTarget, Task},
    v1alpha1::{
        ConditionType, InitialServing, LedgerEntry, LedgerRequest, Reason, Rollout, RolloutState, RunType,
        Served, UnlearnRun, Verdict,
    },
};

use crate::{
    Change, POLL, audit, base, canary, evidence,
    model::Lineage,
    publish,
    rollout::{self, Next},
    targets, unlogged, upkeep,
};

/// Why a candidate is not what should be served any more.
pub(crate) const MOVED: &str =
    "the ledger has grown since the run was planned: the candidate was not measured for all of it";

/// Drives a rollout under way, or keeps what is served as it should be.
pub(crate) fn step(lineage: &mut Lineage<'_>) {
    match lineage.status.rollout.clone() {
        Some(rollout) if rollout.state.is_under_way() => drive(lineage, rollout),
        _ => upkeep::keep(lineage),
    }
}

/// Says that `to` will be served, and starts. `run` is the run whose candidate it is.
pub(crate) fn begin(lineage: &mut Lineage<'_>, run: Option<String>, to: Digest) {
    if lineage.status.rollout.as_ref().is_some_and(|last| last.canary.is_some()) {
        // Only the status of the last one says that something of it may still be beside the target.
        return lineage.look_again_in(POLL);
    }
    // A status may be old. What is not confirmed yet is nothing to go back to.
    let from = lineage.status.served.as_ref().and_then(|_| wanted(lineage));
    let canary = lineage.own_runs().find(|it| Some(it.name_any()) == run);
    let canary = canary.and_then(|run| canary::begin(lineage, run));
    let rollout = Rollout {
        run,
        from,
        to,
        started_at: Time(lineage.now),
        written_again_at: None,
        turned_back_at: None,
        state: if canary.is_some() { RolloutState::Canary } else { RolloutState::Progressing },
        audit: None,
        canary,
        reason: None,
        message: None,
    };
    lineage.status.rollout = Some(rollout.clone());
    match rollout.state {
        // What there is beside the target was not looked for yet.
        RolloutState::Canary => say_that_it_begins(lineage, &rollout),
        _ => drive(lineage, rollout),
    }
}

fn say_that_it_begins(lineage: &mut Lineage<'_>, rollout: &Rollout) {
    let message = format!("{} is being rolled out", rollout.to.short());
    lineage.conditions.unknown(ConditionType::Serving, Reason::RollingOut, message);
    lineage.look_again_in(POLL);
}

fn drive(lineage: &mut Lineage<'_>, mut rollout: Rollout) {
    let run = lineage.run_of(&rollout);
    if let Some(compliant) = base::compliant(lineage) {
        // Its ledger may have come back from the archive since.
        rollout.from = Some(compliant.digest);
    }
    let is_on_its_way = rollout.state != RolloutState::RollingBack;
    if is_on_its_way && rollout.run.is_none() && !honours(lineage, &rollout, None) {
        lineage.status.rollout = None;
        return upkeep::keep(lineage);
    }
    let next = next_step(lineage, &mut rollout, run);
    let next = audited(lineage, &mut rollout, run, next);
    let next = match next {
        Next::StillGoing(_) if audit::is_left(lineage) => Next::Back,
        other => other,
    };
    let next = evidence::guard(lineage, &rollout, run, next);
    let next = unlogged::guard(lineage, &rollout, next);
    take(lineage, rollout, next);
}

/// What comes next, by the target and the pods, and by whether anybody still wants it.
fn next_step(lineage: &mut Lineage<'_>, rollout: &mut Rollout, run: Option<&UnlearnRun>) -> Next {
    let is_on_its_way = rollout.state != RolloutState::RollingBack;
    if let Some((reason, why)) = lineage.doubt.clone().filter(|_| run.is_some() && is_on_its_way) {
        return Next::TurnBack(reason, why);
    }
    if run.is_some() && is_on_its_way && !honours(lineage, rollout, run) {
        return Next::TurnBack(Reason::LedgerMoved, MOVED.into());
    }
    if rollout.run.is_some() && run.is_none() && is_on_its_way {
        // The run's plan says what was forgotten: without it the ledger could not be written.
        return Next::TurnBack(Reason::RunDeleted, "its run was deleted during the roll-out".into());
    }
    match (rollout.state, run) {
        (RolloutState::Canary, Some(run)) => canary::step(lineage, rollout, run),
        (RolloutState::Published, _) => publish::step(lineage, rollout, run),
        _ => {
            // As the policy was when the run was planned. The baseline has no deadline.
            let deadline = run.map(|run| run.spec.policy.rollout.clone()).unwrap_or_default();
            let observed = lineage.observed;
            rollout::next(
                rollout,
                &observed.model.spec.serving,
                observed.deployment.as_ref(),
                &observed.reports,
                deadline.progress_deadline_seconds,
                lineage.now,
            )
        }
    }
}

/// Takes a step of a roll-out.
fn take(lineage: &mut Lineage<'_>, mut rollout: Rollout, next: Next) {
    let to = rollout.to.short().to_owned();
    if !matches!(next, Next::TurnBack(..)) {
        give_or_take_pods(lineage, &rollout);
    }
    match next {
        Next::Patch(bundle) => {
            if rollout.state == RolloutState::RollingBack {
                // Whoever turned it back may have died before, and the target may be kept from going back.
                canary::take_away(lineage);
            }
            let is_back = rollout.state == RolloutState::RollingBack;
            lineage.change_serving(bundle, if is_back { Change::GoBack } else { Change::RollOut });
            // On the way back the condition says why.
            if lineage.publishes() && is_back {
                say_that_it_waits_to_go_back(lineage, &mut rollout);
            } else if lineage.publishes() {
                publish::wait(lineage, &mut rollout);
            } else if rollout.state == RolloutState::Progressing {
                if rollout.started_at.0 != lineage.now {
                    rollout.written_again_at.get_or_insert(Time(lineage.now));
                }
                let message = format!("{to} is being rolled out");
                lineage.conditions.unknown(ConditionType::Serving, Reason::RollingOut, message);
            }
        }
        Next::Wait(reason, message) => {
            rollout.message = Some(shortened(&message));
            lineage.conditions.unknown(ConditionType::Serving, reason, message);
            lineage.look_again_in(POLL);
        }
        Next::Complete => return complete(lineage, rollout),
        Next::Hold(reason, message) => {
            rollout.message = Some(shortened(&message));
            lineage.conditions.unknown(ConditionType::Serving, reason, message);
            lineage.look_again_in(upkeep::UNCONFIRMED);
        }
        Next::Promote => {
            rollout.state = RolloutState::Progressing;
            (rollout.started_at, rollout.written_again_at) = (Time(lineage.now), None);
            rollout.message = None;
            say_that_it_begins(lineage, &rollout);
        }
        Next::StillGoing(why) => {
            let (reason, from) = (rollout.reason.unwrap_or(Reason::RolloutTimedOut), rollout.from.as_ref());
            let from = rollout::short(from);
            lineage.conditions.no(
                ConditionType::Serving,
                reason,
                format!("going back from {to} to {from}: {why}"),
            );
            lineage.look_again_in(POLL);
        }
        // The condition was set by whoever waits for the audit.
        Next::Audit => {}
        Next::TurnBack(reason, why) => turn_back(lineage, &mut rollout, reason, &why),
        Next::Back => {
            if !canary::take_away(lineage) {
                rollout.canary = None;
                rollout.state = RolloutState::RolledBack;
            }
            lineage.look_again_in(POLL);
        }
    }
    lineage.status.rollout = Some(rollout);
}

/// The target names something else than what was served before, and only its owner can change that.
fn say_that_it_waits_to_go_back(lineage: &mut Lineage<'_>, rollout: &mut Rollout) {
    let named = lineage.observed.deployment.as_ref().and_then(rollout::reference);
    let named = rollout::short(named.as_ref());
    let reason = rollout.reason.unwrap_or(Reason::RolloutTimedOut);
    let back = lineage.what_sets_it_back(rollout::short(rollout.from.as_ref()));
    lineage.conditions.no(
        ConditionType::Serving,
        reason,
        format!("the serving target still names {named}; {back}"),
    );
    // Whoever promoted it after it was taken back has changed the target.
    rollout.turned_back_at.get_or_insert(Time(lineage.now));
}

/// What an audit saw leak has no pods, at whichever step. A candidate gets them once the target names it: somebody has to ask
/// it before it can be known what it shows.
fn give_or_take_pods(lineage: &mut Lineage<'_>, rollout: &Rollout) {
    let is_named = |found: &&Deployment| rollout::reference(found).as_ref() == Some(&rollout.to);
    // A canary is not about the target.
    let is_to_be_served = matches!(rollout.state, RolloutState::Progressing | RolloutState::Auditing)
        && (rollout.run.is_some() || !audit::is_withheld(lineage));
    match lineage.observed.deployment.as_ref().filter(is_named).filter(|_| is_to_be_served) {
        Some(deployment) => audit::release(lineage, deployment),
        None => audit::withhold(lineage),
    }
}

/// Takes the candidate out of service. As long as it was beside the target, that served and goes on serving what it did.
fn turn_back(lineage: &mut Lineage<'_>, rollout: &mut Rollout, reason: Reason, why: &str) {
    rollout.reason = Some(reason);
    let to = rollout.to.short().to_owned();
    let became = match rollout.state {
        RolloutState::Canary => {
            let message = format!("the canary of {to} is taken away, the target was not touched: {why}");
            lineage.conditions.unknown(ConditionType::Serving, reason, message);
            "the target was not touched"
        }
        RolloutState::Published => {
            let message = format!("{to} is not published any more, and was not promoted: {why}");
            lineage.conditions.unknown(ConditionType::Serving, reason, message);
            "it was not promoted"
        }
        _ => {
            let from = rollout::short(rollout.from.as_ref());
            let mut message = format!("going back from {to} to {from}: {why}");
            if lineage.publishes() {
                message = format!("{message}; {}", lineage.what_sets_it_back(from));
            }
            lineage.conditions.no(ConditionType::Serving, reason, message);
            rollout.turned_back_at = Some(Time(lineage.now));
            "serving went back"
        }
    };
    rollout.message = Some(shortened(&format!("{became}: {why}")));
    rollout.state = RolloutState::RollingBack;
    lineage.status.rollout = Some(rollout.clone());
    // First: the target may be kept from going back, and what it would go back to may leak as well.
    audit::withhold(lineage);
    canary::take_away(lineage);
    // What cannot be gone back to, the next look says.
    if rollout.from.as_ref().is_none_or(|from| evidence::refusal(lineage, from).is_none()) {
        lineage.change_serving(rollout.from.clone(), Change::GoBack);
    }
    lineage.look_again_in(POLL);
}

/// As much as a status holds of it.
fn shortened(words: &str) -> String {
    words.chars().take(500).collect()
}

/// A candidate that every pod serves is served once the live server was asked for what is forgotten, where the policy
/// wants that.
fn audited(lineage: &mut Lineage<'_>, rollout: &mut Rollout, run: Option<&UnlearnRun>, next: Next) -> Next {
    // Of a baseline that has forgotten nothing there is nothing to ask.
    let asks =
        |run: &&UnlearnRun| run.spec.type_ == RunType::Forget && audit::asks_for_audits(&run.spec.policy);
    let Some(run) = run.filter(asks) else { return next };
    match (rollout.state, &next) {
        (RolloutState::Progressing, Next::Complete) => {
            rollout.state = RolloutState::Auditing;
            rollout.message = None;
        }
        (RolloutState::Auditing, Next::Audit) => {}
        // Somebody took it back. What was found until then counts.
        (RolloutState::Auditing, Next::Patch(_)) if lineage.publishes() => {
            return match audit::known_of_rollout(lineage, rollout).filter(|it| it.verdict != Verdict::Pass) {
                Some(found) => Next::TurnBack(audit::reason(found.verdict), found.why),
                None => next,
            };
        }
        _ => return next,
    }
    match audit::of_rollout(lineage, rollout, run) {
        Some(found) if found.verdict == Verdict::Pass => Next::Complete,
        Some(found) => Next::TurnBack(audit::reason(found.verdict), found.why),
        None => Next::Audit,
    }
}

/// The new digest is in service: served and ledger change in the same write.
fn complete(lineage: &mut Lineage<'_>, mut rollout: Rollout) {
    let run = lineage.run_of(&rollout);
    if let Some(run) = run {
        let entries = ledger_entries(run, &rollout, lineage.now);
        lineage.status.ledger.extend(entries);
        base::served(lineage, run, &rollout.to);
    }
    rollout.state = RolloutState::Complete;
    rollout.message = None;
    let digest = rollout.to.clone();
    let short = digest.short().to_owned();
    lineage.conditions.yes(ConditionType::Serving, Reason::Serving, upkeep::confirmation(&digest));
    lineage.status.served = Some(Served { digest, short, since: Time(lineage.now) });
    lineage.status.rollout = Some(rollout);
}

/// One entry per request and resolved override.
fn ledger_entries(run: &UnlearnRun, rollout: &Rollout, now: jiff::Timestamp) -> Vec<LedgerEntry> {
    let planned = planned_targets(run);
    let mut entries: Vec<LedgerEntry> = Vec::new();
    for request in &run.spec.requests {
        let first = entries.len();
        for label in &request.targets {
            let planned = planned.iter().find(|target| target.label == *label);
            let replacement =
                targets::as_spec(planned.map_or(&Override::Nearest, |target| &target.replacement));
            match entries[first..].iter_mut().find(|entry| entry.replacement == replacement) {
                Some(entry) => entry.targets.push(label.clone()),
                None => entries.push(LedgerEntry {
                    targets: vec![label.clone()],
                    replacement,
                    request: LedgerRequest { name: request.name.clone(), uid: request.uid.clone() },
                    run: run.name_any(),
                    digest: rollout.to.clone(),
                    at: Time(now),
                }),
            }
        }
    }
    entries
}

/// What a Forget run forgets; nothing for another run.
pub(crate) fn planned_targets(run: &UnlearnRun) -> Vec<PlannedTarget> {
    match Plan::parse(run.spec.plan.as_bytes()).map(|plan| plan.task) {
        Ok(Task::Forget(task)) => task.targets,
        _ => vec![],
    }
}

/// Whether what is rolled out was made to forget, and measured for, all that the ledger has by now.
pub(crate) fn honours(lineage: &Lineage<'_>, rollout: &Rollout, run: Option<&UnlearnRun>) -> bool {
    match run {
        Some(run) => is_planned_for_all(lineage, run),
        None => wanted(lineage).as_ref() == Some(&rollout.to),
    }
}

pub(crate) fn is_planned_for_all(lineage: &Lineage<'_>, run: &UnlearnRun) -> bool {
    let (planned, forgotten) = (planned_targets(run), targets::ledger_targets(&lineage.status.ledger));
    forgotten.keys().all(|label| planned.iter().any(|target| target.label == *label))
}

/// What should be served when no rollout is under way: the last digest that passed for the whole ledger.
pub(crate) fn wanted(lineage: &Lineage<'_>) -> Option<Digest> {
    let status = &lineage.status;
    if let Some(compliant) = base::compliant(lineage) {
        return Some(compliant.digest);
    }
    match lineage.observed.model.spec.serving.initial {
        InitialServing::Baseline => status.baseline.as_ref().map(|baseline| baseline.bundle.clone()),
        InitialServing::None => None,
    }
}
