//! Rows of all digits and seeds taken together, and what has to hold of them.

use std::fmt::Write;

use super::row::{FewSteps, Row};

/// Models and probes in the order in which they first come.
pub struct Summary<'a> {
    rows: &'a [Row],
    pub models: Vec<&'a str>,
    pub probes: Vec<&'a str>,
}

/// What a demand is about.
#[derive(Clone, Copy)]
enum Figure {
    /// A share of the images that a probe has seen.
    Share { probe: &'static str, of: fn(&Row) -> f64, word: &'static str },
    /// The distance over that of the model that has forgotten nothing.
    Distance,
}

/// What is asked of the levels that are to withstand attack.
struct Demand {
    figure: Figure,
    harden: f64,
    scrub: f64,
    /// Whether what a model that never saw the label shows is allowed on top.
    beyond_never_saw: bool,
}

const HARDEN: &str = "Harden";
const SCRUB: &str = "Scrub";

const fn inside(probe: &'static str) -> Figure {
    Figure::Share { probe, of: |row| row.jm, word: "J_m" }
}

const NULL: Figure = Figure::Share { probe: "other doors: null", of: |row| row.j, word: "J" };

const DEMANDS: [Demand; 5] = [
    Demand { figure: inside("embedding: denoising"), harden: 0.01, scrub: 0.01, beyond_never_saw: false },
    Demand { figure: inside("embedding: judge"), harden: 0.01, scrub: 0.01, beyond_never_saw: false },
    Demand { figure: inside("relearning: 100 steps"), harden: 0.1, scrub: 0.1, beyond_never_saw: true },
    Demand { figure: NULL, harden: 0.0, scrub: 0.0, beyond_never_saw: true },
    Demand { figure: Figure::Distance, harden: 1.3, scrub: 2.0, beyond_never_saw: false },
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

    /// The model's mean distance over that of the model that has forgotten nothing, each digit and seed by itself.
    pub fn distance_ratio(&self, model: &str) -> Option<f64> {
        self.figure(model, Figure::Distance, None)
    }

    /// Mean over the seeds, of one digit or of all.
    fn figure(&self, model: &str, figure: Figure, label: Option<i64>) -> Option<f64> {
        let rows = |model: &'a str, probe: &'a str| {
            self.rows.iter().filter(move |row| {
                row.model == model && row.probe == probe && label.is_none_or(|label| row.label == label)
            })
        };
        let model = self.models.iter().find(|known| **known == model)?;
        match figure {
            Figure::Share { probe, of, .. } => mean(rows(model, probe).map(of)),
            Figure::Distance => {
                let over_control = |row: &Row| {
                    let same = |other: &&Row| (other.label, other.seed) == (row.label, row.seed);
                    let control = self.rows.iter().filter(|other| other.model == CONTROL).find(same)?;
                    Some(row.fd / control.fd)
                };
                mean(rows(model, self.probes.first()?).filter_map(over_control))
            }
        }
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

    /// Whether the levels that are to withstand attack do: on average, and every digit by itself.
    fn demands(&self, text: &mut String) {
        if ![HARDEN, SCRUB].iter().any(|level| self.models.contains(level)) {
            return;
        }
        *text +=
            "\n| level | what | found | at most | on average | every digit |\n|---|---|---|---|---|---|\n";
        for (model, limit) in
            [(HARDEN, (|demand| demand.harden) as fn(&Demand) -> f64), (SCRUB, |demand| demand.scrub)]
        {
            for demand in &DEMANDS {
                let both = |label| {
                    let never_saw = || self.figure(NEVER_SAW, demand.figure, label);
                    let beyond = if demand.beyond_never_saw { never_saw()? } else { 0.0 };
                    Some((self.figure(model, demand.figure, label)?, limit(demand) + beyond))
                };
                let Some((found, most)) = both(None) else { continue };
                let digits: Vec<bool> = (0..10)
                    .filter_map(|label| both(Some(label)))
                    .map(|(found, most)| found <= most)
                    .collect();
                let hold = digits.iter().filter(|holds| **holds).count();
                let _ = writeln!(
                    text,
                    "| {model} | {} | {} | {} | {} | {}, {hold} of {} |",
                    demand.figure.name(),
                    demand.figure.text(found),
                    demand.figure.text(most),
                    verdict(found <= most),
                    verdict(hold == digits.len()),
                    digits.len(),
                );
            }
        }
        for model in [HARDEN, SCRUB] {
            let more: Vec<String> = self.probes.iter().filter_map(|probe| self.more(model, probe)).collect();
            let many = if more.is_empty() { "nothing".to_owned() } else { more.join("; ") };
            if self.models.contains(&model) {
                let _ = writeln!(text, "\n{model}, J_m % above `{NEVER_SAW}`'s on average: {many}.");
            }
        }
    }

    /// A probe that finds more in the model than in one that never saw the label.
    fn more(&self, model: &str, probe: &str) -> Option<String> {
        let [found, never_saw] = [model, NEVER_SAW].map(|model| self.mean(model, probe, |row| row.jm));
        let (found, never_saw) = (found?, never_saw?);
        (found > never_saw)
            .then(|| format!("{probe} {} ({})", short(100.0 * found), short(100.0 * never_saw)))
    }
}

impl Figure {
    fn name(self) -> String {
        match self {
            Self::Share { probe, word, .. } => format!("{probe}, {word} %"),
            Self::Distance => "Frechet distance over the control's".to_owned(),
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Share { .. } => short(100.0 * value),
            Self::Distance => format!("{value:.2}"),
        }
    }
}

fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "**fails**" }
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

    /// The line of the demands that has these words in it.
    fn demanded(rows: &[Row], words: &str) -> String {
        let text = Summary::of(rows).markdown();
        let found = text.lines().find(|line| line.starts_with("| Harden |") && line.contains(words));
        found.unwrap_or_else(|| panic!("no {words} in {text}")).to_owned()
    }

    #[test]
    fn a_level_that_relearns_much_faster_than_never_saw_fails() {
        let of = |inside| {
            let rows = [row(HARDEN, 3, 900, inside), row(NEVER_SAW, 3, 500, 200)];
            demanded(&rows, "relearning")
        };
        assert!(of(301).ends_with("| **fails** | **fails**, 0 of 1 |"), "{}", of(301));
        assert!(of(300).ends_with("| holds | holds, 1 of 1 |"), "{}", of(300));
    }

    #[test]
    fn a_mean_that_holds_does_not_hide_a_digit_that_fails() {
        let never_saw = [3, 4].map(|label| row(NEVER_SAW, label, 500, 200));
        let rows = [&[row(HARDEN, 3, 900, 350), row(HARDEN, 4, 900, 50)], &never_saw[..]].concat();
        let line = demanded(&rows, "relearning");
        assert!(line.ends_with("| holds | **fails**, 1 of 2 |"), "{line}");
    }

    #[test]
    fn both_attacks_on_the_row_and_the_distance_are_demands() {
        let of =
            |model, probe: &str, inside, fd| Row { probe: probe.into(), fd, ..row(model, 3, 1000, inside) };
        let both = |model, inside, fd| {
            ["embedding: denoising", "embedding: judge"].map(|probe| of(model, probe, inside, fd))
        };
        let rows = |inside, fd| [both(HARDEN, inside, fd), both(CONTROL, 900, 1.0)].concat();
        for (words, good, bad) in [
            ("embedding: denoising, J_m", rows(10, 1.0), rows(11, 1.0)),
            ("embedding: judge, J_m", rows(10, 1.0), rows(11, 1.0)),
            ("Frechet distance", rows(10, 1.3), rows(10, 1.31)),
        ] {
            assert!(demanded(&good, words).contains("| holds |"), "{words}");
            assert!(demanded(&bad, words).contains("| **fails** |"), "{words}");
        }
    }

    #[test]
    fn what_finds_more_than_in_a_model_that_never_saw_the_label_is_named() {
        let rows = [row(HARDEN, 3, 900, 250), row(SCRUB, 3, 900, 200), row(NEVER_SAW, 3, 500, 200)];
        let text = Summary::of(&rows).markdown();
        assert!(
            text.contains("Harden, J_m % above `never saw`'s on average: relearning: 100 steps 25 (20)."),
            "{text}"
        );
        assert!(text.contains("Scrub, J_m % above `never saw`'s on average: nothing."), "{text}");
    }
}
