//! The part of a lineage's decision that is about what is served while no roll-out is under way: it stays as it should be.

use std::time::Duration;

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt;
use lethe_api::{
    Digest,
    v1alpha1::{ConditionType, Reason, RolloutState, Served},
};

use crate::{
    Change, POLL, audit, canary,
    evidence::{self, Standing},
    model::Lineage,
    rollout, serving,
};

/// How soon to ask the pods again that all said what they should, if nothing is heard of their Deployment: at the latest, and
/// by how much it may be sooner.
const CONFIRMED: Duration = Duration::from_secs(300);
const SPREAD_MS: u32 = 60_000;
/// How soon to ask them again if they did not.
pub(crate) const UNCONFIRMED: Duration = Duration::from_secs(10);

/// No rollout is under way: serve what should be served, and nothing else.
pub(crate) fn keep(lineage: &mut Lineage<'_>) {
    let serving = &lineage.observed.model.spec.serving;
    audit::withhold(lineage);
    clear(lineage);
    let awaits_verdict = awaits_verdict(lineage);
    if awaits_verdict {
        lineage.look_again_in(POLL);
    }
    let target = rollout::target(serving, lineage.observed.deployment.as_ref());
    if lineage.publishes() && audit::withholds(lineage) {
        return say_that_nothing_may_be_served(lineage);
    }
    let Some(wanted) = serving::wanted(lineage) else {
        return serve_nothing(lineage, target.ok().and_then(rollout::reference));
    };
    if lineage.status.served.is_none() {
        if !awaits_verdict {
            serve_first(lineage, wanted);
        }
        return;
    }
    match target {
        Err((reason, message)) => lineage.conditions.no(ConditionType::Serving, reason, message),
        Ok(deployment) if rollout::reference(deployment).as_ref() != Some(&wanted) => {
            heal(lineage, rollout::reference(deployment), Some(wanted));
        }
        Ok(deployment) => match rollout::able_target(serving, Some(deployment)) {
            Ok(_) => confirm(lineage, deployment, &wanted),
            Err((reason, message)) => lineage.conditions.no(ConditionType::Serving, reason, message),
        },
    }
}

/// What should be served was seen to show what it had to forget, and only the target's owner can take it out.
fn say_that_nothing_may_be_served(lineage: &mut Lineage<'_>) {
    let (reason, why) = audit::leak(lineage).map_or((Reason::EvidenceRefused, String::new()), |leak| {
        (audit::reason(leak.verdict), leak.message.unwrap_or_default())
    });
    let message = format!(
        "nothing compliant can be served, so nothing is published (status.published without a bundle): {}, or has it no pods: {why}",
        lineage.what_git_does()
    );
    lineage.conditions.no(ConditionType::Serving, reason, message);
    lineage.look_again_in(UNCONFIRMED);
}

/// Nothing is known to be served yet: the baseline, or what a model that came back had to serve.
fn serve_first(lineage: &mut Lineage<'_>, wanted: Digest) {
    let (reason, why) = match evidence::standing(lineage, &wanted, None) {
        Standing::Proven => return serving::begin(lineage, None, wanted),
        Standing::Unseen => (Reason::WaitingForServing, evidence::UNSEEN.to_owned()),
        Standing::Unknown(reason, why) => (reason, why),
        Standing::Refused(why) => (Reason::EvidenceRefused, why),
    };
    let message = format!("{} is not put into service: {why}", wanted.short());
    say_that_it_is_not_proven(lineage, reason, message);
    lineage.look_again_in(POLL);
}

fn say_that_it_is_not_proven(lineage: &mut Lineage<'_>, reason: Reason, message: String) {
    match reason {
        Reason::EvidenceRefused => lineage.conditions.no(ConditionType::Serving, reason, message),
        // It may still turn out to be.
        _ => lineage.conditions.unknown(ConditionType::Serving, reason, message),
    }
}

/// Nothing is beside the target once a roll-out is over.
fn clear(lineage: &mut Lineage<'_>) {
    if !canary::take_away(lineage)
        && let Some(rollout) = &mut lineage.status.rollout
    {
        rollout.canary = None;
    }
}

/// Nothing was forgotten yet, and the model says that nothing is to be served before.
fn serve_nothing(lineage: &mut Lineage<'_>, found: Option<Digest>) {
    let before = lineage.status.served.as_ref().map(|served| served.digest.clone());
    match found {
        None => {
            lineage.status.served = None;
            let message = "nothing is served before the first fulfilled request";
            lineage.conditions.unknown(ConditionType::Serving, Reason::NotServed, message);
        }
        // Served by Lethe itself until the model was edited.
        Some(found) if before.as_ref() == Some(&found) => {
            let message = format!("spec.serving.initial is None now: {} goes out of service", found.short());
            lineage.conditions.unknown(ConditionType::Serving, Reason::NotServed, message);
            lineage.change_serving(None, Change::TakeOut);
        }
        found => heal(lineage, found, None),
    }
}

/// The Deployment names what it should: do its pods serve it? Nothing is changed if they do not, since the
/// reference is right and only people can know what overrides it.
fn confirm(lineage: &mut Lineage<'_>, deployment: &Deployment, wanted: &Digest) {
    if !audit::is_withheld(lineage) {
        audit::release(lineage, deployment);
    }
    let reports = &lineage.observed.reports;
    let pods = rollout::settled(deployment);
    if let (Ok(_), Some(other)) = (&pods, rollout::other_than(reports, |digest| digest == wanted)) {
        let message = format!(
            "{other}, not {}, which is what Deployment {:?} names: see what overrides the annotation in its pod \
             template",
            wanted.short(),
            deployment.name_any()
        );
        lineage.conditions.no(ConditionType::Serving, Reason::DigestMismatch, message);
        return lineage.look_again_in(UNCONFIRMED);
    }
    match pods.and_then(|pods| rollout::confirmed(reports, pods, wanted)) {
        Ok(()) => {
            lineage.conditions.yes(ConditionType::Serving, Reason::Serving, confirmation(wanted));
            // An old status says what was served then.
            if lineage.status.served.as_ref().is_none_or(|served| served.digest != *wanted) {
                let (digest, short) = (wanted.clone(), wanted.short().to_owned());
                lineage.status.served = Some(Served { digest, short, since: Time(lineage.now) });
            }
            lineage.look_again_in(CONFIRMED - spread(&lineage.observed.model.uid().unwrap_or_default()));
        }
        Err(why) => {
            // What is scaled to zero until the log can say that it is not.
            let held = lineage.unlogged().filter(|_| lineage.status.scaled_down.is_some());
            match held {
                Some(held) => {
                    lineage.conditions.unknown(ConditionType::Serving, Reason::AuditLogUnavailable, held)
                }
                None => lineage.conditions.unknown(ConditionType::Serving, Reason::WaitingForServing, why),
            }
            lineage.look_again_in(UNCONFIRMED);
        }
    }
}

/// A different time for each model: those that were looked at together, as all are after a start, are not for ever.
fn spread(uid: &str) -> Duration {
    let sum = uid.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    Duration::from_millis((sum % SPREAD_MS).into())
}

pub(crate) fn confirmation(digest: &Digest) -> String {
    format!("every ready pod says that it serves {}", digest.short())
}

/// Somebody else changed the reference: set it back.
fn heal(lineage: &mut Lineage<'_>, found: Option<Digest>, wanted: Option<Digest>) {
    let (found, back) = (rollout::short(found.as_ref()), rollout::short(wanted.as_ref()).to_owned());
    // What others set back is heard of.
    lineage.look_again_in(if lineage.publishes() { UNCONFIRMED } else { POLL });
    if let Some((reason, why)) = wanted.as_ref().and_then(|wanted| evidence::refusal(lineage, wanted)) {
        let message = format!("the serving target names {found}, and is not set back to {back}: {why}");
        return say_that_it_is_not_proven(lineage, reason, message);
    }
    let message = format!("the serving target names {found}; {}", lineage.what_sets_it_back(&back));
    lineage.conditions.no(ConditionType::Serving, Reason::Drifted, message);
    lineage.change_serving(wanted, Change::SetBack);
}

/// A candidate was taken back and its run does not say so yet. Another rollout would make that forgotten,
/// and the candidate would be rolled out once more.
fn awaits_verdict(lineage: &Lineage<'_>) -> bool {
    let rollout = lineage.status.rollout.as_ref();
    rollout.is_some_and(|rollout| {
        rollout.state == RolloutState::RolledBack
            && rollout.run.is_some()
            && rollout.run == lineage.status.active_run
    })
}
