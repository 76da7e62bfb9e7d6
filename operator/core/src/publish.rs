//! How what is served is changed: the operator writes it into the serving target, or, with `spec.serving.promotion: Publish`, into the
//! model's status, and whoever owns the Deployment, a Git repository for example, writes it there.
//!
//! Where it is published, **nothing of the target is ever written**, its replicas included. Nobody is hurried: the time that pods have counts
//! from when the target names the candidate.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lethe_api::{
    Digest,
    v1alpha1::{
        BUNDLE_ANNOTATION, ConditionType, Promotion, Published, Reason, Rollout, RolloutState, UnlearnRun,
    },
};

use crate::{
    Change, Effect, POLL, audit, canary, evidence, forgetting,
    model::{Lineage, holder},
    rollout::{self, Next},
    serving,
};

/// How soon to look again at a target that somebody else changes.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

impl Lineage<'_> {
    /// Whether somebody else changes what the target names.
    pub(crate) fn publishes(&self) -> bool {
        self.observed.model.spec.serving.promotion == Promotion::Publish
    }

    /// Has the target name a bundle, or none. Where that is somebody else's to do, [`say`] says what.
    pub(crate) fn change_serving(&mut self, bundle: Option<Digest>, change: Change) {
        if self.publishes() {
            return self.look_again_in(LOOK_AGAIN);
        }
        let deployment = self.observed.model.spec.serving.target.name.clone();
        self.effects.push(Effect::PatchServing { deployment, bundle, change });
        self.look_again_in(POLL);
    }

    /// What has to happen for the target to name this, in words.
    pub(crate) fn what_sets_it_back(&self, bundle: &str) -> String {
        match self.publishes() {
            false => format!("setting it back to {bundle}"),
            true => format!("{bundle} is published: {}", self.what_git_does()),
        }
    }

    pub(crate) fn what_git_does(&self) -> String {
        format!(
            "whoever owns Deployment {:?} sets {BUNDLE_ANNOTATION} in its pod template to status.published.bundle",
            self.observed.model.spec.serving.target.name
        )
    }
}

/// Says in the status what the target has to name. It follows from everything else that was decided, so that nothing that is taken back
/// stays there.
pub(crate) fn say(lineage: &mut Lineage<'_>) {
    let is_anothers = holder(&lineage.observed.model, &lineage.observed.rivals).is_some();
    if !lineage.publishes() || is_anothers {
        lineage.status.published = None;
        return;
    }
    let Some((bundle, is_rolled_out)) = due(lineage) else { return };
    let known = lineage.status.published.as_ref();
    let is_held = is_rolled_out && lineage.unlogged().is_some();
    if is_held || known.is_some_and(|known| known.bundle == bundle) {
        return;
    }
    // Of what is not known to have passed nothing is said, and what was said before holds no more.
    let is_refused = bundle.as_ref().is_some_and(|bundle| evidence::refusal(lineage, bundle).is_some());
    let short = bundle.as_ref().map(|bundle| bundle.short().to_owned());
    let since = Time(lineage.now);
    lineage.status.published = (!is_refused).then_some(Published { bundle, short, since });
}

/// What the target has to name, and whether that is a roll-out; none if that is not known yet.
fn due(lineage: &Lineage<'_>) -> Option<(Option<Digest>, bool)> {
    let status = &lineage.status;
    if status.baseline.is_none() && status.ledger.is_empty() {
        return None;
    }
    let under_way = status.rollout.as_ref().filter(|rollout| rollout.state.is_under_way());
    Some(match under_way {
        Some(rollout) if matches!(rollout.state, RolloutState::Canary | RolloutState::RollingBack) => {
            (rollout.from.clone(), false)
        }
        Some(rollout) => (Some(rollout.to.clone()), true),
        None => (serving::wanted(lineage).filter(|_| !audit::withholds(lineage)), false),
    })
}

/// What comes next for a candidate that is published.
pub(crate) fn step(lineage: &Lineage<'_>, rollout: &Rollout, run: Option<&UnlearnRun>) -> Next {
    let target =
        rollout::able_target(&lineage.observed.model.spec.serving, lineage.observed.deployment.as_ref());
    // Once it is promoted it is too late to take it back.
    if target.as_ref().is_ok_and(|target| rollout::reference(target).as_ref() == Some(&rollout.to)) {
        return Next::Promote;
    }
    if let Some(next) = run.and_then(|run| unwanted(lineage, rollout, run)) {
        return next;
    }
    match target {
        Ok(_) if lineage.publishes() => Next::Patch(Some(rollout.to.clone())),
        Ok(_) => Next::Promote,
        Err((reason, message)) => Next::Wait(reason, message),
    }
}

/// Why a candidate that nobody has promoted yet is published no more.
fn unwanted(lineage: &Lineage<'_>, rollout: &Rollout, run: &UnlearnRun) -> Option<Next> {
    let suspended = forgetting::suspended(run, &lineage.observed.requests);
    let is_suspended = (!suspended.is_empty()).then(|| {
        let why = format!("{} was suspended before it was promoted", suspended.join(", "));
        Next::TurnBack(Reason::Superseded, why)
    });
    canary::unwanted(lineage, rollout, run).or(is_suspended)
}

/// The candidate was published: it is waited for.
pub(crate) fn wait(lineage: &mut Lineage<'_>, rollout: &mut Rollout) {
    rollout.state = RolloutState::Published;
    // Whoever takes it back and promotes it again has it asked again.
    rollout.audit = None;
    let message = format!("{} is published: {}", rollout.to.short(), lineage.what_git_does());
    rollout.message = Some(message.clone());
    lineage.conditions.unknown(ConditionType::Serving, Reason::WaitingForPromotion, message);
}
