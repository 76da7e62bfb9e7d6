//! The base artifact: it is prepared once, and replaced if the spec names another one.
//!
//! The base in service is that of which the lineage's baseline is, and from which descends what should be served. Another one
//! is prepared, made to forget the whole ledger, measured and rolled out beside it. Labels, baseline and what should be
//! served change then, in one write; until then, and if anything of that fails, the old base stays in service. Requests wait
//! meanwhile, and are worked for with the base that is in service afterwards: no request is blamed for a base.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{BaseArtifact, Plan, Task},
    v1alpha1::{
        CompliantBundle, ConditionType, DiffusionModelStatus, InitialServing, Mode, ModelPhase, NewBase,
        Prepared, Reason, RolloutState, RunType, UnlearnPolicySpec, UnlearnRun,
    },
};

use crate::{
    accept, audit, forgetting,
    kueue::is_in_a_queue,
    model::{Lineage, NextRun},
    plans, reference,
    run::is_over,
    serving, targets,
};

/// The bundle that honours the whole ledger; none while nothing is forgotten.
pub(crate) fn compliant(lineage: &Lineage<'_>) -> Option<CompliantBundle> {
    let status = &lineage.status;
    let last = status.ledger.last()?;
    let of_last = || CompliantBundle {
        digest: last.digest.clone(),
        base: status.baseline.as_ref().map_or_else(|| wanted(lineage).clone(), |it| it.teacher.clone()),
        run: last.run.clone(),
        turn: 0,
        refuted: None,
    };
    let mut known = status.compliant.clone().unwrap_or_else(of_last);
    // Earlier versions knew the last audit and no other.
    known.refuted = known.refuted.or_else(|| audit::refutes(status.audit.as_ref()?, &known.digest));
    Some(known)
}

/// The base that the spec names. Where it lies does not count: it is known by its content.
fn wanted<'a>(lineage: &Lineage<'a>) -> &'a Digest {
    &lineage.observed.model.spec.base.digest
}

/// The base in service, if there is one yet.
fn in_service(lineage: &Lineage<'_>) -> Option<Digest> {
    let of_baseline = || lineage.status.baseline.as_ref().map(|baseline| baseline.teacher.clone());
    compliant(lineage).map(|compliant| compliant.base).or_else(of_baseline)
}

/// Whether runs work with the base that the spec names.
fn is_in_service(lineage: &Lineage<'_>) -> bool {
    lineage.status.baseline.as_ref().is_some_and(|baseline| baseline.teacher == *wanted(lineage))
}

/// A baseline is of the base from which descends what should be served, or it is of no use.
pub(crate) fn drop_what_is_not_in_service(status: &mut DiffusionModelStatus) {
    let base = status.compliant.as_ref().map(|compliant| &compliant.base);
    if status.baseline.as_ref().is_some_and(|baseline| base.is_some_and(|base| *base != baseline.teacher)) {
        status.baseline = None;
        status.labels.clear();
    }
}

/// Has the first base prepared. True once there is something to go on with.
pub(crate) fn prepare(lineage: &mut Lineage<'_>) -> bool {
    stop_outdated(lineage);
    if lineage.status.baseline.is_none() && lineage.status.new_base.is_none() {
        let Some(prepared) = prepared(lineage) else { return false };
        take(lineage, prepared);
    }
    if let Some(baseline) = &lineage.status.baseline
        && ConditionType::Prepared.is_false(lineage.conditions.list())
    {
        // It was not known what was forgotten, which said so by the same condition.
        let message = prepared_as(lineage.status.labels.len(), &baseline.bundle);
        lineage.conditions.yes(ConditionType::Prepared, Reason::Prepared, message);
    }
    true
}

fn prepared_as(labels: usize, baseline: &Digest) -> String {
    format!("{labels} labels, baseline {}", baseline.short())
}

/// What was prepared is gone on with: at once, if no other base is in service.
fn take(lineage: &mut Lineage<'_>, prepared: Prepared) {
    let message = prepared_as(prepared.labels.len(), &prepared.baseline.bundle);
    let is_first = in_service(lineage).is_none_or(|base| base == prepared.baseline.teacher);
    if is_first || lineage.status.baseline.is_none() {
        lineage.conditions.yes(ConditionType::Prepared, Reason::Prepared, message);
    }
    lineage.status.new_base = Some(prepared);
    if is_first {
        put_into_service(&mut lineage.status);
    }
}

fn put_into_service(status: &mut DiffusionModelStatus) {
    if let Some(Prepared { labels, baseline }) = status.new_base.take() {
        status.labels = labels;
        status.baseline = Some(baseline);
    }
}

/// Works for the base that the spec names if another one is in service, and nothing else is at work. True if that keeps the
/// lineage busy.
pub(crate) fn step(lineage: &mut Lineage<'_>) -> bool {
    if is_in_service(lineage) {
        lineage.status.new_base = None;
        return false;
    }
    let Some(prepared) = prepared(lineage) else { return lineage.status.active_run.is_some() };
    take(lineage, prepared.clone());
    if is_in_service(lineage) {
        return false;
    }
    match lineage.status.ledger.is_empty() {
        true => serve_baseline(lineage, &prepared),
        false => forget_all(lineage, &prepared),
    }
}

/// What was made of the base that the spec names. If nothing was yet, it says why, and starts the run that does it.
fn prepared(lineage: &mut Lineage<'_>) -> Option<Prepared> {
    let base = lineage.observed.model.spec.base.clone();
    // Of one that has forgotten nothing, the run is rolled out: it has to be there.
    let known = lineage.status.new_base.as_ref().filter(|_| !lineage.status.ledger.is_empty());
    if let Some(known) = known.filter(|known| known.baseline.teacher == base.digest) {
        return Some(known.clone());
    }
    let runs: Vec<_> = lineage.own_runs().filter_map(|run| Some((run, prepares(run)?))).collect();
    let is_other = |(run, of): &&(&UnlearnRun, BaseArtifact)| !is_over(run) && of.digest != base.digest;
    if let Some((run, _)) = runs.iter().find(is_other) {
        let message = format!("run {} prepares another base, and is stopped first", run.name_any());
        wait(lineage, run.name_any(), message);
        return None;
    }
    let mut own = runs.iter().filter(|(_, of)| of.digest == base.digest);
    if let Some(prepared) = own.clone().find_map(|(run, _)| run.status.as_ref()?.prepared.clone()) {
        lineage.status.active_run = None;
        return Some(prepared);
    }
    if let Some((run, _)) = own.find(|(run, _)| !is_over(run)) {
        let conditions = run.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        let queued = ConditionType::Ready.find(conditions).filter(|ready| is_in_a_queue(ready));
        let message = match queued {
            Some(ready) => format!("run {} is to distil the baseline: {}", run.name_any(), ready.message),
            None => format!("run {} distils the baseline", run.name_any()),
        };
        wait(lineage, run.name_any(), message);
        return None;
    }
    let policy = match &lineage.observed.policy {
        Ok(policy) => policy,
        Err(none) => {
            let model = &lineage.observed.model;
            let (reason, message) = none.say(&model.name_any(), &model.spec.policy_ref);
            lineage.conditions.unknown(about(lineage), reason, message);
            return None;
        }
    };
    let has_failed = |(run, of): &&(&UnlearnRun, BaseArtifact)| {
        // From elsewhere, the same base may be found.
        *of == base && prepares_alike(&run.spec.policy, &policy.spec) && !accept::is_given_up(run)
    };
    if let Some((failed, _)) = runs.iter().find(has_failed) {
        lineage.status.active_run = None;
        failed_for(
            lineage,
            failed,
            ConditionType::Ready,
            "Remedy it, then change trainer or training of the policy, or delete the run,",
        );
        return None;
    }
    let plan = plans::prepare(&lineage.observed.model, &policy.spec, lineage.installation);
    let (type_, mode) = (RunType::Prepare, Mode::Enforce);
    lineage.start_run(NextRun { type_, mode, plan, requests: vec![], new_base: None }, policy);
    lineage.conditions.unknown(about(lineage), Reason::Preparing, "the baseline is being planned");
    None
}

/// Whether a preparation under one policy would be the same under the other: gates and roll-outs come later.
fn prepares_alike(one: &UnlearnPolicySpec, other: &UnlearnPolicySpec) -> bool {
    (&one.trainer, &one.training) == (&other.trainer, &other.training)
}

/// The condition that says how the preparation stands: with another base in service, the model goes on as it is.
fn about(lineage: &Lineage<'_>) -> ConditionType {
    match lineage.status.baseline {
        None => ConditionType::Prepared,
        Some(_) => ConditionType::BaseInService,
    }
}

fn wait(lineage: &mut Lineage<'_>, run: String, message: String) {
    lineage.status.active_run = Some(run);
    lineage.conditions.unknown(about(lineage), Reason::Preparing, message);
}

/// Says why a run came to nothing, by one of its conditions.
fn failed_for(lineage: &mut Lineage<'_>, run: &UnlearnRun, by: ConditionType, remedy: &str) {
    let conditions = run.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let Some(mut failure) = by.find(conditions).cloned() else { return };
    failure.message = format!("run {} failed: {}. {remedy} to try again", run.name_any(), failure.message);
    failure.type_ = about(lineage).as_str().into();
    failure.status = "False".into();
    if let (ConditionType::BaseInService, Some(old)) = (about(lineage), in_service(lineage)) {
        failure.message = format!("{}; {}", stays(&old), failure.message);
    }
    lineage.conditions.copy(&failure);
}

fn stays(old: &Digest) -> String {
    format!("base {} stays in service", old.short())
}

/// Nothing is forgotten: the new baseline is rolled out as it is. That can be taken back, as with a candidate, so that the run
/// that made it is named.
fn serve_baseline(lineage: &mut Lineage<'_>, prepared: &Prepared) -> bool {
    let serves = lineage.observed.model.spec.serving.initial == InitialServing::Baseline;
    if !serves || lineage.status.served.is_none() {
        // The first baseline may not have come up, which may be why there is another base: nobody waits for it any more.
        lineage.status.rollout.take_if(|it| it.run.is_none() && it.state.is_under_way());
        put_into_service(&mut lineage.status);
        return false;
    }
    let made = |run: &&UnlearnRun| {
        run.status.as_ref().is_some_and(|status| status.prepared.as_ref() == Some(prepared))
    };
    let Some(run) = lineage.own_runs().find(made) else { return false };
    if is_taken_back(run) {
        failed_for(lineage, run, ConditionType::Promoted, "Remedy it, then delete the run");
        return false;
    }
    lineage.status.active_run = Some(run.name_any());
    serving::begin(lineage, Some(run.name_any()), prepared.baseline.bundle.clone());
    true
}

fn is_promotion_known(run: &UnlearnRun) -> bool {
    run.status.as_ref().is_some_and(|status| ConditionType::Promoted.is_decided(&status.conditions))
}

fn is_taken_back(run: &UnlearnRun) -> bool {
    let conditions = run.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    ConditionType::Promoted.is_false(conditions) && !accept::is_given_up(run)
}

/// Has the new base forget everything that the lineage had to forget.
fn forget_all(lineage: &mut Lineage<'_>, prepared: &Prepared) -> bool {
    let forgotten = targets::ledger_targets(&lineage.status.ledger);
    let planned = match targets::of_another_base(&forgotten, &prepared.labels) {
        Ok(planned) => planned,
        Err(why) => {
            let message = format!(
                "base {} cannot honour the ledger: {why}. Name another base; until then that in service stays",
                prepared.baseline.teacher.short()
            );
            lineage.conditions.no(ConditionType::BaseInService, Reason::BaseLacksLabels, message);
            return false;
        }
    };
    let policy = match &lineage.observed.policy {
        Ok(policy) => policy,
        Err(none) => {
            let model = &lineage.observed.model;
            let (reason, message) = none.say(&model.name_any(), &model.spec.policy_ref);
            lineage.conditions.unknown(ConditionType::BaseInService, reason, message);
            return false;
        }
    };
    let kept = prepared.labels.len().saturating_sub(planned.len());
    if let Some(why) = plans::out_of_reach(&policy.spec, kept) {
        let message = format!("{why}. Nothing is trained until the policy is corrected");
        lineage.conditions.unknown(ConditionType::BaseInService, Reason::GateOutOfReach, message);
        return false;
    }
    let (never_saw, base) = (&lineage.observed.model.spec.never_saw, &prepared.baseline.teacher);
    if let Some(gate) = reference::missing(never_saw, base, &policy.spec, forgotten.keys()) {
        let message = format!(
            "gate {gate} of the policy compares with a model that never saw anything of the ledger (maxAboveNeverSaw), and \
             spec.neverSaw names none for base {}: add one, or take the comparison out of the policy",
            base.short()
        );
        lineage.conditions.unknown(ConditionType::BaseInService, Reason::WaitingForReference, message);
        return false;
    }
    let failed = lineage.own_runs().filter(|run| is_for(run, &prepared.baseline.teacher));
    let failed = failed.max_by_key(|run| (run.creation_timestamp().map(|at| at.0), attempt(run)));
    let failed = failed.filter(|run| failure(run).is_some());
    if let Some((run, by)) = failed.and_then(|run| Some((run, failure(run)?)))
        && run.spec.policy == policy.spec
    {
        let attempts = run.status.as_ref().and_then(|status| status.attempts.as_ref());
        let next_at = attempts.and_then(|attempts| attempts.next_at.as_ref()).map(|at| at.0);
        if next_at.is_none_or(|next_at| next_at > lineage.now) {
            let remedy = match next_at {
                Some(next_at) => {
                    lineage.look_again_at(next_at);
                    format!("The next attempt begins after {next_at}; delete the run")
                }
                None => "Remedy it, then change the policy or delete the run".into(),
            };
            failed_for(lineage, run, by, &remedy);
            return false;
        }
    }
    let new_base = NewBase {
        digest: prepared.baseline.teacher.clone(),
        attempt: failed.map(attempt).unwrap_or_default() + 1,
    };
    let model = &lineage.observed.model;
    let plan =
        plans::forget_all(model, prepared, planned, new_base.attempt, &policy.spec, lineage.installation);
    let (type_, mode) = (RunType::Forget, Mode::Enforce);
    lineage.start_run(NextRun { type_, mode, plan, requests: vec![], new_base: Some(new_base) }, policy);
    true
}

/// Whether a run is one that makes this base forget everything, and was not given up.
fn is_for(run: &UnlearnRun, base: &Digest) -> bool {
    run.spec.new_base.as_ref().is_some_and(|new| new.digest == *base) && !accept::is_given_up(run)
}

fn attempt(run: &UnlearnRun) -> u32 {
    run.spec.new_base.as_ref().map_or(0, |new| new.attempt)
}

/// The condition that says why a run came to nothing, if it did.
fn failure(run: &UnlearnRun) -> Option<ConditionType> {
    let conditions = run.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    use ConditionType::{GatesPassed, Promoted, Ready};
    [Ready, GatesPassed, Promoted].into_iter().find(|type_| type_.is_false(conditions))
}

/// The base that a run prepares.
fn prepares(run: &UnlearnRun) -> Option<BaseArtifact> {
    match Plan::parse(run.spec.plan.as_bytes()).map(|plan| plan.task) {
        Ok(Task::Prepare(task)) => Some(task.base),
        _ => None,
    }
}

/// The base from which a run's candidate descends.
fn descends_from(run: &UnlearnRun) -> Option<Digest> {
    match Plan::parse(run.spec.plan.as_bytes()).map(|plan| plan.task) {
        Ok(Task::Forget(task)) => Some(task.teacher),
        Ok(Task::Prepare(task)) => Some(task.base.digest),
        _ => None,
    }
}

/// Whether a candidate is of a base that is not asked for any more, or was replaced.
pub(crate) fn is_outdated(lineage: &Lineage<'_>, run: &UnlearnRun) -> bool {
    match (&run.spec.new_base, run.spec.type_) {
        (Some(new), _) => new.digest != *wanted(lineage),
        // Its baseline is of the base that it prepared.
        (None, RunType::Prepare) => descends_from(run).as_ref() != Some(wanted(lineage)),
        (None, _) => descends_from(run) != in_service(lineage),
    }
}

/// Runs for a base that nobody asks for any more cost GPUs for nothing.
fn stop_outdated(lineage: &mut Lineage<'_>) {
    let is_for_another = |run: &&UnlearnRun| {
        let conditions = run.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        // First of all: a lineage has many runs that are over, and a plan is not read for nothing.
        if is_over(run) || ConditionType::Promoted.is_decided(conditions) {
            return false;
        }
        let base = run.spec.new_base.as_ref().map(|new| new.digest.clone());
        let base = base.or_else(|| prepares(run).map(|base| base.digest));
        base.is_some_and(|base| base != *wanted(lineage))
    };
    for run in lineage.own_runs().filter(is_for_another).collect::<Vec<_>>() {
        forgetting::mark(lineage, run, false, Reason::Superseded, "spec.base was changed".into());
    }
}

/// The active run prepares a base, or its baseline is rolled out. True if the lineage is free again.
pub(crate) fn follow(lineage: &mut Lineage<'_>, run: &UnlearnRun) -> bool {
    let rollout = lineage.status.rollout.clone().filter(|rollout| rollout.run == Some(run.name_any()));
    match rollout {
        _ if !is_over(run) => false,
        Some(rollout) if rollout.state.is_under_way() => false,
        Some(rollout) if rollout.state == RolloutState::RolledBack && !is_promotion_known(run) => {
            let why = rollout.message.unwrap_or_default();
            let reason = rollout.reason.unwrap_or(Reason::RolloutTimedOut);
            forgetting::mark(lineage, run, false, reason, why);
            false
        }
        _ => true,
    }
}

/// What a run made is served: what should be, and of which base that is, are written with it.
pub(crate) fn served(lineage: &mut Lineage<'_>, run: &UnlearnRun, digest: &Digest) {
    if !lineage.status.ledger.is_empty()
        && let Some(base) = descends_from(run)
    {
        let turn = lineage.status.compliant.as_ref().map_or(0, |before| before.turn) + 1;
        let refuted = audit::known_of(lineage, digest);
        let compliant = CompliantBundle { digest: digest.clone(), base, run: run.name_any(), turn, refuted };
        lineage.status.compliant = Some(compliant);
    }
    if run.spec.new_base.is_some() || run.spec.type_ == RunType::Prepare {
        put_into_service(&mut lineage.status);
    }
    drop_what_is_not_in_service(&mut lineage.status);
}

/// Says which base is in service. Why another one is not was said by whoever found out.
pub(crate) fn say(lineage: &mut Lineage<'_>) {
    let Some(old) = in_service(lineage) else { return };
    if is_in_service(lineage) {
        let message = format!("base {} is in service", old.short());
        return lineage.conditions.yes(ConditionType::BaseInService, Reason::BaseInService, message);
    }
    let active = lineage.status.active_run.clone();
    let run = lineage.own_runs().find(|run| Some(run.name_any()) == active);
    let name = active.unwrap_or_default();
    let said = ConditionType::BaseInService.find(lineage.conditions.list());
    let is_refused = said.is_some_and(|condition| {
        condition.status == "False"
            && condition.observed_generation == lineage.observed.model.metadata.generation
    });
    let (reason, does) = match run.map(|run| (run, run.spec.type_)) {
        Some((run, _)) if is_rolled_out(lineage, run) => (Reason::RollingOut, "is rolled out".to_owned()),
        Some((_, RunType::Prepare)) => (Reason::Preparing, "prepares it".into()),
        Some((run, RunType::Forget)) if run.spec.new_base.is_some() => {
            (Reason::Training, "makes it forget everything that is in the ledger".into())
        }
        // What failed is not waited for: other work goes on.
        _ if is_refused => return,
        Some(_) => (Reason::WaitingForRun, "has to end first".into()),
        None if !name.is_empty() => (Reason::WaitingForRun, "is being created".into()),
        None if !ConditionType::BaseInService.is_true(lineage.conditions.list()) => return,
        // What keeps it is not a run: an audit of a roll-out, or a target that another model has.
        None => {
            let message = format!("{} until {} can be worked for", stays(&old), wanted(lineage).short());
            return lineage.conditions.unknown(ConditionType::BaseInService, Reason::WaitingForRun, message);
        }
    };
    let message = format!("{} until {} is: run {name} {does}", stays(&old), wanted(lineage).short());
    lineage.conditions.unknown(ConditionType::BaseInService, reason, message);
}

fn is_rolled_out(lineage: &Lineage<'_>, run: &UnlearnRun) -> bool {
    let rollout = lineage.status.rollout.as_ref();
    rollout.is_some_and(|rollout| rollout.run == Some(run.name_any()) && rollout.state.is_under_way())
}

/// The phase of a model that is getting another base.
pub(crate) fn phase(conditions: &[Condition]) -> ModelPhase {
    let reason = ConditionType::BaseInService.find(conditions).map(|condition| condition.reason.as_str());
    let is = |wanted: Reason| reason == Some(wanted.to_string().as_str());
    match () {
        () if is(Reason::Preparing) => ModelPhase::Preparing,
        () if is(Reason::RollingOut) => ModelPhase::RollingOut,
        () => ModelPhase::Forgetting,
    }
}

/// Runs that are referred to: what made the base in service, or the next one, or says why that is not.
pub(crate) fn needs(lineage: &Lineage<'_>, run: &UnlearnRun) -> bool {
    let status = &lineage.status;
    let made = run.status.as_ref().and_then(|status| status.prepared.as_ref()).map(|made| &made.baseline);
    let next = status.new_base.as_ref().map(|next| &next.baseline);
    let is_waited_for = !is_in_service(lineage) && {
        let base = wanted(lineage);
        is_for(run, base) || prepares(run).is_some_and(|of| of.digest == *base)
    };
    is_waited_for
        || (made.is_some() && (made == status.baseline.as_ref() || made == next))
        || compliant(lineage).is_some_and(|compliant| compliant.run == run.name_any())
}
