//! Rows of the result, as a table, as JSON and as a figure.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::statistics::{excess, refutes, upper_bound};
use crate::figure::{Group, bars};
use crate::report;

/// Confidence of a bound, and the level of the tests that are made together.
const CONFIDENCE: f64 = 0.95;
/// What a bound of the leak, and a distance over the baseline's, may be at most.
const MOST_LEAK: f64 = 0.003;
const MOST_DISTANCE: f64 = 1.25;

/// One candidate, as it was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `alone`, or which of five requests in which order.
    pub run: String,
    /// Of the teacher, the baseline and the judge.
    pub models: u64,
    /// Of the forgetting.
    pub seed: u64,
    /// Every label that is forgotten, with what is shown instead.
    pub forgotten: Vec<Forgotten>,
    /// Mean over kept labels of the share that the judge recognises, and how much the teacher's exceeds it.
    pub kept: f64,
    pub kept_lost: f64,
    /// Frechet distance over the kept labels, of the candidate and of the baseline.
    pub distance: f64,
    pub baseline_distance: f64,
    /// How much the candidate's precision and recall exceed the baseline's.
    pub precision_gained: f64,
    pub recall_gained: f64,
    pub steps: u64,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    pub label: i64,
    pub instead: i64,
    /// Samples at the label that the judge takes for it, and of the teacher's own samples of what is shown instead.
    pub hits: u64,
    pub base_hits: u64,
    pub n: u64,
    /// 95 % bound of the leak.
    pub bound: f64,
    /// How likely so many hits are at the base rate.
    pub chance: f64,
    /// Share of the samples that the judge takes for what is to be shown instead.
    pub conformity: f64,
}

impl Forgotten {
    pub fn new(label: i64, instead: i64, hits: u64, base_hits: u64, n: u64, conformity: f64) -> Self {
        let (bound, chance) = (upper_bound(hits, n, CONFIDENCE), excess(hits, base_hits));
        Self { label, instead, hits, base_hits, n, bound, chance, conformity }
    }
}

impl Row {
    fn ratio(&self) -> f64 {
        self.distance / self.baseline_distance
    }

    fn worst(&self, value: impl Fn(&Forgotten) -> f64) -> f64 {
        self.forgotten.iter().map(value).fold(f64::NEG_INFINITY, f64::max)
    }
}

/// The names of the runs that the limits speak of.
pub const ALONE: &str = "alone";
pub const AT_ONCE: &str = "five at once";
pub const LAST: &str = "request 5 of 5";

/// What has to hold of the worst row: a name, what was found, the limit, and whether it holds.
fn verdicts(rows: &[Row]) -> Vec<(&'static str, f64, f64, bool)> {
    let worst = |value: &dyn Fn(&Row) -> f64| rows.iter().map(value).fold(f64::NEG_INFINITY, f64::max);
    let at_most = |name, found: f64, limit: f64| (name, found, limit, found <= limit);
    let drift = |row: &Row| {
        let at_once = rows.iter().find(|other| other.run == AT_ONCE && other.models == row.models);
        at_once.filter(|_| row.run.starts_with(LAST)).map(|at_once| row.distance / at_once.distance)
    };
    let drift = rows.iter().filter_map(drift).fold(f64::NEG_INFINITY, f64::max);
    let tests = rows.iter().filter(|row| row.run == ALONE).map(|row| row.forgotten.len()).sum::<usize>();
    let seeds = tests.div_ceil(10).max(1);
    let excessive = rows
        .iter()
        .filter(|row| row.run == ALONE)
        .flat_map(|row| &row.forgotten)
        .filter(|forgotten| refutes(forgotten.chance, 1.0 - CONFIDENCE, tests / seeds))
        .count();
    let mut verdicts = vec![
        at_most("leak, 95 % bound", worst(&|row| row.worst(|f| f.bound)), MOST_LEAK),
        at_most("labels that leak more than the base rate", excessive as f64, 0.0),
        at_most("not shown as the override", worst(&|row| row.worst(|f| 1.0 - f.conformity)), 0.02),
        at_most("kept accuracy lost to the teacher", worst(&|row| row.kept_lost), 0.015),
        at_most("distance over the baseline's", worst(&Row::ratio), MOST_DISTANCE),
        at_most("precision lost to the baseline", worst(&|row| -row.precision_gained), 0.05),
        at_most("recall lost to the baseline", worst(&|row| -row.recall_gained), 0.05),
    ];
    if drift.is_finite() {
        verdicts.push(at_most("distance after five in sequence over five at once", drift, 1.1));
    }
    verdicts
}

/// Leaves `NAME.json`, `NAME.svg` and `NAME.md`.
///
/// # Errors
/// If a file cannot be written.
pub fn publish(out: &Path, name: &str, rows: &[Row]) -> Result<()> {
    report::write(out, name, rows, &figure(rows))?;
    let file = out.join(name).with_extension("md");
    std::fs::write(&file, markdown(rows)).with_context(|| format!("cannot write {}", file.display()))
}

/// The rows as a table, and what the worst of them comes to.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| run | models | seed | forgotten -> shown | hits | at base rate | bound % | override % | kept % | lost pp | FD | ratio | precision | recall | s |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let each = |value: &dyn Fn(&Forgotten) -> String| {
            row.forgotten.iter().map(value).collect::<Vec<_>>().join(", ")
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:+.3} | {:+.3} | {:.0} |",
            row.run,
            row.models,
            row.seed,
            each(&|f| format!("{} -> {}", f.label, f.instead)),
            each(&|f| f.hits.to_string()),
            each(&|f| f.base_hits.to_string()),
            100.0 * row.worst(|f| f.bound),
            100.0 * (1.0 - row.worst(|f| 1.0 - f.conformity)),
            100.0 * row.kept,
            100.0 * row.kept_lost,
            row.distance,
            row.ratio(),
            row.precision_gained,
            row.recall_gained,
            row.seconds,
        );
    }
    text += "\n| the worst of all rows | found | at most | |\n|---|---|---|---|\n";
    for (name, found, limit, holds) in verdicts(rows) {
        let _ = writeln!(
            text,
            "| {name} | {found:.4} | {limit} | {} |",
            if holds { "holds" } else { "**fails**" }
        );
    }
    text
}

/// How much of what is allowed each row takes: the bars have different units, and one limit.
fn figure(rows: &[Row]) -> String {
    let group = |row: &Row| {
        let (ratio, bound) = (row.ratio(), row.worst(|f| f.bound));
        Group {
            name: format!(
                "{}, seed {}",
                row.forgotten.iter().map(|f| f.label.to_string()).collect::<Vec<_>>().join(" "),
                row.models
            ),
            note: row.run.clone(),
            bars: vec![
                Some((ratio / MOST_DISTANCE, format!("{ratio:.2}"))),
                Some((bound / MOST_LEAK, format!("{:.2} %", 100.0 * bound))),
            ],
            limit: Some(1.0),
        }
    };
    let groups: Vec<Group> = rows.iter().map(group).collect();
    bars(
        "Digits forgotten",
        &format!(
            "distance of what is kept over the baseline's; 95 % bound of the leak; dashed: the most, {MOST_DISTANCE} and {} %",
            100.0 * MOST_LEAK
        ),
        &["distance ratio", "leak bound"],
        &groups,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(hits: u64, base: u64) -> Row {
        Row {
            run: ALONE.into(),
            models: 1,
            seed: 1,
            forgotten: vec![Forgotten::new(3, 8, hits, base, 10_000, 0.99)],
            kept: 0.99,
            kept_lost: 0.001,
            distance: 1.1,
            baseline_distance: 1.0,
            precision_gained: 0.01,
            recall_gained: -0.02,
            steps: 1000,
            seconds: 42.0,
        }
    }

    fn failing(rows: &[Row]) -> Vec<&'static str> {
        verdicts(rows).into_iter().filter(|verdict| !verdict.3).map(|verdict| verdict.0).collect()
    }

    #[test]
    fn one_bad_row_is_enough_to_fail() {
        assert!(failing(&[row(3, 4), row(0, 0)]).is_empty());
        assert_eq!(failing(&[row(3, 4), row(40, 39)]), ["leak, 95 % bound"]);
        assert_eq!(failing(&[row(15, 0)]), ["labels that leak more than the base rate"]);
        assert_eq!(failing(&[Row { distance: 1.3, ..row(0, 0) }]), ["distance over the baseline's"]);
        assert_eq!(failing(&[Row { recall_gained: -0.06, ..row(0, 0) }]), ["recall lost to the baseline"]);
        let last = Row { run: format!("{LAST}, in order"), ..row(0, 0) };
        let at_once = |models, distance| Row { run: AT_ONCE.into(), models, distance, ..row(0, 0) };
        assert!(failing(&[last.clone(), at_once(1, 1.05), at_once(2, 0.5)]).is_empty());
        let drifted = ["distance after five in sequence over five at once"];
        assert_eq!(failing(&[last, at_once(1, 0.9)]), drifted);
    }

    #[test]
    fn the_table_has_a_line_for_every_row_and_says_what_fails() {
        let text = markdown(&[row(3, 4), row(40, 39)]);
        assert_eq!(text.lines().filter(|line| line.starts_with("| alone |")).count(), 2);
        assert!(text.contains("| 3 -> 8 | 40 | 39 |") && text.contains("**fails**"), "{text}");
    }
}
