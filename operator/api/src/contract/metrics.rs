//! How a training went, step by step: for people and their plots. Nothing is decided by it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One line of `metrics.jsonl`, of the log, of the curves that a record names, and the last one at `GET /progress`: the same
/// numbers everywhere. Every value is a finite number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Always [`Metrics::SCHEMA`].
    pub schema: String,
    /// The training, for example `distil` or `forget`.
    pub stage: String,
    /// Steps done.
    pub step: u64,
    /// Steps in all. A training that is allowed to may end before.
    pub total: u64,
    /// Images that the steps were taken on, so far.
    pub images: u64,
    /// Mean of each loss over the steps since the line before, by network and branch.
    pub losses: BTreeMap<String, f64>,
    /// Mean Euclidean norm of each network's gradient, before it is clipped, over the same steps.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gradient_norms: BTreeMap<String, f64>,
    /// What was found by looking at the model since the line before, if the training does that: shares and ratios.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub looks: BTreeMap<String, f64>,
    /// Wall-clock seconds per thousand images since the line before. Not in the curves, which are a function of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_per_1000_images: Option<f64>,
    /// Wall-clock seconds left, if the rest goes as fast. Not in the curves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// The most memory that the process has held so far. Not in the curves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

impl Metrics {
    pub const SCHEMA: &str = "lethe.dev/metrics/v1";
    /// A training has no more lines than this.
    pub const MAX_LINES: u64 = 1001;
    /// Longer curves are not read.
    pub const MAX_BYTES: usize = 4 * 1024 * 1024;

    /// The line as it is in a record's curves: without what differs from one execution of a plan to the next.
    pub fn reproducible(&self) -> Self {
        Self { seconds_per_1000_images: None, eta_seconds: None, memory_bytes: None, ..self.clone() }
    }

    /// One line of JSON, without its end.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("string keys and numbers only")
    }

    /// Reads the lines of a `metrics.jsonl` or of a record's curves.
    ///
    /// # Errors
    /// Says which line is none of this contract.
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, String> {
        let parse = |(index, line): (usize, &str)| {
            let wrong = |problem: String| format!("line {} of the metrics: {problem}", index + 1);
            let metrics: Self = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            match metrics.schema == Self::SCHEMA {
                true => Ok(metrics),
                false => Err(wrong(format!("its schema is not {}", Self::SCHEMA))),
            }
        };
        text.lines().enumerate().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics {
            schema: Metrics::SCHEMA.into(),
            stage: "forget".into(),
            step: 20,
            total: 1000,
            images: 3840,
            losses: BTreeMap::from([("generator (forget)".into(), 0.1 + 0.2)]),
            seconds_per_1000_images: Some(0.41),
            eta_seconds: Some(60),
            memory_bytes: Some(1 << 28),
            ..Metrics::default()
        }
    }

    #[test]
    fn a_line_survives_to_the_bit() {
        let line = metrics().to_line();
        assert!(line.contains("\"secondsPer1000Images\":0.41") && !line.contains('\n'), "{line}");
        let both = format!("{line}\n{line}\n");
        assert_eq!(Metrics::parse_lines(&both).unwrap(), [metrics(), metrics()]);
    }

    #[test]
    fn what_a_plan_does_not_say_is_not_in_the_curves() {
        let line = metrics().reproducible().to_line();
        assert!(!line.contains("econds") && !line.contains("memory") && line.contains("0.30000000000000004"));
    }

    #[test]
    fn a_line_of_another_kind_is_named() {
        let text = format!("{}\n{{\"schema\":\"lethe.dev/record/v1\"}}\n", metrics().to_line());
        let error = Metrics::parse_lines(&text).unwrap_err();
        assert!(error.contains("line 2"), "{error}");
        let other = metrics().to_line().replace("metrics/v1", "metrics/v9");
        assert!(Metrics::parse_lines(&other).unwrap_err().contains("lethe.dev/metrics/v1"));
    }
}
