//! Rows of samples: first what was to be forgotten, then what was to stay.

use lethe_api::contract::{Count, EvaluateRecord};
use maud::{Markup, html};

use super::{Evaluation, of};
use crate::{page::missing, picture::Picture};

/// A label, and what was counted there before and after.
struct Line<'a> {
    label: &'a str,
    is_target: bool,
    before: String,
    after: String,
}

pub(super) fn grids(evaluation: &Evaluation<'_>) -> Markup {
    let measured = evaluation.measured;
    let pictures = [
        ("baseline", "before", &measured.before, &evaluation.before),
        ("candidate", "after", &measured.after, &evaluation.after),
    ];
    let open =
        |(model, id, digest, png): (&str, &'static str, &lethe_api::Digest, &Result<Vec<u8>, String>)| {
            let rows = measured.pictured.len().max(1);
            let opened = png.clone().and_then(|png| Picture::new(id, &png, rows));
            opened.map_err(|why| format!("the picture of the {model}, {digest}: {why}."))
        };
    match pictures.map(open) {
        [Ok(before), Ok(after)] if measured.pictured.is_empty() => whole(&before, &after),
        [Ok(before), Ok(after)] => rows(measured, &before, &after),
        [before, after] => html! {
            @for why in [before.err(), after.err()].into_iter().flatten() { (missing(&why)) }
            p { "Pictures prove nothing; the counts below do not depend on them." }
        },
    }
}

fn rows(measured: &EvaluateRecord, before: &Picture, after: &Picture) -> Markup {
    let lines = lines(measured);
    let row_of = |label: &str| measured.pictured.iter().position(|pictured| pictured == label);
    let unseen = lines.iter().filter(|line| row_of(line.label).is_none()).count();
    html! {
        p {
            "Each row is one label, drawn from the same seeds by both models. Below a row: how many samples the judge takes \
             for what. Rows with a mark are labels that had to be forgotten."
        }
        (before.sheet()) (after.sheet())
        div.grid {
            @for line in &lines {
                @if let Some(row) = row_of(line.label) {
                    div.row.target[line.is_target] {
                        div.label { (line.label) @if line.is_target { small { "to forget" } } }
                        @for (when, picture, caption) in [("before", before, &line.before), ("after", after, &line.after)] {
                            figure {
                                (picture.row(row, &format!("Samples drawn for {}, {when}", line.label)))
                                figcaption { b { (when) } ": " (caption) }
                            }
                        }
                    }
                }
            }
        }
        @if unseen > 0 { (missing(&format!("rows of {unseen} more labels: the pictures do not have them."))) }
    }
}

fn whole(before: &Picture, after: &Picture) -> Markup {
    html! {
        (before.sheet()) (after.sheet())
        div.whole {
            figure { (before.whole("Samples of the baseline, a row per label")) figcaption { b { "before" } } }
            figure { (after.whole("Samples of the candidate, a row per label")) figcaption { b { "after" } } }
        }
        (missing("the labels of the rows: the record does not say which row is which."))
    }
}

fn lines(measured: &EvaluateRecord) -> Vec<Line<'_>> {
    let seen = |count: Count, label: &str| format!("{} as {label}", of(count));
    let targets = measured.targets.iter().map(|target| Line {
        label: &target.label,
        is_target: true,
        before: seen(target.control, &target.label),
        after: format!(
            "{}, {} as what is shown instead",
            seen(target.leak, &target.label),
            of(target.override_hits)
        ),
    });
    let kept = measured.retain.iter().map(|kept| Line {
        label: &kept.label,
        is_target: false,
        before: seen(kept.baseline, &kept.label),
        after: seen(kept.candidate, &kept.label),
    });
    targets.chain(kept).collect()
}
