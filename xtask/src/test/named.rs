//! Tests that documents name, as `file.rs::test`: each is there, or the page has rotted. And the other way round: the page about
//! failures is the index of all scenarios.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};

use super::{links, tidy};
use crate::cache;

/// The page that names all scenarios, and where these are.
const INDEX: &str = "docs/failure-modes.md";
const SCENARIOS: [&str; 2] = ["operator/core/tests/", "tests/tests/"];

/// The folder and file of a test, from the root of the repository, and its name.
type Test = (String, String);

pub(super) fn run() -> Result<()> {
    let files = tidy::files()?;
    let read = |file: &String| {
        let text = fs::read_to_string(cache::workspace().join(file));
        text.with_context(|| format!("cannot read {file}"))
    };
    let mut tests = BTreeSet::new();
    for file in files.iter().filter(|file| file.ends_with(".rs") || file.ends_with(".py")) {
        tests.extend(tests_of(file, &read(file)?));
    }
    let (mut named, mut bad) = (0, Vec::new());
    for file in files.iter().filter(|file| file.ends_with(".md")) {
        let text = read(file)?;
        if file == INDEX {
            bad.extend(
                unlisted(&text, &tests).into_iter().map(|test| format!("{INDEX} does not name {test}")),
            );
        }
        for mention in mentions(&text) {
            named += 1;
            bad.extend(wrong(mention, &tests).map(|why| format!("{file}: {mention}: {why}")));
        }
    }
    if !bad.is_empty() {
        bail!("tests that are not there, or in no index:\n  {}", bad.join("\n  "));
    }
    if named == 0 {
        bail!("no document names a test: whoever reads them learns nothing about what was tried");
    }
    Ok(())
}

/// The scenarios that a page names neither by themselves nor with all others of their file.
fn unlisted(page: &str, tests: &BTreeSet<Test>) -> Vec<String> {
    let named: BTreeSet<&str> = mentions(page).collect();
    let scenarios = tests.iter().filter_map(|(path, test)| {
        let file = SCENARIOS.iter().find_map(|folder| path.strip_prefix(folder))?;
        let scenario = format!("{file}::{test}");
        let is_listed = named.contains(scenario.as_str()) || page.contains(&format!("`{file}`"));
        (!is_listed).then_some(scenario)
    });
    scenarios.collect()
}

/// Everything of the form `file.rs::name` or `file.py::name`, outside of blocks of code.
fn mentions(text: &str) -> impl Iterator<Item = &str> {
    links::prose(text).flat_map(|line| {
        line.match_indices("::").filter_map(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + 2..]);
            let start = before.rfind(|sign| !is_of_path(sign)).map_or(0, |last| last + 1);
            let length = after.find(|sign| !is_of_name(sign)).unwrap_or(after.len());
            let is_file = before.ends_with(".rs") || before.ends_with(".py");
            // What comes before the file is ASCII or a sign that is no part of it: its last byte may not be.
            (is_file && length > 0).then(|| line.get(start..at + 2 + length)).flatten()
        })
    })
}

fn is_of_path(sign: char) -> bool {
    is_of_name(sign) || ['/', '.', '-'].contains(&sign)
}

fn is_of_name(sign: char) -> bool {
    sign.is_ascii_alphanumeric() || sign == '_'
}

/// Why a mention is none of exactly one test. It names as much of the folder as is needed.
fn wrong(mention: &str, tests: &BTreeSet<Test>) -> Option<String> {
    let (file, name) = mention.split_once("::")?;
    let is_in =
        |path: &str| path.strip_suffix(file).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    let found: Vec<&str> = tests
        .iter()
        .filter(|(path, test)| test == name && is_in(path))
        .map(|(path, _)| path.as_str())
        .collect();
    match found[..] {
        [_] => None,
        [] => Some("there is no such test".into()),
        _ => Some(format!("it is in {}; name the folder", found.join(" and in "))),
    }
}

/// The tests in a file: functions below `#[test]` or alike, the entries of `scenarios!`, and Python's `test_` methods.
fn tests_of(file: &str, source: &str) -> Vec<Test> {
    if file.ends_with(".py") {
        let names = source.lines().filter_map(|line| function(line, "def "));
        return names
            .filter(|name| name.starts_with("test"))
            .map(|name| (file.into(), name.into()))
            .collect();
    }
    let mut tests = scenarios(file, source);
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        is_test |= line.starts_with("#[") && line.contains("test]") || line.starts_with("#[tokio::test");
        if let Some(name) = function(line, "fn ") {
            tests.extend(is_test.then(|| (file.to_owned(), name.to_owned())));
            is_test = false;
        }
    }
    tests
}

/// The name of the function that a line defines.
fn function<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let line = line.trim();
    let rest = ["", "async ", "pub ", "pub async "].iter().find_map(|first| {
        let line = line.strip_prefix(first)?;
        line.strip_prefix(keyword)
    })?;
    rest.split(['(', '<']).next()
}

/// `scenarios![module: one, another; ...]` names the tests of the modules beside it.
fn scenarios(file: &str, source: &str) -> Vec<Test> {
    let Some((_, list)) = source.split_once("(scenarios![") else { return Vec::new() };
    let list = list.split(']').next().unwrap_or_default();
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let modules = list.split(';').filter_map(|module| module.split_once(':'));
    modules
        .flat_map(|(module, names)| {
            let path = format!("{folder}/{}.rs", module.trim());
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(move |name| (path.clone(), name.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(files: &[(&str, &str)]) -> BTreeSet<Test> {
        files.iter().flat_map(|(file, source)| tests_of(file, source)).collect()
    }

    #[test]
    fn mentions_are_found_in_prose_and_not_in_code() {
        let text = "| a | `api/a.rs::one`, b.rs::two; | é`c_d.py::test_x` |\n```\ne.rs::three\n```\n`apply::apply` f.rs::\n";
        assert_eq!(mentions(text).collect::<Vec<_>>(), ["api/a.rs::one", "b.rs::two", "c_d.py::test_x"]);
    }

    #[test]
    fn a_scenario_is_in_the_index_by_itself_or_with_its_file() {
        let two = "#[test]\nfn one() {}\n#[test]\nfn two() {}\n";
        let tests = index(&[
            ("operator/core/tests/scenarios/a.rs", two),
            ("tests/tests/api/b.rs", two),
            ("x/c.rs", two),
        ]);
        let left_out = |page: &str| unlisted(page, &tests);
        assert_eq!(left_out("`scenarios/a.rs::one`, `api/b.rs`, a.rs"), ["scenarios/a.rs::two"]);
        assert_eq!(left_out("`scenarios/a.rs` `scenarios/a.rs::none`").len(), 2);
        assert!(left_out("`scenarios/a.rs::one`, `scenarios/a.rs::two`, `api/b.rs`").is_empty());
    }

    #[test]
    fn a_mention_is_of_one_test() {
        let module = "#[test]\nfn one() {}\n\nfn helper() {}\n";
        let tests = index(&[("x/a.rs", module), ("y/a.rs", module), ("x/b.rs", module)]);
        assert_eq!(wrong("b.rs::one", &tests), None);
        assert_eq!(wrong("y/a.rs::one", &tests), None);
        assert_eq!(wrong("x/b.rs::one", &tests), None);
        assert!(wrong("a.rs::one", &tests).unwrap().contains("x/a.rs and in y/a.rs"));
        for gone in ["b.rs::two", "b.rs::helper", "c.rs::one", "z/b.rs::one", "ab.rs::one"] {
            assert!(wrong(gone, &tests).unwrap().contains("no such test"), "{gone}");
        }
    }

    #[test]
    fn every_way_to_write_a_test_is_known() {
        let rust = "proptest! {\n    #[test]\n    /// Why.\n    fn drawn(n in 0..1) {}\n}\n#[tokio::test(start_paused = \
                    true)]\nasync fn waits() {}\n#[cfg(test)]\nmod tests {}\nfn no_test() {}\n";
        let python = "def helper(a):\n    pass\nclass A:\n    def test_this(self):\n        pass\n";
        let main = "fn main() {\n    run::<T>(scenarios![\n        first:\n            one,\n            two;\n        second: \
                    one;\n    ])\n}\n";
        let tests = index(&[("a.rs", rust), ("t.py", python), ("api/main.rs", main)]);
        let found: Vec<String> = tests.iter().map(|(file, name)| format!("{file} {name}")).collect();
        let all = ["a.rs drawn", "a.rs waits", "api/first.rs one", "api/first.rs two", "api/second.rs one"];
        assert_eq!(found, [&all[..], &["t.py test_this"]].concat());
    }
}
