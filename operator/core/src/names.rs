//! Deterministic names of everything that the operator creates.

use lethe_api::{contract::Plan, v1alpha1::Stage};

/// Name of the run that carries out `plan` for `model`. The plan's own `run` field does not count,
/// since it will hold this name.
pub fn run(model: &str, plan: &Plan) -> String {
    let nameless = Plan { run: String::new(), ..plan.clone() };
    format!("{model}-{}", &nameless.digest().hex()[..8])
}

/// Name of the Job of a stage, and of the ConfigMap that holds its plan.
pub fn job(run: &str, stage: Stage) -> String {
    format!("{run}-{}", stage.as_str())
}

/// Name of the ConfigMap that keeps a deleted model's ledger.
pub fn ledger_archive(model: &str) -> String {
    format!("{model}-lethe-ledger")
}
