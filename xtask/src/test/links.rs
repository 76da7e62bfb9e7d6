//! Links from one document of the repository to another: the file is there, and so is the heading.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::tidy;
use crate::cache;

pub(super) fn run() -> Result<()> {
    let mut bad = Vec::new();
    for name in tidy::files()?.iter().filter(|name| name.ends_with(".md")) {
        let path = cache::workspace().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        for target in targets(&text) {
            if let Some(why) = broken(&path, &text, target) {
                bad.push(format!("{name}: {target}: {why}"));
            }
        }
    }
    if !bad.is_empty() {
        bail!("links that lead nowhere:\n  {}", bad.join("\n  "));
    }
    Ok(())
}

/// The targets of `[text](target)`, `![text](target)` and `src="target"`, outside of code.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    prose(text).flat_map(|line| {
        let markdown = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        let html = line.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next());
        markdown.chain(html)
    })
}

/// The lines that are not between fences.
pub(super) fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// Why a link in the document at `path` leads nowhere. Links to other sites are not followed.
fn broken(path: &Path, text: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let there = path.parent()?.join(file);
    if !there.exists() {
        return Some("there is no such file".into());
    }
    if heading.is_empty() {
        return None;
    }
    let other = if file.is_empty() { text.to_owned() } else { fs::read_to_string(&there).ok()? };
    let known = prose(&other).filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading);
    (!known).then(|| "there is no such heading".into())
}

/// The name of a heading in a link: lower case, words joined by hyphens, other signs dropped.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|sign| sign.is_alphanumeric() || [' ', '-', '_'].contains(sign));
    kept.map(|sign| if sign == ' ' { '-' } else { sign }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A title, and `code`\n[a](b.md) ![c](d.png) <img src=\"e.svg\">\n```\n[x](y)\n```\n";

    #[test]
    fn links_and_pictures_are_found_and_code_is_not_read() {
        assert_eq!(targets(TEXT).collect::<Vec<_>>(), ["b.md", "d.png", "e.svg"]);
    }

    #[test]
    fn a_link_needs_its_file_and_its_heading() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("a.md");
        fs::write(dir.path().join("b.md"), "## Other things\n").unwrap();
        let broken = |target| broken(&here, TEXT, target);
        assert_eq!(broken("b.md"), None);
        assert_eq!(broken("b.md#other-things"), None);
        assert_eq!(broken("#a-title-and-code"), None);
        assert_eq!(broken("https://example.org/none"), None);
        assert!(broken("c.md").unwrap().contains("file"));
        assert!(broken("b.md#things").unwrap().contains("heading"));
        assert!(broken("#other-things").unwrap().contains("heading"));
    }
}
