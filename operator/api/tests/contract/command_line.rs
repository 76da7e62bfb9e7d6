//! What docs/command-line.md tells people to type.

use std::{fs, path::Path};

use lethe_api::contract::{Digest, Plan};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of a plan as the shell would leave it, with some digest in place of each that earlier commands have printed.
fn expanded(plan: &str, page: &str) -> String {
    let assigned = |name: &str| {
        let (_, rest) = page.split_once(&format!("\n{name}='")).expect("the page assigns it");
        rest.split_once('\'').expect("a quote ends").0.to_owned()
    };
    let mut text = plan.replace("$targets", &assigned("targets")).replace("$kept", &assigned("kept"));
    text = text.replace("\"$store\"", "\"file:///store\"").replace("\"$base\"", "\"file:///base\"");
    let some = Digest::of("some");
    while let Some(start) = text.find("\"$") {
        let end = start + 1 + text[start + 1..].find('"').expect("a quote ends");
        text.replace_range(start + 1..end, some.as_str());
    }
    text
}

#[test]
fn every_plan_on_the_page_about_the_command_line_is_one() {
    let page = read("docs/command-line.md");
    let plans: Vec<&str> =
        page.split("<<END\n").skip(1).map(|rest| rest.split("\nEND\n").next().unwrap()).collect();
    let kinds: Vec<String> = plans
        .iter()
        .map(|plan| {
            let plan = expanded(plan, &page);
            let plan = Plan::parse(plan.as_bytes()).unwrap_or_else(|error| panic!("{error}: {plan}"));
            format!("{:?}", plan.task.kind())
        })
        .collect();
    assert_eq!(kinds, ["Prepare", "Forget", "Evaluate", "Audit"]);
}

#[test]
fn whoever_uses_the_library_is_told_the_version_of_tch_that_it_uses() {
    let version = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("tch = ")).expect("a line about tch");
        line.split('"').nth(1).expect("a version").to_owned()
    };
    assert_eq!(version(&read("docs/command-line.md")), version(&read("Cargo.toml")));
}
