//! Rows of the result, as a table, as JSON and as a figure.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::statistics::{excess, refutes, upper_bound};
use crate::figure::{self, bars};
use crate::report;

/// Confidence of a bound, and the level of the tests that are made together.
const CONFIDENCE: f64 = 0.95;
/// What a bound of the leak, and a distance over the baseline's, may be at most.
const MOST_LEAK: f64 = 0.003;
const MOST_DISTANCE: f64 = 1.25;
/// The least that a judge must recognise of the teacher's samples: the operator refuses a preparation below it.
const LEAST_JUDGE: f64 = 0.95;

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
    /// Share of the teacher's samples of all labels that the judge recognises. Older rows do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<f64>,
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

/// How the name of a run ends that goes on from the last candidate.
pub const GOING_ON: &str = ", going on";

/// Runs that the limits are held to by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Alone,
    AtOnce,
    /// Requests that follow each other, each from the baseline.
    InSequence,
    /// The same, each from the last candidate.
    GoingOn,
}

impl Group {
    const ALL: [Self; 4] = [Self::Alone, Self::AtOnce, Self::InSequence, Self::GoingOn];

    fn of(row: &Row) -> Self {
        match row.run.as_str() {
            ALONE => Self::Alone,
            run if run.ends_with(GOING_ON) => Self::GoingOn,
            run if run.starts_with("request") => Self::InSequence,
            _ => Self::AtOnce,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::AtOnce => "at once",
            Self::InSequence => "in sequence",
            Self::GoingOn => "going on",
        }
    }
}

/// What has to hold of the worst row of a group: a name, and the most that it may be.
const LIMITS: [(&str, f64); 8] = [
    ("leak, 95 % bound", MOST_LEAK),
    ("labels that leak more than the base rate", 0.0),
    ("not shown as the override", 0.02),
    ("kept accuracy lost to the teacher", 0.015),
    ("distance over the baseline's", MOST_DISTANCE),
    ("precision lost to the baseline", 0.05),
    ("recall lost to the baseline", 0.05),
    ("distance after all five over five at once", 1.1),
];

/// What was found in the worst of the group's rows, in the order of [`LIMITS`]; nothing if there is no such row.
fn found(rows: &[Row], group: Group) -> Option<[Option<f64>; LIMITS.len()]> {
    let of: Vec<&Row> = rows.iter().filter(|row| Group::of(row) == group).collect();
    of.first()?;
    let worst = |value: &dyn Fn(&Row) -> f64| of.iter().map(|row| value(row)).reduce(f64::max);
    let drift = |row: &&Row| {
        let at_once = rows.iter().find(|other| other.run == AT_ONCE && other.models == row.models)?;
        (matches!(group, Group::InSequence | Group::GoingOn) && row.run.starts_with(LAST))
            .then(|| row.distance / at_once.distance)
    };
    Some([
        worst(&|row| row.worst(|f| f.bound)),
        Some(excessive(&of) as f64),
        worst(&|row| row.worst(|f| 1.0 - f.conformity)),
        worst(&|row| row.kept_lost),
        worst(&Row::ratio),
        worst(&|row| -row.precision_gained),
        worst(&|row| -row.recall_gained),
        of.iter().filter_map(drift).reduce(f64::max),
    ])
}

/// Labels that leak more than the base rate, with all tests of the same models made together.
fn excessive(rows: &[&Row]) -> usize {
    let tests = |models| {
        let same = rows.iter().filter(|row| row.models == models);
        same.map(|row| row.forgotten.len()).sum::<usize>()
    };
    let leaks = |row: &&&Row| {
        let together = tests(row.models);
        row.forgotten.iter().filter(|f| refutes(f.chance, 1.0 - CONFIDENCE, together)).count()
    };
    rows.iter().map(|row| leaks(&row)).sum()
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
    let mut text = refused(rows);
    text.push_str(
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
    text + &verdicts(rows)
}

/// The worst row of each group beside the limits.
fn verdicts(rows: &[Row]) -> String {
    let groups: Vec<_> =
        Group::ALL.into_iter().filter_map(|group| Some((group.name(), found(rows, group)?))).collect();
    let names: Vec<_> = groups.iter().map(|(name, _)| *name).collect();
    let mut text = format!(
        "\n| the worst of the rows | at most | {} |\n|---|---|{}\n",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for (index, (name, limit)) in LIMITS.into_iter().enumerate() {
        let found: Vec<_> = groups.iter().map(|(_, found)| found[index]).collect();
        if found.iter().all(Option::is_none) {
            continue;
        }
        let cell = |found: Option<f64>| {
            let verdict = |found| if found <= limit { "holds" } else { "**fails**" };
            found.map_or(String::new(), |found| format!("{found:.4} {}", verdict(found)))
        };
        let cells: Vec<_> = found.into_iter().map(cell).collect();
        let _ = writeln!(text, "| {name} | {limit} | {} |", cells.join(" | "));
    }
    text
}

/// A line for every seed whose judge is not good enough for a preparation to be accepted.
fn refused(rows: &[Row]) -> String {
    let mut poor: Vec<(u64, f64)> = rows
        .iter()
        .filter_map(|row| Some((row.models, row.judge?)))
        .filter(|(_, judge)| *judge < LEAST_JUDGE)
        .collect();
    poor.dedup_by_key(|(models, _)| *models);
    let line = |(models, judge): (u64, f64)| {
        format!(
            "**Not to be had from the operator**: the judge of models {models} recognises {:.1} % of the teacher's samples, and a \
             preparation whose judge recognises less than {} % is refused. What follows was measured all the same.\n\n",
            100.0 * judge,
            100.0 * LEAST_JUDGE
        )
    };
    poor.into_iter().map(line).collect()
}

/// How much of what is allowed each row takes: the bars have different units, and one limit.
fn figure(rows: &[Row]) -> String {
    let group = |row: &Row| {
        let (ratio, bound) = (row.ratio(), row.worst(|f| f.bound));
        figure::Group {
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
    let groups: Vec<figure::Group> = rows.iter().map(group).collect();
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
            judge: Some(0.98),
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

    fn failing(rows: &[Row]) -> Vec<(&'static str, &'static str)> {
        let of = |group| found(rows, group).map(|found| (group, found));
        let fails = |(group, found): (Group, [Option<f64>; LIMITS.len()])| {
            let both = LIMITS.into_iter().zip(found);
            both.filter(|((_, limit), found)| found.is_some_and(|found| found > *limit))
                .map(move |((name, _), _)| (group.name(), name))
        };
        Group::ALL.into_iter().filter_map(of).flat_map(fails).collect()
    }

    #[test]
    fn one_bad_row_is_enough_to_fail() {
        let alone = |name| vec![("alone", name)];
        assert!(failing(&[row(3, 4), row(0, 0)]).is_empty());
        assert_eq!(failing(&[row(3, 4), row(40, 39)]), alone("leak, 95 % bound"));
        assert_eq!(failing(&[row(15, 0)]), alone("labels that leak more than the base rate"));
        assert_eq!(failing(&[Row { distance: 1.3, ..row(0, 0) }]), alone("distance over the baseline's"));
        assert_eq!(
            failing(&[Row { recall_gained: -0.06, ..row(0, 0) }]),
            alone("recall lost to the baseline")
        );
        let last = Row { run: format!("{LAST}, in order"), ..row(0, 0) };
        let at_once = |models, distance| Row { run: AT_ONCE.into(), models, distance, ..row(0, 0) };
        assert!(failing(&[last.clone(), at_once(1, 1.05), at_once(2, 0.5)]).is_empty());
        let drifted = "distance after all five over five at once";
        assert_eq!(failing(&[last, at_once(1, 0.9)]), [("in sequence", drifted)]);
    }

    #[test]
    fn requests_that_go_on_are_a_group_of_their_own_and_tested_too() {
        let restart = Row { run: format!("{LAST}, in order"), ..row(0, 0) };
        let going_on =
            |hits, distance| Row { run: format!("{LAST}, in order{GOING_ON}"), distance, ..row(hits, 0) };
        let at_once = Row { run: AT_ONCE.into(), ..row(0, 0) };
        let of = |going_on| failing(&[restart.clone(), going_on, at_once.clone()]);
        assert!(of(going_on(0, 1.1)).is_empty());
        assert_eq!(of(going_on(15, 1.1)), [("going on", "labels that leak more than the base rate")]);
        assert_eq!(of(going_on(0, 1.22)), [("going on", "distance after all five over five at once")]);
    }

    #[test]
    fn each_seeds_tests_are_made_together() {
        // Five of five: one in 32, which is rare in one test and not in ten.
        let ten: Vec<Row> = (0..10).map(|index| row(if index == 0 { 5 } else { 0 }, 0)).collect();
        let worse = |hits: u64| [&[row(hits, 0)], &ten[1..]].concat();
        assert_eq!(failing(&ten[..1]), [("alone", "labels that leak more than the base rate")]);
        assert!(failing(&ten).is_empty() && !failing(&worse(9)).is_empty());
        // Another seed's tests are others.
        let other: Vec<Row> = ten.iter().map(|row| Row { models: 2, ..row.clone() }).collect();
        assert!(!failing(&[worse(8), other].concat()).is_empty());
    }

    #[test]
    fn a_judge_that_the_operator_would_refuse_is_named_above_the_table() {
        let of = |models, judge| Row { models, judge, ..row(0, 0) };
        let text = markdown(&[of(1, Some(0.938)), of(1, Some(0.938)), of(2, Some(0.95)), of(3, None)]);
        let lines: Vec<_> = text.lines().filter(|line| line.contains("Not to be had")).collect();
        assert!(matches!(lines[..], [line] if line.contains("models 1 recognises 93.8 %")), "{text}");
        assert!(text.starts_with("**Not"));
    }

    #[test]
    fn the_table_has_a_line_for_every_row_and_says_what_fails() {
        let text = markdown(&[row(3, 4), row(40, 39)]);
        assert_eq!(text.lines().filter(|line| line.starts_with("| alone |")).count(), 2);
        assert!(text.contains("| 3 -> 8 | 40 | 39 |") && text.contains("**fails**"), "{text}");
    }
}
