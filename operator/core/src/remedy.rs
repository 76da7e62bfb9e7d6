//! What people can do about gates that did not pass, in a sentence.

use lethe_api::v1alpha1::{GateName, GateResult, Verdict};

/// How a request is tried again.
pub(crate) const TRY_AGAIN: &str = "then set the annotation lethe.dev/retry on this request";

/// What to do about the first thing that is wrong: a measurement that cannot be trusted is looked at before what it says.
pub(crate) fn of(gates: &[GateResult]) -> &'static str {
    let has =
        |is: &dyn Fn(&GateResult) -> bool| gates.iter().any(|gate| gate.verdict != Verdict::Pass && is(gate));
    if has(&|gate| gate.verdict == Verdict::Error) {
        return "the measurement of a gate cannot be used: its message says why";
    }
    if has(&|gate| gate.verdict == Verdict::Inconclusive) {
        return "a gate wants more samples than there were: lower its minSamples, or raise its limit";
    }
    if has(&|gate| gate.name == GateName::Hygiene) {
        return "the candidate's files are not as they should be: do not use this trainer image until you know why";
    }
    if has(&|gate| matches!(gate.name, GateName::DirectLeak | GateName::OverrideConformity)) {
        return "the training did not get far enough: raise training.forgetSteps in the policy, or choose another override";
    }
    if has(&|gate| gate.name.probe().is_some()) {
        return "the label is hidden and not gone: training.robustness Harden or Scrub in the policy leaves less of it, at a price in quality";
    }
    "too much else was lost: another override or more training.forgetSteps may help"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(name: GateName, verdict: Verdict) -> GateResult {
        serde_json::from_value(serde_json::json!({"name": name, "verdict": verdict})).unwrap()
    }

    #[test]
    fn what_to_do_is_said_of_what_did_not_pass() {
        let cases = [
            (GateName::DirectLeak, Verdict::Fail, "forgetSteps"),
            (GateName::MultistepLeak, Verdict::Fail, "Harden or Scrub"),
            (GateName::RetainQuality, Verdict::Fail, "another override"),
            (GateName::NeighbourAccuracy, Verdict::Fail, "another override"),
            (GateName::Hygiene, Verdict::Fail, "trainer image"),
            (GateName::Relearning, Verdict::Inconclusive, "minSamples"),
            (GateName::DirectLeak, Verdict::Error, "message says why"),
        ];
        for (name, verdict, says) in cases {
            let others =
                [gate(GateName::DirectLeak, Verdict::Pass), gate(GateName::RetainAccuracy, Verdict::Pass)];
            let said = of(&[&others[..], &[gate(name, verdict)]].concat());
            assert!(said.contains(says), "{name} {verdict:?}: {said}");
        }
    }

    #[test]
    fn a_measurement_that_cannot_be_used_comes_before_what_it_says() {
        let gates =
            [gate(GateName::DirectLeak, Verdict::Fail), gate(GateName::RetainQuality, Verdict::Error)];
        assert!(of(&gates).contains("message says why"));
    }
}
