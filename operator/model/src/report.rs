//! One check from its first state to its figures.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use kube::ResourceExt;
use stateright::{Checker as _, Expectation, HasDiscoveries, Model, Path};

use crate::{
    acts::Act,
    audit::Broken,
    checker::{Checker, Settings},
    state::State,
};

/// Cores that every machine has.
const THREADS: usize = 2;

/// What a check came to.
#[derive(Debug)]
pub struct Report {
    /// Distinct states, all of which were reached from the first one.
    pub unique: usize,
    /// Transitions between them.
    pub transitions: usize,
    /// Steps of the longest path.
    pub depth: usize,
    /// Distinct observations that core was asked about.
    pub decisions: usize,
    pub time: Duration,
    /// An invariant that does not hold, and how one gets there.
    pub violation: Option<String>,
    /// What should be possible and was not seen.
    pub unseen: Vec<&'static str>,
}

/// Goes through every state, or until an invariant does not hold.
pub fn check(settings: Settings) -> Report {
    let start = Instant::now();
    let mut checker = Checker::new(settings).checker().threads(THREADS);
    if let Some(enough) = settings.enough {
        checker = checker.target_state_count(enough);
    }
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut found = checker.discoveries();
    let properties = checker.model().properties();
    let mut violation = None;
    let mut unseen = Vec::new();
    for property in properties {
        match (property.expectation, found.remove(property.name)) {
            (Expectation::Always, Some(path)) => {
                violation.get_or_insert_with(|| explained(checker.model(), path));
            }
            (Expectation::Sometimes, None) => unseen.push(property.name),
            _ => {}
        }
    }
    Report {
        unique: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        decisions: checker.model().mind.answers.len(),
        time: start.elapsed(),
        violation,
        unseen,
    }
}

fn explained(model: &Checker, path: Path<State, Act>) -> String {
    let last = path.last_state().clone();
    let mut text = String::new();
    if let Some(Broken { invariant, how }) = model.broken(&last) {
        let _ = writeln!(text, "violated: {}\nbecause {how}, after", invariant.text());
    }
    for act in path.into_actions() {
        let _ = writeln!(text, "  {act:?}");
    }
    let _ = writeln!(text, "{}\nand from there", summary(&last));
    for act in model.way(&last) {
        let _ = writeln!(text, "  {act}");
    }
    text
}

/// A state in a few lines, for people.
fn summary(state: &State) -> String {
    let mut lines = Vec::new();
    if let Some(model) = &state.objects.model {
        let status = model.status.clone().unwrap_or_default();
        let rollout = status.rollout.map(|r| (r.run, r.state, r.to.short().to_owned()));
        let base = status.baseline.map(|baseline| baseline.teacher.short().to_owned());
        lines.push(format!("base {base:?}, asked for {}", model.spec.base.digest.short()));
        lines.push(format!("model {:?} runs {:?}, rollout {rollout:?}", status.phase, status.active_run));
        for entry in status.ledger {
            lines.push(format!("  forgot {:?} by {} {}", entry.targets, entry.run, entry.digest.short()));
        }
    }
    for request in &state.objects.requests {
        let status = request.status.clone().unwrap_or_default();
        let run = status.run.map(|run| run.name);
        lines.push(format!("request {} {:?} {run:?}", request.name_any(), status.phase));
        for (name, word) in request.annotations() {
            lines.push(format!("  {name}: {word}"));
        }
    }
    for said in &state.objects.approvals {
        lines.push(format!("said {}", said.name_any()));
    }
    for run in &state.objects.runs {
        let status = run.status.clone().unwrap_or_default();
        lines.push(format!("run {} {:?} {:?}", run.name_any(), status.phase, status.verdict));
        for condition in status.conditions {
            lines.push(format!("  {}={} {}", condition.type_, condition.status, condition.reason));
        }
    }
    let jobs: Vec<_> = state.objects.jobs.iter().map(|work| work.job.name_any()).collect();
    lines.push(format!("jobs {jobs:?}"));
    let named = lethe_core::rollout::annotation(&state.objects.deployment);
    lines.push(format!("named {named:?} serving {:?}", state.objects.serving.as_deref()));
    lines.join("\n")
}
