//! The counts of the record, as tables.

use lethe_api::contract::EvaluateRecord;
use maud::{Markup, html};

use super::{bound, of, ratio, share};
use crate::{
    number::{percent, percent_above, short, thousands},
    page::missing,
    table::{Cell, Column, Row, table},
};

pub(super) fn tables(measured: &EvaluateRecord) -> Markup {
    html! {
        h3 { "At the labels that had to be forgotten" }
        (targets(measured))
        h3 { "At the labels that had to stay" }
        (kept(measured))
        (quality(measured))
    }
}

fn targets(measured: &EvaluateRecord) -> Markup {
    if measured.targets.is_empty() {
        return missing("measurements at forgotten labels: the record has none.");
    }
    let columns = [
        Column::Text("label"),
        Column::Number("seen"),
        Column::Number("95 % bound"),
        Column::Number("shown instead"),
        Column::Number("one label most"),
        Column::Number("seen before"),
        Column::Number("judge's error"),
    ];
    let row = |target: &lethe_api::contract::TargetMeasurement| {
        Row::of([
            Cell::text(&target.label),
            Cell::text(of(target.leak)),
            Cell::text(percent_above(bound(target.leak))),
            Cell::text(of(target.override_hits)),
            Cell::text(of(target.most_common)),
            Cell::text(of(target.control)),
            Cell::text(of(target.base_rate)),
        ])
    };
    html! {
        (table("Samples at forgotten labels", &columns, &measured.targets.iter().map(row).collect::<Vec<_>>()))
        p.soft {
            "Seen: samples that the judge takes for the label. One label most: for the kept label that it takes them for most \
             often. Seen before: the same of the baseline, the positive control. The judge's error: how many of the baseline's \
             true samples of what is shown instead it takes for the forgotten label; a leak below that cannot be told from error."
        }
    }
}

fn kept(measured: &EvaluateRecord) -> Markup {
    if measured.retain.is_empty() {
        return missing("measurements at kept labels: the record has none.");
    }
    let columns = [
        Column::Text("label"),
        Column::Number("recognised before"),
        Column::Number("recognised after"),
        Column::Number("lost"),
    ];
    let row = |kept: &lethe_api::contract::LabelMeasurement| {
        let lost = 100.0 * (share(kept.baseline) - share(kept.candidate));
        Row::of([
            Cell::text(&kept.label),
            Cell::text(format!("{} ({})", percent(share(kept.baseline)), of(kept.baseline))),
            Cell::text(format!("{} ({})", percent(share(kept.candidate)), of(kept.candidate))),
            Cell::text(format!("{lost:.1} points")),
        ])
    };
    table("Samples at kept labels", &columns, &measured.retain.iter().map(row).collect::<Vec<_>>())
}

fn quality(measured: &EvaluateRecord) -> Markup {
    let quality = measured.quality;
    html! {
        p {
            "Frechet distance from the teacher's samples, in the judge's features: " b { (short(quality.candidate)) }
            ", " (ratio(measured)) " the baseline's " (short(quality.baseline)) ", both over " (thousands(quality.n))
            " samples. The teacher's other samples are at " (short(quality.floor)) "."
        }
    }
}
