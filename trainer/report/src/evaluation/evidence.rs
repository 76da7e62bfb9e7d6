//! Names of everything that the numbers are about.

use lethe_api::Digest;
use maud::{Markup, html};

use super::Evaluation;
use crate::{
    page::{definitions, missing},
    table::{Cell, Column, Row, table},
};

pub(super) fn evidence(evaluation: &Evaluation<'_>) -> Markup {
    let Evaluation { record, measured, digest, .. } = evaluation;
    let code = |digest: &Digest| html! { code { (digest) } };
    let mut pairs = vec![
        ("measurement record", code(digest)),
        ("plan", code(&record.plan)),
        ("candidate", code(&measured.candidate)),
        ("baseline", code(&measured.baseline)),
        ("judge", code(&measured.judge)),
        ("reference statistics", code(&measured.reference)),
        ("picture before", code(&measured.before)),
        ("picture after", code(&measured.after)),
    ];
    if let Some(probes) = &measured.probes {
        pairs.push(("teacher, for the probes", code(&probes.asked.teacher)));
        if let Some(attacker) = &probes.attacker {
            pairs.push(("judge that attacks optimised against", code(attacker)));
        }
        if let Some(never_saw) = &probes.asked.never_saw {
            pairs.push(("model that never saw it", code(never_saw)));
        }
    }
    if let Some((_, digest)) = evaluation.ruling.as_ref().and_then(|ruling| ruling.policy.as_ref()) {
        pairs.push(("policy", code(digest)));
    }
    pairs.push(("seed", html! { (record.seed) }));
    pairs.push(("run", html! { (record.run) }));
    pairs.push(("trainer", html! { (record.trainer) }));
    html! {
        p {
            "Each name is the sha256 of what it names: " code { "lethe-trainer show" } " gives the bytes and checks them. \
             Every random number is a function of the seed. The same plan gives the same record, byte for byte, on a CPU with \
             the same number of threads."
        }
        (definitions(&pairs))
        h3 { "Checks of the candidate's files" }
        (hygiene(evaluation))
    }
}

fn hygiene(evaluation: &Evaluation<'_>) -> Markup {
    let checks = &evaluation.measured.hygiene;
    if checks.is_empty() {
        return missing("checks of the candidate's files: the record has none.");
    }
    let row = |check: &lethe_api::contract::HygieneCheck| {
        let (text, class) = if check.passed { ("\u{2713} yes", "good") } else { ("\u{2717} no", "bad") };
        Row::of([Cell::text(&check.name), Cell::classed(text, class), Cell::text(&check.detail)])
    };
    let columns = [Column::Text("check"), Column::Text("holds"), Column::Text("detail")];
    table("Checks of the candidate's files", &columns, &checks.iter().map(row).collect::<Vec<_>>())
}
