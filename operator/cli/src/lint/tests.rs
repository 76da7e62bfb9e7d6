use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Findings, Severity, definitions::DEFINITIONS, lint, rules, schema::KEYWORDS};
use crate::files::{self, Text};

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(examples().join(name)).unwrap()
}

fn of(text: impl Into<String>) -> Findings {
    lint(&[Text { name: "a.yaml".into(), text: text.into() }])
}

/// What is said of an example in which one thing was changed.
fn changed(file: &str, pointer: &str, value: Value) -> Vec<String> {
    let mut manifest: Value = serde_saphyr::from_str(&text(file)).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = manifest.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        fields => fields[key] = value,
    }
    said(&of(manifest.to_string()))
}

fn said(found: &Findings) -> Vec<String> {
    found.findings.iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect()
}

#[test]
fn every_example_is_fine() {
    let files = files::read(&[examples()], true).unwrap();
    let found = lint(&files);
    assert!(found.checked >= 8, "{found:?}");
    assert!(found.findings.iter().all(|finding| finding.severity == Severity::Warning), "{found:#?}");
    assert_eq!(found.findings, [], "and nothing in them is odd");
}

#[test]
fn what_contradicts_its_schema_is_refused_in_the_words_of_the_api_server() {
    let request = "forget-three.yaml";
    let policy = "policy.yaml";
    let model = "model.yaml";
    let many: Value = (0..65).map(|label| json!({"label": format!("l-{label}")})).collect();
    let cases: [(&str, &str, Value, &str); 19] = [
        (
            request,
            "/spec/targets",
            json!([]),
            "spec.targets: Invalid value: 0: spec.targets in body should have at least 1 items",
        ),
        (request, "/spec/targets", many, "spec.targets: Too many: 65: must have at most 64 items"),
        (
            request,
            "/spec/targets",
            json!([{"label": "3"}, {"label": "3"}]),
            "spec.targets[1]: Duplicate value: {\"label\":\"3\"}",
        ),
        (
            request,
            "/spec/targets/0/label",
            json!(""),
            "spec.targets[0].label: Invalid value: \"\": spec.targets[0].label in body should be at least 1 chars long",
        ),
        (request, "/spec/targets/0/label", json!("3\u{1b}[2J"), "in body should match"),
        (
            request,
            "/spec/targets/0/label",
            json!(3),
            "spec.targets[0].label: Invalid value: \"integer\": spec.targets[0].label in body must be of type string: \"integer\"",
        ),
        (
            request,
            "/spec/override/label",
            json!("3"),
            "spec: Invalid value: the override label is itself a target",
        ),
        (
            request,
            "/spec/override",
            json!({"strategy": "Fixed"}),
            "label is required for strategy Fixed and belongs to no other",
        ),
        (
            request,
            "/spec/mode",
            json!("Audit"),
            "spec.mode: Unsupported value: \"Audit\": supported values: \"Enforce\", \"Pilot\"",
        ),
        (request, "/spec/mode", json!("Pilot"), "a Pilot answers nobody"),
        (request, "/spec/modelRef", json!({}), "spec.modelRef.name: Required value"),
        (request, "/spec/targetz", json!([]), "unknown field \"spec.targetz\""),
        (request, "/spec/dataSubjectRequest/receivedAt", json!("yesterday"), "must be of type date-time"),
        (request, "/metadata/name", json!("Forget_Three"), "a lowercase RFC 1123 subdomain"),
        (
            policy,
            "/spec/gates/0/minSamples",
            json!(0),
            "spec.gates[0].minSamples: Invalid value: 0: spec.gates[0].minSamples in body should be greater than or equal to 1",
        ),
        (
            policy,
            "/spec/gates/4",
            json!({"name": "hygiene", "maxBound": "0.1"}),
            "maxBound and confidence belong to gates on leaks and attacks only",
        ),
        (
            policy,
            "/spec/gates/0",
            json!({"name": "direct-leak", "maxBound": "0.1"}),
            "direct-leak needs maxBound and minSamples",
        ),
        (model, "/metadata/name", json!("m".repeat(41)), "at most 40 characters"),
        (model, "/spec/serving/target/kind", json!("StatefulSet"), "only an apps/v1 Deployment"),
    ];
    for (file, pointer, value, words) in cases {
        let said = changed(file, pointer, value.clone());
        assert!(said.iter().any(|said| said.contains(words)), "{file} {pointer} {value}: {said:#?}");
    }
}

#[test]
fn a_null_is_as_if_it_were_not_there_and_defaults_count() {
    let said = changed("forget-three.yaml", "/spec/mode", Value::Null);
    assert_eq!(said, Vec::<String>::new(), "the default is Enforce");
    let said = changed("policy.yaml", "/spec/gates/0/maxBound", Value::Null);
    assert!(said[0].contains("direct-leak needs maxBound"), "{said:?}");
}

#[test]
fn a_fault_is_shown_at_its_line() {
    let found = of(text("forget-three.yaml").replace("strategy: Fixed", "strategy: Guess"));
    let [finding] = &found.findings[..] else { panic!("{found:?}") };
    assert_eq!((finding.line, finding.path.as_str()), (12, "spec.override.strategy"));
    assert_eq!(finding.object, "UnlearnRequest forget-three");
}

#[test]
fn what_is_no_manifest_says_so_and_what_is_another_kind_is_left_alone() {
    assert!(said(&of("kind: [\n"))[0].contains("not YAML"));
    assert!(said(&of("hello: world\n"))[0].contains("no apiVersion or kind"));
    let found = of("apiVersion: apps/v1\nkind: Deployment\nspec: 3\n");
    assert_eq!((found.others, found.findings.len()), (1, 0));
    assert!(said(&of("apiVersion: lethe.dev/v2\nkind: UnlearnRequest\n"))[0].contains("no matches for kind"));
    assert!(said(&of("apiVersion: lethe.dev/v1alpha1\nkind: Unlearn\n"))[0].contains("no matches for kind"));
}

#[test]
fn a_part_of_a_manifest_may_lack_what_is_elsewhere_and_nothing_else() {
    let part = text("model-impossible.yaml");
    assert_eq!(said(&of(part.clone())), Vec::<String>::new());
    assert!(said(&of(part.replace("policyRef", "policyReff")))[0].contains("unknown field"));
    let whole: String =
        part.lines().filter(|line| !line.contains("lint:")).map(|line| format!("{line}\n")).collect();
    assert!(said(&of(whole)).iter().any(|said| said == "spec.base: Required value"));
}

#[test]
fn objects_of_the_same_files_are_seen_beside_each_other() {
    let both = |other: &str| said(&of(format!("{}---\n{other}", text("forget-three.yaml"))));
    let seven = text("forget-seven.yaml");
    let other = |label: &str| seven.replace("label: \"1\"", &format!("label: {label:?}"));
    let with_model = |request: &str| {
        said(&of(format!(
            "{}---\n{}---\n{}---\n{request}",
            text("policy.yaml"),
            text("model.yaml"),
            text("forget-three.yaml")
        )))
    };
    assert_eq!(with_model(&other("1")), Vec::<String>::new());
    assert!(with_model(&other("3"))[0].contains("is forgotten by request \"forget-three\""));
    assert!(both(&text("forget-three.yaml"))[0].contains("another one of this kind and name"));
    let alone = said(&of(text("model.yaml")));
    assert!(alone[0].contains("UnlearnPolicy \"standard\" is not in these files"), "{alone:?}");
}

#[test]
fn a_live_server_that_is_asked_too_late_is_warned_of() {
    let late = changed("policy-canary.yaml", "/spec/rollout", json!({"strategy": "Immediate"}));
    assert!(late[0].contains("only when users have it already"), "{late:?}");
    let dark = changed("policy-canary.yaml", "/spec/rollout", json!({"strategy": "Canary", "steps": []}));
    assert_eq!(dark, Vec::<String>::new());
    let never = changed("policy.yaml", "/spec/rollout", json!({"strategy": "Immediate"}));
    assert_eq!(never, Vec::<String>::new(), "nobody asks it");
}

#[test]
fn a_request_is_held_against_what_an_exported_model_knows() {
    let labels: Vec<_> = (0..10).map(|n| json!({"name": n.to_string(), "nearest": []})).collect();
    let ledger = json!([{
        "targets": ["8"], "override": {"strategy": "Random"}, "request": {"name": "r", "uid": "u"}, "run": "digits-1",
        "digest": format!("sha256:{}", "0".repeat(64)), "at": "2026-11-24T21:00:00Z",
    }]);
    let mut model: Value = serde_saphyr::from_str(&text("model.yaml")).unwrap();
    model["status"] = json!({"labels": labels, "ledger": ledger});
    let of = |request: String| said(&of(format!("{model}\n---\n{}---\n{request}", text("policy.yaml"))));
    let three = text("forget-three.yaml");
    assert!(of(three.clone())[0].contains("override \"8\" is already forgotten"));
    let unknown = of(three.replace("label: \"3\"", "label: cat").replace("label: \"8\"", "label: \"1\""));
    assert!(unknown[0].contains("label \"cat\" is not known to the model"), "{unknown:?}");
}

#[test]
fn a_model_whose_audits_would_never_come_is_odd() {
    let audited = |schedule: &str| {
        let model = text("model.yaml") + &format!("  audit:\n    schedule: {schedule:?}\n");
        said(&of(format!("{model}---\n{}", text("policy.yaml"))))
    };
    assert!(audited("0 3 * * *")[0].contains("has no gate served-leak"));
    assert!(audited("61 3 * * *").iter().any(|said| said.contains("the schedule cannot be read")));
}

#[test]
fn a_policy_under_which_nothing_could_pass_is_odd() {
    let found = said(&of(text("policy.yaml").replace("maxBound: \"0.005\"", "maxBound: \"0.0005\"")));
    assert!(found[0].contains("gate direct-leak of the policy can never pass"), "{found:?}");
}

#[test]
fn a_comparison_with_a_model_that_is_not_there_is_odd() {
    let policy = text("policy-attack.yaml").replace("name: attack", "name: standard");
    let of = |model: String| said(&of(format!("{policy}---\n{model}---\n{}", text("forget-three.yaml"))));
    assert!(
        of(text("model.yaml"))[0]
            .contains("gate relearning of the policy compares with a model that never saw 3")
    );
    let zero = format!("sha256:{}", "0".repeat(64));
    let with = |base: &str| {
        format!(
            "{}  neverSaw:\n  - {{bundle: {zero:?}, base: {base:?}, labels: [\"3\"]}}\n",
            text("model.yaml")
        )
    };
    assert_eq!(of(with(&zero)), Vec::<String>::new());
    assert_eq!(of(with(&zero.replace("000", "111"))).len(), 1, "one beside another base does not count");
}

#[test]
fn a_request_that_nobody_may_approve_of_is_odd() {
    let policy = text("policy.yaml") + "  approvals: {required: 1}\n";
    let found = said(&of(format!("{policy}---\n{}---\n{}", text("model.yaml"), text("forget-three.yaml"))));
    assert!(found[0].contains("does not say who asks"), "{found:?}");
}

#[test]
fn every_keyword_and_every_rule_of_the_definitions_is_understood() {
    fn walk(schema: &Value, count: &mut usize) {
        let Some(fields) = schema.as_object() else { return };
        for (keyword, value) in fields {
            assert!(KEYWORDS.contains(&keyword.as_str()), "{keyword}");
            match keyword.as_str() {
                "properties" => value.as_object().unwrap().values().for_each(|schema| walk(schema, count)),
                "items" | "additionalProperties" => walk(value, count),
                "format" => assert!(["date-time", "int32", "int64"].contains(&value.as_str().unwrap())),
                "pattern" => assert!(regex::Regex::new(value.as_str().unwrap()).is_ok(), "{value}"),
                "x-kubernetes-list-type" => assert_eq!(value, "map"),
                "x-kubernetes-validations" => {
                    for rule in value.as_array().unwrap() {
                        assert!(rules::compiles(rule["rule"].as_str().unwrap()), "{rule}");
                        *count += 1;
                    }
                }
                _ => {}
            }
        }
    }
    let mut count = 0;
    for (_, text) in DEFINITIONS {
        let definition: Value = serde_saphyr::from_str(text).unwrap();
        walk(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut count);
    }
    assert!(count > 50, "{count} rules");
}
