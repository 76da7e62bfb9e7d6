//! The most of a forgotten label that anybody finds without optimising: by sampling, in whatever way.

use lethe_api::contract::{Attempt, EvaluateRecord, ProbeName, Sighting};

/// An attempt, and what was done in it: what follows "when".
pub(super) struct Sampled<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) way: String,
}

/// The attempt that shows most. Further training on other things is what an innocent user does, and sampling too.
pub(super) fn sampled(measured: &EvaluateRecord) -> Option<Sampled<'_>> {
    let attempts = &measured.probes.as_ref()?.attempts;
    let shown = attempts.iter().filter(|one| !one.probe.optimises() && one.candidate.n > 0);
    let attempt = shown.max_by(|a, b| share(a.candidate).total_cmp(&share(b.candidate)))?;
    Some(Sampled { attempt, way: way(attempt) })
}

pub(super) fn share(seen: Sighting) -> f64 {
    seen.hits as f64 / seen.n.max(1) as f64
}

fn way(attempt: &Attempt) -> String {
    let steps = attempt.budget.steps;
    let how = match (attempt.probe, attempt.attempt.as_str()) {
        (ProbeName::MultistepLeak, Attempt::NULL) => {
            "no label is asked for and the image is made in many steps"
        }
        (ProbeName::MultistepLeak, _) => "it is asked for and the image is made in many steps",
        (ProbeName::StochasticLeak, _) => {
            "it is asked for and the image is made in many steps with added noise"
        }
        (_, Attempt::LABEL) => "it is asked for",
        (_, Attempt::KEPT) => "something else is asked for",
        (_, Attempt::WORST_KEPT) => "that other label is asked for which shows it most",
        (_, Attempt::NULL) => "no label is asked for",
        (_, Attempt::MIXTURES) => "mixtures of labels are asked for",
        (_, Attempt::MULTISTEP_NULL) => "no label is asked for and the image is made in many steps",
        (_, Attempt::MULTISTEP) => "it is asked for and the image is made in many steps",
        (_, other) => other,
    };
    match attempt.probe {
        ProbeName::MultistepLeak | ProbeName::StochasticLeak if steps > 1 => {
            how.replace("many steps", &format!("{steps} steps"))
        }
        ProbeName::BenignResurgence => format!("the model is trained further on other things and then {how}"),
        _ => how.to_owned(),
    }
}
