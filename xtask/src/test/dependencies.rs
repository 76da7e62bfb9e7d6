//! Licences and duplicate versions of dependencies, by the rules of `deny.toml`, from `cargo metadata`.
//! cargo-deny reads the same file; this needs nothing that has to be installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cargo::{self, Build};
use crate::{cache, cmd};

#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// Absent for members of the workspace.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
}

/// Every dependency's licence expression can be satisfied from the allowed ones.
pub(super) fn licences() -> Result<()> {
    let (rules, packages) = (rules()?, dependencies()?);
    let bad: Vec<String> = packages
        .iter()
        .filter_map(|package| {
            let why = refused(package.license.as_deref(), &rules.licenses.allow)?;
            Some(format!("{} {}: {why}", package.name, package.version))
        })
        .collect();
    if !bad.is_empty() {
        bail!("licences that deny.toml does not allow:\n  {}", bad.join("\n  "));
    }
    Ok(())
}

/// Why a licence expression is refused.
fn refused(expression: Option<&str>, allowed: &[String]) -> Option<String> {
    let Some(text) = expression else { return Some("no licence is declared".into()) };
    match spdx::Expression::parse_mode(text, spdx::ParseMode::LAX) {
        Err(error) => Some(format!("{text:?} is not a licence expression: {error}")),
        Ok(expression) => {
            let is_allowed = |req: &spdx::LicenseReq| allowed.contains(&req.to_string());
            (!expression.evaluate(is_allowed)).then(|| text.to_owned())
        }
    }
}

/// No crate is there in two versions, but for those that deny.toml names with a reason.
pub(super) fn duplicates() -> Result<()> {
    let rules = rules()?;
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in dependencies()? {
        versions.entry(package.name).or_default().insert(package.version);
    }
    let bad = unexplained(&versions, &rules.bans.skip.into_iter().map(|skip| skip.name).collect());
    if !bad.is_empty() {
        bail!("duplicate versions, and what deny.toml says of them:\n  {}", bad.join("\n  "));
    }
    Ok(())
}

/// Duplicates without a reason, and reasons without a duplicate. All versions but one must have a reason.
fn unexplained(versions: &BTreeMap<String, BTreeSet<String>>, reasons: &BTreeSet<String>) -> Vec<String> {
    let mut bad = Vec::new();
    for (name, versions) in versions {
        let without: Vec<_> =
            versions.iter().filter(|version| !reasons.contains(&format!("{name}@{version}"))).collect();
        if versions.len() > 1 && without.len() > 1 {
            let list = versions.iter().cloned().collect::<Vec<_>>().join(", ");
            bad.push(format!("{name}: {list}; name all but one under bans.skip, or get rid of them"));
        }
    }
    for reason in reasons {
        let there = reason.split_once('@').and_then(|(name, version)| {
            versions.get(name).map(|versions| versions.len() > 1 && versions.contains(version))
        });
        if there != Some(true) {
            bad.push(format!("{reason}: no duplicate any more; remove it from bans.skip"));
        }
    }
    bad
}

fn rules() -> Result<Rules> {
    let file = cache::workspace().join("deny.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    toml::from_str(&text).with_context(|| format!("cannot read {}", file.display()))
}

/// What is in some binary or test for the platforms that deny.toml names.
fn dependencies() -> Result<Vec<Package>> {
    let mut command = cargo::command(&Build::default())?;
    command.args(["metadata", "--locked", "--format-version", "1"]);
    for target in rules()?.graph.targets {
        command.args(["--filter-platform", &target]);
    }
    let metadata: Metadata = serde_json::from_str(&cmd::output(&mut command)?)
        .context("cannot read what `cargo metadata` says")?;
    let used: BTreeSet<String> = metadata.resolve.nodes.into_iter().map(|node| node.id).collect();
    let is_used = |package: &Package| package.source.is_some() && used.contains(&package.id);
    Ok(metadata.packages.into_iter().filter(is_used).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|item| (*item).into()).collect()
    }

    #[test]
    fn an_expression_passes_if_it_can_be_satisfied() {
        let allowed = ["MIT".to_owned(), "Apache-2.0".to_owned(), "Unicode-3.0".to_owned()];
        let passes = |text| refused(Some(text), &allowed).is_none();
        assert!(
            passes("MIT OR GPL-3.0")
                && passes("(MIT OR Apache-2.0) AND Unicode-3.0")
                && passes("MIT/Apache-2.0")
        );
        assert!(!passes("GPL-3.0") && !passes("MIT AND GPL-3.0") && !passes("not a licence"));
        assert!(refused(None, &allowed).is_some());
    }

    #[test]
    fn a_duplicate_needs_a_reason_and_a_reason_needs_a_duplicate() {
        let versions = BTreeMap::from([
            ("one".to_owned(), set(&["1.0.0"])),
            ("two".to_owned(), set(&["1.0.0", "2.0.0"])),
        ]);
        assert_eq!(unexplained(&versions, &set(&["two@1.0.0"])), Vec::<String>::new());
        assert_eq!(unexplained(&versions, &set(&[])).len(), 1);
        assert_eq!(unexplained(&versions, &set(&["two@1.0.0", "one@1.0.0", "gone@1.0.0"])).len(), 2);
    }
}
