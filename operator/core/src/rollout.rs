//! Changing what is served, one step at a time.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use lethe_api::{
    Digest,
    v1alpha1::{BUNDLE_ANNOTATION, Promotion, Reason, Rollout, RolloutState, Serving},
};

use crate::{audit, trail::NOTHING};

/// What one pod of the serving target says it serves.
#[derive(Clone, Debug)]
pub struct PodReport {
    pub pod: String,
    /// The digest at `/v2/models/NAME`, or why it could not be asked.
    pub digest: Result<Digest, String>,
}

/// The next step of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Write this reference (none: remove it), then look again.
    Patch(Option<Digest>),
    Wait(Reason, String),
    /// Every pod is available and reports the new digest.
    Complete,
    /// Every pod serves it: what the live server shows is being looked at.
    Audit,
    /// Go back to what was served before, for this reason.
    TurnBack(Reason, String),
    /// The target names what it did before, and pods of what was seen to be no better are still there.
    StillGoing(String),
    /// Serving is what it was before.
    Back,
    /// Nothing is wrong, and somebody or some time is waited for.
    Hold(Reason, String),
    /// The candidate has run long enough beside the target.
    Promote,
}

/// The bundle that the target's pod template names.
pub fn reference(deployment: &Deployment) -> Option<Digest> {
    annotation(deployment)?.parse().ok()
}

/// What the target's pod template names, be it a bundle or not.
pub fn annotation(deployment: &Deployment) -> Option<&str> {
    let template = deployment.spec.as_ref()?.template.metadata.as_ref()?;
    template.annotations.as_ref()?.get(BUNDLE_ANNOTATION).map(String::as_str)
}

/// A bundle, or that there is none, for people.
pub(crate) fn short(bundle: Option<&Digest>) -> &str {
    bundle.map_or(NOTHING, Digest::short)
}

/// The serving target, or what is wrong with it.
pub fn target<'a>(
    serving: &Serving,
    found: Option<&'a Deployment>,
) -> Result<&'a Deployment, (Reason, String)> {
    let Some(deployment) = found else {
        let message = format!(
            "Deployment {:?} does not exist in this namespace; create it, or correct spec.serving.target",
            serving.target.name
        );
        return Err((Reason::ServingTargetNotFound, message));
    };
    Ok(deployment)
}

/// The serving target, or why nothing new can be served by it. **Only a new bundle waits for this**: to go back, or
/// to set a changed reference back, needs the annotation alone.
pub fn able_target<'a>(
    serving: &Serving,
    found: Option<&'a Deployment>,
) -> Result<&'a Deployment, (Reason, String)> {
    let deployment = target(serving, found)?;
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    if pod.is_some_and(|pod| pod.containers.iter().any(|c| c.name == serving.container)) {
        return Ok(deployment);
    }
    let message = format!(
        "Deployment {:?} has no container {:?}; correct spec.serving.container",
        serving.target.name, serving.container
    );
    Err((Reason::ContainerNotFound, message))
}

/// What to do next about a rollout under way.
pub fn next(
    rollout: &Rollout,
    serving: &Serving,
    found: Option<&Deployment>,
    reports: &[PodReport],
    deadline_seconds: u32,
    now: Timestamp,
) -> Next {
    match rollout.state {
        // What is beside the target, or waits for others to change it, is not about its pods.
        RolloutState::Canary
        | RolloutState::Published
        | RolloutState::Complete
        | RolloutState::RolledBack => Next::Wait(Reason::Serving, String::new()),
        RolloutState::RollingBack => match target(serving, found) {
            Ok(deployment) if reference(deployment) != rollout.from => Next::Patch(rollout.from.clone()),
            Ok(deployment) if is_shown(rollout, deployment) => {
                Next::StillGoing("pods of the old template still run".into())
            }
            // Without a target nothing of the candidate is served either.
            _ => Next::Back,
        },
        // The time of the pods is over: an audit has a deadline of its own.
        RolloutState::Auditing => match able_target(serving, found) {
            Ok(deployment) if reference(deployment).as_ref() != Some(&rollout.to) => {
                Next::Patch(Some(rollout.to.clone()))
            }
            _ => Next::Audit,
        },
        RolloutState::Progressing => {
            let counts_from = rollout.written_again_at.as_ref().unwrap_or(&rollout.started_at).0;
            let late = now.duration_since(counts_from) > SignedDuration::from_secs(deadline_seconds.into());
            // The baseline has nothing to go back to: it is waited for.
            let can_turn_back = rollout.run.is_some();
            let waited = match able_target(serving, found) {
                Ok(deployment) if reference(deployment).as_ref() != Some(&rollout.to) => {
                    // Whoever promotes what is published is not hurried.
                    let is_published = serving.promotion == Promotion::Publish;
                    if is_published || !late || !can_turn_back || rollout.written_again_at.is_none() {
                        return Next::Patch(Some(rollout.to.clone()));
                    }
                    Next::Wait(Reason::RollingOut, refused_or_set_back(serving))
                }
                Ok(deployment) => {
                    match settled(deployment).and_then(|pods| confirmed(reports, pods, &rollout.to)) {
                        Ok(()) => return Next::Complete,
                        Err(why) => Next::Wait(Reason::RollingOut, why),
                    }
                }
                Err((reason, message)) => Next::Wait(reason, message),
            };
            match waited {
                Next::Wait(_, why) if late && can_turn_back => {
                    let why = format!("not in service within {deadline_seconds} s: {why}");
                    Next::TurnBack(Reason::RolloutTimedOut, why)
                }
                other => other,
            }
        }
    }
}

/// Whether pods of a target that goes back may still serve what the live server has shown to be no better.
pub(crate) fn is_shown(rollout: &Rollout, target: &Deployment) -> bool {
    let status = target.status.as_ref();
    let (all, updated) = (status.and_then(|it| it.replicas), status.and_then(|it| it.updated_replicas));
    let is_seen = status.and_then(|it| it.observed_generation) >= target.metadata.generation;
    let is_alone = is_seen && all.unwrap_or(0) <= updated.unwrap_or(0);
    rollout.turned_back_at.is_some()
        && audit::is_refuted(rollout)
        && !(is_alone && reference(target) == rollout.from)
}

fn refused_or_set_back(serving: &Serving) -> String {
    format!(
        "Deployment {:?} does not name it: the change is refused (see the model's events), or somebody sets it back (see \
         the annotation's owner in metadata.managedFields)",
        serving.target.name
    )
}

/// Whether the Deployment's newest template is what runs, completely and alone: the number of its pods.
pub fn settled(deployment: &Deployment) -> Result<usize, String> {
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if status.observed_generation < deployment.metadata.generation {
        return Err("the Deployment controller has not seen the change yet".into());
    }
    if wanted == 0 {
        return Err("the Deployment is scaled to zero: nothing can be confirmed".into());
    }
    let updated = status.updated_replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    let all = status.replicas.unwrap_or(0);
    if updated < wanted {
        return Err(format!("{updated} of {wanted} pods are of the new template"));
    }
    if all > updated {
        return Err(format!("{} pods of the old template still run", all - updated));
    }
    if available < wanted {
        return Err(format!("{available} of {wanted} pods are available"));
    }
    Ok(usize::try_from(wanted).unwrap_or_default())
}

/// The first pod that says that it serves something that may not be served, in words.
pub fn other_than(reports: &[PodReport], may_be_served: impl Fn(&Digest) -> bool) -> Option<String> {
    let told = |report: &PodReport| report.digest.clone().ok().filter(|digest| !may_be_served(digest));
    reports.iter().find_map(|report| {
        told(report).map(|digest| format!("pod {} says that it serves {}", report.pod, digest.short()))
    })
}

/// Whether every one of `pods` pods says that it serves `digest`.
pub fn confirmed(reports: &[PodReport], pods: usize, digest: &Digest) -> Result<(), String> {
    if reports.is_empty() || reports.len() < pods {
        return Err(format!("{} of {pods} pods have been asked what they serve", reports.len()));
    }
    for report in reports {
        match &report.digest {
            Ok(found) if found == digest => {}
            Ok(found) => {
                return Err(format!("pod {} serves {}, not {}", report.pod, found.short(), digest.short()));
            }
            Err(why) => return Err(format!("pod {} does not say what it serves: {why}", report.pod)),
        }
    }
    Ok(())
}
