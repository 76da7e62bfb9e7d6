//! What to do next, as commands. Why it is so, and what has to be mended first, the operator's messages say.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use lethe_api::v1alpha1::{
    ConditionType, DiffusionModel, Mode, PolicyKind, PolicyRef, Reason, RequestPhase, RolloutState,
    UnlearnRequest,
};
use lethe_core::kueue;

use super::Seen;

/// Where no operator has said anything yet.
const NOBODY: &str = "kubectl get lease -A    # nobody has looked at it: is an operator running?";

/// Commands that would bring a request on, the likeliest first.
pub(super) fn of_request(
    seen: &Seen,
    request: &UnlearnRequest,
    model: Option<&DiffusionModel>,
) -> Vec<String> {
    let (name, at) = (request.name_any(), place(request));
    let status = request.status.clone().unwrap_or_default();
    let ready = ConditionType::Ready.find(&status.conditions);
    let is = |reason: Reason| ready.is_some_and(|c| c.reason == reason.to_string());
    let lethe = |rest: String| format!("kubectl lethe {rest}{at}");
    let resume = || {
        let patch = r#"--type=merge -p '{"spec":{"suspend":false}}'"#;
        format!("kubectl patch unlearnrequest {name}{at} {patch}")
    };
    let Some(phase) = status.phase else {
        return vec![NOBODY.into()];
    };
    match phase {
        _ if request.spec.suspend && ready.is_none_or(|c| c.status == "Unknown") => vec![resume()],
        RequestPhase::AwaitingApproval if is(Reason::WaitingForApproval) => {
            let other = request.spec.requested_by.as_deref().unwrap_or("who asked");
            vec![lethe(format!("approve {name} --reason WHY")) + &format!("    # not as {other}")]
        }
        RequestPhase::AwaitingApproval if is(Reason::RequesterUnknown) => {
            vec![format!(
                "kubectl delete unlearnrequest {name}{at}    # and create one with spec.requestedBy, as that person"
            )]
        }
        _ if is(Reason::ApprovalsNotProtected) => {
            vec!["helm upgrade ... --set admission.enabled=true    # until then nobody's word counts".into()]
        }
        _ if is(Reason::SigningKeyUnusable)
            || is(Reason::AuditLogUnavailable)
            || is(Reason::EvidenceUnavailable) =>
        {
            vec!["kubectl get events -A --field-selector type=Warning    # the key, the log or the store has to be mended".into()]
        }
        RequestPhase::Training | RequestPhase::Evaluating if has_no_pod_at_work(ready) => {
            let work = "kubectl describe jobs,pods -l app.kubernetes.io/managed-by=lethe";
            vec![format!("{work}{at}    # the image, the node or the quota")]
        }
        RequestPhase::Pending if is(Reason::ModelNotFound) || is(Reason::PolicyNotFound) => {
            let kinds = "diffusionmodels,unlearnpolicies,clusterunlearnpolicies";
            vec![format!("kubectl get {kinds}{at}    # what it names has to be there")]
        }
        RequestPhase::RollingOut if waits_for_people(seen, model) => {
            vec![lethe(format!("approve {name} --rollout --reason WHY"))]
        }
        RequestPhase::RollingOut if is(Reason::WaitingForPromotion) => {
            let model = &request.spec.model_ref.name;
            let published = "-o jsonpath='{.status.published.bundle}'";
            vec![format!("kubectl get diffusionmodel {model}{at} {published}    # commit that")]
        }
        RequestPhase::Training | RequestPhase::Evaluating if ready.is_some_and(kueue::is_in_a_queue) => {
            vec![format!("kubectl get localqueues,workloads{at}    # who goes before it, or what is missing")]
        }
        RequestPhase::Queued if status.attempts.is_some_and(|attempts| attempts.next_at.is_some()) => {
            vec![lethe(format!("retry {name}")) + "    # does not wait any longer"]
        }
        RequestPhase::Held | RequestPhase::Failed => {
            vec![lethe(format!("retry {name}")) + "    # once that is mended"]
        }
        RequestPhase::Aborted => vec![lethe(format!("retry {name}"))],
        RequestPhase::Reexposed => {
            vec![
                lethe(format!("get dm/{}", request.spec.model_ref.name))
                    + "    # what is served has to be put right",
            ]
        }
        RequestPhase::Denied => {
            vec![format!("kubectl delete unlearnrequest {name}{at}    # and create one that makes sense")]
        }
        RequestPhase::Tried if request.spec.mode == Mode::Pilot => {
            vec!["the same request with mode: Enforce has it forgotten".into()]
        }
        _ => ready
            .filter(|c| c.status == "Unknown")
            .and_then(|c| of_reason(request, model, c))
            .into_iter()
            .collect(),
    }
}

/// Of a request that waits, where the phase says nothing more than the reason does.
fn of_reason(request: &UnlearnRequest, of: Option<&DiffusionModel>, ready: &Condition) -> Option<String> {
    let (name, at, model) = (request.name_any(), place(request), &request.spec.model_ref.name);
    let is = |reason: Reason| ready.reason == reason.to_string();
    if goes_on(&ready.reason) {
        return None;
    }
    let policy = || match of.map(|model| &model.spec.policy_ref) {
        Some(PolicyRef { kind: PolicyKind::ClusterUnlearnPolicy, name }) => {
            format!("kubectl edit clusterunlearnpolicy {name}")
        }
        Some(PolicyRef { name, .. }) => format!("kubectl edit unlearnpolicy {name}{at}"),
        None => format!("kubectl edit unlearnpolicies{at}"),
    };
    Some(if is(Reason::WaitingForModel) {
        format!("kubectl lethe get dm/{model}{at}    # what it waits for")
    } else if is(Reason::PolicyNotWatched) {
        format!(
            "kubectl edit diffusionmodel {model}{at}    # this operator sees UnlearnPolicies alone: name one"
        )
    } else if is(Reason::LegalTermUnknown) {
        policy() + "    # legalTerms has to name the regulation"
    } else if is(Reason::GateOutOfReach) {
        policy() + "    # the gate wants more than can be measured"
    } else if is(Reason::WaitingForReference) {
        format!(
            "kubectl edit diffusionmodel {model}{at}    # spec.neverSaw, or the policy's maxAboveNeverSaw"
        )
    } else {
        format!("kubectl describe unlearnrequest {name}{at}    # its message says what has to be mended")
    })
}

/// What nobody has to do anything about.
pub(super) fn goes_on(reason: &str) -> bool {
    let by_itself = [
        Reason::WaitingForRun,
        Reason::WaitingForAttempt,
        Reason::WaitingForOthers,
        Reason::Duplicate,
        Reason::Aborting,
        Reason::WaitingForServing,
        Reason::Preempted,
        Reason::Preparing,
        Reason::Training,
        Reason::Evaluating,
        Reason::Auditing,
        Reason::Signing,
        Reason::RollingOut,
    ];
    by_itself.iter().any(|known| *reason == known.to_string())
}

/// What somebody has to do something about before any pod works.
fn has_no_pod_at_work(ready: Option<&Condition>) -> bool {
    let stuck =
        [Reason::ImageUnavailable, Reason::Unschedulable, Reason::PodNotCreated, Reason::PodNotStarted];
    ready.is_some_and(|c| stuck.iter().any(|reason| c.reason == reason.to_string()))
}

/// Commands that would bring a model on.
pub(super) fn of_model(model: &DiffusionModel) -> Vec<String> {
    let (name, at) = (model.name_any(), place(model));
    let Some(status) = model.seen() else {
        return vec![NOBODY.into()];
    };
    let ready = ConditionType::Ready.find(&status.conditions);
    let stands = ready.filter(|c| c.status == "False" || c.status == "Unknown" && !goes_on(&c.reason));
    stands
        .map(|_| vec![format!("kubectl describe diffusionmodel {name}{at}    # its events say more")])
        .unwrap_or_default()
}

fn place(object: &impl ResourceExt) -> String {
    object.namespace().map(|namespace| format!(" -n {namespace}")).unwrap_or_default()
}

/// Whether a candidate waits at a step of its roll-out for people.
fn waits_for_people(seen: &Seen, model: Option<&DiffusionModel>) -> bool {
    let Some(model) = model else { return false };
    let rollout = model.status.as_ref().and_then(|status| status.rollout.as_ref());
    let Some(rollout) = rollout.filter(|rollout| rollout.state == RolloutState::Canary) else { return false };
    let Some(canary) = &rollout.canary else { return false };
    let run = rollout.run.as_deref().and_then(|name| seen.run(name, model));
    let steps = run.map(|run| &run.spec.policy.rollout.steps);
    let step = steps.and_then(|steps| steps.get((canary.step as usize).checked_sub(1)?));
    match step {
        Some(step) => step.approval.is_some(),
        None => canary.at.ends_with("approval"),
    }
}
