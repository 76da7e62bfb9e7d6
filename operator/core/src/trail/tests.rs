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

/// What is said, as action and reason.
fn brief(said: &[Said]) -> Vec<(Action, String, String)> {
    said.iter()
        .map(|said| match said {
            Said::Decision { action, after, reason, .. } => (*action, after.clone(), reason.clone()),
            other => panic!("{other:?} is no decision"),
        })
        .collect()
}

fn said(action: Action, after: &str, reason: &str) -> (Action, String, String) {
    (action, after.into(), reason.into())
}

#[test]
fn of_a_request_it_is_said_once_what_it_was_told() {
    let mut request: UnlearnRequest = serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRequest", "metadata": {"name": "forget-three", "uid": "u"},
        "spec": {"modelRef": {"name": "digits"}, "targets": [{"label": "3"}], "override": {"strategy": "Random"}},
    }))
    .unwrap();
    let condition = |type_: &str, status: &str, reason: &str| {
        json!({"type": type_, "status": status, "reason": reason, "message": "of somebody",
            "lastTransitionTime": "2026-11-24T21:00:00Z"})
    };
    let mut becomes = |phase: &str, conditions: &[serde_json::Value]| {
        let after: UnlearnRequestStatus =
            serde_json::from_value(json!({"phase": phase, "conditions": conditions})).unwrap();
        let said = of_request(&request, &after);
        assert!(!format!("{said:?}").contains("somebody"), "nobody's words: {said:?}");
        request.status = Some(after);
        brief(&said)
    };
    let accepted = condition("Accepted", "True", "Accepted");
    let waits = condition("Ready", "Unknown", "WaitingForRun");
    assert_eq!(becomes("Queued", &[accepted.clone(), waits.clone()]), [said(Action::Accept, "", "Accepted")]);
    assert_eq!(becomes("Training", &[accepted.clone(), waits]), []);
    let held = condition("Ready", "False", "GateFailed");
    assert_eq!(
        becomes("Held", &[accepted.clone(), held.clone()]),
        [said(Action::Close, "Held", "GateFailed")]
    );
    assert_eq!(becomes("Held", &[accepted.clone(), held]), []);
    let done = [
        accepted.clone(),
        condition("Fulfilled", "True", "Fulfilled"),
        condition("Ready", "True", "Fulfilled"),
    ];
    assert_eq!(becomes("Fulfilled", &done), [said(Action::Fulfil, "", "Fulfilled")]);
    let shown =
        [accepted, condition("Fulfilled", "False", "Reexposed"), condition("Ready", "False", "Reexposed")];
    assert_eq!(becomes("Reexposed", &shown), [said(Action::Reexpose, "", "Reexposed")]);
    let refused =
        [condition("Accepted", "False", "UnknownLabel"), condition("Ready", "False", "UnknownLabel")];
    assert_eq!(becomes("Denied", &refused), [said(Action::Refuse, "", "UnknownLabel")]);
}

#[test]
fn of_a_roll_out_it_is_said_that_it_begins_and_how_it_ends() {
    let (one, two) = (Digest::of("one"), Digest::of("two"));
    let mut model: DiffusionModel = serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "DiffusionModel", "metadata": {"name": "digits", "uid": "m"},
        "spec": {
            "base": {"uri": "file:///base", "digest": one}, "policyRef": {"kind": "UnlearnPolicy", "name": "x"},
            "serving": {
                "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"}, "container": "server",
            },
        },
    }))
    .unwrap();
    let mut becomes = |to: &Digest, run: &str, state: &str, began: &str| {
        let rollout =
            json!({"run": run, "to": to, "state": state, "startedAt": began, "reason": "GateFailed"});
        let after: DiffusionModelStatus = serde_json::from_value(json!({"rollout": rollout})).unwrap();
        let said = of_model(&model, &after);
        model.status = Some(after);
        brief(&said)
    };
    let (early, late) = ("2026-11-24T21:00:00Z", "2026-11-24T22:00:00Z");
    let begins = |to: &Digest| said(Action::BeginRollout, to.as_str(), "Immediate");
    assert_eq!(becomes(&one, "a", "Canary", early), [begins(&one)]);
    assert_eq!(becomes(&one, "a", "Progressing", late), []);
    assert_eq!(becomes(&one, "a", "Complete", late), [said(Action::Promote, one.as_str(), "")]);
    assert_eq!(becomes(&one, "a", "Complete", late), []);
    assert_eq!(becomes(&two, "b", "Progressing", late), [begins(&two)]);
    let back = said(Action::TurnBack, two.as_str(), "GateFailed");
    assert_eq!(becomes(&two, "b", "RollingBack", late), [back]);
    assert_eq!(becomes(&two, "b", "RolledBack", late), []);
    assert_eq!(becomes(&one, "c", "Progressing", late), [begins(&one)]);
    assert_eq!(becomes(&one, "c", "RolledBack", late), [said(Action::TurnBack, one.as_str(), "GateFailed")]);
    assert_eq!(becomes(&one, "c", "Progressing", late), [begins(&one)], "it is tried again");
}

#[test]
fn of_a_run_its_verdict_is_said_once() {
    let mut run: UnlearnRun = serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun", "metadata": {"name": "digits-1", "uid": "r"},
        "spec": {
            "model": "digits", "type": "Forget", "plan": "{}", "planDigest": Digest::of(b""),
            "policy": {"trainer": {"image": "x"}, "gates": []},
        },
    }))
    .unwrap();
    let status = |json: Value| -> UnlearnRunStatus { serde_json::from_value(json).unwrap() };
    let passed = status(json!({"verdict": "Pass", "candidate": Digest::of("candidate")}));
    assert_eq!(brief(&of_run(&run, &passed)), [said(Action::Judge, "Pass", "")]);
    let failed = status(
        json!({"conditions": [{"type": "Ready", "status": "False", "reason": "BadPlan", "message": "",
        "lastTransitionTime": "2026-11-24T21:00:00Z"}]}),
    );
    assert_eq!(brief(&of_run(&run, &failed)), [said(Action::Fail, "", "BadPlan")]);
    run.status = Some(passed.clone());
    assert_eq!(of_run(&run, &passed), []);
}

#[test]
fn what_is_published_is_a_decision_and_has_to_be_said_first_if_it_is_a_roll_out() {
    let (old, new) = (Digest::of("old"), Digest::of("new"));
    let model = |published: Option<&Digest>, state: &str| -> DiffusionModel {
        serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "DiffusionModel",
            "metadata": {"name": "digits", "namespace": "studio", "uid": "u"},
            "spec": {
                "base": {"uri": "file:///b", "digest": Digest::of("base")}, "policyRef": {"name": "standard"},
                "serving": {
                    "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"},
                    "container": "server", "promotion": "Publish",
                },
            },
            "status": {
                "published": {"bundle": published, "since": "2026-11-27T08:00:00Z"},
                "rollout": {"run": "r", "from": old, "to": new, "startedAt": "2026-11-27T08:00:00Z", "state": state},
            },
        }))
        .unwrap()
    };
    let said = |before: &DiffusionModel, after: &DiffusionModel| {
        let all = of_model(before, after.status.as_ref().unwrap());
        all.into_iter()
            .filter(|said| matches!(said, Said::Decision { action: Action::Serve, .. }))
            .collect::<Vec<_>>()
    };
    let (before, after) = (model(Some(&old), "Progressing"), model(Some(&new), "Published"));
    let rolled_out = said(&before, &after);
    assert_eq!(brief(&rolled_out), [(Action::Serve, new.to_string(), "RollOut".to_owned())]);
    assert!(must_be_said_first(&rolled_out[0]));
    let live = serde_json::to_value(&after).unwrap();
    assert_eq!(found(&rolled_out[0], Some(&live)), Upshot::FoundDone);
    let back = said(&after, &model(Some(&old), "RollingBack"));
    assert_eq!(brief(&back), [(Action::Serve, old.to_string(), "GoBack".to_owned())]);
    assert!(!must_be_said_first(&back[0]), "what goes back does not wait for a log");
    assert_eq!(found(&back[0], Some(&live)), Upshot::FoundUndone);
    let out = said(&after, &model(None, "RolledBack"));
    assert_eq!(brief(&out), [(Action::Serve, NOTHING.to_owned(), "TakeOut".to_owned())]);
    assert!(said(&after, &after).is_empty());
}
