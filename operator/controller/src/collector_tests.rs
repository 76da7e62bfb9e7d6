//! What a scrape says of objects, and for how long.

use std::sync::Arc;

use kube::{Client, Config};
use kube_runtime::watcher::Event;
use lethe_api::v1alpha1::{DiffusionModel, UnlearnRequest, UnlearnRun};
use serde_json::json;

use crate::{
    collector::ObjectCollector,
    metrics::Metrics,
    packed::Packed,
    stores::{Stores, Writers},
    watchdog::Watchdog,
};

/// A client that is never used: nothing here calls the API server.
fn stores() -> (Stores, Writers) {
    let config = Config::new("http://127.0.0.1:1".parse().unwrap());
    Stores::new(Client::try_from(config).unwrap())
}

fn registered() -> (Metrics, Writers) {
    let (stores, writers) = stores();
    let metrics = Metrics::new().unwrap();
    metrics.show(ObjectCollector::new(vec![stores], Arc::new(Watchdog::new(200)))).unwrap();
    (metrics, writers)
}

fn condition([type_, status, reason]: [&str; 3]) -> serde_json::Value {
    json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-12-20T09:00:00Z"})
}

fn model(status: serde_json::Value) -> DiffusionModel {
    serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "DiffusionModel",
        "metadata": {"name": "digits", "namespace": "studio"},
        "spec": {
            "base": {"uri": "file:///b", "digest": lethe_api::Digest::of(b"")}, "policyRef": {"name": "standard"},
            "serving": {
                "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"}, "container": "server",
            },
        },
        "status": status,
    }))
    .unwrap()
}

#[tokio::test]
async fn nothing_is_said_of_a_model_that_nobody_has_looked_at() {
    let (metrics, mut writers) = registered();
    writers.models.apply_watcher_event(&Event::Apply(model(lethe_api::v1alpha1::unseen())));
    let text = metrics.render().unwrap();
    assert!(!text.contains("model=\"digits\""), "{text}");
}

fn request(phase: &str) -> UnlearnRequest {
    request_called("forget-three", phase)
}

fn request_called(name: &str, phase: &str) -> UnlearnRequest {
    let passed = if phase == "Held" { "False" } else { "True" };
    serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRequest",
        "metadata": {"name": name, "namespace": "studio"},
        "spec": {
            "modelRef": {"name": "digits"}, "targets": [{"label": "3"}],
            "override": {"strategy": "Fixed", "label": "8"},
        },
        "status": {
            "phase": phase, "dueAt": "2026-12-20T09:00:00Z",
            "gates": [
                {"name": "direct-leak", "target": "3", "bound": "0.0021", "threshold": "0.005", "verdict": "Pass"},
                {"name": "direct-leak", "target": "from a trainer", "bound": "1", "verdict": "Fail"},
                {"name": "hygiene", "verdict": "Fail"},
            ],
            "conditions": [{
                "type": "GatesPassed", "status": passed, "reason": "GateFailed", "message": "",
                "lastTransitionTime": "2026-12-20T09:00:00Z",
            }],
        },
    }))
    .unwrap()
}

#[tokio::test]
async fn series_are_gone_with_their_object() {
    let (metrics, mut writers) = registered();
    let bound = "lethe_gate_bound{gate=\"direct-leak\",model=\"digits\",namespace=\"studio\",\
        request=\"forget-three\",target=\"3\"} 0.0021\n";
    let due = "lethe_request_due_timestamp_seconds{model=\"digits\"";
    let held = "lethe_request_gates_not_passed{gate=\"hygiene\",model=\"digits\",namespace=\"studio\",\
        request=\"forget-three\",verdict=\"Fail\"} 1\n";
    let allowed = "lethe_gate_threshold{gate=\"direct-leak\",model=\"digits\",namespace=\"studio\",\
        request=\"forget-three\",target=\"3\"} 0.005\n";

    writers.requests.apply_watcher_event(&Event::Apply(request("Held").into()));
    let text = metrics.render().unwrap();
    assert!(text.contains(bound) && text.contains(due), "{text}");
    assert!(text.contains("lethe_requests{phase=\"Held\"} 1\n"), "{text}");
    assert!(text.contains(held) && text.contains(allowed), "{text}");
    assert!(!text.contains("from a trainer"), "{text}");

    writers.requests.apply_watcher_event(&Event::Apply(request("Fulfilled").into()));
    let text = metrics.render().unwrap();
    assert!(text.contains(bound) && !text.contains(due), "{text}");
    assert!(!text.contains("lethe_request_gates_not_passed"), "it is answered: {text}");

    writers.requests.apply_watcher_event(&Event::Delete(request("Fulfilled").into()));
    let text = metrics.render().unwrap();
    assert!(!text.contains("lethe_gate_bound"), "{text}");
    assert!(text.contains("lethe_requests{phase=\"Held\"} 0\n"), "{text}");
}

#[tokio::test]
async fn a_request_waits_in_the_queue_and_for_the_pod_of_its_run_and_not_while_one_works() {
    let (metrics, mut writers) = registered();
    let cases = [
        ("Pending", "ModelNotFound", true),
        ("Queued", "WaitingForRun", true),
        ("Training", "Training", false),
        ("Training", "Suspended", true),
        ("Training", "WaitingForQuota", true),
        ("Evaluating", "Preempted", true),
        ("Training", "Inadmissible", true),
        ("Training", "NotQueued", true),
        ("Evaluating", "Unschedulable", true),
        ("AwaitingApproval", "WaitingForApproval", false),
        ("Held", "GateFailed", false),
    ];
    for (phase, reason, is_shown) in cases {
        let mut request = request(phase);
        let ready = json!({
            "type": "Ready", "status": "Unknown", "reason": reason, "message": "",
            "lastTransitionTime": "2026-12-20T09:00:00Z",
        });
        request.status.as_mut().unwrap().conditions.push(serde_json::from_value(ready).unwrap());
        writers.requests.apply_watcher_event(&Event::Apply(request.into()));
        let text = metrics.render().unwrap();
        let line =
            "lethe_request_waiting{model=\"digits\",namespace=\"studio\",request=\"forget-three\"} 1\n";
        assert_eq!(text.contains(line), is_shown, "{phase} {reason}: {text}");
    }
}

#[tokio::test]
async fn a_live_server_that_leaks_is_said_of_its_model_until_an_audit_passes_and_of_what_went_back() {
    let (metrics, mut writers) = registered();
    let (served, other) = (lethe_api::Digest::of("served"), lethe_api::Digest::of("other"));
    let line = "lethe_model_gates_not_passed{gate=\"served-leak\",model=\"digits\",namespace=\"studio\",\
        verdict=\"Fail\"}";
    for (digest, verdict, value) in
        [(&served, "Fail", 1), (&served, "Pass", 0), (&served, "Inconclusive", 0), (&other, "Fail", 0)]
    {
        let audit =
            json!({"run": "digits-2", "digest": digest, "verdict": verdict, "at": "2026-12-20T09:00:00Z"});
        let compliant =
            json!({"digest": served, "base": lethe_api::Digest::of(b""), "run": "digits-1", "turn": 0});
        let model = model(json!({"audit": audit, "compliant": compliant}));
        writers.models.apply_watcher_event(&Event::Apply(model));
        let text = metrics.render().unwrap();
        assert!(text.contains(&format!("{line} {value}\n")), "{verdict}: {text}");
    }
    let mut back = request("Failed");
    let promoted = json!({
        "type": "Promoted", "status": "False", "reason": "GateFailed", "message": "",
        "lastTransitionTime": "2026-12-20T09:00:00Z",
    });
    back.status.as_mut().unwrap().conditions.push(serde_json::from_value(promoted).unwrap());
    writers.requests.apply_watcher_event(&Event::Apply(back.into()));
    let line = "lethe_request_gates_not_passed{gate=\"served-leak\",model=\"digits\",namespace=\"studio\",\
        request=\"forget-three\",verdict=\"Fail\"} 1\n";
    let text = metrics.render().unwrap();
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn how_far_a_run_is_is_seen_until_it_is_over() {
    let (metrics, mut writers) = registered();
    for (verdict, is_shown) in [(None, true), (Some("Pass"), false)] {
        let run = serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun",
            "metadata": {"name": "digits-1", "namespace": "studio"},
            "spec": {
                "model": "digits", "type": "Forget", "plan": "{}", "planDigest": lethe_api::Digest::of(b""),
                "policy": {"trainer": {"image": "x"}, "gates": []},
            },
            "status": {"progress": {"stage": "forget", "step": 125, "total": 500}, "verdict": verdict},
        }))
        .unwrap();
        writers.runs.apply_watcher_event(&Event::Apply(run));
        let text = metrics.render().unwrap();
        let line = "lethe_run_progress_ratio{model=\"digits\",namespace=\"studio\",run=\"digits-1\"} 0.25\n";
        assert_eq!(text.contains(line), is_shown, "{text}");
    }
}

#[tokio::test]
async fn a_step_that_waits_for_people_is_seen_and_a_roll_out_that_goes_on_is_not() {
    let (metrics, mut writers) = registered();
    for (reason, waits) in [("WaitingForApproval", 1), ("WaitingForPromotion", 1), ("RollingOut", 0)] {
        let model = model(json!({"conditions": [condition(["Serving", "Unknown", reason])]}));
        writers.models.apply_watcher_event(&Event::Apply(model));
        let text = metrics.render().unwrap();
        let line =
            format!("lethe_rollout_waits_for_people{{model=\"digits\",namespace=\"studio\"}} {waits}\n");
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test]
async fn each_condition_of_a_model_is_one_series_that_follows_it_and_goes_with_the_model() {
    let (metrics, mut writers) = registered();
    let line = |status: &str, reason: &str| {
        format!(
            "lethe_model_condition{{model=\"digits\",namespace=\"studio\",reason=\"{reason}\",\
             status=\"{status}\",type=\"Prepared\"}} 1\n"
        )
    };
    let (lost, prepared) = (["Prepared", "False", "LedgerLost"], ["Prepared", "True", "Prepared"]);
    // Whoever may write a status may not make up labels.
    let odd = ["Serving", "False", "WhateverSomebodyWrote"];
    let foreign = ["Theirs", "False", "LedgerLost"];
    for conditions in
        [json!([condition(lost), condition(odd), condition(foreign)]), json!([condition(prepared)])]
    {
        let model = model(json!({"conditions": conditions}));
        writers.models.apply_watcher_event(&Event::Apply(model));
        let text = metrics.render().unwrap();
        let is_lost = conditions[0]["status"] == "False";
        assert_eq!(text.contains(&line("False", "LedgerLost")), is_lost, "{text}");
        assert_eq!(text.contains(&line("True", "Prepared")), !is_lost, "{text}");
        assert!(!text.contains("Whatever") && !text.contains("Theirs"), "{text}");
        let other = "lethe_model_condition{model=\"digits\",namespace=\"studio\",reason=\"\",status=\"False\",\
            type=\"Serving\"} 1\n";
        assert_eq!(text.contains(other), is_lost, "{text}");
    }
    writers.models.apply_watcher_event(&Event::Delete(model(json!({}))));
    let text = metrics.render().unwrap();
    assert!(!text.contains("lethe_model_condition"), "{text}");
}

#[tokio::test]
async fn a_roll_out_is_seen_where_it_stands_for_as_long_as_it_is_under_way() {
    let (metrics, mut writers) = registered();
    for (state, is_shown) in
        [("Canary", true), ("Progressing", true), ("RollingBack", true), ("Complete", false)]
    {
        let rollout =
            json!({"to": lethe_api::Digest::of("to"), "state": state, "startedAt": "2026-12-20T09:00:00Z"});
        writers.models.apply_watcher_event(&Event::Apply(model(json!({"rollout": rollout}))));
        let text = metrics.render().unwrap();
        let line =
            format!("lethe_model_rollout{{model=\"digits\",namespace=\"studio\",state=\"{state}\"}} 1\n");
        assert_eq!(text.contains(&line), is_shown, "{state}: {text}");
        let of_it = text.lines().filter(|line| line.starts_with("lethe_model_rollout{"));
        assert_eq!(
            of_it.filter(|line| line.ends_with(" 1")).count(),
            usize::from(is_shown),
            "{state}: {text}"
        );
    }
}

#[tokio::test]
async fn a_request_that_failed_is_seen_with_its_reason_until_it_is_tried_again_and_a_pilot_is_not() {
    let (metrics, mut writers) = registered();
    let line = "lethe_request_failed{model=\"digits\",namespace=\"studio\",reason=\"BackoffLimitExceeded\",\
        request=\"forget-three\"} 1\n";
    for (phase, mode, is_shown) in
        [("Failed", "Enforce", true), ("Queued", "Enforce", false), ("Failed", "Pilot", false)]
    {
        let mut request = request(phase);
        request.spec.mode = serde_json::from_value(json!(mode)).unwrap();
        let ready = condition(["Ready", "False", "BackoffLimitExceeded"]);
        request.status.as_mut().unwrap().conditions.push(serde_json::from_value(ready).unwrap());
        writers.requests.apply_watcher_event(&Event::Apply(request.into()));
        let text = metrics.render().unwrap();
        assert_eq!(text.contains(line), is_shown, "{phase} {mode}: {text}");
    }
}

#[tokio::test]
async fn what_a_run_waits_for_is_seen_until_it_goes_on_and_so_is_what_is_not_signed() {
    let (metrics, mut writers) = registered();
    let cases = [
        (["Ready", "Unknown", "RecordUnavailable"], true),
        (["Ready", "Unknown", "Evaluating"], true),
        // It is over: what it was about says so.
        (["Ready", "False", "RecordUnavailable"], false),
        (["Ready", "True", "Ready"], false),
        (["Signed", "False", "SigningKeyUnusable"], true),
        (["Signed", "True", "Signed"], false),
        (["Trained", "Unknown", "Training"], false),
    ];
    for (one, is_shown) in cases {
        let run: Packed<UnlearnRun> = serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun",
            "metadata": {"name": "digits-1", "namespace": "studio"},
            "spec": {
                "model": "digits", "type": "Forget", "plan": "{}", "planDigest": lethe_api::Digest::of(b""),
                "policy": {"trainer": {"image": "x"}, "gates": []},
            },
            "status": {"conditions": [condition(one)]},
        }))
        .unwrap();
        writers.runs.apply_watcher_event(&Event::Apply(run));
        let text = metrics.render().unwrap();
        let [type_, status, reason] = one;
        let line = format!(
            "lethe_run_condition{{model=\"digits\",namespace=\"studio\",reason=\"{reason}\",run=\"digits-1\",\
             status=\"{status}\",type=\"{type_}\"}} 1\n"
        );
        assert_eq!(text.contains(&line), is_shown, "{one:?}: {text}");
        assert_eq!(text.matches("lethe_run_condition{").count(), usize::from(is_shown), "{one:?}: {text}");
    }
}

#[tokio::test]
async fn each_series_and_each_family_is_there_once_whatever_is_said_twice() {
    let (near, mut writers) = stores();
    let (far, mut others) = stores();
    let metrics = Metrics::new().unwrap();
    metrics.show(ObjectCollector::new(vec![near, far], Arc::new(Watchdog::new(200)))).unwrap();
    let mut twice = request("Held");
    let status = twice.status.as_mut().unwrap();
    let again: Vec<_> = status.gates.iter().chain(&status.gates).cloned().collect();
    let failed = json!({"name": "served-leak", "verdict": "Fail"});
    status.gates = again;
    status.gates.push(serde_json::from_value(failed).unwrap());
    for [type_, reason] in [["Promoted", "GateFailed"], ["Ready", "GateFailed"], ["Ready", "GateFailed"]] {
        let condition = serde_json::from_value(condition([type_, "False", reason])).unwrap();
        status.conditions.push(condition);
    }
    let ready = condition(["Ready", "False", "LedgerLost"]);
    let twice_ready = model(json!({"conditions": [ready, ready], "ledger": []}));
    writers.models.apply_watcher_event(&Event::Apply(twice_ready));
    writers.requests.apply_watcher_event(&Event::Apply(twice.into()));
    let mut elsewhere = request("Held");
    elsewhere.metadata.namespace = Some("elsewhere".into());
    others.requests.apply_watcher_event(&Event::Apply(elsewhere.into()));

    let text = metrics.render().unwrap();
    let series = |line: &str| line.rsplit_once(' ').map(|(series, _)| series.to_owned());
    let mut seen = std::collections::BTreeSet::new();
    for line in text.lines() {
        let key = if line.starts_with('#') { Some(line.to_owned()) } else { series(line) };
        assert!(seen.insert(key), "twice: {line}\n{text}");
    }
    assert!(text.contains("lethe_requests{phase=\"Held\"} 2\n"), "{text}");
    let leaks = "gate=\"served-leak\",model=\"digits\",namespace=\"studio\",request=\"forget-three\",verdict=\"Fail\"} 2\n";
    assert!(text.contains(leaks), "{text}");
}
