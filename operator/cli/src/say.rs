//! `approve` and `deny`: one person's word on a request, as an `UnlearnApproval`.

use kube::{Resource, ResourceExt, api::PostParams};
use lethe_api::{
    Digest,
    v1alpha1::{
        ApprovalDecision, ApprovedRequest, ApprovedStep, DiffusionModel, RequestPhase, RolloutState,
        UnlearnApproval, UnlearnApprovalSpec, UnlearnRequest,
    },
};
use serde_json::json;

use crate::{
    args::{ClusterArgs, Format, Say},
    cluster::Place,
    exit::{Exit, Result, Trouble},
    refusal, term, write_data,
};

pub use lethe_api::v1alpha1::ApprovalDecision as Decision;

/// # Errors
/// If the word would count for nothing, or the API server refuses it.
pub async fn run(cluster: &ClusterArgs, say: &Say, decision: ApprovalDecision) -> Result<Exit> {
    let place = Place::open(cluster, false).await?;
    let request = place.request(&say.request).await?;
    let model =
        match say.rollout {
            true => {
                let name = &request.spec.model_ref.name;
                let got = place.api::<DiffusionModel>().get(name).await;
                Some(got.map_err(|error| {
                    refusal::of(&format!("read model {name}"), Some("lethe-approve"), &error)
                })?)
            }
            false => None,
        };
    let who = place.whoami().await?;
    let approval =
        approval(&request, model.as_ref(), decision, &who, &say.reason).map_err(Trouble::not_right)?;
    let name = approval.name_any();
    match place.api::<UnlearnApproval>().create(&PostParams::default(), &approval).await {
        Ok(created) => tell(&created, &request, say.output.output),
        Err(kube::Error::Api(status)) if status.code == 409 => Err(Trouble::not_right(format!(
            "{who} has said this already, in UnlearnApproval {name}; it cannot be changed"
        ))),
        Err(error) => {
            Err(refusal::of(&format!("create UnlearnApproval {name}"), Some("lethe-approve"), &error))
        }
    }
}

fn tell(created: &UnlearnApproval, request: &UnlearnRequest, format: Format) -> Result<Exit> {
    if format != Format::Text {
        write_data(created, format)?;
        return Ok(Exit::Fine);
    }
    let spec = &created.spec;
    let verb = match spec.decision {
        ApprovalDecision::Approve => "approved",
        ApprovalDecision::Deny => "denied",
    };
    let what = match &spec.rollout {
        Some(step) => format!("step {} of the roll-out of {}", step.step, step.digest.short()),
        None => format!("request {}", request.name_any()),
    };
    let text = format!(
        "{what} {verb} by {} (UnlearnApproval {})\nSee what follows: kubectl lethe get {} -n {}\n",
        spec.approver,
        created.name_any(),
        request.name_any(),
        request.namespace().unwrap_or_default(),
    );
    term::write(&text)?;
    Ok(Exit::Fine)
}

/// What a person says, as it is created; with a model it is about the step at which its roll-out waits.
///
/// # Errors
/// Why it would count for nothing, and what to do instead.
pub fn approval(
    request: &UnlearnRequest,
    model: Option<&DiffusionModel>,
    decision: ApprovalDecision,
    who: &str,
    reason: &str,
) -> std::result::Result<UnlearnApproval, String> {
    let (name, uid) = (request.name_any(), request.uid().unwrap_or_default());
    if reason.trim().is_empty() {
        return Err("--reason is empty: say why".into());
    }
    if request.spec.requested_by.as_deref() == Some(who) {
        return Err(format!(
            "{who} has made request {name}: nobody's word on their own request counts. Somebody else has to say it; \
             deleting the request takes it back"
        ));
    }
    let step = match model {
        Some(model) => Some(step(model, decision)?),
        None => {
            may_be_heard(request, decision)?;
            None
        }
    };
    let verb = if decision == ApprovalDecision::Approve { "approve" } else { "deny" };
    let about = json!([uid, who, verb, step]).to_string();
    let short: String = name.chars().take(200).collect();
    let name_of_it = format!("{short}-{verb}-{}", &Digest::of(about).hex()[..8]);
    let spec = UnlearnApprovalSpec {
        request_ref: ApprovedRequest { name, uid },
        decision,
        rollout: step,
        approver: who.into(),
        reason: reason.into(),
    };
    let mut approval = UnlearnApproval::new(&name_of_it, spec);
    approval.meta_mut().namespace = request.namespace();
    Ok(approval)
}

/// A word on a request counts until a run works for it.
fn may_be_heard(request: &UnlearnRequest, decision: ApprovalDecision) -> std::result::Result<(), String> {
    use RequestPhase::{AwaitingApproval, Denied, Fulfilled, Pending, Queued, Reexposed, RollingOut, Tried};
    let name = request.name_any();
    let phase = request.status.as_ref().and_then(|status| status.phase);
    match (phase, decision) {
        (Some(RollingOut), _) => {
            Err(format!("request {name} is being rolled out: to speak about its candidate, add --rollout"))
        }
        (Some(phase @ (Denied | Fulfilled | Tried | Reexposed)), _) => {
            Err(format!("request {name} is {phase:?}: it has its answer, and keeps it"))
        }
        (None | Some(Pending | AwaitingApproval | Queued), _) => Ok(()),
        (Some(phase), _) => Err(format!(
            "request {name} is {phase:?}: it does not wait for anybody's word. `kubectl lethe abort {name}` gives it up"
        )),
    }
}

/// The step at which a candidate stands beside the serving target.
fn step(model: &DiffusionModel, decision: ApprovalDecision) -> std::result::Result<ApprovedStep, String> {
    let name = model.name_any();
    let rollout = model.status.as_ref().and_then(|status| status.rollout.as_ref());
    let Some(rollout) = rollout.filter(|rollout| rollout.state.leaves_target_alone()) else {
        return Err(format!("no candidate of model {name} waits beside its serving target, or is published"));
    };
    if rollout.state == RolloutState::Published && decision == ApprovalDecision::Approve {
        return Err(format!(
            "the candidate {} of model {name} is published: it waits for whoever owns its Deployment, and for nobody's word",
            rollout.to.short()
        ));
    }
    let at = rollout.canary.as_ref().map_or(0, |canary| canary.step);
    // A no counts at whichever step; a yes is to one.
    if at == 0 && decision == ApprovalDecision::Approve {
        return Err(format!(
            "the candidate {} of model {name} is still asked where nobody sees it; it has come to no step yet",
            rollout.to.short()
        ));
    }
    Ok(ApprovedStep { digest: rollout.to.clone(), step: at.max(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(phase: Option<&str>) -> UnlearnRequest {
        let status = phase.map(|phase| json!({"phase": phase}));
        serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRequest",
            "metadata": {"name": "forget-three", "namespace": "studio", "uid": "u-1"},
            "spec": {
                "modelRef": {"name": "digits"}, "targets": [{"label": "3"}],
                "override": {"strategy": "Fixed", "label": "8"}, "requestedBy": "alice",
            },
            "status": status,
        }))
        .unwrap()
    }

    fn model(step: u32) -> DiffusionModel {
        let digest = Digest::of("candidate");
        serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "DiffusionModel", "metadata": {"name": "digits"},
            "spec": {
                "base": {"uri": "file:///base", "digest": digest}, "policyRef": {"name": "standard"},
                "serving": {
                    "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"}, "container": "server",
                },
            },
            "status": {"rollout": {
                "to": digest, "startedAt": "2026-11-27T12:00:00Z", "state": "Canary",
                "canary": {
                    "name": "digits-canary", "step": step, "at": "3/3", "since": "2026-11-27T12:00:00Z", "replicas": 1,
                },
            }},
        }))
        .unwrap()
    }

    #[test]
    fn an_approval_names_the_very_request_and_who_says_it() {
        let said =
            approval(&request(Some("AwaitingApproval")), None, ApprovalDecision::Approve, "bob", "lawful")
                .unwrap();
        assert_eq!((said.spec.request_ref.uid.as_str(), said.spec.approver.as_str()), ("u-1", "bob"));
        assert_eq!(said.namespace().as_deref(), Some("studio"));
        let again =
            approval(&request(Some("Pending")), None, ApprovalDecision::Approve, "bob", "still").unwrap();
        assert_eq!(said.name_any(), again.name_any(), "said twice, it is there once");
        let no = approval(&request(None), None, ApprovalDecision::Deny, "bob", "no").unwrap();
        assert_ne!(said.name_any(), no.name_any());
    }

    #[test]
    fn a_word_that_would_not_count_is_not_said() {
        let refused = |phase: Option<&str>, who: &str, reason: &str| {
            approval(&request(phase), None, ApprovalDecision::Approve, who, reason).unwrap_err()
        };
        assert!(refused(Some("AwaitingApproval"), "alice", "mine").contains("their own request"));
        assert!(refused(Some("AwaitingApproval"), "bob", " ").contains("--reason"));
        assert!(refused(Some("Fulfilled"), "bob", "late").contains("has its answer"));
        assert!(refused(Some("Training"), "bob", "late").contains("kubectl lethe abort"));
        assert!(refused(Some("RollingOut"), "bob", "well").contains("--rollout"));
    }

    #[test]
    fn a_step_of_a_roll_out_is_that_at_which_the_candidate_stands() {
        let of = |step| {
            let model = model(step);
            approval(&request(Some("RollingOut")), Some(&model), ApprovalDecision::Approve, "bob", "well")
        };
        let step = of(3).unwrap().spec.rollout.unwrap();
        assert_eq!((step.step, step.digest), (3, Digest::of("candidate")));
        assert!(of(0).unwrap_err().contains("no step yet"));
    }
}
