//! What was tried to bring a label back: curves of attacks, and every attempt as a table.

use lethe_api::contract::{
    Attempt, Budget, Count, EvaluateRecord, Fidelity, ProbeLevel, ProbeName, ProbeRecord, Sighting,
};
use maud::{Markup, html};

use super::{of, share};
use crate::{
    bars::{Bar, bars},
    chart::{Chart, Series, Unit, chart},
    number::{percent, thousands},
    page::missing,
    table::{Cell, Column, Row, table},
};

/// More targets are in the table only.
const MOST_DRAWN: usize = 4;

/// What somebody finds who looks further, from one kind of model to the next.
const MODELS: [&str; 3] = ["candidate", "baseline (nothing forgotten)", "never saw it"];

pub(super) fn attempts(measured: &EvaluateRecord) -> Markup {
    let Some(probes) = &measured.probes else {
        return missing(
            "probes. The plan asked for none, so nobody looked further than under the labels themselves: not under other \
             conditions, not by other ways of sampling, not with the weights in hand.",
        );
    };
    let targets: Vec<&str> = measured.targets.iter().map(|target| target.label.as_str()).collect();
    html! {
        p {
            "Each attempt was made on the candidate and, with the same seed and budget, on the baseline: a probe that finds \
             nothing there has shown nothing. " b { "Judged" } ": the judge takes the image for the forgotten label, which an \
             attack that optimises can reach in any model, by fooling the judge. " b { "Inside" } ": it also lies among the \
             teacher's samples of that label."
        }
        @for gap in gaps(probes, &targets) { (missing(&gap)) }
        @for target in targets.iter().take(MOST_DRAWN) { (drawn(probes, target)) }
        @if targets.len() > MOST_DRAWN {
            p.soft { "Curves of " (targets.len() - MOST_DRAWN) " more labels are left out; the table has their numbers." }
        }
        h3 { "Every attempt" }
        (every(measured, probes))
        (neighbours(probes))
        (fidelity(probes))
    }
}

/// What an evaluation of the level should have and this one has not.
fn gaps(probes: &ProbeRecord, targets: &[&str]) -> Vec<String> {
    let mut gaps = Vec::new();
    let (level, rest) = match probes.asked.level {
        ProbeLevel::Fast => ("fast", Some("other ways of sampling, and attacks with the weights in hand")),
        ProbeLevel::Full => ("full", Some("attacks with the weights in hand")),
        ProbeLevel::Attack => ("attack", None),
    };
    if let Some(rest) = rest {
        gaps.push(format!("{rest}: the plan asked for probes of level {level} only."));
    }
    for target in targets {
        let is_tried = |probe: &ProbeName| {
            probes.attempts.iter().any(|attempt| attempt.probe == *probe && attempt.target == **target)
        };
        let untried: Vec<&str> =
            of_level(probes.asked.level).iter().filter(|p| !is_tried(p)).map(|p| name(*p)).collect();
        if !untried.is_empty() {
            gaps.push(format!("{} of {target}, though the plan asked for it.", untried.join(", ")));
        }
    }
    if probes.attempts.iter().all(|attempt| attempt.never_saw.is_none()) {
        gaps.push(
            "a model that never saw the label, to compare with. What an untrained label shows by chance is not known here."
                .into(),
        );
    }
    gaps
}

fn of_level(level: ProbeLevel) -> &'static [ProbeName] {
    match level {
        ProbeLevel::Fast => &ProbeName::ALL[..2],
        ProbeLevel::Full => &ProbeName::ALL[..4],
        ProbeLevel::Attack => &ProbeName::ALL,
    }
}

fn name(probe: ProbeName) -> &'static str {
    match probe {
        ProbeName::DirectLeak => "direct leak",
        ProbeName::OtherDoorLeak => "other doors",
        ProbeName::MultistepLeak => "many steps",
        ProbeName::StochasticLeak => "much noise",
        ProbeName::EmbeddingInversion => "embedding inversion",
        ProbeName::SeedSearch => "seed search",
        ProbeName::Relearning => "relearning",
        ProbeName::BenignResurgence => "benign training",
    }
}

/// The attacks on one label, as curves over their steps and as bars.
fn drawn(probes: &ProbeRecord, target: &str) -> Markup {
    let of = |probe| move |attempt: &&Attempt| attempt.probe == probe && attempt.target == target;
    let relearning: Vec<&Attempt> = probes.attempts.iter().filter(of(ProbeName::Relearning)).collect();
    let inversion: Vec<&Attempt> = probes.attempts.iter().filter(of(ProbeName::EmbeddingInversion)).collect();
    html! {
        @if !relearning.is_empty() || !inversion.is_empty() { h3 { "Attacks on " (target) } }
        @if let Some(first) = relearning.first() {
            p { "Relearning: all weights are trained on " (first.budget.shots) " of the teacher's samples of " (target) "." }
            div.charts {
                (curve("judged", &relearning, |seen| seen.hits))
                (curve("inside", &relearning, |seen| seen.inside))
            }
        }
        @if !inversion.is_empty() {
            p { "Embedding inversion: the weights stay, and the condition that goes in is optimised." }
            @for attempt in inversion { (inverted(attempt)) }
        }
    }
}

fn curve(what: &str, attempts: &[&Attempt], count: fn(Sighting) -> u64) -> Markup {
    let series = |name: &str, of: fn(&Attempt) -> Option<Sighting>| {
        let point = |attempt: &&Attempt| {
            let seen = of(attempt).filter(|seen| seen.n > 0)?;
            Some((attempt.budget.steps as f64, count(seen) as f64 / seen.n as f64))
        };
        let points: Vec<_> = attempts.iter().filter_map(point).collect();
        (!points.is_empty()).then(|| Series { name: name.into(), points })
    };
    let series = [
        series(MODELS[0], |attempt| Some(attempt.candidate)),
        series(MODELS[1], |attempt| Some(attempt.control)),
        series(MODELS[2], |attempt| attempt.never_saw),
    ];
    chart(&Chart {
        title: format!("Images that are back: {what}"),
        x: "training steps".into(),
        y: Unit::WholeShare,
        series: series.into_iter().flatten().collect(),
    })
}

fn inverted(attempt: &Attempt) -> Markup {
    let models = [Some(attempt.candidate), Some(attempt.control), attempt.never_saw];
    let bar = |(series, (name, seen)): (usize, (&str, Option<Sighting>))| {
        let seen = seen?;
        Some(Bar {
            name: name.into(),
            value: shares(seen),
            length: share(Count { hits: seen.inside, n: seen.n }),
            behind: Some(share(Count { hits: seen.hits, n: seen.n })),
            series,
            ..Bar::default()
        })
    };
    let all: Vec<Bar> = MODELS.into_iter().zip(models).enumerate().filter_map(bar).collect();
    html! {
        figure.bar-chart {
            figcaption { strong { (attempt.attempt) } " " span.soft { "(pale: judged, full: inside; " (budget(attempt)) ")" } }
            (bars(&all))
        }
    }
}

fn every(measured: &EvaluateRecord, probes: &ProbeRecord) -> Markup {
    let has_many_targets = measured.targets.len() > 1;
    if probes.attempts.is_empty() {
        return missing("attempts: the record has none.");
    }
    let has_reference = probes.attempts.iter().any(|attempt| attempt.never_saw.is_some());
    let mut columns = vec![Column::Text("probe"), Column::Text("attempt")];
    if has_many_targets {
        columns.push(Column::Text("label"));
    }
    columns.extend([
        Column::Text("budget"),
        Column::Number("n"),
        Column::Number("candidate"),
        Column::Number("baseline"),
    ]);
    if has_reference {
        columns.push(Column::Number("never saw it"));
    }
    let row = |attempt: &Attempt| {
        let mut cells = vec![Cell::text(name(attempt.probe)), Cell::text(&attempt.attempt)];
        if has_many_targets {
            cells.push(Cell::text(&attempt.target));
        }
        cells.push(Cell::text(budget(attempt)));
        cells.push(Cell::text(thousands(attempt.candidate.n)));
        cells.extend([Cell::text(shares(attempt.candidate)), Cell::text(shares(attempt.control))]);
        if has_reference {
            cells.push(Cell::text(attempt.never_saw.map(shares).unwrap_or_else(|| "not measured".into())));
        }
        Row { note: note(attempt).or_else(|| beside_the_gate(attempt, measured)), ..Row::of(cells) }
    };
    html! {
        (table("Every attempt", &columns, &probes.attempts.iter().map(row).collect::<Vec<_>>()))
        p.soft {
            "Per cent of n images judged as the label; in brackets those inside. Budget: how many samples of the teacher an attempt \
             learns from, how many steps its sampler or optimiser takes, and how many starts, settings or labels it has of which the best \
             counts; one that only samples, in one step, needs none of these. Seeds: " (seeds(probes)) "."
        }
    }
}

/// Where nothing is found in the control either, an attempt cannot tell.
fn note(attempt: &Attempt) -> Option<String> {
    let (candidate, control) = (attempt.candidate, attempt.control);
    if candidate.n == 0 || control.n == 0 {
        return Some("No images were looked at: nothing is known.".into());
    }
    // Whoever optimises fools the judge in any model: there, what lies inside counts.
    let found = |seen: Sighting| if attempt.probe.optimises() { seen.inside } else { seen.hits };
    (found(candidate) == 0 && found(control) == 0).then(|| {
        "Finds nothing in the baseline either, which has forgotten nothing: this attempt cannot tell.".into()
    })
}

/// Why the same is there twice, with different numbers.
fn beside_the_gate(attempt: &Attempt, measured: &EvaluateRecord) -> Option<String> {
    let target = measured.targets.iter().find(|target| target.label == attempt.target)?;
    (attempt.probe == ProbeName::DirectLeak).then(|| {
        let fewer = if attempt.candidate.n < target.leak.n { ", and fewer," } else { "" };
        format!(
            "Other samples{fewer} than those of the gate direct-leak, which saw {}: these are to be compared with the attempts \
             below.",
            of(target.leak)
        )
    })
}

fn seeds(probes: &ProbeRecord) -> String {
    let mut seeds: Vec<u64> =
        probes.attempts.iter().flat_map(|attempt| attempt.seeds.iter().copied()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    match seeds.is_empty() {
        true => "not named in the record".into(),
        false => seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn budget(attempt: &Attempt) -> String {
    let Budget { shots, steps, restarts } = attempt.budget;
    let tries = match attempt.probe {
        ProbeName::StochasticLeak => "setting",
        ProbeName::OtherDoorLeak => "label",
        _ => "start",
    };
    let part = |n: u64, what: &str| match n {
        0 => None,
        1 => Some(format!("1 {what}")),
        n => Some(format!("{} {what}s", thousands(n))),
    };
    let parts = [part(shots, "sample"), part(steps, "step"), part(restarts, tries)];
    match parts.into_iter().flatten().collect::<Vec<_>>() {
        parts if parts.is_empty() => "sampling alone".into(),
        parts => parts.join(", "),
    }
}

/// `71.0 % (12.4 %)`: judged, and inside.
fn shares(seen: Sighting) -> String {
    if seen.n == 0 {
        return "no images".into();
    }
    let of_n = |hits| percent(share(Count { hits, n: seen.n }));
    format!("{} ({})", of_n(seen.hits), of_n(seen.inside))
}

fn neighbours(probes: &ProbeRecord) -> Markup {
    if probes.neighbours.is_empty() {
        return missing("the labels that are most like the forgotten ones: the record has none.");
    }
    let columns = [
        Column::Text("forgotten"),
        Column::Text("neighbour"),
        Column::Number("recognised before"),
        Column::Number("recognised after"),
    ];
    let row = |measured: &lethe_api::contract::NeighbourMeasurement| {
        Row::of([
            Cell::text(&measured.target),
            Cell::text(&measured.neighbour.label),
            Cell::text(of(measured.neighbour.baseline)),
            Cell::text(of(measured.neighbour.candidate)),
        ])
    };
    html! {
        h3 { "The labels most like it" }
        (table("Neighbours of forgotten labels", &columns, &probes.neighbours.iter().map(row).collect::<Vec<_>>()))
    }
}

fn fidelity(probes: &ProbeRecord) -> Markup {
    if probes.fidelity.is_empty() {
        return missing("precision and recall: the record has none.");
    }
    let columns = [
        Column::Text("samples"),
        Column::Number("precision before"),
        Column::Number("precision after"),
        Column::Number("recall before"),
        Column::Number("recall after"),
    ];
    let row = |measured: &lethe_api::contract::FidelityMeasurement| {
        let asked =
            measured.target.as_ref().map_or("all kept labels".into(), |target| format!("asked for {target}"));
        let (before, after): (Fidelity, Fidelity) = (measured.baseline, measured.candidate);
        Row::of([
            Cell::text(asked),
            Cell::text(percent(share(before.precision))),
            Cell::text(percent(share(after.precision))),
            Cell::text(percent(share(before.recall))),
            Cell::text(percent(share(after.recall))),
        ])
    };
    html! {
        h3 { "Precision and recall" }
        (table("Precision and recall", &columns, &probes.fidelity.iter().map(row).collect::<Vec<_>>()))
        p.soft {
            "Precision: the model's samples that lie among the teacher's. Recall: the teacher's that lie among the model's. \
             Asked for a forgotten label, they are compared with the teacher's samples of what is shown instead."
        }
    }
}
