//! What a model tells its requests. Nothing else of it reaches a decision about them, so that a model which tells what it told
//! before need not wake the hundreds that wait for it.

use std::ops::Deref;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::Resource;
use lethe_api::v1alpha1::{
    Canary, ConditionType, DiffusionModel, DiffusionModelStatus, Reason, Rollout, RolloutState,
    UnlearnRequest,
};
use serde::Serialize;

use crate::{archive::DOUBTS, request};

/// A model without what is none of its requests' business.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Told(DiffusionModel);

impl Told {
    /// To this request.
    pub fn to(request: &UnlearnRequest, model: &DiffusionModel) -> Self {
        if request::is_over(request) { Self::to_settled(model) } else { Self::to_open(model) }
    }

    /// To a request that has no answer yet: what it knows, has forgotten and changes, whether it is busy, and what it lacks.
    pub fn to_open(model: &DiffusionModel) -> Self {
        let status = model.status.as_ref().map(|known| DiffusionModelStatus {
            labels: known.labels.clone(),
            baseline: known.baseline.clone(),
            ledger: known.ledger.clone(),
            rollout: known.rollout.clone().map(rollout),
            // Not which run.
            active_run: known.active_run.as_ref().map(|_| String::new()),
            conditions: known
                .conditions
                .iter()
                .filter(|it| is_want(it))
                .cloned()
                .chain(compliant(known))
                .collect(),
            ..exposure(known)
        });
        Self(DiffusionModel { metadata: identity(model), spec: model.spec.clone(), status })
    }

    /// To one that has: what may be shown again.
    pub fn to_settled(model: &DiffusionModel) -> Self {
        let status = model.status.as_ref().map(exposure);
        Self(DiffusionModel { metadata: identity(model), spec: model.spec.clone(), status })
    }
}

impl Deref for Told {
    type Target = DiffusionModel;

    fn deref(&self) -> &DiffusionModel {
        &self.0
    }
}

fn identity(model: &DiffusionModel) -> ObjectMeta {
    let ObjectMeta { name, namespace, uid, .. } = model.meta().clone();
    ObjectMeta { name, namespace, uid, ..ObjectMeta::default() }
}

fn exposure(known: &DiffusionModelStatus) -> DiffusionModelStatus {
    DiffusionModelStatus {
        exposed: known.exposed.clone(),
        conditions: compliant(known).into_iter().collect(),
        ..DiffusionModelStatus::default()
    }
}

/// Why it is not is repeated by those whose labels may be shown.
fn compliant(known: &DiffusionModelStatus) -> Option<Condition> {
    let condition = ConditionType::Compliant.find(&known.conditions)?;
    let message = if known.exposed.is_empty() { String::new() } else { condition.message.clone() };
    Some(Condition {
        type_: condition.type_.clone(),
        status: condition.status.clone(),
        message,
        reason: String::new(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    })
}

/// Whether it says why nothing is begun, or put into service.
fn is_want(condition: &Condition) -> bool {
    let wants = DOUBTS.iter().chain(&[Reason::TargetTaken, Reason::AuditLogUnavailable]);
    wants.into_iter().any(|reason| condition.reason == reason.to_string())
}

/// Where a candidate stands that is beside the target or taken back is repeated by its requests. Of others they only hear that
/// the target is touched.
fn rollout(known: Rollout) -> Rollout {
    let told = known.state.is_told();
    let state = match known.state {
        RolloutState::Auditing => RolloutState::Progressing,
        other => other,
    };
    Rollout {
        state,
        from: None,
        written_again_at: None,
        turned_back_at: None,
        audit: None,
        canary: known.canary.filter(|_| told).map(place),
        message: known.message.filter(|_| told),
        ..known
    }
}

/// Of a canary, at which step it is.
fn place(canary: Canary) -> Canary {
    Canary {
        at: canary.at,
        name: String::new(),
        step: 0,
        since: Time(Timestamp::UNIX_EPOCH),
        weight: None,
        replicas: 0,
        unready_since: None,
        audit: None,
    }
}

#[cfg(test)]
mod tests {
    use lethe_api::{
        Digest,
        v1alpha1::{KnownLabel, LedgerEntry, ModelPhase, NeverSaw},
    };
    use serde_json::json;

    use super::*;

    fn model() -> DiffusionModel {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits-server"});
        serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "DiffusionModel",
            "metadata": {"name": "digits", "namespace": "studio", "uid": "u", "resourceVersion": "1"},
            "spec": {
                "base": {"uri": "file:///b", "digest": Digest::of(b"")}, "policyRef": {"name": "standard"},
                "serving": {"target": target, "container": "server"},
            },
            "status": {
                "conditions": [condition(ConditionType::Compliant, "True", "Compliant"),
                               condition(ConditionType::Serving, "True", "Serving")],
                "rollout": {
                    "run": "digits-1", "to": Digest::of(b""), "startedAt": "2026-01-01T00:00:00Z", "state": "Progressing",
                },
            },
        }))
        .unwrap()
    }

    fn condition(type_: ConditionType, status: &str, reason: &str) -> serde_json::Value {
        json!({
            "type": type_.as_str(), "status": status, "reason": reason, "message": "as it was",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    }

    /// Whether a change is news for requests without an answer, and for those with one.
    fn is_news(change: impl FnOnce(&mut DiffusionModelStatus)) -> (bool, bool) {
        let before = model();
        let mut after = before.clone();
        after.metadata.resource_version = Some("2".into());
        change(after.status.as_mut().unwrap());
        let differs = |tell: fn(&DiffusionModel) -> Told| json!(tell(&before)) != json!(tell(&after));
        (differs(Told::to_open), differs(Told::to_settled))
    }

    fn say(status: &mut DiffusionModelStatus, type_: ConditionType, change: impl FnOnce(&mut Condition)) {
        change(status.conditions.iter_mut().find(|it| it.type_ == type_.as_str()).unwrap());
    }

    #[test]
    fn how_a_roll_out_comes_on_and_what_people_read_is_no_news() {
        let nothing = (false, false);
        assert_eq!(is_news(|_| {}), nothing);
        assert_eq!(is_news(|status| status.phase = Some(ModelPhase::Ready)), nothing);
        assert_eq!(is_news(|status| status.next_audit = Some(Time(Timestamp::UNIX_EPOCH))), nothing);
        let pods = |status: &mut DiffusionModelStatus| {
            say(status, ConditionType::Serving, |it| it.message = "2 of 3 pods".into());
            say(status, ConditionType::Compliant, |it| it.message = "for one label more".into());
        };
        assert_eq!(is_news(pods), nothing);
        let state = |status: &mut DiffusionModelStatus, state| status.rollout.as_mut().unwrap().state = state;
        assert_eq!(is_news(|status| state(status, RolloutState::Auditing)), nothing);
        let message = |status: &mut DiffusionModelStatus| {
            status.rollout.as_mut().unwrap().message = Some("step 1".into());
        };
        assert_eq!(is_news(message), nothing);
        let told = |status: &mut DiffusionModelStatus| {
            state(status, RolloutState::Canary);
            message(status);
        };
        assert_eq!(is_news(told), (true, false));
    }

    #[test]
    fn what_a_model_knows_has_forgotten_and_compares_with_is_news_for_those_without_an_answer() {
        let labels = |status: &mut DiffusionModelStatus| {
            status.labels.push(KnownLabel { name: "3".into(), nearest: vec!["8".into()] });
        };
        assert_eq!(is_news(labels), (true, false));
        let entry = json!({
            "targets": ["3"], "override": {"strategy": "Fixed", "label": "8"}, "digest": Digest::of(b"b"),
            "request": {"name": "forget-three", "uid": "u"}, "run": "digits-1", "at": "2026-01-01T00:00:00Z",
        });
        let entry: LedgerEntry = serde_json::from_value(entry).unwrap();
        assert_eq!(is_news(|status| status.ledger.push(entry)), (true, false));
        let before = model();
        let mut after = before.clone();
        after.spec.never_saw.push(NeverSaw {
            bundle: Digest::of(b"n"),
            base: Digest::of(b""),
            labels: vec!["3".into()],
        });
        assert_ne!(json!(Told::to_open(&before)), json!(Told::to_open(&after)));
        after = before.clone();
        after.metadata.uid = Some("another".into());
        assert_ne!(json!(Told::to_open(&before)), json!(Told::to_open(&after)));
    }

    #[test]
    fn which_run_is_at_work_is_no_news_and_that_one_is_is() {
        let busy = is_news(|status| status.active_run = Some("digits-1".into()));
        assert_eq!(busy, (true, false));
        let of = |run: &str| {
            let mut model = model();
            model.status.as_mut().unwrap().active_run = Some(run.into());
            json!(Told::to_open(&model))
        };
        assert_eq!(of("digits-1"), of("digits-2"));
    }

    #[test]
    fn what_keeps_requests_waiting_is_news_for_them_alone() {
        let reasons = DOUBTS.into_iter().chain([Reason::TargetTaken, Reason::AuditLogUnavailable]);
        for reason in reasons {
            let wants = |status: &mut DiffusionModelStatus| {
                say(status, ConditionType::Serving, |it| it.reason = reason.to_string());
            };
            assert_eq!(is_news(wants), (true, false), "{reason}");
        }
    }

    #[test]
    fn what_may_be_shown_again_is_news_for_all_and_so_is_why() {
        assert_eq!(is_news(|status| status.exposed.push("3".into())), (true, true));
        let lapses = |status: &mut DiffusionModelStatus| {
            say(status, ConditionType::Compliant, |it| it.status = "False".into());
        };
        assert_eq!(is_news(lapses), (true, true));
        let mut shown = model();
        shown.status.as_mut().unwrap().exposed.push("3".into());
        let why = json!(Told::to_settled(&shown)).to_string();
        assert!(why.contains("as it was"), "{why}");
    }
}
