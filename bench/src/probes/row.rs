//! Rows of the result: what one attempt found in one model.

use std::path::Path;

use anyhow::{Context, Result};
use lethe_sfd::probes::{Budget, Finding, Probe};
use serde::{Deserialize, Serialize};

use super::summary::Summary;
use super::{frontier, matrix};
use crate::report;

/// A model that was made and attacked.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub name: String,
    /// Part of the weights that were fresh at the start, if it is one of the frontier.
    pub fresh: Option<f64>,
    /// What was to be forgotten.
    pub label: i64,
    pub seed: u64,
    /// The Frechet distance over the kept labels.
    pub fd: f64,
    /// Mean accuracy there.
    pub kept: f64,
    /// The same model as a sampler of a few steps.
    pub few_steps: Vec<FewSteps>,
    /// How long it was trained, from the baseline (`never saw`: from nothing).
    pub seconds: f64,
    pub steps: u64,
}

/// What one attempt found in one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh: Option<f64>,
    pub label: i64,
    pub seed: u64,
    /// The probe and which of its attempts.
    pub probe: String,
    /// Share of the images that the judge takes for the forgotten label.
    pub j: f64,
    /// Share that it takes for it and that also lie among the teacher's samples of it.
    pub jm: f64,
    pub n: u64,
    pub budget: Spent,
    pub fd: f64,
    pub kept: f64,
    pub few_steps: Vec<FewSteps>,
    pub seconds: f64,
    pub steps: u64,
}

/// What a model shows in more than one step, each image made noisy again and denoised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FewSteps {
    pub steps: u64,
    /// The Frechet distance over the kept labels.
    pub fd: f64,
    /// Share of the images under the forgotten label that the judge takes for it.
    pub leak: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    pub shots: u64,
    pub steps: u64,
    pub restarts: u64,
}

impl Row {
    pub fn new(model: &Model, finding: Finding) -> Self {
        let Finding { probe, attempt, seen, budget: Budget { shots, steps, restarts } } = finding;
        let model = model.clone();
        Self {
            model: model.name,
            fresh: model.fresh,
            label: model.label,
            seed: model.seed,
            probe: format!("{}: {attempt}", name(probe)),
            j: seen.judged().share(),
            jm: seen.inside().share(),
            n: seen.n,
            budget: Spent { shots, steps, restarts },
            fd: model.fd,
            kept: model.kept,
            few_steps: model.few_steps,
            seconds: model.seconds,
            steps: model.steps,
        }
    }
}

/// Prints the tables and leaves `NAME.json`, `NAME.md`, `NAME.svg` and, if there is one, `frontier.svg`.
///
/// # Errors
/// If a file cannot be written.
pub fn publish(out: &Path, name: &str, labels: &[i64], rows: &[Row]) -> Result<()> {
    let summary = Summary::of(rows);
    let text = summary.markdown();
    println!("\n{text}");
    report::write(out, name, rows, &matrix::draw(labels, &summary))?;
    let put = |name: &str, text: String| {
        let file = out.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    put(&format!("{name}.md"), text)?;
    match frontier::draw(rows, &summary) {
        Some(svg) => put("frontier.svg", svg),
        None => Ok(()),
    }
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

#[cfg(test)]
pub mod tests {
    use super::*;
    use lethe_sfd::probes::Sighting;

    /// One attempt of 100 steps at relearning, of 1,000 images.
    pub fn row(model: &str, label: i64, judged: u64, inside: u64) -> Row {
        let seen = Sighting { judged, inside, n: 1000 };
        let budget = Budget { shots: 20, steps: 100, restarts: 0 };
        let finding = Finding { probe: Probe::Relearning, attempt: "100 steps".into(), seen, budget };
        let (name, fresh) = (model.to_owned(), None);
        let few_steps = vec![FewSteps { steps: 2, fd: 1.2, leak: 0.25 }];
        let (fd, kept, seconds, steps) = (1.5, 0.99, 30.0, 7);
        let model = Model { name, fresh, label, seed: 1, fd, kept, few_steps, seconds, steps };
        Row::new(&model, finding)
    }

    #[test]
    fn a_row_is_shares_and_what_they_cost() {
        let json = serde_json::to_value(row("never saw", 3, 500, 4)).unwrap();
        let expected = serde_json::json!({
            "model": "never saw", "label": 3, "seed": 1,
            "probe": "relearning: 100 steps", "j": 0.5, "jm": 0.004, "n": 1000,
            "budget": {"shots": 20, "steps": 100, "restarts": 0},
            "fd": 1.5, "kept": 0.99, "few_steps": [{"steps": 2, "fd": 1.2, "leak": 0.25}], "seconds": 30.0, "steps": 7,
        });
        assert_eq!(json, expected);
    }
}
