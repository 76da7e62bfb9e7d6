//! The gates of a request, as its status has them.

use anyhow::{Context, Result};
use lethe_api::gate::{GateName, GateResult, Verdict};
use lethe_report::gates::value;
use serde::Serialize;
use serde_json::Value;

use super::timeline::Timeline;

/// A gate in the summary. Numbers are the operator's decimal strings, unchanged.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told<'a> {
    name: GateName,
    /// The label that it is about; none for gates on the whole candidate.
    target: Option<&'a str>,
    value: Option<&'a str>,
    bound: Option<&'a str>,
    threshold: Option<&'a str>,
    n: Option<u64>,
    verdict: Verdict,
}

impl<'a> Told<'a> {
    pub fn of(gate: &'a GateResult) -> Self {
        Self {
            name: gate.name,
            target: gate.target.as_deref(),
            value: gate.value.as_deref(),
            bound: gate.bound.as_deref(),
            threshold: gate.threshold.as_deref(),
            n: gate.n,
            verdict: gate.verdict,
        }
    }
}

/// The gates in the status of `request`.
///
/// # Errors
/// If there are none or they are not gates.
pub fn all_of(request: &Value) -> Result<Vec<GateResult>> {
    let gates = serde_json::from_value(request["status"]["gates"].clone());
    gates.context("the request's status has no gates")
}

/// How many passed.
pub fn passed(gates: &[GateResult]) -> usize {
    gates.iter().filter(|gate| gate.verdict == Verdict::Pass).count()
}

const COLUMNS: [&str; 7] = ["gate", "target", "value", "bound", "threshold", "n", "verdict"];

/// The cells of a gate, in the order of [`COLUMNS`].
fn cells(gate: &GateResult) -> [String; 7] {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        gate.name.to_string(),
        text(&gate.target),
        value(gate),
        text(&gate.bound),
        text(&gate.threshold),
        gate.n.map(|n| n.to_string()).unwrap_or_default(),
        format!("{:?}", gate.verdict),
    ]
}

/// Shows the gates as a table.
pub fn print(timeline: &Timeline, gates: &[GateResult]) {
    let rows: Vec<[String; 7]> = gates.iter().map(cells).collect();
    let heads = COLUMNS.map(str::to_owned);
    let all = || std::iter::once(&heads).chain(&rows);
    let widths = std::array::from_fn::<_, 7, _>(|i| all().map(|row| row[i].len()).max().unwrap_or(0));
    timeline.more("");
    for row in all() {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        timeline.more(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    for message in gates.iter().filter_map(|gate| gate.message.as_ref().map(|m| (gate.name, m))) {
        timeline.more(&format!("{}: {}", message.0, message.1));
    }
    timeline.more("");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request() -> Value {
        json!({"status": {"gates": [
            {"name": "direct-leak", "target": "3", "value": "0.0007", "bound": "0.0021", "threshold": "0.005",
             "hits": 2, "n": 3000, "baseRate": "0.0010", "verdict": "Pass"},
            {"name": "hygiene", "hits": 9, "n": 9, "verdict": "Pass"},
        ]}})
    }

    #[test]
    fn gates_are_taken_over_as_they_are() {
        let gates = all_of(&request()).unwrap();
        assert_eq!(cells(&gates[0]), ["direct-leak", "3", "0.0007", "0.0021", "0.005", "3000", "Pass"]);
        assert_eq!(cells(&gates[1]), ["hygiene", "", "9 of 9", "", "", "9", "Pass"]);
        let written = serde_json::to_value(Told::of(&gates[0])).unwrap();
        let expected = json!({"name": "direct-leak", "target": "3", "value": "0.0007", "bound": "0.0021",
            "threshold": "0.005", "n": 3000, "verdict": "Pass"});
        assert_eq!(written, expected, "hits, base rate and message are not part of the summary");
    }

    #[test]
    fn a_request_without_gates_is_an_error() {
        assert!(all_of(&json!({"status": {"phase": "Failed"}})).is_err());
    }
}
