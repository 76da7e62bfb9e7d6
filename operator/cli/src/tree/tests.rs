use jiff::Timestamp;
use lethe_api::v1alpha1::Reason;
use serde_json::{Value, json};

use super::{Seen, draw, view};

fn now() -> Timestamp {
    "2026-11-27T12:00:00Z".parse().unwrap()
}

fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn object<T: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: Value, status: Value) -> T {
    serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "studio", "uid": format!("uid-{name}")}, "spec": spec, "status": status,
    }))
    .unwrap()
}

fn policy(required: u8) -> Value {
    json!({"trainer": {"image": "trainer"}, "gates": [], "approvals": {"required": required}})
}

/// A model, and a request for it.
fn seen(request: Value, status: Value) -> Seen {
    let model = json!({
        "base": {"uri": "file:///base", "digest": digest('a')}, "policyRef": {"name": "standard"},
        "serving": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"}, "container": "server"},
    });
    let served = json!({"digest": digest('b'), "short": "bbbbbbbbbbbb", "since": "2026-11-27T08:00:00Z"});
    let stands = json!({
        "phase": "Ready", "forgotten": 1, "served": served,
        "conditions": [condition("Ready", "True", "Ready", ""), condition("Compliant", "True", "LedgerHonoured", "")],
    });
    Seen {
        models: vec![object("DiffusionModel", "digits", model, stands)],
        requests: vec![object("UnlearnRequest", "forget-seven", request, status)],
        policies: vec![object("UnlearnPolicy", "standard", policy(1), Value::Null)],
        ..Seen::default()
    }
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-11-27T08:00:00Z",
    })
}

fn ask() -> Value {
    json!({
        "modelRef": {"name": "digits"}, "targets": [{"label": "7"}], "override": {"strategy": "Fixed", "label": "1"},
        "requestedBy": "alice",
        "dataSubjectRequest": {"reference": "DSR-1", "receivedAt": "2026-11-21T10:30:00Z", "regulation": "GDPR"},
    })
}

#[test]
fn a_request_whose_job_waits_in_a_queue_says_for_what_and_where_to_look() {
    let words = "waits in queue training: QuotaReserved=False, Pending: 1 more needed";
    let status = json!({
        "phase": "Training", "conditions": [condition("Ready", "Unknown", "WaitingForQuota", words)],
    });
    let text = drawn(&seen(ask(), status));
    assert!(text.contains(words), "{text}");
    assert!(text.contains("kubectl get localqueues,workloads -n studio"), "{text}");
}

fn drawn(seen: &Seen) -> String {
    let lines = draw(&view(seen, None, now()).unwrap());
    lines.iter().map(|line| line.text().trim_end().to_owned() + "\n").collect()
}

#[test]
fn a_request_that_waits_for_people_says_for_whom_and_how_they_agree() {
    let message =
        "0 of 1 approvals: somebody other than the requester has to create an UnlearnApproval for uid u";
    let status = json!({
        "phase": "AwaitingApproval", "dueAt": "2026-12-21T10:30:00Z",
        "conditions": [condition("Ready", "Unknown", "WaitingForApproval", message)],
    });
    let drawn = drawn(&seen(ask(), status));
    let expected = "\
studio/digits  Ready  compliant, 1 forgotten  serves bbbbbbbbbbbb for 4 h  policy standard
└─ forget-seven  7 → 1  AwaitingApproval  due 2026-12-21, 23 days left
   why       0 of 1 approvals: somebody other than the requester has to create an UnlearnApproval for uid u
   approvals 0 of 1: nobody yet; anybody with the right but alice may
   next      kubectl lethe approve forget-seven --reason WHY -n studio    # not as alice
";
    assert_eq!(drawn, expected);
}

#[test]
fn what_nobody_has_looked_at_says_so() {
    let mut unseen = seen(ask(), lethe_api::v1alpha1::unseen());
    unseen.models[0].status = serde_json::from_value(lethe_api::v1alpha1::unseen()).unwrap();
    let mut bare = unseen.clone();
    (bare.models[0].status, bare.requests[0].status) = (None, None);
    assert_eq!(drawn(&unseen).matches("is an operator running?").count(), 2, "{}", drawn(&unseen));
    assert_eq!(drawn(&unseen), drawn(&bare));
}

#[test]
fn a_run_at_work_has_a_bar_and_an_estimate() {
    let status = json!({
        "phase": "Training", "run": {"name": "digits-7f3a"}, "attempts": {"used": 2, "allowed": 3},
        "progress": {"stage": "forget", "step": 320, "total": 500, "etaSeconds": 11},
        "conditions": [condition("Ready", "Unknown", "Training", "the trainer works")],
    });
    let drawn = drawn(&seen(ask(), status));
    assert!(drawn.contains("███████████████░░░░░░░░░  64 %  forget 320/500, about 11 s left"), "{drawn}");
    assert!(drawn.contains("attempts  2 of 3"), "{drawn}");
    assert!(drawn.contains("run       digits-7f3a"), "{drawn}");
}

#[test]
fn what_was_held_shows_the_gates_and_the_way_on() {
    let gates = json!([
        {"name": "direct-leak", "target": "7", "bound": "0.0127", "threshold": "0.005", "hits": 28, "n": 3000,
         "verdict": "Fail", "message": "28 of 3000 samples were judged as the forgotten label"},
        {"name": "hygiene", "verdict": "Pass"},
    ]);
    let status = json!({
        "phase": "Held", "gateSummary": "1/2", "gates": gates, "run": {"name": "digits-7f3a"},
        "dueAt": "2026-11-29T10:30:00Z",
        "conditions": [condition("Ready", "False", "GateFailed", "held: To do: raise training.forgetSteps")],
    });
    let drawn = drawn(&seen(ask(), status));
    assert!(
        drawn.contains("✗  direct-leak 7  bound 0.0127  limit 0.005  (28 of 3,000)  28 of 3000 samples"),
        "{drawn}"
    );
    assert!(drawn.contains("✓  hygiene"), "{drawn}");
    assert!(drawn.contains("why       held: To do: raise training.forgetSteps"), "{drawn}");
    assert!(
        drawn.contains("next      kubectl lethe retry forget-seven -n studio    # once that is mended"),
        "{drawn}"
    );
    assert!(drawn.contains("due 2026-11-29, 46 h left"), "{drawn}");
}

#[test]
fn a_canary_that_waits_for_people_says_how_they_agree_to_its_step() {
    let status = json!({
        "phase": "RollingOut",
        "conditions": [condition("Ready", "Unknown", "RollingOut", "every gate passed; canary 3/3: approval")],
    });
    let mut seen = seen(ask(), status);
    let rollout = json!({
        "to": digest('c'), "startedAt": "2026-11-27T12:00:00Z", "state": "Canary",
        "canary": {"name": "c", "step": 3, "at": "3/3: approval", "since": "2026-11-27T12:00:00Z", "replicas": 1},
    });
    let model = seen.models[0].status.as_mut().unwrap();
    model.rollout = serde_json::from_value(rollout).unwrap();
    let drawn = drawn(&seen);
    assert!(drawn.contains("kubectl lethe approve forget-seven --rollout --reason WHY -n studio"), "{drawn}");
    assert!(drawn.contains("serving   Canary to cccccccccccc, canary 3/3: approval"), "{drawn}");
}

#[test]
fn whatever_waits_for_somebody_says_what_they_can_do() {
    let next = |phase: &str, reason: &str| {
        let conditions = [condition("Ready", "Unknown", reason, "why")];
        let drawn = drawn(&seen(ask(), json!({"phase": phase, "conditions": conditions})));
        drawn.lines().find(|line| line.starts_with("   next")).unwrap_or_default().to_owned()
    };
    for (phase, reason, command) in [
        (
            "Pending",
            "PolicyNotFound",
            "kubectl get diffusionmodels,unlearnpolicies,clusterunlearnpolicies -n studio",
        ),
        ("AwaitingApproval", "RequesterUnknown", "spec.requestedBy"),
        ("AwaitingApproval", "ApprovalsNotProtected", "admission.enabled=true"),
        (
            "Training",
            "ImageUnavailable",
            "kubectl describe jobs,pods -l app.kubernetes.io/managed-by=lethe -n studio",
        ),
        ("Evaluating", "PodNotCreated", "kubectl describe jobs"),
        ("Training", "RecordUnavailable", "kubectl describe unlearnrequest forget-seven -n studio"),
        ("Pending", "WaitingForModel", "kubectl lethe get dm/digits -n studio"),
        ("Pending", "PolicyNotWatched", "kubectl edit diffusionmodel digits -n studio"),
        ("Pending", "LegalTermUnknown", "legalTerms"),
        ("Queued", "WaitingForReference", "neverSaw"),
        ("Queued", "GateOutOfReach", "kubectl edit unlearnpolicy standard -n studio"),
        ("RollingOut", "EvidenceRefused", "kubectl describe unlearnrequest"),
        ("RollingOut", "AuditLogUnavailable", "kubectl get events"),
        ("RollingOut", "SigningKeyUnusable", "kubectl get events"),
    ] {
        assert!(next(phase, reason).contains(command), "{phase} {reason}: {}", next(phase, reason));
    }
    assert_eq!(next("Training", "Training"), "", "it goes on by itself");
    // Of every reason there is, the tree has a command or says that none is needed.
    let schema = schemars::schema_for!(Reason).to_value();
    let listed = |one: &Value| one["enum"].as_array().cloned().unwrap_or_else(|| vec![one["const"].clone()]);
    let all = schema["oneOf"]
        .as_array()
        .map_or_else(|| listed(&schema), |all| all.iter().flat_map(listed).collect());
    let reasons: Vec<String> = all.iter().filter_map(|one| one.as_str().map(Into::into)).collect();
    assert!(reasons.len() > 80, "{reasons:?}");
    for reason in reasons {
        for phase in ["Pending", "Queued", "Training", "Evaluating", "RollingOut"] {
            let is_said = !next(phase, &reason).is_empty();
            assert!(is_said || super::next::goes_on(&reason), "{phase} {reason}");
        }
    }
}

#[test]
fn a_model_that_waits_for_what_is_not_there_says_what_to_do_and_one_that_is_at_work_does_not() {
    let next = |reason: &str| {
        let mut seen = seen(ask(), Value::Null);
        let status = seen.models[0].status.get_or_insert_default();
        let ready = condition("Ready", "Unknown", reason, "why");
        status.conditions = serde_json::from_value(json!([ready])).unwrap();
        super::next::of_model(&seen.models[0])
    };
    assert!(next("ServingTargetNotFound")[0].contains("kubectl describe diffusionmodel digits"));
    assert!(next("Preparing").is_empty());
}

#[test]
fn a_term_that_was_missed_says_so_and_one_that_was_kept_does_not_count() {
    let of = |phase: &str| drawn(&seen(ask(), json!({"phase": phase, "dueAt": "2026-11-20T00:00:00Z"})));
    assert!(of("Queued").contains("OVERDUE by 7 days"), "{}", of("Queued"));
    assert!(of("Fulfilled").contains("due 2026-11-20\n"), "{}", of("Fulfilled"));
}

#[test]
fn a_name_is_that_of_a_model_or_a_request_and_others_are_not_there() {
    let mut seen = seen(ask(), Value::Null);
    seen.requests.push(object("UnlearnRequest", "other", ask(), Value::Null));
    let names = |name: &str| {
        let view = view(&seen, Some(name), now()).unwrap();
        view.models.iter().flat_map(|model| model.requests.iter().map(|r| r.name.clone())).collect::<Vec<_>>()
    };
    assert_eq!(names("digits"), ["forget-seven", "other"]);
    assert_eq!((names("other"), names("ulr/other")), (vec!["other".to_owned()], vec!["other".to_owned()]));
    assert_eq!(names("dm/digits").len(), 2);
    assert!(view(&seen, Some("dm/other"), now()).is_err());
    assert!(view(&seen, Some("nobody"), now()).unwrap_err().contains("\"nobody\""));
}

#[test]
fn a_request_without_its_model_is_shown_and_words_of_others_steer_no_terminal() {
    let status = json!({
        "phase": "Pending", "conditions": [condition("Ready", "Unknown", "ModelNotFound", "no\u{1b}[2J model\nReady")],
    });
    let mut seen = seen(ask(), status);
    seen.models.clear();
    seen.unread.push("you may not read runs: what they say is not shown".into());
    let drawn = drawn(&seen);
    assert!(drawn.starts_with("requests whose model does not exist\n└─ forget-seven"), "{drawn}");
    assert!(drawn.contains("no [2J model Ready") && !drawn.contains('\u{1b}'), "{drawn}");
    assert!(drawn.ends_with("(you may not read runs: what they say is not shown)\n"), "{drawn}");
}
