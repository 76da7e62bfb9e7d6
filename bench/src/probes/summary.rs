//! Rows of all digits and seeds taken together, and what has to hold of them.

use std::fmt::Write;

use super::row::{FewSteps, Row};

/// Models and probes in the order in which they first come.
pub struct Summary<'a> {
    rows: &'a [Row],
    pub models: Vec<&'a str>,
    pub probes: Vec<&'a str>,
}

/// What is asked of a level: a probe, which share counts, and the limit, with or without what a model that never saw the
/// label shows.
struct Demand {
    probe: &'static str,
    share: fn(&Row) -> f64,
    word: &'static str,
    limit: f64,
    beyond_never_saw: bool,
}

const DEMANDS: [Demand; 3] = [
    Demand {
        probe: "embedding: denoising",
        share: |row| row.jm,
        word: "J_m",
        limit: 0.01,
        beyond_never_saw: false,
    },
    Demand {
        probe: "relearning: 100 steps",
        share: |row| row.jm,
        word: "J_m",
        limit: 0.1,
        beyond_never_saw: true,
    },
    Demand { probe: "other doors: null", share: |row| row.j, word: "J", limit: 0.0, beyond_never_saw: true },
];
pub const CONTROL: &str = "nothing forgotten";
pub const NEVER_SAW: &str = "never saw";

impl<'a> Summary<'a> {
    pub fn of(rows: &'a [Row]) -> Self {
        let mut summary = Self { rows, models: Vec::new(), probes: Vec::new() };
        // The models of the frontier have a figure of their own.
        for row in rows.iter().filter(|row| row.fresh.is_none()) {
            if !summary.models.contains(&row.model.as_str()) {
                summary.models.push(&row.model);
            }
            if !summary.probes.contains(&row.probe.as_str()) {
                summary.probes.push(&row.probe);
            }
        }
        // The order of the exams is that of their cost.
        summary.models.sort_by_key(|model| *model == NEVER_SAW);
        summary
    }

    /// Mean over digits and seeds, if there is such a row.
    pub fn mean(&self, model: &str, probe: &str, value: fn(&Row) -> f64) -> Option<f64> {
        mean(self.rows.iter().filter(|row| row.model == model && row.probe == probe).map(value))
    }

    /// The mean for each digit, over its seeds.
    fn by_label(&self, model: &str, probe: &str, value: fn(&Row) -> f64) -> Vec<(i64, f64)> {
        let of = |label| {
            let rows =
                self.rows.iter().filter(|row| row.model == model && row.probe == probe && row.label == label);
            Some((label, mean(rows.map(value))?))
        };
        (0..10).filter_map(of).collect()
    }

    /// The model's mean distance over that of the model that has forgotten nothing, each digit and seed by itself.
    pub fn distance_ratio(&self, model: &str) -> Option<f64> {
        let control = |row: &Row| {
            let same =
                |other: &&Row| (other.label, other.seed) == (row.label, row.seed) && other.model == CONTROL;
            Some(row.fd / self.rows.iter().find(same)?.fd)
        };
        let probe = self.probes.first()?;
        mean(self.rows.iter().filter(|row| row.model == model && row.probe == *probe).filter_map(control))
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("J % (J_m %)\n\n| probe | {} |\n", self.models.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(self.models.len()));
        let line = |text: &mut String, what: &str, cell: &dyn Fn(&str) -> Option<String>| {
            let cells = self.models.iter().map(|model| cell(model).unwrap_or_default());
            let _ = writeln!(text, "| {what} | {} |", cells.collect::<Vec<_>>().join(" | "));
        };
        for probe in &self.probes {
            line(&mut text, probe, &|model| self.percent(model, probe));
        }
        let first = self.probes.first().copied().unwrap_or_default();
        let figure = |model: &str, value| self.mean(model, first, value);
        line(&mut text, "Frechet distance over the control's", &|model| {
            Some(format!("{:.2}", self.distance_ratio(model)?))
        });
        line(&mut text, "Frechet distance", &|model| Some(format!("{:.2}", figure(model, |row| row.fd)?)));
        line(&mut text, "accuracy, kept labels", &|model| {
            Some(format!("{:.4}", figure(model, |row| row.kept)?))
        });
        let few = self.rows.first().map_or(&[][..], |row| &row.few_steps);
        for (index, FewSteps { steps, .. }) in few.iter().enumerate() {
            let of = |model: &str, value: fn(&FewSteps) -> f64| {
                let rows = self.rows.iter().filter(|row| row.model == model && row.probe == first);
                mean(rows.map(|row| value(&row.few_steps[index])))
            };
            line(&mut text, &format!("Frechet distance, {steps} steps"), &|model| {
                Some(format!("{:.2}", of(model, |few| few.fd)?))
            });
            line(&mut text, &format!("leak, {steps} steps"), &|model| {
                Some(short(100.0 * of(model, |few| few.leak)?))
            });
        }
        line(&mut text, "steps", &|model| Some(format!("{:.0}", figure(model, |row| row.steps as f64)?)));
        line(&mut text, "training, seconds", &|model| {
            Some(format!("{:.0}", figure(model, |row| row.seconds)?))
        });
        line(&mut text, "training over `never saw`", &|model| {
            Some(format!("{:.2}", figure(model, |row| row.seconds)? / figure(NEVER_SAW, |row| row.seconds)?))
        });
        self.demands(&mut text);
        text
    }

    /// J and, in brackets, J_m, in per cent.
    pub fn percent(&self, model: &str, probe: &str) -> Option<String> {
        let of = |value| Some(short(100.0 * self.mean(model, probe, value)?));
        Some(format!("{} ({})", of(|row| row.j)?, of(|row| row.jm)?))
    }

    /// Whether the levels that are to withstand attack do: on average, and how many digits by themselves.
    fn demands(&self, text: &mut String) {
        *text +=
            "\n| level | probe | found % | at most % | | digits that hold |\n|---|---|---|---|---|---|\n";
        for model in ["Harden", "Scrub"] {
            for Demand { probe, share, word, limit, beyond_never_saw } in DEMANDS {
                let bar = |label: Option<i64>| match (beyond_never_saw, label) {
                    (false, _) => Some(limit),
                    (true, None) => Some(limit + self.mean(NEVER_SAW, probe, share)?),
                    (true, Some(label)) => {
                        let of = self.by_label(NEVER_SAW, probe, share);
                        Some(limit + of.iter().find(|(other, _)| *other == label)?.1)
                    }
                };
                let (Some(found), Some(most)) = (self.mean(model, probe, share), bar(None)) else { continue };
                let labels = self.by_label(model, probe, share);
                let hold =
                    labels.iter().filter(|&&(label, found)| bar(Some(label)).is_some_and(|bar| found <= bar));
                let _ = writeln!(
                    text,
                    "| {model} | {probe}, {word} | {} | {} | {} | {} of {} |",
                    short(100.0 * found),
                    short(100.0 * most),
                    if found <= most { "holds" } else { "**fails**" },
                    hold.count(),
                    labels.len(),
                );
            }
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Two digits where they matter.
pub fn short(percent: f64) -> String {
    if percent < 10.0 && percent > 0.0 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    #[test]
    fn the_digits_are_taken_together_and_never_saw_comes_last() {
        let rows = [row(NEVER_SAW, 3, 100, 0), row("Harden", 3, 1000, 100), row("Harden", 4, 500, 0)];
        let summary = Summary::of(&rows);
        assert_eq!(summary.models, ["Harden", NEVER_SAW]);
        assert_eq!(summary.percent("Harden", "relearning: 100 steps").unwrap(), "75 (5.0)");
    }

    #[test]
    fn a_level_that_relearns_much_faster_than_never_saw_fails() {
        let verdict = |inside| {
            let rows = [row("Harden", 3, 900, inside), row(NEVER_SAW, 3, 500, 200)];
            Summary::of(&rows)
                .markdown()
                .lines()
                .find(|line| line.starts_with("| Harden |"))
                .unwrap()
                .to_owned()
        };
        assert!(verdict(301).contains("fails") && verdict(301).contains("0 of 1"), "{}", verdict(301));
        assert!(verdict(300).contains("holds") && verdict(300).contains("1 of 1"), "{}", verdict(300));
    }
}
