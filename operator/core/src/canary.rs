//! A candidate beside the serving target. A second Deployment serves it: to nobody but the audit at first, then to a share
//! of the users, step by step, while the target goes on serving what it did and is left alone. Only then is the target
//! changed, as in any other roll-out.
//!
//! It is created without pods and without the labels of the target's, so that a creation which arrives long after its
//! operator has died puts nothing into service.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt;
use lethe_api::v1alpha1::{
    Canary, DiffusionModel, Reason, Rollout, RolloutPolicy, RolloutState, RolloutStep, RolloutStrategy,
    RunType, UnlearnPolicySpec, UnlearnRun, Verdict, labels,
};

use crate::{
    Change, Effect, accept,
    approval::{self, StepStanding},
    audit, base,
    beside::{self, pod_labels, traffic_labels},
    evidence, forgetting,
    model::Lineage,
    names,
    rollout::{self, Next},
};

pub(crate) use crate::beside::take_away;
pub use crate::beside::{Seen, gets_traffic, is_ours};

/// What its pods should be.
struct Shape {
    replicas: i32,
    /// Of its pod template. With those of the target's, the users' Services find its pods.
    labels: BTreeMap<String, String>,
}

/// Why a candidate is not beside the target as it should be.
enum Unready {
    Waits(Reason, String),
    /// To be written, and what for.
    Writes(Vec<Effect>, String),
    /// Nobody asks for it to be.
    Idle(String),
}

/// The name of the second Deployment, if there may be one.
pub fn to_look_for(model: &DiffusionModel, policy: Option<&UnlearnPolicySpec>) -> Option<String> {
    let known = model.status.as_ref().and_then(|status| status.rollout.as_ref()?.canary.as_ref());
    let is_asked_for = policy.is_some_and(|policy| policy.rollout.strategy == RolloutStrategy::Canary);
    let by_name = || is_asked_for.then(|| names::canary(&model.spec.serving.target.name));
    known.map(|canary| canary.name.clone()).or_else(by_name)
}

/// Where the candidate of a run begins that is not to replace the target's pods at once.
pub(crate) fn begin(lineage: &Lineage<'_>, run: &UnlearnRun) -> Option<Canary> {
    // A baseline of which nothing had to be forgotten is no candidate.
    let is_asked_for =
        run.spec.policy.rollout.strategy == RolloutStrategy::Canary && run.spec.type_ == RunType::Forget;
    is_asked_for.then(|| new(lineage, &run.spec.policy.rollout))
}

/// As every candidate begins: unseen, and asked nothing.
fn new(lineage: &Lineage<'_>, policy: &RolloutPolicy) -> Canary {
    Canary {
        name: names::canary(&lineage.observed.model.spec.serving.target.name),
        step: 0,
        at: at(policy, 0),
        since: Time(lineage.now),
        weight: None,
        replicas: 1,
        unready_since: Some(Time(lineage.now)),
        audit: None,
    }
}

/// What comes next for a candidate that is beside the target.
pub(crate) fn step(lineage: &mut Lineage<'_>, rollout: &mut Rollout, run: &UnlearnRun) -> Next {
    let Some(mut canary) = rollout.canary.clone() else {
        return Next::TurnBack(Reason::CanaryNotPossible, "its state is not known".into());
    };
    let next = follow(lineage, rollout, &mut canary, run);
    rollout.canary = Some(canary);
    next
}

fn follow(lineage: &mut Lineage<'_>, rollout: &mut Rollout, canary: &mut Canary, run: &UnlearnRun) -> Next {
    if let Some(next) = unwanted(lineage, rollout, run) {
        return next;
    }
    if canary.weight.is_some() && lineage.observed.canary.deployment.is_none() {
        // It will be a copy of the target as that is by now, of which nobody has asked anything.
        *canary = new(lineage, &run.spec.policy.rollout);
    }
    match is_beside(lineage, rollout, canary) {
        Ok(target) => {
            (canary.unready_since, rollout.written_again_at) = (None, None);
            advance(lineage, rollout, canary, run, target)
        }
        Err(unready) => {
            let patience = run.spec.policy.rollout.progress_deadline_seconds;
            wait(lineage, rollout, canary, unready, patience)
        }
    }
}

/// Why a candidate that the target does not name yet is not to be served any more.
pub(crate) fn unwanted(lineage: &Lineage<'_>, rollout: &Rollout, run: &UnlearnRun) -> Option<Next> {
    if let Some(withdrawn) = accept::withdrawn(run, &lineage.observed.requests) {
        return Some(Next::TurnBack(Reason::Superseded, format!("withdrawn: {withdrawn}")));
    }
    if base::is_outdated(lineage, run) {
        let why = "spec.base was changed before the target named it";
        return Some(Next::TurnBack(Reason::Superseded, why.into()));
    }
    let no = approval::denied(run, &rollout.to, lineage.observed)?;
    Some(Next::TurnBack(Reason::ApprovalDenied, no))
}

/// As for the target: who was away before the first write has not used up the time, and who keeps changing it gains none.
fn wait(
    lineage: &mut Lineage<'_>,
    rollout: &mut Rollout,
    canary: &mut Canary,
    unready: Unready,
    patience: u32,
) -> Next {
    let now = Time(lineage.now);
    let since = canary.unready_since.get_or_insert(now.clone()).0;
    let counts_from = rollout.written_again_at.as_ref().map_or(since, |again| again.0);
    let late = lineage.now.duration_since(counts_from) > SignedDuration::from_secs(patience.into());
    let why = match unready {
        Unready::Idle(why) => {
            (canary.unready_since, rollout.written_again_at) = (None, None);
            return Next::Hold(Reason::RollingOut, why);
        }
        Unready::Writes(effects, _) if may_not_be_written(lineage, &effects) => {
            (canary.unready_since, rollout.written_again_at) = (None, None);
            return Next::Hold(Reason::AuditLogUnavailable, lineage.unlogged().unwrap_or_default());
        }
        Unready::Writes(effects, why) if !late || rollout.written_again_at.is_none() => {
            if since != lineage.now {
                rollout.written_again_at.get_or_insert(now);
            }
            lineage.effects.extend(effects);
            return Next::Wait(Reason::RollingOut, why);
        }
        Unready::Waits(reason, why) if !late => return Next::Wait(reason, why),
        Unready::Writes(_, why) | Unready::Waits(_, why) => why,
    };
    Next::TurnBack(
        Reason::RolloutTimedOut,
        format!("the canary was not as it should be within {patience} s: {why}"),
    )
}

fn may_not_be_written(lineage: &Lineage<'_>, effects: &[Effect]) -> bool {
    lineage.unlogged().is_some() && effects.iter().any(Effect::puts_into_service)
}

/// The target, if it serves what it did and every pod beside it serves the candidate.
fn is_beside<'a>(
    lineage: &Lineage<'a>,
    rollout: &Rollout,
    canary: &Canary,
) -> Result<&'a Deployment, Unready> {
    let observed = lineage.observed;
    let (model, seen) = (&observed.model, &observed.canary);
    let target = rollout::able_target(&model.spec.serving, observed.deployment.as_ref());
    let target = target.map_err(|(reason, why)| Unready::Waits(reason, why))?;
    if rollout::reference(target) != rollout.from {
        if let Some((reason, why)) = rollout.from.as_ref().and_then(|from| evidence::refusal(lineage, from)) {
            let why =
                format!("somebody changed what the serving target names, and it is not set back: {why}");
            return Err(Unready::Waits(reason, why));
        }
        let why = "somebody changed what the serving target names";
        if lineage.publishes() {
            let from = rollout::short(rollout.from.as_ref());
            let why = format!("{why}; until the canary is over it has to name {from}, as is published");
            return Err(Unready::Idle(why));
        }
        let deployment = target.name_any();
        let (bundle, change) = (rollout.from.clone(), Change::SetBack);
        let back = Effect::PatchServing { deployment, bundle, change };
        return Err(Unready::Writes(vec![back], format!("{why}; it is set back until the canary is over")));
    }
    if let Some(kind) = seen.is_taken(model) {
        let why = format!(
            "there is a {kind} {:?} that is not this model's, where the candidate should be; remove it",
            canary.name
        );
        return Err(Unready::Waits(Reason::CanaryNotPossible, why));
    }
    if seen.deployment.as_ref().is_some_and(beside::is_going)
        || seen.service.as_ref().is_some_and(beside::is_going)
    {
        let why = format!("somebody deleted {:?}, and it is not gone yet; it is made anew then", canary.name);
        return Err(Unready::Waits(Reason::RollingOut, why));
    }
    if seen.deployment.is_none() {
        evidence::is_proven(lineage, rollout).map_err(|(reason, why)| Unready::Waits(reason, why))?;
    }
    let (Some(found), Some(_)) = (&seen.deployment, &seen.service) else {
        let service = || Effect::CreateService(Box::new(beside::service(model, canary)));
        let deployment =
            || Effect::CreateDeployment(Box::new(beside::deployment(model, target, rollout, canary)));
        let first = seen.service.is_none().then(service);
        let effects = first.into_iter().chain(seen.deployment.is_none().then(deployment)).collect();
        return Err(Unready::Writes(effects, format!("Deployment {:?} is being created", canary.name)));
    };
    let shape = shape(model, target, canary);
    let may_be_seen = canary.weight.is_some();
    if rollout::reference(found).as_ref() != Some(&rollout.to)
        || (gets_traffic(found, target) && !may_be_seen)
    {
        let why = format!("Deployment {:?} is not of this roll-out; it is made anew", canary.name);
        return Err(Unready::Writes(vec![beside::delete(found)], why));
    }
    if !has(found, &shape) {
        let effect = Effect::ShapeCanary {
            name: found.name_any(),
            uid: found.uid().unwrap_or_default(),
            labels: shape.labels,
            replicas: shape.replicas,
        };
        let why = format!("Deployment {:?} is to have {} pods", canary.name, shape.replicas);
        return Err(Unready::Writes(vec![effect], why));
    }
    if shape.replicas == 0 {
        let why = "the serving target is scaled to zero: the canary waits for it, without pods".into();
        return Err(Unready::Idle(why));
    }
    let pods = rollout::settled(found);
    let confirmed = pods.and_then(|pods| rollout::confirmed(&seen.reports, pods, &rollout.to));
    confirmed.map_err(|why| Unready::Waits(Reason::RollingOut, format!("the canary: {why}")))?;
    Ok(target)
}

fn has(found: &Deployment, shape: &Shape) -> bool {
    let own = pod_labels(found);
    found.spec.as_ref().and_then(|spec| spec.replicas) == Some(shape.replicas)
        && shape.labels.iter().all(|(key, value)| own.get(key) == Some(value))
}

/// Never more pods than when the step began: they may have the labels by which an autoscaler counts the target's.
fn shape(model: &DiffusionModel, target: &Deployment, canary: &Canary) -> Shape {
    let own = [(labels::CANARY.to_owned(), model.name_any())];
    match canary.weight {
        None => Shape { replicas: canary.replicas, labels: own.into() },
        Some(weight) => Shape {
            replicas: canary.replicas.min(pods_for(replicas(target), weight)),
            labels: traffic_labels(target).into_iter().chain(own).collect(),
        },
    }
}

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many pods beside so many of the target's are at least this share of all.
fn pods_for(target: i32, weight: u8) -> i32 {
    let (target, weight) = (i64::from(target.max(0)), i64::from(weight.min(99)));
    let all_but = 100 - weight;
    i32::try_from((target * weight + all_but - 1) / all_but).unwrap_or(i32::MAX)
}

/// It is as it should be: is its step over?
fn advance(
    lineage: &mut Lineage<'_>,
    rollout: &mut Rollout,
    canary: &mut Canary,
    run: &UnlearnRun,
    target: &Deployment,
) -> Next {
    let suspended = forgetting::suspended(run, &lineage.observed.requests);
    if !suspended.is_empty() {
        let message = format!("the canary stays at {}: {} is suspended", canary.at, suspended.join(", "));
        return Next::Hold(Reason::Suspended, message);
    }
    let policy = &run.spec.policy.rollout;
    let waits = match current(policy, canary.step) {
        None if canary.step == 0 => in_the_dark(lineage, rollout, canary, run),
        None => None,
        Some(step) => waits_for(lineage, rollout, canary, run, step),
    };
    waits.unwrap_or_else(|| enter(lineage, rollout, canary, policy, target))
}

fn current(policy: &RolloutPolicy, step: u32) -> Option<&RolloutStep> {
    policy.steps.get(usize::try_from(step).ok()?.checked_sub(1)?)
}

/// Nobody sees it yet: what it shows is asked first, where the policy wants that.
fn in_the_dark(
    lineage: &mut Lineage<'_>,
    rollout: &mut Rollout,
    canary: &mut Canary,
    run: &UnlearnRun,
) -> Option<Next> {
    if !audit::asks_for_audits(&run.spec.policy) {
        return None;
    }
    match audit::of_canary(lineage, rollout, canary, run) {
        Some(found) if found.verdict == Verdict::Pass => None,
        Some(found) => Some(Next::TurnBack(audit::reason(found.verdict), found.why)),
        None => Some(Next::Audit),
    }
}

/// What a step waits for; nothing once it is over.
fn waits_for(
    lineage: &mut Lineage<'_>,
    rollout: &Rollout,
    canary: &Canary,
    run: &UnlearnRun,
    step: &RolloutStep,
) -> Option<Next> {
    if let Some(pause) = &step.pause {
        let until = canary.since.0 + SignedDuration::from_secs(pause.seconds.into());
        if lineage.now >= until {
            return None;
        }
        lineage.look_again_at(until);
        return Some(Next::Hold(Reason::RollingOut, format!("canary {} until {until}", canary.at)));
    }
    let required = step.approval.as_ref()?.required;
    let standing = approval::of_step(run, &rollout.to, canary.step, required, lineage.observed);
    let (reason, why) = match standing {
        StepStanding::Agreed => return None,
        StepStanding::NotProtected => {
            let why = "nothing in this cluster checks who approves: see the chart's admission.enabled";
            (Reason::ApprovalsNotProtected, why.to_owned())
        }
        StepStanding::RequesterUnknown(name) => {
            let why = format!(
                "{name} does not say who asks for it, so anybody might approve of their own; create it anew with \
                 spec.requestedBy"
            );
            (Reason::RequesterUnknown, why)
        }
        StepStanding::Waits { by } => {
            let agreed = if by.is_empty() { "nobody".into() } else { by.join(", ") };
            // A new base is nobody's request: whoever names its candidate means it.
            let which = if run.spec.requests.is_empty() { " (requestRef may name any request)" } else { "" };
            let why = format!(
                "{required} people have to agree by an UnlearnApproval with spec.rollout {{digest: {}, step: {}}}{which}; \
                 {agreed} did",
                rollout.to, canary.step
            );
            (Reason::WaitingForApproval, why)
        }
    };
    Some(Next::Hold(reason, format!("canary {}: {why}", canary.at)))
}

/// The next step begins; or all are over, and the target is next.
fn enter(
    lineage: &Lineage<'_>,
    rollout: &Rollout,
    canary: &mut Canary,
    policy: &RolloutPolicy,
    target: &Deployment,
) -> Next {
    if let Some(why) = lineage.unlogged() {
        return Next::Hold(Reason::AuditLogUnavailable, why);
    }
    canary.step += 1;
    canary.at = at(policy, canary.step);
    canary.since = Time(lineage.now);
    let Some(step) = current(policy, canary.step) else { return Next::Promote };
    // Where nothing else is served, a share of the traffic would be all of it.
    if let Some(weight) = step.weight.filter(|_| rollout.from.is_some() && replicas(target) > 0) {
        canary.weight = Some(weight);
        canary.replicas = pods_for(replicas(target), weight);
        canary.unready_since = Some(Time(lineage.now));
    }
    Next::Wait(Reason::RollingOut, format!("canary {}", canary.at))
}

/// Where it is, in a few words.
fn at(policy: &RolloutPolicy, step: u32) -> String {
    let of = policy.steps.len();
    match current(policy, step) {
        None if step == 0 => "in the dark".into(),
        None => "over".into(),
        Some(RolloutStep { weight: Some(weight), .. }) => format!("{step}/{of}: weight {weight}"),
        Some(RolloutStep { pause: Some(_), .. }) => format!("{step}/{of}: pause"),
        Some(_) => format!("{step}/{of}: approval"),
    }
}

/// Where the candidate of a run stands that the target does not name yet, or names no more, for its requests.
pub(crate) fn stands(model: &DiffusionModel, run: &str) -> Option<(Reason, String)> {
    let rollout = model.status.as_ref()?.rollout.as_ref()?;
    let is_it = rollout.state.is_told() && rollout.run.as_deref() == Some(run);
    let at = || rollout.canary.as_ref().map(|canary| format!("canary {}", canary.at));
    let message = rollout.message.clone().or_else(at).filter(|_| is_it)?;
    Some(match rollout.state {
        RolloutState::Published => (Reason::WaitingForPromotion, message),
        // Its message tells how it ends.
        RolloutState::RollingBack => {
            let reason = rollout.reason.unwrap_or(Reason::RolloutTimedOut);
            (reason, format!("the candidate is being taken back; {message}"))
        }
        _ => (Reason::RollingOut, message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_pods_is_never_less_than_asked_and_never_a_pod_more_than_that_takes() {
        for target in 1..=40 {
            for weight in 1..=99u8 {
                let pods = pods_for(target, weight);
                let share = |pods: i32| 100 * pods >= i32::from(weight) * (target + pods);
                assert!(share(pods) && !share(pods - 1), "{pods} beside {target} for {weight} %");
            }
        }
        assert_eq!((pods_for(0, 50), pods_for(i32::MAX, 99)), (0, i32::MAX));
    }
}
