use jiff::Timestamp;
use lethe_api::{
    contract::{Count, EvaluateRecord, Quality, TargetMeasurement},
    v1alpha1::Stage,
};
use serde_json::{Value, json};

use super::{
    Compliance, Records, data,
    figures::{Leak, Term, wanted},
    html,
};
use crate::tree::Seen;

const CANDIDATE: char = 'c';
const RECORD: char = 'e';
const EVIDENCE: char = 'b';

fn now() -> Timestamp {
    "2026-11-27T12:00:00Z".parse().unwrap()
}

fn digest(digit: char) -> lethe_api::Digest {
    format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap()
}

fn object<T: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: Value, status: Value) -> T {
    serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": kind,
        "metadata": {
            "name": name, "namespace": "studio", "uid": format!("uid-{name}"), "creationTimestamp": "2026-11-20T09:05:00Z",
        },
        "spec": spec, "status": status,
    }))
    .unwrap()
}

fn condition(type_: &str, status: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": "Some", "message": message,
        "lastTransitionTime": "2026-11-24T21:00:00Z",
    })
}

fn request(name: &str, label: &str, received: &str, status: Value) -> lethe_api::v1alpha1::UnlearnRequest {
    let spec = json!({
        "modelRef": {"name": "digits"}, "targets": [{"label": label}],
        "override": {"strategy": "Fixed", "label": "8"},
        "dataSubjectRequest": {"reference": format!("DSR-{name}"), "receivedAt": received, "regulation": "GDPR"},
    });
    object("UnlearnRequest", name, spec, status)
}

fn run(name: &str, type_: &str, device: &str, status: Value) -> lethe_api::v1alpha1::UnlearnRun {
    let policy =
        json!({"trainer": {"image": "t", "resources": {"limits": {"nvidia.com/gpu": "2"}}}, "gates": []});
    let spec = json!({
        "model": "digits", "type": type_, "policy": policy, "plan": "{}", "planDigest": digest('d'),
    });
    let stage = if type_ == "Audit" { "Audit" } else { "Forget" };
    let job = json!({
        "stage": stage, "name": "j", "planDigest": digest('d'), "device": device,
        "startedAt": "2026-11-24T20:00:00Z", "finishedAt": "2026-11-24T20:01:40Z",
    });
    let mut status = status;
    status["jobs"] = json!([job]);
    object("UnlearnRun", name, spec, status)
}

fn seen() -> Seen {
    let model = json!({
        "base": {"uri": "file:///base", "digest": digest('a')}, "policyRef": {"name": "standard"},
        "serving": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"}, "container": "server"},
    });
    let stands = json!({
        "phase": "Ready", "forgotten": 1,
        "served": {"digest": digest(CANDIDATE), "short": "cccccccccccc", "since": "2026-11-24T21:00:00Z"},
        "conditions": [condition("Compliant", "True", "honoured")],
        "audit": {"run": "digits-3", "digest": digest(CANDIDATE), "verdict": "Pass", "at": "2026-11-26T03:04:00Z"},
        "nextAudit": "2026-11-28T03:00:00Z",
    });
    let leak = json!({
        "name": "direct-leak", "target": "3", "bound": "0.0021", "threshold": "0.005", "hits": 2, "n": 3000,
        "verdict": "Pass",
    });
    let done = json!({
        "phase": "Fulfilled", "run": {"name": "digits-1"}, "gates": [leak], "record": digest(RECORD),
        "conditions": [condition("Fulfilled", "True", "yes"), condition("Ready", "True", "yes")],
    });
    let waits =
        |message: &str| json!({"phase": "Queued", "conditions": [condition("Ready", "Unknown", message)]});
    let shown = json!({"name": "served-leak", "target": "3", "bound": "0.0018", "hits": 1, "n": 3000, "verdict": "Pass"});
    Seen {
        models: vec![object("DiffusionModel", "digits", model, stands)],
        requests: vec![
            request("forget-three", "3", "2026-11-20T09:00:00Z", done),
            request("forget-seven", "7", "2026-11-01T09:00:00Z", waits("digits works for others <now>")),
            request("forget-five", "5", "2026-10-20T09:00:00Z", waits("its policy is missing")),
            request("forget-nine", "9", "2026-11-20T09:00:00Z", waits("it waits")),
        ],
        runs: vec![
            run(
                "digits-1",
                "Forget",
                "cuda",
                json!({"candidate": digest(CANDIDATE), "verdict": "Pass", "evidence": digest(EVIDENCE)}),
            ),
            run("digits-2", "Prepare", "cpu", json!({})),
            run("digits-3", "Audit", "cpu", json!({"verdict": "Pass", "gates": [shown]})),
        ],
        ..Seen::default()
    }
}

fn records() -> Records {
    let of = |hits, n| Count { hits, n };
    let measured = EvaluateRecord {
        candidate: digest(CANDIDATE),
        baseline: digest('b'),
        judge: digest('b'),
        reference: digest('b'),
        targets: vec![TargetMeasurement {
            label: "3".into(),
            leak: of(2, 3000),
            override_hits: of(2950, 3000),
            most_common: of(2950, 3000),
            control: of(2970, 3000),
            base_rate: of(1, 3000),
        }],
        retain: vec![],
        quality: Quality { candidate: 0.7, baseline: 0.6, floor: 0.25, n: 1000 },
        hygiene: vec![],
        probes: None,
        before: digest('b'),
        after: digest('b'),
        pictured: vec![],
    };
    Records::from([(digest(RECORD), measured)])
}

fn said() -> Compliance {
    let seen = seen();
    Compliance::of(&seen.models[0], &seen, &records(), now())
}

#[test]
fn what_may_miss_its_date_comes_first_the_most_pressing_at_the_top() {
    let said = said();
    let at_risk: Vec<_> = said.at_risk().iter().map(|duty| (duty.name.clone(), duty.term)).collect();
    assert_eq!(at_risk, [("forget-five".to_owned(), Term::Missed), ("forget-seven".to_owned(), Term::Days7)]);
    let terms: Vec<_> = said.duties.iter().map(|duty| duty.term).collect();
    assert_eq!(terms, [Term::Missed, Term::Days7, Term::Runs, Term::Kept]);
}

#[test]
fn the_factor_is_the_least_before_over_the_most_after() {
    let said = said();
    let leak = said.worst().unwrap();
    let lower = leak.lower_before().unwrap();
    assert!(lower > 0.985 && lower < 0.99, "{lower}");
    let ratio = leak.ratio().unwrap();
    assert!((ratio - lower / 0.0021).abs() < 1e-9 && ratio > 460.0, "{ratio}");
    let blind = Leak { before: None, ..leak.clone() };
    assert!(blind.ratio().is_none(), "without the record nothing is said of before");
    let odd = Leak { before: Some(Count { hits: 5, n: 3 }), ..leak.clone() };
    assert!(odd.lower_before().is_none());
}

#[test]
fn gpus_count_where_they_were_used_and_the_clock_where_not() {
    assert_eq!(said().cost(), (200, 200), "2 GPUs for 100 s; two pods on CPUs");
}

#[test]
fn what_a_queue_took_back_was_paid_for_as_well() {
    let mut seen = seen();
    let forgetting = &mut seen.runs[0].status.as_mut().unwrap().jobs[0];
    (forgetting.preemptions, forgetting.earlier_seconds) = (2, 40);
    let said = Compliance::of(&seen.models[0], &seen, &records(), now());
    assert_eq!(said.cost(), (280, 200), "2 GPUs for 140 s");
    seen.runs[0].status.as_mut().unwrap().jobs[0].started_at = None;
    let said = Compliance::of(&seen.models[0], &seen, &records(), now());
    assert_eq!(said.cost(), (80, 200), "it never began again");
}

/// Git prunes requests that are answered: the ledger stays.
#[test]
fn what_had_to_be_forgotten_is_said_also_of_requests_that_are_gone() {
    let mut seen = seen();
    let gates = seen.requests[0].status.as_ref().unwrap().gates.clone();
    let uid = seen.requests[0].metadata.uid.clone().unwrap();
    let entry = json!({
        "targets": ["3"], "override": {"strategy": "Fixed", "label": "8"}, "run": "digits-1", "digest": digest(CANDIDATE),
        "request": {"name": "forget-three", "uid": uid}, "at": "2026-11-24T21:00:00Z",
    });
    seen.models[0].status.as_mut().unwrap().ledger = vec![serde_json::from_value(entry).unwrap()];
    let run = seen.runs[0].status.as_mut().unwrap();
    run.gates = gates;
    (run.jobs[0].stage, run.jobs[0].record) = (Stage::Evaluate, Some(digest(RECORD)));
    let of = |seen: &Seen| Compliance::of(&seen.models[0], seen, &records(), now());
    assert_eq!(of(&seen).duties.len(), 4, "what is there is said once");

    seen.requests.clear();
    assert_eq!(wanted(&seen), [digest(RECORD)].into());
    let said = of(&seen);
    assert_eq!((said.duties.len(), said.fulfilled()), (1, 1));
    assert_eq!(data(&said)["requests"][0]["term"], Value::Null, "it is not known");
    assert!(!said.duties[0].is_there && said.duties[0].evidence == Some(digest(EVIDENCE)));
    let page = html(&said);
    for words in
        ["1 of 1", "2,970 of 3,000", "2 of 3,000", "forget-three", "not there any more", "2026-11-24"]
    {
        assert!(page.contains(words), "{words}");
    }
    for wrong in ["Nobody has asked", "No request of this model", "No run has worked"] {
        assert!(!page.contains(wrong), "{wrong}");
    }
    // Of the same name, but another one.
    seen.requests = vec![request("forget-three", "3", "2026-11-20T09:00:00Z", json!({"phase": "Queued"}))];
    seen.requests[0].metadata.uid = Some("another".into());
    assert_eq!(of(&seen).duties.len(), 2);
    seen.models[0].status.as_mut().unwrap().exposed = vec!["3".into()];
    assert_eq!(of(&seen).fulfilled(), 0, "it is shown again");
}

#[test]
fn programs_are_told_the_numbers_of_the_page() {
    let said = said();
    let data = data(&said);
    assert_eq!(data["model"], "digits");
    let names: Vec<_> = said.at_risk().iter().map(|duty| duty.name.clone()).collect();
    assert_eq!(data["atRisk"], json!(names));
    assert_eq!(data["gpuSeconds"], said.cost().0);
    let duty = said.duties.iter().position(|duty| !duty.leaks.is_empty()).unwrap();
    let (leak, told) = (&said.duties[duty].leaks[0], &data["requests"][duty]["leaks"][0]);
    assert_eq!(told["before"]["hits"], leak.before.unwrap().hits);
    assert_eq!(told["factor"].as_f64(), leak.ratio());
    assert_eq!(told["upperBoundAfter"].as_f64(), leak.bound);
    // What is not known is null and not nought.
    let data = super::data(&Compliance::of(&seen().models[0], &seen(), &Records::new(), now()));
    assert_eq!(data["requests"][duty]["leaks"][0]["before"], Value::Null);
    assert_eq!(data["recordsRead"], false);
}

#[test]
fn a_page_says_what_was_observed_and_never_that_anything_is_gone() {
    let page = html(&said());
    for words in [
        "not observed in more than 0.21",
        "2,970 of 3,000",
        "at least 469 times more often",
        "missed, overdue by 7 days",
        "digits works for others &lt;now&gt;",
        "200 GPU-seconds",
        "DSR-forget-three",
        "The next one is due on 2026-11-28 03:00 UTC",
        &"c".repeat(64),
        &"b".repeat(64),
        "--trusted-keys",
        "what the model's policy says of the regulation, or else a calendar month (GDPR) or 45 days (CCPA)",
    ] {
        assert!(page.contains(words), "{words}");
    }
    for word in ["removed", "erased", "deleted from", "<script", "http://", "https://"] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn what_is_not_known_is_called_missing_and_not_good() {
    let seen = seen();
    let page = html(&Compliance::of(&seen.models[0], &seen, &Records::new(), now()));
    assert!(page.contains("how often it was seen before") && page.contains("--store"));
    assert!(!page.contains("times more often"));
    let mut unsigned = seen.clone();
    unsigned.runs.iter_mut().filter_map(|run| run.status.as_mut()).for_each(|status| status.evidence = None);
    let page = html(&Compliance::of(&unsigned.models[0], &unsigned, &Records::new(), now()));
    assert!(page.contains("Nothing of it is signed") && !page.contains("--trusted-keys"));
    let mut bare = seen.clone();
    bare.models[0].status = None;
    bare.requests.clear();
    bare.runs.clear();
    bare.unread.push("you may not read runs".into());
    let page = html(&Compliance::of(&bare.models[0], &bare, &Records::new(), now()));
    for words in
        ["Not known", "what it cost", "you may not read runs", "No request of this model has been measured"]
    {
        assert!(page.contains(words), "{words}");
    }
}
