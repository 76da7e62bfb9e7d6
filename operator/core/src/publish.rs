//! How what is served is changed: the operator writes it into the serving target, or, with `spec.serving.promotion: Publish`, into the
//! model's status, and whoever owns the Deployment, a Git repository for example, writes it there.
//!
//! Where it is published, **nothing of the target is ever written**, its replicas included. Nobody is hurried: the time that pods have counts
//! from when the target names the candidate.

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time};
use lethe_api::{
    Digest,
    v1alpha1::{
        BUNDLE_ANNOTATION, ConditionType, Promotion, Published, Reason, Rollout, RolloutState, UnlearnRun,
    },
};

use crate::{
    Change, Effect, POLL, canary, forgetting,
    model::Lineage,
    rollout::{self, Next},
};

impl Lineage<'_> {
    /// Whether somebody else changes what the target names.
    pub(crate) fn publishes(&self) -> bool {
        self.observed.model.spec.serving.promotion == Promotion::Publish
    }

    /// Has the target name a bundle, or none.
    pub(crate) fn change_serving(&mut self, bundle: Option<Digest>, change: Change) {
        if self.publishes() {
            let is_known = self.status.published.as_ref().is_some_and(|known| known.bundle == bundle);
            if !is_known {
                let short = bundle.as_ref().map(|bundle| bundle.short().to_owned());
                self.status.published = Some(Published { bundle, short, since: Time(self.now) });
            }
        } else {
            let deployment = self.observed.model.spec.serving.target.name.clone();
            self.effects.push(Effect::PatchServing { deployment, bundle, change });
        }
        self.look_again_in(POLL);
    }

    /// What has to happen for the target to name this, in words.
    pub(crate) fn what_sets_it_back(&self, bundle: &str) -> String {
        match self.publishes() {
            false => format!("setting it back to {bundle}"),
            true => format!("{bundle} is published: {}", self.what_git_does()),
        }
    }

    fn what_git_does(&self) -> String {
        format!(
            "whoever owns Deployment {:?} sets {BUNDLE_ANNOTATION} in its pod template to status.published.bundle",
            self.observed.model.spec.serving.target.name
        )
    }
}

/// What was published says nothing once the operator changes the target itself.
pub(crate) fn forget_it(lineage: &mut Lineage<'_>) {
    if !lineage.publishes() {
        lineage.status.published = None;
    }
}

/// What comes next for a candidate that is published.
pub(crate) fn step(lineage: &Lineage<'_>, rollout: &Rollout, run: Option<&UnlearnRun>) -> Next {
    if let Some(next) = run.and_then(|run| unwanted(lineage, rollout, run)) {
        return next;
    }
    let serving = &lineage.observed.model.spec.serving;
    match rollout::able_target(serving, lineage.observed.deployment.as_ref()) {
        Ok(target) if lineage.publishes() && !names(target, &rollout.to) => {
            Next::Patch(Some(rollout.to.clone()))
        }
        Ok(_) => Next::Promote,
        Err((reason, message)) => Next::Wait(reason, message),
    }
}

fn names(target: &Deployment, bundle: &Digest) -> bool {
    rollout::reference(target).as_ref() == Some(bundle)
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
