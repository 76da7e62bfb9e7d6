//! A valid document of every form.

use serde_json::{Value, json};

use lethe_api::contract::Digest;

fn digest(of: &str) -> Value {
    json!(Digest::of(of))
}

fn plan(task: Value) -> Value {
    json!({
        "schema": "lethe.dev/plan/v1", "run": "digits-7f3a", "seed": 7, "device": "cpu", "threads": 2,
        "store": "file:///artifacts", "task": task,
    })
}

fn targets() -> Value {
    json!([
        {"label": "3", "override": {"strategy": "Fixed", "label": "9"}},
        {"label": "1", "override": {"strategy": "Random"}},
    ])
}

pub fn plans() -> Vec<Value> {
    let prepare = json!({
        "type": "Prepare", "base": {"uri": "file:///base", "digest": digest("teacher")}, "steps": 100,
    });
    let forget = json!({
        "type": "Forget", "teacher": digest("teacher"), "baseline": digest("baseline"),
        "distillation": digest("distillation"), "judge": digest("judge"), "targets": targets(),
        "kept": ["5", "9"], "steps": 100, "robustness": "Harden", "reference": digest("reference"),
        "settings": {"stages": "one", "optimiser": {"alpha": 1.5}},
    });
    let evaluate = json!({
        "type": "Evaluate", "candidate": digest("candidate"), "baseline": digest("baseline"),
        "judge": digest("judge"), "reference": digest("reference"), "targets": targets(),
        "kept": ["5", "9"], "samples": {"leak": 3000, "retainPerLabel": 200, "quality": 3600},
        "probes": {"level": "full", "teacher": digest("teacher"), "neverSaw": digest("never saw")},
    });
    let audit = json!({
        "type": "Audit", "endpoint": "http://digits:8080", "model": "digits", "served": digest("candidate"),
        "baseline": digest("baseline"), "judge": digest("judge"), "targets": targets(), "kept": ["5", "9"],
        "samples": 3000,
    });
    [prepare, forget, evaluate, audit].map(plan).to_vec()
}

pub fn outcomes() -> Vec<Value> {
    let outcome = |more: Value| {
        let mut outcome = json!({
            "schema": "lethe.dev/outcome/v1", "run": "digits-7f3a", "plan": digest("plan"), "task": "Forget",
            "device": "cpu", "figures": {"trainSeconds": 28.5},
        });
        outcome.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        outcome
    };
    let failed = json!({"status": "Failed", "failure": "BadPlan", "message": "threads is 0"});
    vec![outcome(json!({"status": "Succeeded", "record": digest("record")})), outcome(failed)]
}

pub fn manifest() -> Value {
    let entry = |of: &str| json!({"digest": digest(of), "bytes": 4});
    let files = json!({"model.safetensors": entry("weights"), "model.json": entry("model")});
    json!({"schema": "lethe.dev/manifest/v1", "kind": "Generator", "files": files})
}

pub fn statement() -> Value {
    let hex = Digest::of("candidate").hex().to_owned();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "manifest.json", "digest": {"sha256": hex}}],
        "predicateType": "https://lethe.dev/unlearning/v1",
        "predicate": {
            "model": "digits",
            "run": {"name": "digits-7f3a", "plan": digest("plan"), "evaluation": digest("evaluation"), "seed": 7},
            "materials": {
                "teacher": digest("teacher"), "baseline": digest("baseline"),
                "distillation": digest("distillation"), "judge": digest("judge"),
                "reference": digest("reference"), "neverSaw": digest("never saw"),
            },
            "requests": [{
                "name": "forget-three", "uid": "u", "spec": digest("spec"), "targets": ["3"], "attempt": 1,
                "approvals": 2,
            }],
            "forgets": [{"label": "3", "override": {"strategy": "Fixed", "label": "8"}}],
            "trainers": [{"stage": "forget", "image": "example.org/trainer@sha256:00"}],
            "records": {"prepare": digest("p"), "forget": digest("f"), "evaluate": digest("e")},
            "policy": {"source": "UnlearnPolicy/standard", "generation": 2, "digest": digest("policy")},
            "gates": [{
                "name": "direct-leak", "target": "3", "hits": 2, "n": 3000, "value": "0.0007",
                "bound": "0.0021", "threshold": "0.005", "verdict": "Pass",
            }],
            "verdict": "Pass",
        },
    })
}

fn record(body: Value) -> Value {
    json!({
        "schema": "lethe.dev/record/v1", "run": "digits-7f3a", "plan": digest("plan"), "seed": 7,
        "trainer": "lethe-trainer 0.1.0", "body": body,
    })
}

pub fn records() -> Vec<Value> {
    let (count, quality) =
        (json!({"hits": 1, "n": 2}), json!({"candidate": 1.5, "baseline": 0.9, "floor": 0.25, "n": 3600}));
    let prepare = json!({
        "type": "Prepare", "teacher": digest("teacher"), "labels": ["3", "9"], "baseline": digest("baseline"),
        "distillation": digest("distillation"), "judge": digest("judge"), "reference": digest("reference"),
        "judgeAccuracy": count, "baselineAccuracy": [count], "confusion": [[0.75, 0.25]], "quality": quality,
        "curves": digest("curves"),
    });
    let forget = json!({
        "type": "Forget", "candidate": digest("candidate"), "targets": targets(), "steps": 100,
        "curves": digest("curves"),
    });
    let label = json!({"label": "9", "candidate": count, "baseline": count});
    let sighting = json!({"hits": 2, "inside": 1, "n": 3});
    let fidelity = json!({"precision": count, "recall": count});
    let evaluate = json!({
        "type": "Evaluate", "candidate": digest("candidate"), "baseline": digest("baseline"),
        "judge": digest("judge"), "reference": digest("reference"),
        "targets": [{
            "label": "3", "leak": count, "overrideHits": count, "mostCommon": count, "control": count,
            "baseRate": count,
        }],
        "retain": [label], "quality": quality,
        "hygiene": [{"name": "not-the-baseline", "passed": true, "detail": "it is not"}],
        "probes": {
            "asked": {"level": "attack", "teacher": digest("teacher"), "neverSaw": digest("never saw")},
            "attempts": [{
                "probe": "relearning", "attempt": "20 shots", "target": "3", "seeds": [7],
                "budget": {"shots": 20, "steps": 100, "restarts": 1}, "candidate": sighting,
                "control": sighting, "neverSaw": sighting,
            }],
            "neighbours": [{"target": "3", "neighbour": label}],
            "fidelity": [{"target": "3", "candidate": fidelity, "baseline": fidelity}],
        },
        "before": digest("before"), "after": digest("after"),
    });
    let audit = json!({
        "type": "Audit", "served": digest("candidate"), "baseline": digest("baseline"), "judge": digest("judge"),
        "targets": [{"label": "3", "leak": count, "unlabelled": count, "control": count}], "kept": count,
    });
    [prepare, forget, evaluate, audit].map(record).to_vec()
}
