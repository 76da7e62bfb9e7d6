//! The part of a lineage's decision that is about what the live server shows.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{Plan, Task},
    v1alpha1::{
        Audit, Canary, ConditionType, GateName, NoCompliantDigest, Reason, Rollout, RolloutState, RunType,
        ScaledDown, UnlearnPolicySpec, UnlearnRun, Verdict,
    },
};

use crate::{
    Effect, POLL, base, evidence,
    model::{Lineage, NextRun},
    plans::{self, AuditOf},
    rollout,
    run::is_over,
    schedule, serving, targets,
};

/// What came of an audit that has ended.
pub(crate) struct Found {
    pub(crate) verdict: Verdict,
    pub(crate) why: String,
}

/// Whether a policy wants live servers asked.
pub fn asks_for_audits(policy: &UnlearnPolicySpec) -> bool {
    policy.gates.iter().any(|gate| gate.name == GateName::ServedLeak)
}

/// Whether the policy of today asks for them.
fn is_watchful(lineage: &Lineage<'_>) -> bool {
    lineage.observed.policy.as_ref().is_ok_and(|policy| asks_for_audits(&policy.spec))
}

/// Has the live server asked for what `run` made it forget. Returns what came of it, once that is known.
pub(crate) fn of_rollout(
    lineage: &mut Lineage<'_>,
    rollout: &mut Rollout,
    run: &UnlearnRun,
) -> Option<Found> {
    let audit = lineage.own_runs().find(|audit| Some(audit.name_any()) == rollout.audit);
    if let Some(audit) = audit {
        return follow(lineage, audit, &rollout.to);
    }
    // It was never created, or somebody has deleted it.
    let of = of_candidate(run, &rollout.to)?;
    let (frozen, occasion) = (&run.spec, rollout.started_at.0.to_string());
    let model = &lineage.observed.model;
    let plan = plans::audit(model, of, &occasion, &frozen.policy, lineage.installation)?;
    rollout.audit = Some(plan.run.clone());
    say_that_it_is_asked(lineage, &plan.run);
    lineage.create_run(NextRun::audit(plan), &frozen.policy, frozen.policy_source.as_ref(), None);
    None
}

/// What came of the audit of a roll-out, if there is one and that is known.
pub(crate) fn known_of_rollout(lineage: &mut Lineage<'_>, rollout: &Rollout) -> Option<Found> {
    let audit = lineage.own_runs().find(|audit| Some(audit.name_any()) == rollout.audit)?;
    is_over(audit).then(|| follow(lineage, audit, &rollout.to)).flatten()
}

/// Has a candidate asked that nobody else sees yet, at its own Service. What comes of it says nothing of what is served.
pub(crate) fn of_canary(
    lineage: &mut Lineage<'_>,
    rollout: &mut Rollout,
    canary: &mut Canary,
    run: &UnlearnRun,
) -> Option<Found> {
    let audit = lineage.own_runs().find(|audit| Some(audit.name_any()) == canary.audit);
    if let Some(audit) = audit {
        if !is_over(audit) {
            rollout.message = Some(say_that_it_is_asked_in_the_dark(lineage, &audit.name_any()));
        }
        return outcome(audit);
    }
    let port = lineage.observed.model.spec.serving.port;
    let endpoint = Some(format!("http://{}:{port}", canary.name));
    let of = AuditOf { endpoint, ..of_candidate(run, &rollout.to)? };
    let (frozen, occasion) = (&run.spec, format!("{} dark", canary.since.0));
    let plan = plans::audit(&lineage.observed.model, of, &occasion, &frozen.policy, lineage.installation)?;
    canary.audit = Some(plan.run.clone());
    rollout.message = Some(say_that_it_is_asked_in_the_dark(lineage, &plan.run));
    lineage.create_run(NextRun::audit(plan), &frozen.policy, frozen.policy_source.as_ref(), None);
    None
}

/// Remembers what an audit found.
fn follow(lineage: &mut Lineage<'_>, audit: &UnlearnRun, digest: &Digest) -> Option<Found> {
    let name = audit.name_any();
    let Some(found) = outcome(audit) else {
        say_that_it_is_asked(lineage, &name);
        lineage.look_again_in(POLL);
        return None;
    };
    if lineage.status.audit.as_ref().is_none_or(|known| known.run != name) {
        let message = (found.verdict != Verdict::Pass).then(|| found.why.chars().take(500).collect());
        let (digest, at, shows) = (digest.clone(), Time(lineage.now), shown(audit));
        let began = audit.creation_timestamp().map(|at| at.0);
        remember(lineage, Audit { run: name, digest, verdict: found.verdict, shows, at, message }, began);
    }
    Some(found)
}

/// Keeps the last audit, and of what should be served the last that could tell whether it shows what it had to forget. So
/// neither a candidate that is asked meanwhile nor an audit that measures nothing acquits it.
fn remember(lineage: &mut Lineage<'_>, found: Audit, began: Option<Timestamp>) {
    if let Some(mut compliant) = base::compliant(lineage) {
        let is_it = compliant.digest == found.digest;
        // In a status from a backup, an audit that came before the last one may look like it.
        let is_later =
            compliant.refuted.as_ref().is_none_or(|known| began.is_some_and(|at| at >= known.at.0));
        compliant.refuted = match found.verdict {
            Verdict::Fail if is_it => Some(found.clone()),
            Verdict::Pass if is_it && is_later => None,
            _ => compliant.refuted,
        };
        let stored = lineage.status.compliant.as_ref().and_then(|stored| stored.refuted.as_ref());
        if compliant.refuted.as_ref() != stored {
            compliant.turn += 1;
            lineage.status.compliant = Some(compliant);
        }
    }
    lineage.status.audit = Some(found);
}

/// This audit, if it is of this bundle and saw it leak.
pub(crate) fn refutes(audit: &Audit, digest: &Digest) -> Option<Audit> {
    (audit.digest == *digest && audit.verdict == Verdict::Fail).then(|| audit.clone())
}

/// What audits have found of a bundle that is put into service, be it by a roll-out that did not ask for one.
pub(crate) fn known_of(lineage: &Lineage<'_>, digest: &Digest) -> Option<Audit> {
    let before = base::compliant(lineage).filter(|before| before.digest == *digest);
    before.and_then(|before| before.refuted).or_else(|| refutes(lineage.status.audit.as_ref()?, digest))
}

/// Whether a run asked a live server that served this bundle, and it was seen to leak, or could not be told not to.
pub(crate) fn did_not_pass(run: &UnlearnRun, digest: &Digest) -> bool {
    let verdict = run.status.as_ref().and_then(|status| status.verdict);
    let asked = || match Plan::parse(run.spec.plan.as_bytes()).map(|plan| plan.task) {
        Ok(Task::Audit(task)) => task.served == *digest,
        _ => false,
    };
    run.spec.type_ == RunType::Audit
        && matches!(verdict, Some(Verdict::Fail | Verdict::Inconclusive))
        && asked()
}

/// The labels that did not pass; none where that is not known of each.
fn shown(audit: &UnlearnRun) -> Vec<String> {
    let gates = audit.status.iter().flat_map(|status| &status.gates);
    let failed = gates.filter(|gate| gate.verdict != Verdict::Pass).map(|gate| gate.target.clone());
    failed.collect::<Option<_>>().unwrap_or_default()
}

/// Whether a run of this kind is an audit that nobody waits for but the schedule.
pub(crate) fn is_scheduled(run: &UnlearnRun) -> bool {
    run.spec.type_ == RunType::Audit
}

/// When the next audit is due.
pub(crate) fn keep_time(lineage: &mut Lineage<'_>) {
    let model = &lineage.observed.model;
    let Some(spec) = &model.spec.audit else {
        lineage.status.next_audit = None;
        return;
    };
    let can_be = is_watchful(lineage) && !lineage.status.ledger.is_empty();
    let next = schedule::next(&spec.schedule, lineage.now).ok().filter(|_| can_be);
    let Some(next) = next else {
        lineage.status.next_audit = None;
        return;
    };
    let seen = model.status.as_ref().and_then(|status| status.observed_generation);
    let was_edited = seen != model.metadata.generation;
    let due = lineage.status.next_audit.get_or_insert(Time(next));
    // One that is late already is still owed, whatever the schedule is now.
    if was_edited && due.0 > lineage.now {
        *due = Time(next);
    }
    let left = due.0.duration_since(lineage.now);
    if let Ok(left) = std::time::Duration::try_from(left)
        && !left.is_zero()
    {
        lineage.look_again_in(left);
    }
}

/// Starts the audit that is due, if what should be served is. Its name follows from when it was due: one that was announced
/// and never created is created under the same.
pub(crate) fn start_due(lineage: &mut Lineage<'_>) -> bool {
    let is_served = lineage.conditions.find(ConditionType::Serving).is_some_and(|c| c.status == "True");
    let due = lineage.status.next_audit.clone().filter(|due| due.0 <= lineage.now && is_served);
    let plan = due.and_then(|due| plan_of(lineage, &due.0.to_string()));
    let (Some(plan), Ok(policy)) = (plan, &lineage.observed.policy) else { return false };
    lineage.status.active_run = Some(plan.run.clone());
    lineage.create_run(NextRun::audit(plan), &policy.spec, Some(&policy.source), None);
    true
}

fn plan_of(lineage: &Lineage<'_>, occasion: &str) -> Option<Plan> {
    let (status, policy) = (&lineage.status, lineage.observed.policy.as_ref().ok()?);
    let (baseline, compliant) = (status.baseline.as_ref()?, base::compliant(lineage)?);
    let forgotten = targets::ledger_targets(&status.ledger);
    let labels = status.labels.iter().map(|label| label.name.clone());
    let of = AuditOf {
        endpoint: None,
        served: compliant.digest,
        baseline: baseline.bundle.clone(),
        judge: baseline.judge.clone(),
        targets: targets::resolve(&forgotten, &status.labels).ok()?,
        kept: labels.filter(|label| !forgotten.contains_key(label)).collect(),
    };
    plans::audit(&lineage.observed.model, of, occasion, &policy.spec, lineage.installation)
}

/// The audit that the schedule asked for. True if it has ended.
pub(crate) fn follow_scheduled(lineage: &mut Lineage<'_>, run: &UnlearnRun) -> bool {
    let Ok(Task::Audit(task)) = Plan::parse(run.spec.plan.as_bytes()).map(|plan| plan.task) else {
        return true;
    };
    if is_over(run) {
        follow(lineage, run, &task.served);
        // Whatever was missed meanwhile.
        lineage.status.next_audit = None;
        keep_time(lineage);
        return true;
    }
    lineage.look_again_in(POLL);
    false
}

/// What the last audit says of what is served, or the last that could tell, if that saw it leak.
pub(crate) fn say(lineage: &mut Lineage<'_>) {
    let compliant = base::compliant(lineage);
    let served = compliant.as_ref().map(|compliant| &compliant.digest);
    let last = || lineage.status.audit.clone().filter(|audit| Some(&audit.digest) == served);
    let found = compliant.as_ref().and_then(|compliant| compliant.refuted.clone()).or_else(last);
    let watchful = is_watchful(lineage);
    let (audited, conditions) = (ConditionType::Audited, &mut lineage.conditions);
    let spec = lineage.observed.model.spec.audit.as_ref();
    if let Some(spec) = spec
        && let Err(why) = schedule::next(&spec.schedule, lineage.now)
    {
        let message = format!("spec.audit.schedule {:?}: {why}", spec.schedule);
        return conditions.unknown(audited, Reason::BadSchedule, message);
    }
    match found {
        Some(audit) if audit.verdict == Verdict::Pass => {
            let message = format!("run {}: the live server showed nothing that is forgotten", audit.run);
            conditions.yes(audited, Reason::Audited, message);
        }
        Some(audit) => {
            let message = audit.message.unwrap_or_default();
            match audit.verdict {
                Verdict::Fail => conditions.no(audited, reason(audit.verdict), message),
                other => conditions.unknown(audited, reason(other), message),
            }
        }
        None if spec.is_none() => conditions.remove(audited),
        None => {
            let message = match (served, watchful) {
                (None, _) => "nothing had to be forgotten yet",
                (_, false) => "spec.audit needs a policy with a served-leak gate",
                _ => "what is served was not audited yet",
            };
            conditions.unknown(audited, Reason::NotAudited, message);
        }
    }
}

fn say_that_it_is_asked(lineage: &mut Lineage<'_>, run: &str) {
    let message = format!("run {run} asks the live server for everything that is forgotten");
    lineage.conditions.unknown(ConditionType::Serving, Reason::Auditing, message);
}

fn say_that_it_is_asked_in_the_dark(lineage: &mut Lineage<'_>, run: &str) -> String {
    let message =
        format!("run {run} asks the canary, which nobody else sees, for everything that is forgotten");
    lineage.conditions.unknown(ConditionType::Serving, Reason::Auditing, message.clone());
    lineage.look_again_in(POLL);
    message
}

/// A measurement that is missing is not one that passed.
fn outcome(audit: &UnlearnRun) -> Option<Found> {
    let status = audit.status.as_ref().filter(|_| is_over(audit))?;
    let says = |type_: ConditionType| {
        let found = type_.find(&status.conditions).map(|condition| condition.message.clone());
        format!("run {}: {}", audit.name_any(), found.unwrap_or_default())
    };
    Some(match status.verdict {
        Some(verdict) => Found { verdict, why: says(ConditionType::GatesPassed) },
        None => Found { verdict: Verdict::Error, why: says(ConditionType::Ready) },
    })
}

/// The reason that goes with a verdict other than Pass.
pub(crate) fn reason(verdict: Verdict) -> Reason {
    match verdict {
        Verdict::Pass => Reason::GatesPassed,
        Verdict::Fail => Reason::GateFailed,
        Verdict::Inconclusive => Reason::GateInconclusive,
        Verdict::Error => Reason::GateError,
    }
}

/// Whether a roll-out was turned back for what the live server showed.
pub(crate) fn is_refuted(rollout: &Rollout) -> bool {
    use Reason::{GateError, GateFailed, GateInconclusive};
    rollout.reason.is_some_and(|reason| [GateFailed, GateInconclusive, GateError].contains(&reason))
}

fn of_candidate(run: &UnlearnRun, served: &Digest) -> Option<AuditOf> {
    let Ok(Task::Forget(task)) = Plan::parse(run.spec.plan.as_bytes()).map(|plan| plan.task) else {
        return None;
    };
    Some(AuditOf {
        endpoint: None,
        served: served.clone(),
        baseline: task.baseline,
        judge: task.judge,
        targets: task.targets,
        kept: task.kept,
    })
}

/// The audit that says that what should be served, or what was served last where nothing should be, shows what it had to
/// forget: there is no compliant digest.
pub(crate) fn leak(lineage: &Lineage<'_>) -> Option<Audit> {
    if let Some(shown) = shown_on_its_way_back(lineage) {
        return Some(shown);
    }
    if let Some(compliant) = base::compliant(lineage) {
        return compliant.refuted;
    }
    // Nothing was forgotten yet: there is the baseline to go back to, or nothing.
    let status = &lineage.status;
    let audit = status.audit.as_ref()?;
    let turned_back = status.rollout.as_ref().is_some_and(|rollout| {
        rollout.to == audit.digest
            && matches!(rollout.state, RolloutState::RollingBack | RolloutState::RolledBack)
    });
    let failed = audit.verdict == Verdict::Fail || (turned_back && audit.verdict != Verdict::Pass);
    (failed && serving::wanted(lineage).is_none()).then(|| audit.clone())
}

/// A candidate that was seen to leak, and is not out of service after as long as pods have to come up: the change is refused,
/// or what was served before does not come up, and its pods make room for nothing.
fn shown_on_its_way_back(lineage: &Lineage<'_>) -> Option<Audit> {
    let rollout = lineage.status.rollout.as_ref();
    let rollout = rollout.filter(|rollout| rollout.state == RolloutState::RollingBack)?;
    let audit = lineage.status.audit.as_ref().and_then(|audit| refutes(audit, &rollout.to))?;
    let run = lineage.run_of(rollout);
    let patience = run.map(|run| run.spec.policy.rollout.clone()).unwrap_or_default();
    let patience = SignedDuration::from_secs(patience.progress_deadline_seconds.into());
    let late = lineage.now.duration_since(rollout.turned_back_at.as_ref()?.0) > patience;
    let is_shown = |target: &Deployment| rollout::is_shown(rollout, target);
    (late && lineage.observed.deployment.as_ref().is_some_and(is_shown)).then_some(audit)
}

/// Whether the target is kept at no replicas. Of one that is somebody else's to change nothing is changed.
pub(crate) fn is_withheld(lineage: &Lineage<'_>) -> bool {
    !lineage.publishes() && withholds(lineage)
}

/// Whether nothing is to be served: nothing compliant can be, and the policy does not leave it.
pub(crate) fn withholds(lineage: &Lineage<'_>) -> bool {
    let today = lineage.observed.policy.as_ref().ok().map(|policy| &policy.spec);
    // A policy that is gone said what it did when the run was planned.
    let then = || {
        let run = base::compliant(lineage)?.run;
        lineage.own_runs().find(|it| it.name_any() == run).map(|run| &run.spec.policy)
    };
    let policy = today.or_else(then).map(|policy| policy.rollout.no_compliant_digest);
    policy != Some(NoCompliantDigest::Leave)
        && (leak(lineage).is_some() || evidence::keeps_from_going_back(lineage))
}

/// Whether what leaks is still there after all that time, and the policy says to leave it: nobody waits for its pods to go.
pub(crate) fn is_left(lineage: &Lineage<'_>) -> bool {
    shown_on_its_way_back(lineage).is_some() && !is_withheld(lineage)
}

/// Sees to that.
pub(crate) fn withhold(lineage: &mut Lineage<'_>) {
    let Some(deployment) = lineage.observed.deployment.as_ref().filter(|_| is_withheld(lineage)) else {
        return;
    };
    let replicas = replicas(deployment);
    let since = Time(lineage.now);
    let down = lineage.status.scaled_down.get_or_insert(ScaledDown { replicas, since });
    if down.replicas == 0 {
        // A status that was lost knew how many; whoever scales it up says so again.
        down.replicas = replicas;
    }
    if replicas != 0 {
        lineage.effects.push(Effect::ScaleServing { deployment: deployment.name_any(), replicas: 0 });
        lineage.look_again_in(POLL);
    }
}

/// What may be served again gets its pods back. The target has to name it already.
pub(crate) fn release(lineage: &mut Lineage<'_>, deployment: &Deployment) {
    // Whoever changes the target from now on knows how many pods it has.
    if lineage.publishes() {
        lineage.status.scaled_down = None;
    }
    let Some(down) = lineage.status.scaled_down.clone() else { return };
    if replicas(deployment) == 0 && down.replicas > 0 {
        if lineage.unlogged().is_some() {
            return lineage.look_again_in(POLL);
        }
        let deployment = deployment.name_any();
        lineage.effects.push(Effect::ScaleServing { deployment, replicas: down.replicas });
        return lineage.look_again_in(POLL);
    }
    lineage.status.scaled_down = None;
}

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

impl NextRun {
    fn audit(plan: Plan) -> Self {
        let mode = lethe_api::v1alpha1::Mode::Enforce;
        NextRun { type_: RunType::Audit, mode, plan, requests: vec![], new_base: None }
    }
}
