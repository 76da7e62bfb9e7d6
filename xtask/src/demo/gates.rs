//! The gates of a request, as its status has them.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::timeline::Timeline;

/// One verdict. Numbers are the operator's decimal strings, unchanged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    pub name: String,
    /// The label that it is about; none for gates on the whole candidate.
    pub target: Option<String>,
    pub value: Option<String>,
    pub bound: Option<String>,
    pub threshold: Option<String>,
    pub n: Option<u64>,
    pub verdict: String,
    #[serde(skip_serializing)]
    pub hits: Option<u64>,
    #[serde(skip_serializing)]
    pub base_rate: Option<String>,
    #[serde(skip_serializing)]
    pub message: Option<String>,
}

impl Gate {
    /// The gates in the status of `request`.
    ///
    /// # Errors
    /// If there are none or they are not gates.
    pub fn all_of(request: &Value) -> Result<Vec<Self>> {
        let gates = serde_json::from_value(request["status"]["gates"].clone());
        gates.context("the request's status has no gates")
    }

    pub fn passed(&self) -> bool {
        self.verdict == "Pass"
    }

    /// What was measured; for a gate that counts, the count.
    pub fn shown_value(&self) -> String {
        match (&self.value, self.hits, self.n) {
            (Some(value), ..) => value.clone(),
            (None, Some(hits), Some(n)) => format!("{hits} of {n}"),
            _ => String::new(),
        }
    }
}

pub const COLUMNS: [&str; 7] = ["gate", "target", "value", "bound", "threshold", "n", "verdict"];

/// The cells of a gate, in the order of [`COLUMNS`].
pub fn cells(gate: &Gate) -> [String; 7] {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        gate.name.clone(),
        text(&gate.target),
        gate.shown_value(),
        text(&gate.bound),
        text(&gate.threshold),
        gate.n.map(|n| n.to_string()).unwrap_or_default(),
        gate.verdict.clone(),
    ]
}

/// Shows the gates as a table.
pub fn print(timeline: &Timeline, gates: &[Gate]) {
    let rows: Vec<[String; 7]> = gates.iter().map(cells).collect();
    let heads = COLUMNS.map(str::to_owned);
    let all = || std::iter::once(&heads).chain(&rows);
    let widths = std::array::from_fn::<_, 7, _>(|i| all().map(|row| row[i].len()).max().unwrap_or(0));
    timeline.more("");
    for row in all() {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        timeline.more(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    for message in gates.iter().filter_map(|gate| gate.message.as_ref().map(|m| (&gate.name, m))) {
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
        let gates = Gate::all_of(&request()).unwrap();
        assert_eq!(cells(&gates[0]), ["direct-leak", "3", "0.0007", "0.0021", "0.005", "3000", "Pass"]);
        assert_eq!(cells(&gates[1]), ["hygiene", "", "9 of 9", "", "", "9", "Pass"]);
        let written = serde_json::to_value(&gates[0]).unwrap();
        let keys: Vec<_> = written.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys.len(), 7, "hits, base rate and message are not part of the summary: {keys:?}");
    }

    #[test]
    fn a_request_without_gates_is_an_error() {
        assert!(Gate::all_of(&json!({"status": {"phase": "Failed"}})).is_err());
    }
}
