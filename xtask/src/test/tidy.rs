//! Rules for files: small enough to read, small enough to clone.

use std::path::Path;
use std::process::Command;
use std::{fs, iter};

use anyhow::{Context, Result, bail};

use crate::{cache, cmd};

/// No file of the repository is larger.
const MAX_BYTES: u64 = 1 << 20;
/// No source file is longer. A longer one has two subjects.
const MAX_LINES: usize = 500;

pub(super) fn run() -> Result<()> {
    let mut bad = Vec::new();
    for file in files()? {
        bad.extend(faults(&file, &cache::workspace().join(&file))?);
    }
    if !bad.is_empty() {
        bail!("{}", bad.join("\n"));
    }
    Ok(())
}

/// Every file of the repository, and those that are about to become part of it.
pub(super) fn files() -> Result<Vec<String>> {
    let list = cmd::output(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(cache::workspace()),
    )?;
    // Some are listed, and deleted in the working tree.
    Ok(list.lines().filter(|file| cache::workspace().join(file).exists()).map(String::from).collect())
}

fn faults(name: &str, path: &Path) -> Result<Vec<String>> {
    let content = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let size = content.len() as u64;
    let too_large =
        (size > MAX_BYTES).then(|| format!("{name}: {size} bytes; at most {MAX_BYTES} are allowed"));
    let source = name.ends_with(".rs").then(|| String::from_utf8_lossy(&content).into_owned());
    let lines = source.iter().flat_map(|source| source.lines()).count();
    let too_long =
        (lines > MAX_LINES).then(|| format!("{name}: {lines} lines; at most {MAX_LINES} are allowed"));
    let unfinished = source.into_iter().flat_map(|source| unfinished(name, &source).collect::<Vec<_>>());
    Ok(iter::empty().chain(too_large).chain(too_long).chain(unfinished).collect())
}

/// Work that says of itself that it is not done.
fn unfinished<'a>(name: &'a str, source: &'a str) -> impl Iterator<Item = String> + 'a {
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    source.lines().enumerate().filter(move |(_, line)| marks.iter().any(|mark| line.contains(mark))).map(
        move |(index, line)| format!("{name}:{}: unfinished by its own words: {}", index + 1, line.trim()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_work_is_found_by_line() {
        let source = format!("fn f() {{\n    {}!()\n}}\n", "todo");
        assert_eq!(unfinished("a.rs", &source).collect::<Vec<_>>().len(), 1);
        assert_eq!(unfinished("a.rs", "fn f() {}\n").count(), 0);
    }
}
