//! What is shown, as data: `-o json` writes it, and the tree is drawn from it.

use jiff::Timestamp;
use kube::ResourceExt;
use lethe_api::{
    printable::printable,
    v1alpha1::{
        Attempts, ConditionType, DiffusionModel, GateResult, RequestPhase, Rollout, RunProgress, RunType,
        Strategy, UnlearnRequest, UnlearnRun, Verdict,
    },
};
use lethe_core::approval::{self, Standing};
use serde::Serialize;

use super::{Seen, next};
use crate::words;

/// Everything that is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    pub models: Vec<ModelView>,
    /// Requests whose model is not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<RequestView>,
    /// What could not be read, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelView {
    pub namespace: String,
    pub name: String,
    pub phase: Option<String>,
    /// `True`, `False` or `Unknown`, as the condition says.
    pub ready: Option<String>,
    pub compliant: Option<String>,
    /// How many labels it had to forget.
    pub forgotten: u32,
    /// Forgotten labels that may be shown now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<String>,
    pub served: Option<String>,
    pub served_for_seconds: Option<i64>,
    pub policy: String,
    /// Why it is not Ready, or what is under way, in the operator's words.
    pub why: Option<String>,
    pub rollout: Option<String>,
    pub audit: Option<String>,
    /// Commands that would bring it on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    /// The run at work that is for no request.
    pub run: Option<RunView>,
    pub requests: Vec<RequestView>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestView {
    pub namespace: String,
    pub name: String,
    pub model: String,
    pub phase: Option<RequestPhase>,
    pub targets: Vec<String>,
    /// What comes instead, in words.
    pub instead: String,
    pub is_pilot: bool,
    pub suspended: bool,
    /// The reason of the condition Ready, and its message: why it waits, and what to do.
    pub reason: Option<String>,
    pub why: Option<String>,
    pub due_at: Option<String>,
    pub left_seconds: Option<i64>,
    /// Whether the term still counts: not once it is Fulfilled or Denied.
    pub clock_runs: bool,
    pub approvals: Option<ApprovalsView>,
    pub attempts: Option<Attempts>,
    pub next_attempt_in_seconds: Option<i64>,
    pub gate_summary: Option<String>,
    pub run: Option<RunView>,
    /// Commands that would bring it on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    pub record: Option<String>,
}

/// Who has to agree.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalsView {
    pub required: usize,
    pub by: Vec<String>,
    /// Whose word does not count.
    pub not_by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunView {
    pub name: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<RunType>,
    pub phase: Option<String>,
    pub verdict: Option<Verdict>,
    pub progress: Option<RunProgress>,
    /// Why it waits, in the operator's words.
    pub why: Option<String>,
    pub gates: Vec<GateResult>,
}

/// What is shown of what was seen. With a name: of that model or request only.
///
/// # Errors
/// If there is nothing of that name.
pub fn view(seen: &Seen, name: Option<&str>, now: Timestamp) -> Result<View, String> {
    let asked = Asked::parse(name);
    let mut models: Vec<&DiffusionModel> = seen.models.iter().collect();
    models.sort_by_key(|model| (model.namespace(), model.name_any()));
    let of = |model: &DiffusionModel, whole: bool| {
        let is_of = |request: &&UnlearnRequest| {
            request.spec.model_ref.name == model.name_any() && request.namespace() == model.namespace()
        };
        let requests = sorted(seen.requests.iter().filter(is_of));
        let requests = requests.into_iter().filter(|request| whole || asked.is_request(request));
        requests.map(|request| request_view(seen, request, Some(model), now)).collect::<Vec<_>>()
    };
    let shown = models.into_iter().filter_map(|model| {
        let whole = asked.is_model(model);
        let requests = of(model, whole);
        (whole || !requests.is_empty()).then(|| model_view(seen, model, requests, now))
    });
    let shown: Vec<_> = shown.collect();
    let has_model = |request: &UnlearnRequest| {
        let is_its = |model: &DiffusionModel| {
            model.name_any() == request.spec.model_ref.name && model.namespace() == request.namespace()
        };
        seen.models.iter().any(is_its)
    };
    let orphans = seen.requests.iter().filter(|request| !has_model(request));
    let orphans = sorted(orphans.filter(|request| asked.is_request(request)));
    let orphans: Vec<_> = orphans.into_iter().map(|request| request_view(seen, request, None, now)).collect();
    if let (Some(name), true, true) = (name, shown.is_empty(), orphans.is_empty()) {
        return Err(format!("there is no model and no request {name:?}"));
    }
    Ok(View { models: shown, orphans, unread: seen.unread.clone() })
}

/// What was asked for by name.
struct Asked<'a> {
    model: Option<&'a str>,
    request: Option<&'a str>,
    everything: bool,
}

impl<'a> Asked<'a> {
    fn parse(name: Option<&'a str>) -> Self {
        let Some(name) = name else { return Self { model: None, request: None, everything: true } };
        match name.split_once('/') {
            Some(("dm" | "diffusionmodel" | "diffusionmodels", name)) => {
                Self { model: Some(name), request: None, everything: false }
            }
            Some(("ulr" | "unlearnrequest" | "unlearnrequests", name)) => {
                Self { model: None, request: Some(name), everything: false }
            }
            _ => Self { model: Some(name), request: Some(name), everything: false },
        }
    }

    fn is_model(&self, model: &DiffusionModel) -> bool {
        self.everything || self.model == Some(model.name_any().as_str())
    }

    fn is_request(&self, request: &UnlearnRequest) -> bool {
        self.everything || self.request == Some(request.name_any().as_str())
    }
}

/// By age, oldest first.
fn sorted<'a>(requests: impl Iterator<Item = &'a UnlearnRequest>) -> Vec<&'a UnlearnRequest> {
    let mut requests: Vec<_> = requests.collect();
    requests.sort_by_key(|request| {
        (request.namespace(), request.creation_timestamp().map(|at| at.0), request.name_any())
    });
    requests
}

fn model_view(seen: &Seen, model: &DiffusionModel, requests: Vec<RequestView>, now: Timestamp) -> ModelView {
    let status = model.status.clone().unwrap_or_default();
    let condition = |type_: ConditionType| type_.find(&status.conditions);
    let ready = condition(ConditionType::Ready);
    let run = status.active_run.as_deref().and_then(|name| seen.run(name, model));
    // A run for requests is shown at them.
    let run = run.filter(|run| run.spec.requests.is_empty()).map(run_view);
    let named = |kind: &str| if kind == "UnlearnPolicy" { String::new() } else { format!("{kind}/") };
    ModelView {
        namespace: model.namespace().unwrap_or_default(),
        name: model.name_any(),
        phase: status.phase.map(|phase| format!("{phase:?}")),
        ready: ready.map(|c| c.status.clone()),
        compliant: condition(ConditionType::Compliant).map(|c| c.status.clone()),
        forgotten: status.forgotten.unwrap_or_default(),
        exposed: status.exposed.clone(),
        served: status.served.as_ref().map(|served| served.digest.to_string()),
        served_for_seconds: status.served.as_ref().map(|served| words::seconds(served.since.0, now)),
        policy: named(&format!("{:?}", model.spec.policy_ref.kind)) + &model.spec.policy_ref.name,
        why: ready.filter(|c| c.status != "True").map(|c| printable(&c.message)),
        rollout: status.rollout.as_ref().and_then(rollout),
        audit: status.audit.as_ref().map(|audit| {
            format!("{:?} {} ago, of {}", audit.verdict, ago(audit.at.0, now), audit.digest.short())
        }),
        next: next::of_model(model),
        run,
        requests,
    }
}

fn ago(then: Timestamp, now: Timestamp) -> String {
    words::span(words::seconds(then, now))
}

/// A change of serving that is under way, or was turned back.
fn rollout(rollout: &Rollout) -> Option<String> {
    let is_back = rollout.state == lethe_api::v1alpha1::RolloutState::RolledBack;
    if !rollout.state.is_under_way() && !is_back {
        return None;
    }
    let at = rollout.canary.as_ref().map(|canary| format!(", canary {}", canary.at)).unwrap_or_default();
    let why = rollout.message.as_deref().map(|why| format!(": {}", printable(why))).unwrap_or_default();
    Some(format!("{:?} to {}{at}{why}", rollout.state, rollout.to.short()))
}

fn request_view(
    seen: &Seen,
    request: &UnlearnRequest,
    model: Option<&DiffusionModel>,
    now: Timestamp,
) -> RequestView {
    let status = request.status.clone().unwrap_or_default();
    let ready = ConditionType::Ready.find(&status.conditions);
    let due = status.due_at.as_ref().map(|due| due.0).or_else(|| {
        let subject = request.spec.data_subject_request.as_ref()?;
        let known = lethe_core::deadline::Terms::of(&subject.regulation, &[]).ok()?;
        lethe_core::deadline::due_at(subject, request.creation_timestamp().map(|at| at.0), &known)
    });
    let answered = matches!(status.phase, Some(RequestPhase::Fulfilled | RequestPhase::Denied));
    let next_at = status.attempts.as_ref().and_then(|attempts| attempts.next_at.as_ref());
    let run = status.run.as_ref().map(|run| match seen.run(&run.name, request) {
        Some(run) => RunView { gates: status.gates.clone(), ..run_view(run) },
        None => RunView {
            name: run.name.clone(),
            type_: None,
            phase: None,
            verdict: None,
            progress: status.progress.clone(),
            why: None,
            gates: status.gates.clone(),
        },
    });
    RequestView {
        namespace: request.namespace().unwrap_or_default(),
        name: request.name_any(),
        model: request.spec.model_ref.name.clone(),
        phase: status.phase,
        targets: request.spec.targets.iter().map(|target| printable(&target.label)).collect(),
        instead: instead(request),
        is_pilot: request.spec.mode == lethe_api::v1alpha1::Mode::Pilot,
        suspended: request.spec.suspend,
        reason: ready.map(|c| c.reason.clone()),
        why: ready.map(|c| printable(&c.message)).filter(|why| !why.is_empty()),
        due_at: due.map(|due| due.to_string()),
        left_seconds: due.map(|due| words::seconds(now, due)),
        clock_runs: !answered,
        approvals: model.and_then(|model| approvals(seen, request, model)),
        next_attempt_in_seconds: next_at.map(|at| words::seconds(now, at.0)),
        attempts: status.attempts.clone(),
        gate_summary: status.gate_summary.clone(),
        run,
        next: next::of_request(seen, request, model),
        record: status.record.as_ref().map(ToString::to_string),
    }
}

fn instead(request: &UnlearnRequest) -> String {
    let replacement = &request.spec.replacement;
    match (replacement.strategy, &replacement.label) {
        (Strategy::Fixed, Some(label)) => printable(label),
        (Strategy::Fixed | Strategy::Nearest, _) => "the nearest label".into(),
        (Strategy::Random, _) => "any kept label".into(),
    }
}

fn approvals(seen: &Seen, request: &UnlearnRequest, model: &DiffusionModel) -> Option<ApprovalsView> {
    let policy = seen.policy_of(model)?;
    let required = usize::from(policy.approvals.required);
    let by = match approval::standing(request, policy, Some(&seen.approvals)) {
        Standing::Approved(by) | Standing::Waits { by, .. } => by,
        Standing::RequesterUnknown | Standing::NotProtected => vec![],
        Standing::NotAsked | Standing::Denied { .. } => return None,
    };
    Some(ApprovalsView { required, by, not_by: request.spec.requested_by.clone() })
}

fn run_view(run: &UnlearnRun) -> RunView {
    let status = run.status.clone().unwrap_or_default();
    let ready = ConditionType::Ready.find(&status.conditions);
    RunView {
        name: run.name_any(),
        type_: Some(run.spec.type_),
        phase: status.phase.map(|phase| format!("{phase:?}")),
        verdict: status.verdict,
        progress: status.progress.filter(|_| ready.is_none_or(|c| c.status == "Unknown")),
        why: ready.filter(|c| c.status != "True").map(|c| printable(&c.message)),
        gates: status.gates,
    }
}
