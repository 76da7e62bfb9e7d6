//! Whoever meets a reason or a gate finds it explained: the enumerations are closed, and so are the pages about them.

use std::{collections::BTreeSet, fs};

use lethe_api::v1alpha1::{GateName, Reason};
use serde_json::Value;

use crate::server::repository;

/// Every reason that the API knows, from its schema.
fn known() -> BTreeSet<String> {
    let schema = schemars::schema_for!(Reason).to_value();
    let mut names = BTreeSet::new();
    collect(&schema, &mut names);
    names
}

/// Variants without a comment of their own are in an `enum`, each of the others is a `const`.
fn collect(schema: &Value, names: &mut BTreeSet<String>) {
    let listed = schema["enum"].as_array().into_iter().flatten();
    names.extend(listed.chain(schema.get("const")).filter_map(Value::as_str).map(String::from));
    for one in schema["oneOf"].as_array().into_iter().flatten() {
        collect(one, names);
    }
}

/// The reasons that the page explains: in the first cell of a row, or in the sentence about the good ones.
fn explained(page: &str) -> BTreeSet<String> {
    let section =
        page.split("\n## ").find_map(|section| section.strip_prefix("Reasons\n")).unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let good = section.split("\n### Good\n").nth(1).and_then(|rest| rest.trim().split("\n\n").next());
    let is_name = |word: &&str| word.starts_with(|sign: char| sign.is_ascii_uppercase());
    let words = cells.chain(good).flat_map(|text| text.split(|sign: char| !sign.is_ascii_alphanumeric()));
    words.filter(is_name).map(String::from).collect()
}

#[test]
fn the_page_about_operations_explains_every_reason_and_no_other() {
    let page = fs::read_to_string(repository("docs/operations.md")).unwrap();
    let (known, explained) = (known(), explained(&page));
    assert!(known.contains("GateFailed") && known.contains("Ready"), "{known:?}");
    let missing: Vec<_> = known.difference(&explained).collect();
    assert!(missing.is_empty(), "docs/operations.md does not explain {missing:?}");
    // The sentence about the good ones names a condition.
    let unknown: Vec<_> = explained.difference(&known).filter(|word| *word != "Compliant").collect();
    assert!(unknown.is_empty(), "docs/operations.md explains {unknown:?}, which is no reason");
}

#[test]
fn every_gate_is_explained_to_users_and_wakes_somebody_when_it_fails() {
    let read = |path: &str| fs::read_to_string(repository(path)).unwrap();
    let (guide, alerts) = (read("docs/user-guide.md"), read("charts/lethe/files/alerts.yaml"));
    for gate in GateName::ALL {
        assert!(guide.contains(&format!("| `{gate}` | ")), "docs/user-guide.md does not explain {gate}");
        let is_for = |line: &str| {
            let named = line.split_once("gate=").and_then(|(_, rest)| rest.split('"').nth(1));
            named.is_some_and(|names| names.split('|').any(|name| name == gate.as_str()))
        };
        assert!(alerts.lines().any(is_for), "no alert fires for {gate}");
    }
}
