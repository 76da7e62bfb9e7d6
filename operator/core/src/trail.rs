//! What of a decision the audit log says: each of its effects, and what an auditor asks for of what it writes into a status.
//!
//! That is what somebody could later dispute: who was let in and who was not, what was found, what is served, and what became
//! of a request. That a pod waits for a node, and how far it has come, is not; it is in the status as long as the object is.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use lethe_api::{
    Digest,
    v1alpha1::{
        BUNDLE_ANNOTATION, ConditionType, DiffusionModel, DiffusionModelStatus, Rollout, RolloutState,
        UnlearnRequest, UnlearnRequestStatus, UnlearnRun, UnlearnRunStatus,
    },
};
use lethe_transparency::{Action, Object, Said, Upshot};
use serde_json::Value;

use crate::{Effect, FINALIZER, rollout};

/// An object as the log names it.
pub fn named<K: Resource<DynamicType = ()>>(object: &K) -> Object {
    Object {
        kind: K::kind(&()).into_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    }
}

/// One entry under construction.
struct Entry {
    action: Action,
    object: Object,
    before: String,
    after: String,
    digests: BTreeMap<String, Digest>,
    reason: String,
}

impl Entry {
    fn of(action: Action, object: Object) -> Self {
        let (before, after, digests, reason) = Default::default();
        Self { action, object, before, after, digests, reason }
    }

    fn before(self, before: impl ToString) -> Self {
        Self { before: before.to_string(), ..self }
    }

    fn after(self, after: impl ToString) -> Self {
        Self { after: after.to_string(), ..self }
    }

    fn reason(self, reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), ..self }
    }

    fn digest(mut self, name: &str, digest: Option<&Digest>) -> Self {
        self.digests.extend(digest.map(|digest| (name.to_owned(), digest.clone())));
        self
    }

    fn intent(self) -> Said {
        let Self { action, object, before, after, digests, reason } = self;
        Said::Intent { action, object, before, after, digests, reason }
    }

    fn decision(self) -> Said {
        let Self { action, object, before, after, digests, reason } = self;
        Said::Decision { action, object, before, after, digests, reason }
    }
}

/// What is said before an effect of a decision about `of` is carried out.
pub fn intent(effect: &Effect, of: &Object) -> Said {
    let other = |kind: &str, name: &str, uid: &str| Object {
        kind: kind.into(),
        namespace: of.namespace.clone(),
        name: name.into(),
        uid: uid.into(),
    };
    let by_name = |kind: &str, name: &str| other(kind, name, "");
    let created =
        |kind: &str, object: &dyn Fn() -> String| Entry::of(Action::Create, by_name(kind, &object()));
    let entry = match effect {
        Effect::CreateRun(run) => created("UnlearnRun", &|| run.name_any())
            .reason(format!("{:?}", run.spec.type_))
            .digest("plan", Some(&run.spec.plan_digest)),
        Effect::CreateConfigMap(map) => created("ConfigMap", &|| map.name_any()),
        Effect::CreateJob(job) => created("Job", &|| job.name_any()),
        Effect::CreateService(service) => created("Service", &|| service.name_any()),
        Effect::CreateDeployment(deployment) => created("Deployment", &|| deployment.name_any())
            .digest("bundle", rollout::reference(deployment).as_ref()),
        Effect::DeleteJob { name, uid } => {
            Entry::of(Action::Delete, other("Job", name, uid.as_deref().unwrap_or_default()))
        }
        Effect::DeleteRun { name, uid } => Entry::of(Action::Delete, other("UnlearnRun", name, uid)),
        Effect::DeleteService { name, uid } => Entry::of(Action::Delete, other("Service", name, uid)),
        Effect::DeleteDeployment { name, uid } => Entry::of(Action::Delete, other("Deployment", name, uid)),
        Effect::PatchServing { deployment, bundle, change } => {
            Entry::of(Action::Serve, by_name("Deployment", deployment))
                .after(bundle.as_ref().map_or(NOTHING, Digest::as_str))
                .digest("bundle", bundle.as_ref())
                .reason(format!("{change:?}"))
        }
        Effect::ScaleServing { deployment, replicas } => {
            Entry::of(Action::Scale, by_name("Deployment", deployment)).after(replicas)
        }
        Effect::ShapeCanary { name, uid, replicas, .. } => {
            Entry::of(Action::ShapeCanary, other("Deployment", name, uid)).after(replicas)
        }
        Effect::MarkPromoted { run, uid, condition } => {
            Entry::of(Action::MarkPromoted, other("UnlearnRun", run, uid))
                .after(&condition.status)
                .reason(&condition.reason)
        }
        Effect::ArchiveLedger(map) => Entry::of(Action::ArchiveLedger, by_name("ConfigMap", &map.name_any())),
        Effect::SetLedgerAside(map) => {
            Entry::of(Action::ArchiveLedger, by_name("ConfigMap", &map.name_any())).reason("SetAside")
        }
        Effect::AddFinalizer => Entry::of(Action::AddFinalizer, of.clone()),
        Effect::RemoveFinalizer => Entry::of(Action::RemoveFinalizer, of.clone()),
    };
    entry.intent()
}

/// What is served where nothing is.
pub const NOTHING: &str = "nothing";

/// Why something is published that was not served before.
const ROLL_OUT: &str = "RollOut";

/// Whether a decision is not to be carried out at all before the log has it: nothing is promoted, or published to be served, that it
/// cannot say.
pub fn must_be_said_first(said: &Said) -> bool {
    match said {
        Said::Decision { action: Action::Promote, .. } => true,
        Said::Decision { action: Action::Serve, reason, .. } => reason == ROLL_OUT,
        _ => false,
    }
}

/// What is decided about a request, where its status changes to `after`.
pub fn of_request(request: &UnlearnRequest, after: &UnlearnRequestStatus) -> Vec<Said> {
    let before = request.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let turned = |type_| turned(type_, before, &after.conditions);
    let says = |action, now: &Condition| Entry::of(action, named(request)).reason(&now.reason);
    let mut said = Vec::new();
    let answers = [
        (ConditionType::Accepted, Action::Accept, Action::Refuse),
        (ConditionType::Approved, Action::Approve, Action::Deny),
        (ConditionType::Fulfilled, Action::Fulfil, Action::Reexpose),
    ];
    let mut is_closed = false;
    for (type_, yes, no) in answers {
        let Some(now) = turned(type_) else { continue };
        let action = if now.status == "True" { yes } else { no };
        is_closed |= now.status == "False";
        let record = after.record.as_ref().filter(|_| action == Action::Fulfil);
        said.push(says(action, now).digest("record", record).decision());
    }
    // Held, failed, withdrawn: whatever else ends it.
    if let Some(now) = turned(ConditionType::Ready).filter(|now| now.status == "False" && !is_closed) {
        let phase = after.phase.map(|phase| format!("{phase:?}")).unwrap_or_default();
        said.push(says(Action::Close, now).after(phase).digest("record", after.record.as_ref()).decision());
    }
    said
}

/// What is decided about a run.
pub fn of_run(run: &UnlearnRun, after: &UnlearnRunStatus) -> Vec<Said> {
    let before = run.status.clone().unwrap_or_default();
    let plan = Some(&run.spec.plan_digest);
    if let (None, Some(verdict)) = (before.verdict, after.verdict) {
        let record = after.jobs.last().and_then(|job| job.record.as_ref());
        let judged = Entry::of(Action::Judge, named(run)).after(format!("{verdict:?}"));
        let judged = judged.digest("plan", plan).digest("candidate", after.candidate.as_ref());
        return vec![judged.digest("record", record).decision()];
    }
    let failed = turned(ConditionType::Ready, &before.conditions, &after.conditions);
    let failed = failed.filter(|now| now.status == "False");
    let entry =
        |now: &Condition| Entry::of(Action::Fail, named(run)).reason(&now.reason).digest("plan", plan);
    failed.map(|now| entry(now).decision()).into_iter().collect()
}

/// What is decided about a model.
pub fn of_model(model: &DiffusionModel, after: &DiffusionModelStatus) -> Vec<Said> {
    let before = model.status.clone().unwrap_or_default();
    let mut said = of_rollout(model, before.rollout.as_ref(), after.rollout.as_ref());
    said.extend(of_publication(model, &before, after));
    if let Some(audit) = after.audit.as_ref().filter(|audit| before.audit.as_ref() != Some(audit)) {
        let found = Entry::of(Action::Audit, named(model)).after(format!("{:?}", audit.verdict));
        said.push(found.digest("served", Some(&audit.digest)).decision());
    }
    if let Some(now) = turned(ConditionType::Compliant, &before.conditions, &after.conditions) {
        let was = ConditionType::Compliant.find(&before.conditions).map_or("", |was| was.status.as_str());
        let complies = Entry::of(Action::Comply, named(model)).before(was).after(&now.status);
        said.push(complies.reason(&now.reason).decision());
    }
    said
}

/// What the target is to name from now on, where somebody else changes it.
fn of_publication(
    model: &DiffusionModel,
    before: &DiffusionModelStatus,
    after: &DiffusionModelStatus,
) -> Option<Said> {
    let name = |status: &DiffusionModelStatus| {
        let bundle = status.published.as_ref().map(|published| published.bundle.clone());
        bundle.map(|bundle| bundle.map_or_else(|| NOTHING.to_owned(), |bundle| bundle.to_string()))
    };
    let (was, now) = (name(before), name(after).filter(|now| name(before).as_ref() != Some(now))?);
    let bundle = after.published.as_ref().and_then(|published| published.bundle.as_ref());
    let rollout = after.rollout.as_ref().filter(|rollout| rollout.state.is_under_way());
    let why = match rollout {
        _ if bundle.is_none() => "TakeOut",
        Some(rollout) if rollout.state != RolloutState::RollingBack && Some(&rollout.to) == bundle => {
            ROLL_OUT
        }
        Some(_) => "GoBack",
        None => "SetBack",
    };
    let published = Entry::of(Action::Serve, named(model)).before(was.unwrap_or_default()).after(now);
    Some(published.digest("bundle", bundle).reason(why).decision())
}

fn of_rollout(model: &DiffusionModel, before: Option<&Rollout>, after: Option<&Rollout>) -> Vec<Said> {
    let Some(now) = after else { return Vec::new() };
    // The time at which it began changes when a canary is over.
    let was = before.filter(|was| was.to == now.to && was.run == now.run && is_one(was, now));
    let entry = |action| {
        Entry::of(action, named(model))
            .before(now.from.as_ref().map_or(NOTHING, Digest::as_str))
            .after(&now.to)
            .digest("bundle", Some(&now.to))
    };
    let mut said = Vec::new();
    if was.is_none() {
        let how = if now.canary.is_some() { "Canary" } else { "Immediate" };
        said.push(entry(Action::BeginRollout).reason(how).decision());
    }
    let had = was.map(|was| was.state);
    let has_turned = matches!(now.state, RolloutState::RollingBack | RolloutState::RolledBack);
    let had_turned = matches!(had, Some(RolloutState::RollingBack | RolloutState::RolledBack));
    if has_turned && !had_turned {
        let why = now.reason.map(|reason| reason.to_string()).unwrap_or_default();
        said.push(entry(Action::TurnBack).reason(why).decision());
    }
    if now.state == RolloutState::Complete && had != Some(RolloutState::Complete) {
        said.push(entry(Action::Promote).decision());
    }
    said
}

/// Whether they are the same roll-out at two times: one that is over does not begin again.
fn is_one(was: &Rollout, now: &Rollout) -> bool {
    was.state.is_under_way() || was.state == now.state
}

/// The condition, if it has become True or False that was not.
fn turned<'a>(type_: ConditionType, before: &[Condition], after: &'a [Condition]) -> Option<&'a Condition> {
    let now = type_.find(after).filter(|now| now.status != "Unknown")?;
    type_.find(before).is_none_or(|was| was.status != now.status).then_some(now)
}

/// Whether what a predecessor was about to do when it died was done, from what is there now: `live` is the object, as JSON, if
/// it is there.
pub fn found(said: &Said, live: Option<&Value>) -> Upshot {
    let (Said::Intent { action, object, after, reason, .. }
    | Said::Decision { action, object, after, reason, .. }) = said
    else {
        return Upshot::Unknown;
    };
    let is_it = |live: &&Value| object.uid.is_empty() || live["metadata"]["uid"] == *object.uid;
    let live = live.filter(is_it);
    let is_done = match (action, live) {
        (Action::Create, live) => live.is_some(),
        // That it is there does not say that it has what it was to get.
        (Action::ArchiveLedger, Some(_)) => return Upshot::Unknown,
        (Action::ArchiveLedger, None) => false,
        (Action::Delete | Action::RemoveFinalizer, None) => true,
        (Action::Delete, Some(live)) => !live["metadata"]["deletionTimestamp"].is_null(),
        (Action::AddFinalizer | Action::RemoveFinalizer, Some(live)) => {
            let has = live["metadata"]["finalizers"]
                .as_array()
                .is_some_and(|all| all.iter().any(|it| it == FINALIZER));
            has == (*action == Action::AddFinalizer)
        }
        // What was written into a status is gone with it.
        (_, None) => return Upshot::Unknown,
        (Action::Serve, Some(live)) if object.kind == DiffusionModel::kind(&()) => {
            live["status"]["published"]["bundle"].as_str().unwrap_or(NOTHING) == after
        }
        (Action::Serve, Some(live)) => {
            let named = live["spec"]["template"]["metadata"]["annotations"][BUNDLE_ANNOTATION].as_str();
            named.unwrap_or(NOTHING) == after
        }
        (Action::Scale | Action::ShapeCanary, Some(live)) => {
            live["spec"]["replicas"].as_i64().is_some_and(|replicas| after.parse() == Ok(replicas))
        }
        (_, Some(live)) => is_decided(*action, after, reason, &live["status"]),
    };
    if is_done { Upshot::FoundDone } else { Upshot::FoundUndone }
}

/// Whether the status says what was decided.
fn is_decided(action: Action, after: &str, reason: &str, status: &Value) -> bool {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let says = |type_: ConditionType, wanted: &str| {
        let mut conditions = conditions.iter().filter(|it| it["type"] == type_.as_str());
        conditions.any(|it| it["status"] == wanted && it["reason"] == reason)
    };
    let rollout = &status["rollout"];
    let rolls = |states: &[&str]| {
        rollout["to"] == after && (states.is_empty() || states.iter().any(|state| rollout["state"] == *state))
    };
    match action {
        Action::MarkPromoted => says(ConditionType::Promoted, after),
        Action::Accept => says(ConditionType::Accepted, "True"),
        Action::Refuse => says(ConditionType::Accepted, "False"),
        Action::Approve => says(ConditionType::Approved, "True"),
        Action::Deny => says(ConditionType::Approved, "False"),
        Action::Fulfil => says(ConditionType::Fulfilled, "True"),
        Action::Reexpose => says(ConditionType::Fulfilled, "False"),
        Action::Close | Action::Fail => says(ConditionType::Ready, "False"),
        Action::Comply => says(ConditionType::Compliant, after),
        Action::Judge => status["verdict"] == after,
        Action::Audit => status["audit"]["verdict"] == after,
        Action::BeginRollout => rolls(&[]),
        Action::TurnBack => rolls(&["RollingBack", "RolledBack"]),
        Action::Promote => rolls(&["Complete"]),
        // Effects on other objects are looked at above.
        Action::Create
        | Action::Delete
        | Action::Serve
        | Action::Scale
        | Action::ShapeCanary
        | Action::ArchiveLedger
        | Action::AddFinalizer
        | Action::RemoveFinalizer
        | Action::Collect
        | Action::SignAgain => false,
    }
}

#[cfg(test)]
#[path = "trail/tests.rs"]
mod tests;
