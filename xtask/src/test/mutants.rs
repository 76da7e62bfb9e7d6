//! The tier `mutants`: does the model checker watch the code that decides? Every mistake of a list is
//! made in a copy of the repository, and the checker must find each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{count::Counts, tidy};
use crate::cargo::{self, Build};
use crate::{cache, cmd, progress};

const LIST: &str = "operator/model/mutants.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// One line of one file, and what becomes of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// What is wrong then, for people.
    mistake: String,
    /// The number of the invariant that does not hold then.
    breaks: u32,
    /// The check that is to find it, where the first ones would take long to find nothing.
    check: Option<String>,
    file: String,
    line: String,
    becomes: String,
}

/// # Errors
/// If the list does not fit the code any more. Mistakes that are not found are in the counts.
pub(super) fn run(filter: Option<&str>) -> Result<Counts> {
    let list =
        fs::read_to_string(cache::workspace().join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    let List { mutant: mutants } =
        toml::from_str(&list).with_context(|| format!("{LIST} is not as it should be"))?;
    let copy = copy()?;
    for mutant in &mutants {
        mutant.apply(&original(&mutant.file)?)?;
    }
    let mut counts = Counts::default();
    for mutant in mutants.iter().filter(|mutant| filter.is_none_or(|filter| mutant.mistake.contains(filter)))
    {
        let start = Instant::now();
        let found = mutant.is_found(&copy)?;
        let time = progress::seconds(start.elapsed());
        match &found {
            Ok(how) => println!("found in {time}: {} ({how})", mutant.mistake),
            Err(why) => println!("NOT FOUND in {time}: {}\n{why}", mutant.mistake),
        }
        counts = counts + Counts { passed: found.is_ok().into(), failed: found.is_err().into() };
    }
    Ok(counts)
}

fn original(file: &str) -> Result<String> {
    fs::read_to_string(cache::workspace().join(file)).with_context(|| format!("cannot read {file}"))
}

/// A copy of every file of the repository. What is the same already is left alone, so that cargo does not build it again.
fn copy() -> Result<PathBuf> {
    let copy = cache::workspace().join("target/mutants");
    for file in tidy::files()? {
        let content =
            fs::read(cache::workspace().join(&file)).with_context(|| format!("cannot read {file}"))?;
        let to = copy.join(&file);
        if fs::read(&to).is_ok_and(|known| known == content) {
            continue;
        }
        let parent = to.parent().context("a file has a directory")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&to, content))
            .with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(copy)
}

impl Mutant {
    /// The source with the mistake in it.
    fn apply(&self, source: &str) -> Result<String> {
        let is_it = |line: &&str| line.trim() == self.line;
        let there = source.lines().filter(is_it).count();
        if there != 1 {
            bail!("{}: the line is there {there} times, not once: {}\n(see {LIST})", self.file, self.line);
        }
        let changed =
            |line: &str| if line.trim() == self.line { self.becomes.clone() } else { line.to_owned() };
        Ok(source.lines().map(changed).collect::<Vec<_>>().join("\n") + "\n")
    }

    /// How the checker found the mistake, or what it said instead.
    fn is_found(&self, copy: &Path) -> Result<Result<String, String>> {
        let (file, source) = (copy.join(&self.file), original(&self.file)?);
        let write =
            |text: &str| fs::write(&file, text).with_context(|| format!("cannot write {}", self.file));
        write(&self.apply(&source)?)?;
        let said = check(copy, self.check.as_deref());
        write(&source)?;
        let (passed, said) = said?;
        let violated = said.lines().find_map(|line| line.trim().strip_prefix("violated: "));
        Ok(match violated {
            Some(property) if !passed && property.starts_with(&format!("{} ", self.breaks)) => {
                Ok(property.into())
            }
            _ => Err(said),
        })
    }
}

/// Whether the checker is content with the copy, and what it said.
fn check(copy: &Path, only: Option<&str>) -> Result<(bool, String)> {
    let mut command: Command = cargo::command(&Build::default())?;
    // Cargo calls a crate by where it lies in its workspace: in the directory of the true code, a mistake would be taken for it.
    let target =
        command.get_envs().find(|(name, _)| *name == "CARGO_TARGET_DIR").and_then(|(_, value)| value);
    let target = Path::new(target.context("cargo has a target directory")?).join("mutants");
    command.env("CARGO_TARGET_DIR", target).current_dir(copy).args([
        "test",
        "--locked",
        "--quiet",
        "-p",
        "lethe-model",
        "--test",
        "checker",
    ]);
    command.args(only);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", cmd::line(&command)))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(line: &str) -> Mutant {
        Mutant {
            mistake: "two for one".into(),
            breaks: 1,
            check: None,
            file: "a.rs".into(),
            line: line.into(),
            becomes: "2".into(),
        }
    }

    #[test]
    fn a_line_that_is_not_there_exactly_once_is_not_replaced() {
        assert_eq!(mutant("1").apply("0\n  1\n3\n").unwrap(), "0\n2\n3\n");
        assert!(mutant("1").apply("0\n1\n  1\n").unwrap_err().to_string().contains("2 times"));
        assert!(mutant("1").apply("0\n").unwrap_err().to_string().contains("0 times"));
    }

    #[test]
    fn every_mistake_of_the_list_can_still_be_made() {
        let list: List = toml::from_str(&original(LIST).unwrap()).unwrap();
        for mutant in &list.mutant {
            mutant.apply(&original(&mutant.file).unwrap()).unwrap();
        }
        let broken: std::collections::BTreeSet<_> = list.mutant.iter().map(|mutant| mutant.breaks).collect();
        assert!(
            broken.is_superset(&[1, 2, 3, 4, 5, 6, 7, 8].into()),
            "every invariant is broken by one: {broken:?}"
        );
    }
}
