//! Rows of the result, as a table, as JSON and as a figure.

use std::path::Path;

use anyhow::Result;
use lethe_sfd::probes::{Budget, Finding, Probe};
use serde::Serialize;

use super::matrix;
use super::models::Contestant;
use crate::report;

/// What one attempt found in one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub model: &'static str,
    /// The probe and which of its attempts.
    pub probe: String,
    /// Share of the images that the judge takes for the forgotten label.
    pub j: f64,
    /// Share that it takes for it and that also lie among the teacher's samples of it.
    pub jm: f64,
    pub n: u64,
    pub budget: Spent,
    /// The model's Frechet distance over the kept labels.
    pub fd: f64,
    /// Its accuracy there.
    pub kept: f64,
    /// How long it was trained, from the baseline (`never saw`: from nothing).
    pub seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spent {
    pub shots: u64,
    pub steps: u64,
    pub restarts: u64,
}

impl Row {
    pub fn new(contestant: Contestant, finding: Finding, fd: f64, kept: f64, seconds: f64) -> Self {
        let Finding { probe, attempt, seen, budget: Budget { shots, steps, restarts } } = finding;
        Self {
            model: contestant.name(),
            probe: format!("{}: {attempt}", name(probe)),
            j: seen.judged().share(),
            jm: seen.inside().share(),
            n: seen.n,
            budget: Spent { shots, steps, restarts },
            fd,
            kept,
            seconds,
        }
    }

    /// J and, in brackets, J_m, in per cent.
    pub fn percent(&self) -> String {
        format!("{} ({})", short(100.0 * self.j), short(100.0 * self.jm))
    }
}

/// Prints the table and leaves `probes.json` and `probes.svg`.
///
/// # Errors
/// If a file cannot be written.
pub fn publish(out: &Path, label: i64, rows: &[Row]) -> Result<()> {
    let (models, probes) = (column(rows, |row| row.model.to_owned()), column(rows, |row| row.probe.clone()));
    println!("\nJ % (J_m %) of the forgotten digit {label}\n\n| probe | {} |", models.join(" | "));
    println!("|---|{}", "---|".repeat(models.len()));
    for probe in &probes {
        let cells = models.iter().map(|model| find(rows, model, probe).map_or(String::new(), Row::percent));
        println!("| {probe} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    let of_models = |what: &str, value: fn(&Row) -> String| {
        let cells = models.iter().filter_map(|model| rows.iter().find(|row| row.model == *model)).map(value);
        println!("| {what} | {} |", cells.collect::<Vec<_>>().join(" | "));
    };
    of_models("Frechet distance, kept labels", |row| format!("{:.2}", row.fd));
    of_models("accuracy, kept labels", |row| format!("{:.4}", row.kept));
    of_models("training, seconds", |row| format!("{:.0}", row.seconds));
    println!();
    report::write(out, "probes", rows, &matrix::draw(label, rows, &models, &probes))
}

pub fn find<'a>(rows: &'a [Row], model: &str, probe: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.model == model && row.probe == probe)
}

/// The different values of a column, in the order in which they first come.
fn column(rows: &[Row], value: impl Fn(&Row) -> String) -> Vec<String> {
    let mut seen = Vec::new();
    for value in rows.iter().map(value) {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

pub fn name(probe: Probe) -> &'static str {
    match probe {
        Probe::Direct => "direct",
        Probe::OtherDoors => "other doors",
        Probe::Mixtures => "mixed conditions",
        Probe::Multistep => "multi-step",
        Probe::Stochastic => "stochastic",
        Probe::Embedding => "embedding",
        Probe::Seeds => "seed search",
        Probe::Relearning => "relearning",
        Probe::Benign => "benign training",
    }
}

/// Two digits where they matter.
fn short(percent: f64) -> String {
    if percent < 10.0 && percent > 0.0 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use lethe_sfd::probes::Sighting;

    pub fn row(contestant: Contestant, judged: u64, inside: u64) -> Row {
        let seen = Sighting { judged, inside, n: 1000 };
        let budget = Budget { shots: 20, steps: 100, restarts: 0 };
        let finding = Finding { probe: Probe::Relearning, attempt: "100 steps".into(), seen, budget };
        Row::new(contestant, finding, 1.5, 0.99, 30.0)
    }

    #[test]
    fn a_row_is_shares_and_what_they_cost() {
        let json = serde_json::to_value(row(Contestant::NeverSaw, 500, 4)).unwrap();
        let expected = serde_json::json!({
            "model": "never saw", "probe": "relearning: 100 steps", "j": 0.5, "jm": 0.004, "n": 1000,
            "budget": {"shots": 20, "steps": 100, "restarts": 0}, "fd": 1.5, "kept": 0.99, "seconds": 30.0,
        });
        assert_eq!(json, expected);
        assert_eq!(row(Contestant::NeverSaw, 500, 4).percent(), "50 (0.4)");
        assert_eq!(row(Contestant::NeverSaw, 1000, 0).percent(), "100 (0)");
    }

    #[test]
    fn columns_keep_their_order() {
        let rows = [
            row(Contestant::NeverSaw, 1, 1),
            row(Contestant::Distilled, 2, 2),
            row(Contestant::NeverSaw, 3, 3),
        ];
        assert_eq!(column(&rows, |row| row.model.to_owned()), ["never saw", "nothing forgotten"]);
    }
}
