use super::*;
use crate::contract::ProbeLevel;

fn plan(targets: &[(&str, Override)]) -> Plan {
    let digest = Digest::of(b"artifact");
    let targets = targets.iter().map(|(label, replacement)| PlannedTarget {
        label: (*label).into(),
        replacement: replacement.clone(),
    });
    Plan {
        schema: Plan::SCHEMA.into(),
        run: "digits-7f3a".into(),
        seed: 7,
        device: Device::Auto,
        threads: 2,
        precision: Precision::F32,
        store: "file:///artifacts".into(),
        task: Task::Forget(ForgetTask {
            teacher: digest.clone(),
            baseline: digest.clone(),
            distillation: digest.clone(),
            judge: digest,
            targets: targets.collect(),
            kept: vec!["5".into(), "9".into()],
            steps: None,
            robustness: None,
            reference: None,
            settings: None,
        }),
    }
}

fn fixed(label: &str) -> Override {
    Override::Fixed { label: label.into() }
}

#[test]
fn a_plan_survives_its_own_json_byte_for_byte() {
    let plan = plan(&[("3", fixed("9")), ("1", Override::Nearest)]);
    let read = Plan::parse(plan.to_json().as_bytes()).unwrap();
    assert_eq!(read, plan);
    assert_eq!(read.digest(), plan.digest());
}

#[test]
fn another_precision_is_another_plan_and_f32_need_not_be_said() {
    let exact = plan(&[("3", fixed("9"))]);
    let rounded = Plan { precision: Precision::Bf16, ..exact.clone() };
    assert!(!exact.to_json().contains("precision"));
    assert!(rounded.to_json().contains(r#""precision":"bf16""#));
    assert_ne!(exact.digest(), rounded.digest());
    assert_eq!(Plan::parse(rounded.to_json().as_bytes()).unwrap(), rounded);
}

#[test]
fn settings_are_part_of_what_names_a_plan_and_none_need_not_be_said() {
    let usual = plan(&[("3", fixed("9"))]);
    assert!(!usual.to_json().contains("settings"));
    let mut other = usual.clone();
    let Task::Forget(task) = &mut other.task else { unreachable!("made above") };
    let own = serde_json::json!({"stages": "one", "optimiser": {"alpha": 1.0, "clip": -1e-3}});
    task.settings = own.as_object().cloned();
    let read = Plan::parse(other.to_json().as_bytes()).unwrap();
    assert_eq!((&read, read.digest()), (&other, other.digest()));
    assert_ne!(other.digest(), usual.digest());
}

#[test]
fn a_number_that_reading_and_writing_would_change_is_refused() {
    let json = plan(&[("3", fixed("9"))]).to_json();
    let with = |number: &str| json.replace("\"kept\"", &format!("\"settings\":{{\"x\":{number}}},\"kept\""));
    let mut refused = 0;
    for digits in 0..2000 {
        let text = with(&format!("0.{digits}86129387465013897461{digits}e-57"));
        match Plan::parse(text.as_bytes()) {
            Ok(plan) => assert_eq!(Plan::parse(plan.to_json().as_bytes()).unwrap(), plan, "{text}"),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("task.settings holds a number"), "{error}");
            }
        }
    }
    assert!(refused > 0, "numbers are read exactly now: the check is not needed any more");
    Plan::parse(with("0.123456789012345").as_bytes()).unwrap();
}

#[test]
fn an_unknown_field_is_refused_at_every_depth() {
    let json = plan(&[("3", fixed("9"))]).to_json();
    for (found, replaced) in
        [("\"seed\":7", "\"seed\":7,\"sed\":7"), ("\"type\":\"Forget\"", "\"type\":\"Forget\",\"step\":1")]
    {
        assert!(json.contains(found), "{found} is not in {json}");
        let typo = json.replace(found, replaced);
        assert!(matches!(Plan::parse(typo.as_bytes()), Err(PlanError::Json(_))), "{typo}");
    }
}

#[test]
fn contradictory_targets_are_refused() {
    let parse = |targets: &[_]| Plan::parse(plan(targets).to_json().as_bytes());
    assert!(matches!(parse(&[]), Err(PlanError::Range { .. })));
    let twice = parse(&[("3", fixed("8")), ("3", fixed("5"))]);
    assert!(matches!(twice, Err(PlanError::DuplicateTarget { label, .. }) if label == "3"));
    let circle = parse(&[("3", fixed("8")), ("8", fixed("3"))]);
    assert!(matches!(circle, Err(PlanError::OverrideForgotten { .. })));
    assert!(matches!(parse(&[("3", fixed("7"))]), Err(PlanError::OverrideNotKept { .. })));
    assert!(matches!(parse(&[("9", fixed("5"))]), Err(PlanError::KeptTwice { label, .. }) if label == "9"));
}

#[test]
fn another_schema_is_refused() {
    let mut plan = plan(&[("3", fixed("8"))]);
    plan.schema = "lethe.dev/plan/v2".into();
    assert!(matches!(Plan::parse(plan.to_json().as_bytes()), Err(PlanError::Schema(_))));
}

#[test]
fn what_is_measured_is_no_model_that_never_saw_the_targets() {
    let names = |never_saw: &str| {
        let digest = |of: &str| Digest::of(of);
        let task = EvaluateTask {
            candidate: digest("candidate"),
            baseline: digest("baseline"),
            judge: digest("judge"),
            reference: digest("reference"),
            targets: vec![PlannedTarget { label: "3".into(), replacement: fixed("9") }],
            kept: vec!["9".into()],
            samples: Samples { leak: 1, retain_per_label: 1, quality: 2 },
            probes: Some(ProbeTask {
                level: ProbeLevel::Attack,
                teacher: digest("teacher"),
                never_saw: Some(digest(never_saw)),
            }),
        };
        let plan = Plan { task: Task::Evaluate(task), ..plan(&[]) };
        Plan::parse(plan.to_json().as_bytes()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(names("another"), Ok(()));
    for seen in ["candidate", "baseline"] {
        let error = names(seen).unwrap_err();
        assert!(error.contains("task.probes.neverSaw") && error.contains("saw the targets"), "{error}");
    }
}
