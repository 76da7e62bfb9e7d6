use serde_json::json;

use super::*;
use crate::Change;

fn of(kind: &str) -> Object {
    Object { kind: kind.into(), namespace: "studio".into(), name: "digits".into(), uid: "u".into() }
}

fn effect(effect: &Effect) -> Said {
    intent(effect, &of("DiffusionModel"))
}

#[test]
fn what_a_successor_finds_tells_whether_it_was_done() {
    let bundle = Digest::of("candidate");
    let serve = |bundle: Option<&Digest>| {
        let (deployment, change) = ("server".into(), Change::RollOut);
        effect(&Effect::PatchServing { deployment, bundle: bundle.cloned(), change })
    };
    let target = |named: Option<&Digest>| {
        let annotations = json!({BUNDLE_ANNOTATION: named});
        json!({"spec": {"replicas": 2, "template": {"metadata": {"annotations": annotations}}}})
    };
    let other = Digest::of("another");
    assert_eq!(found(&serve(Some(&bundle)), Some(&target(Some(&bundle)))), Upshot::FoundDone);
    assert_eq!(found(&serve(Some(&bundle)), Some(&target(Some(&other)))), Upshot::FoundUndone);
    assert_eq!(found(&serve(Some(&bundle)), None), Upshot::Unknown);
    assert_eq!(found(&serve(None), Some(&target(None))), Upshot::FoundDone);
    assert_eq!(found(&serve(None), Some(&json!({}))), Upshot::FoundDone);
    let scale = |replicas| effect(&Effect::ScaleServing { deployment: "server".into(), replicas });
    assert_eq!(found(&scale(2), Some(&target(None))), Upshot::FoundDone);
    assert_eq!(found(&scale(0), Some(&target(None))), Upshot::FoundUndone);
}

#[test]
fn an_object_of_another_uid_is_another_object() {
    let gone = effect(&Effect::DeleteRun { name: "digits-1".into(), uid: "u".into() });
    assert_eq!(found(&gone, None), Upshot::FoundDone);
    assert_eq!(found(&gone, Some(&json!({"metadata": {"uid": "v"}}))), Upshot::FoundDone);
    assert_eq!(found(&gone, Some(&json!({"metadata": {"uid": "u"}}))), Upshot::FoundUndone);
    let going = json!({"metadata": {"uid": "u", "deletionTimestamp": "2026-11-24T21:00:00Z"}});
    assert_eq!(found(&gone, Some(&going)), Upshot::FoundDone);
    let finalizer = json!({"metadata": {"uid": "u", "finalizers": [FINALIZER]}});
    assert_eq!(found(&effect(&Effect::AddFinalizer), Some(&finalizer)), Upshot::FoundDone);
    assert_eq!(found(&effect(&Effect::RemoveFinalizer), Some(&finalizer)), Upshot::FoundUndone);
    assert_eq!(found(&effect(&Effect::RemoveFinalizer), None), Upshot::FoundDone);
    let decided = Entry::of(Action::Accept, of("UnlearnRequest")).reason("Accepted").decision();
    assert_eq!(found(&decided, Some(&json!({"metadata": {"uid": "v"}}))), Upshot::Unknown);
}

#[test]
fn a_decision_was_carried_out_if_the_status_says_it() {
    let status = |type_: &str, status: &str, reason: &str| {
        let conditions = json!([{"type": type_, "status": status, "reason": reason}]);
        json!({"metadata": {"uid": "u"}, "status": {
            "conditions": conditions, "verdict": "Pass", "rollout": {"to": "x", "state": "RollingBack"},
        }})
    };
    let said = |action, after: &str, reason: &str| {
        Entry::of(action, of("DiffusionModel")).after(after).reason(reason).decision()
    };
    let held = status("Ready", "False", "GateFailed");
    assert_eq!(found(&said(Action::Close, "Held", "GateFailed"), Some(&held)), Upshot::FoundDone);
    assert_eq!(found(&said(Action::Close, "Held", "GateError"), Some(&held)), Upshot::FoundUndone);
    assert_eq!(found(&said(Action::Accept, "", "Accepted"), Some(&held)), Upshot::FoundUndone);
    assert_eq!(found(&said(Action::Judge, "Pass", ""), Some(&held)), Upshot::FoundDone);
    assert_eq!(found(&said(Action::Judge, "Fail", ""), Some(&held)), Upshot::FoundUndone);
    assert_eq!(found(&said(Action::BeginRollout, "x", ""), Some(&held)), Upshot::FoundDone);
    assert_eq!(found(&said(Action::TurnBack, "x", ""), Some(&held)), Upshot::FoundDone);
    assert_eq!(found(&said(Action::Promote, "x", ""), Some(&held)), Upshot::FoundUndone);
    assert_eq!(found(&said(Action::TurnBack, "y", ""), Some(&held)), Upshot::FoundUndone);
}

#[test]
fn only_what_puts_something_into_service_waits_for_the_log() {
    let serve = |change| Effect::PatchServing { deployment: "server".into(), bundle: None, change };
    let scale = |replicas| Effect::ScaleServing { deployment: "server".into(), replicas };
    let mark = |status: &str| {
        let condition = serde_json::from_value(json!({
            "type": "Promoted", "status": status, "reason": "Promoted", "message": "",
            "lastTransitionTime": "2026-11-24T21:00:00Z",
        }));
        Effect::MarkPromoted { run: "digits-1".into(), uid: "u".into(), condition: condition.unwrap() }
    };
    for waits in [serve(Change::RollOut), scale(1), mark("True")] {
        assert!(waits.puts_into_service(), "{waits:?}");
    }
    let goes_on = [
        serve(Change::GoBack),
        serve(Change::SetBack),
        serve(Change::TakeOut),
        scale(0),
        mark("False"),
        Effect::CreateJob(Box::default()),
        Effect::DeleteDeployment { name: "server".into(), uid: "u".into() },
        Effect::RemoveFinalizer,
    ];
    for goes_on in goes_on {
        assert!(!goes_on.puts_into_service(), "{goes_on:?}");
    }
}
