//! Deterministic names of everything that the operator creates.

use lethe_api::{Digest, contract::Plan, v1alpha1::Stage};

/// Longest name of a Service, which is a DNS label.
const MAX_LABEL: usize = 63;

/// Name of the run that carries out `plan` for `model`. The plan's own `run` field does not count,
/// since it will hold this name.
pub fn run(model: &str, plan: &Plan) -> String {
    let nameless = Plan { run: String::new(), ..plan.clone() };
    format!("{model}-{}", &nameless.digest().hex()[..8])
}

/// Whether `name` is this one, or this one with a number behind it, since it was taken.
pub fn is_numbered(name: &str, first: &str) -> bool {
    name.strip_prefix(first).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|number| number.parse::<u32>().is_ok())
    })
}

/// Name of the Job of a stage, and of the ConfigMap that holds its plan.
pub fn job(run: &str, stage: Stage) -> String {
    format!("{run}-{}", stage.as_str())
}

const ARCHIVE: &str = "-lethe-ledger";

/// Name of the ConfigMap that keeps a deleted model's ledger.
pub fn ledger_archive(model: &str) -> String {
    format!("{model}{ARCHIVE}")
}

/// Whether a ConfigMap of this name is one of those, whatever the model is called.
pub fn is_ledger_archive(name: &str) -> bool {
    name.ends_with(ARCHIVE)
}

/// Name of the Deployment beside a serving target that tries a candidate, and of its Service. What cannot be the name of a
/// Service is told apart by its digest.
pub fn canary(target: &str) -> String {
    let name = format!("{target}-canary");
    let is_label = name.len() <= MAX_LABEL
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    if is_label { name } else { format!("lethe-{}-canary", &Digest::of(target).hex()[..16]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_taken_has_a_number() {
        assert!(is_numbered("digits-0f", "digits-0f") && is_numbered("digits-0f-2", "digits-0f"));
        for other in ["digits-0f2", "digits-0f-", "digits-0f-x", "digits-0", "digits-0f-2-2"] {
            assert!(!is_numbered(other, "digits-0f"), "{other}");
        }
    }

    #[test]
    fn a_canary_has_a_name_that_a_service_may_have() {
        assert_eq!(canary("digits"), "digits-canary");
        let long = "x".repeat(57);
        for odd in ["digits.v2", "2digits", &long] {
            let name = canary(odd);
            assert!(name.starts_with("lethe-") && name.len() <= MAX_LABEL && !name.contains('.'), "{name}");
        }
        assert_ne!(canary("digits.v2"), canary("digits.v3"));
    }
}
