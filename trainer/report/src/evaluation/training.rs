//! How the forgetting went: losses and looks over the steps.

use std::collections::BTreeMap;

use lethe_api::contract::Metrics;
use maud::{Markup, html};

use super::Evaluation;
use crate::{
    chart::{Chart, SERIES, Series, Unit, chart},
    number::{percent, thousands},
    page::missing,
};

/// More charts of one kind are not drawn.
const MOST_CHARTS: usize = 8;
/// What looks find as shares; anything else may have any size.
const SHARES: [&str; 3] = ["leak", "kept accuracy", "override conformity"];

pub(super) fn curves(evaluation: &Evaluation<'_>) -> Markup {
    let lines = match &evaluation.training {
        Ok(lines) if lines.is_empty() => {
            return missing("the curves of the training: there are no lines in them.");
        }
        Ok(lines) => lines,
        Err(why) => return missing(&format!("the curves of the training: {why}.")),
    };
    let looks = looks(lines);
    html! {
        p { (told(lines)) }
        h3 { "Losses" }
        (charts(&losses(lines)))
        h3 { "Looks at the model while it learnt" }
        @if looks.is_empty() {
            (missing("looks: this training did not look at its model while it ran, so there is no curve of the leak."))
        } @else {
            (charts(&looks))
            @if let Some(leak) = last(lines, "leak") {
                p.soft {
                    "Leak: the largest share, over the labels to forget, of a few samples that the judge takes for the label; "
                    (percent(leak)) " at the last look. What decides is measured afterwards, from many more samples."
                }
            }
        }
    }
}

fn told(lines: &[Metrics]) -> String {
    let Some(end) = lines.last() else { return String::new() };
    let early = if end.step < end.total { ", and ended early" } else { "" };
    format!(
        "The training ({}) took {} of {} steps{early}, on {} images that it drew itself.",
        end.stage,
        thousands(end.step),
        thousands(end.total),
        thousands(end.images)
    )
}

fn last(lines: &[Metrics], look: &str) -> Option<f64> {
    lines.iter().rev().find_map(|line| line.looks.get(look).copied())
}

fn charts(all: &[Chart]) -> Markup {
    html! {
        @if all.is_empty() { (missing("losses: the training named none.")) }
        div.charts { @for one in all.iter().take(MOST_CHARTS) { (chart(one)) } }
        @if all.len() > MOST_CHARTS { (missing(&format!("{} more charts: too many to draw.", all.len() - MOST_CHARTS))) }
    }
}

/// One chart per network: what stands before the bracket. The branches in it are its lines.
fn losses(lines: &[Metrics]) -> Vec<Chart> {
    let mut networks: BTreeMap<&str, Vec<Series>> = BTreeMap::new();
    for (name, points) in series(lines, |line| &line.losses) {
        let (network, branch) = name.split_once(" (").unwrap_or((name, "all)"));
        let name = branch.strip_suffix(')').unwrap_or(branch).to_owned();
        networks.entry(network).or_default().push(Series { name, points });
    }
    let split = |(network, mut all): (&str, Vec<Series>)| {
        let mut charts = Vec::new();
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(SERIES.len()));
            charts.push(over_steps(format!("Loss of the {network}"), Unit::Plain, all));
            all = rest;
        }
        charts
    };
    networks.into_iter().flat_map(split).collect()
}

/// One chart per kind of look; the leak first.
fn looks(lines: &[Metrics]) -> Vec<Chart> {
    let mut found: Vec<_> = series(lines, |line| &line.looks).into_iter().collect();
    found.sort_by_key(|(name, _)| (*name != "leak", *name));
    let one = |(name, points): (&str, Vec<(f64, f64)>)| {
        let unit = if SHARES.contains(&name) { Unit::Share } else { Unit::Plain };
        over_steps(capital(name), unit, vec![Series { name: name.to_owned(), points }])
    };
    found.into_iter().map(one).collect()
}

/// Every name of a kind, with its values over the steps.
fn series(lines: &[Metrics], of: fn(&Metrics) -> &BTreeMap<String, f64>) -> BTreeMap<&str, Vec<(f64, f64)>> {
    let mut found: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for line in lines {
        for (name, value) in of(line) {
            found.entry(name).or_default().push((line.step as f64, *value));
        }
    }
    found
}

fn over_steps(title: String, y: Unit, series: Vec<Series>) -> Chart {
    Chart { title, x: "steps".into(), y, series }
}

fn capital(name: &str) -> String {
    let mut characters = name.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
