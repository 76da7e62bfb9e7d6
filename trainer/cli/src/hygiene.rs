//! What a candidate's bundle may hold: a generator that has forgotten what the plan says, and nothing else.
//!
//! A fake score, an optimiser or a teacher that travels along still knows the concept.

use std::collections::BTreeSet;

use lethe_api::contract::{HygieneCheck, Manifest, PlannedTarget};
use lethe_store::Bundle;

pub(crate) struct Evidence<'a> {
    /// Names of the files in the candidate's folder.
    pub(crate) files: Vec<String>,
    /// Loaded already, so its kind is `Generator`, and its tensors have the names, shapes and types of the
    /// architecture and hold finite values: a bundle that fails that is not measured but refused.
    pub(crate) candidate: &'a Bundle,
    pub(crate) baseline: &'a Bundle,
    /// What its `model.json` says.
    pub(crate) forgotten: &'a [PlannedTarget],
    pub(crate) planned: &'a [PlannedTarget],
}

pub(crate) fn examine(evidence: &Evidence<'_>) -> Vec<HygieneCheck> {
    vec![
        only_known_files(evidence),
        nothing_hidden(evidence),
        not_the_baseline(evidence),
        forgotten(evidence),
    ]
}

fn only_known_files(evidence: &Evidence<'_>) -> HygieneCheck {
    let known = [Manifest::FILE, Manifest::MODEL, Manifest::WEIGHTS];
    let unknown: Vec<&str> =
        evidence.files.iter().map(String::as_str).filter(|file| !known.contains(file)).collect();
    let detail = match unknown.is_empty() {
        true => known.join(", "),
        false => format!("the folder also holds {}", unknown.join(", ")),
    };
    check(HygieneCheck::ONLY_KNOWN_FILES, unknown.is_empty(), detail)
}

fn nothing_hidden(evidence: &Evidence<'_>) -> HygieneCheck {
    // Both files hold the same tensors, so any other length is something beside them: in the header's free
    // metadata, for example, where a second set of weights would fit.
    let (candidate, baseline) = (evidence.candidate.weights().len(), evidence.baseline.weights().len());
    let detail = format!("{candidate} bytes of weights; the same architecture needs {baseline}");
    check(HygieneCheck::NOTHING_BUT_THE_ARCHITECTURE, candidate == baseline, detail)
}

fn not_the_baseline(evidence: &Evidence<'_>) -> HygieneCheck {
    let differs = evidence.candidate.weights() != evidence.baseline.weights();
    let detail = if differs { "other weights than the baseline's" } else { "the baseline's own weights" };
    check(HygieneCheck::NOT_THE_BASELINE, differs, detail)
}

fn forgotten(evidence: &Evidence<'_>) -> HygieneCheck {
    let described: BTreeSet<String> = evidence.forgotten.iter().map(describe).collect();
    let planned: BTreeSet<String> = evidence.planned.iter().map(describe).collect();
    let list = |targets: &BTreeSet<String>| targets.iter().cloned().collect::<Vec<_>>().join(", ");
    let passed = described == planned;
    let detail = match passed {
        true => list(&planned),
        false => format!("model.json says {}; the plan says {}", list(&described), list(&planned)),
    };
    check(HygieneCheck::FORGETS_THE_PLAN, passed, detail)
}

fn describe(target: &PlannedTarget) -> String {
    use lethe_api::contract::Override::{Fixed, Nearest, Random};
    match &target.replacement {
        Fixed { label } => format!("{} -> {label}", target.label),
        Nearest => format!("{} -> nearest", target.label),
        Random => format!("{} -> any kept", target.label),
    }
}

fn check(name: &str, passed: bool, detail: impl Into<String>) -> HygieneCheck {
    // The contract keeps no longer detail.
    HygieneCheck { name: name.into(), passed, detail: detail.into().chars().take(512).collect() }
}
