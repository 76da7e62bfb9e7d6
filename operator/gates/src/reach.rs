//! Policies under which no candidate could pass: what they want is more than is ever drawn, or surer than so many samples
//! can be.

use lethe_api::{
    contract::{ProbeLevel, ProbeName},
    gate::{Gate, GateName},
};

use crate::{DEFAULT_CONFIDENCE, binomial, decimal, threshold};

/// Why nothing passes one of these gates, however little it shows. `leak` is how many samples an evaluation draws at each
/// forgotten label, `probes` how far it goes.
pub fn out_of_reach(gates: &[Gate], probes: Option<ProbeLevel>, leak: u32) -> Option<String> {
    gates.iter().find_map(|gate| {
        let name = gate.name;
        match drawn(gate, probes, leak)? {
            (n, true) => too_many(gate, n).or_else(|| too_sure(gate, n, "raise it")),
            (n, false) => too_sure(gate, n, "raise it, or minSamples"),
        }
        .map(|why| format!("gate {name} of the policy can never pass: {why}"))
    })
}

/// How many samples a gate's verdict rests on, and whether that is so whatever the policy asks for. None where this is not
/// known beforehand.
fn drawn(gate: &Gate, probes: Option<ProbeLevel>, leak: u32) -> Option<(u32, bool)> {
    match gate.name {
        GateName::DirectLeak | GateName::MultistepLeak => Some((leak, false)),
        GateName::ServedLeak => gate.min_samples.map(|n| (n, false)),
        name => Some((ProbeName::drawn(name.probe()?, probes?)?, true)),
    }
}

fn too_many(gate: &Gate, n: u32) -> Option<String> {
    let wanted = gate.min_samples.filter(|wanted| *wanted > n)?;
    Some(format!("its minSamples is {wanted}, and no attempt has more than {n} samples; lower it"))
}

fn too_sure(gate: &Gate, n: u32, remedy: &str) -> Option<String> {
    let limit = threshold(&gate.max_bound)?;
    let confidence = threshold(&gate.confidence).unwrap_or(DEFAULT_CONFIDENCE);
    let upper = binomial::upper_bound(0, n.into(), confidence);
    (upper > limit).then(|| {
        let shown = decimal::show_upper(upper);
        format!("its maxBound is {limit}, and the bound of none in {n} samples is {shown}; {remedy}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(name: GateName, bound: &str, samples: u32) -> Gate {
        Gate { max_bound: Some(bound.into()), min_samples: Some(samples), ..Gate::named(name) }
    }

    fn why(gate: Gate, leak: u32) -> String {
        out_of_reach(&[gate], Some(ProbeLevel::Attack), leak).unwrap_or_default()
    }

    #[test]
    fn more_samples_than_an_attempt_has_are_never_there() {
        for (name, most) in [
            (GateName::OtherDoorLeak, 2000),
            (GateName::StochasticLeak, 100),
            (GateName::SeedSearch, 200),
            (GateName::EmbeddingInversion, 500),
            (GateName::Relearning, 500),
            (GateName::BenignResurgence, 500),
        ] {
            assert_eq!(why(gate(name, "0.05", most), 3000), "", "{name}");
            let why = why(gate(name, "0.05", most + 1), 3000);
            assert!(why.contains(name.as_str()) && why.contains(&format!("more than {most}")), "{why}");
        }
    }

    #[test]
    fn a_bound_that_no_count_keeps_is_out_of_reach_and_the_next_one_is_not() {
        // None of 3,000 bounds at 0.000998, none of 200 at 0.0149, none of 100 at 0.0296.
        for (name, n, kept, lost) in [
            (GateName::DirectLeak, 3000, "0.000999", "0.000998"),
            (GateName::MultistepLeak, 3000, "0.000999", "0.000998"),
            (GateName::ServedLeak, 3000, "0.000999", "0.000998"),
            (GateName::SeedSearch, 200, "0.015", "0.0148"),
            (GateName::StochasticLeak, 100, "0.0296", "0.0295"),
        ] {
            assert_eq!(why(gate(name, kept, n), 3000), "", "{name}");
            let why = why(gate(name, lost, n), 3000);
            assert!(why.contains("can never pass") && why.contains(&format!("in {n} samples")), "{why}");
        }
        let surer = Gate { confidence: Some("0.99".into()), ..gate(GateName::SeedSearch, "0.015", 200) };
        assert!(why(surer, 3000).contains("maxBound is 0.015"));
    }

    #[test]
    fn what_is_not_known_beforehand_or_not_bounded_keeps_nobody_back() {
        // How many are drawn under each kept label follows from how many are kept.
        let doors = gate(GateName::OtherDoorLeak, "0.0001", 3000);
        assert_eq!(out_of_reach(std::slice::from_ref(&doors), Some(ProbeLevel::Fast), 3000), None);
        let compared = Gate {
            max_bound: None,
            max_above_never_saw: Some("0".into()),
            ..gate(GateName::Relearning, "1", 500)
        };
        assert_eq!(why(compared, 3000), "");
        assert_eq!(out_of_reach(&GateName::REQUIRED.map(Gate::named), None, 1), None);
    }
}
