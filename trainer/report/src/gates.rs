//! The gates and their verdicts, as a table.

use lethe_api::gate::{GateResult, Verdict};
use maud::{Markup, html};

use crate::number::thousands;
use crate::page::Tone;
use crate::table::{Cell, Column, Row, table};

/// The verdict early: it is what a reader looks for.
const COLUMNS: [Column; 7] = [
    Column::Text("gate"),
    Column::Text("label"),
    Column::Text("verdict"),
    Column::Number("value"),
    Column::Number("bound"),
    Column::Number("threshold"),
    Column::Number("n"),
];

/// Every result once, in the order given; below a row, why it is not a pass.
pub fn gate_table(results: &[GateResult]) -> Markup {
    if results.is_empty() {
        return html! { p.missing { strong { "Missing: " } "there are no verdicts, and so nothing has passed." } };
    }
    table("Gates and their verdicts", &COLUMNS, &results.iter().map(row).collect::<Vec<_>>())
}

fn row(result: &GateResult) -> Row {
    let text = |value: &Option<String>| Cell::text(value.as_deref().unwrap_or_default());
    let cells = [
        Cell::text(result.name.as_str()),
        text(&result.target),
        Cell::classed(verdict(result.verdict), tone(result.verdict).class()),
        Cell::text(value(result)),
        text(&result.bound),
        text(&result.threshold),
        Cell::text(result.n.map(thousands).unwrap_or_default()),
    ];
    Row { note: result.message.clone(), ..Row::of(cells) }
}

/// In words and with a sign: colour alone is not seen by everybody.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "\u{2713}\u{a0}Pass",
        Verdict::Inconclusive => "?\u{a0}Inconclusive",
        Verdict::Fail => "\u{2717}\u{a0}Fail",
        Verdict::Error => "!\u{a0}Error",
    }
}

pub fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Pass => Tone::Good,
        Verdict::Inconclusive => Tone::Plain,
        Verdict::Fail | Verdict::Error => Tone::Bad,
    }
}

/// What was measured; for a gate that counts, the count.
pub fn value(result: &GateResult) -> String {
    match (&result.value, result.hits, result.n) {
        (Some(value), ..) => value.clone(),
        (None, Some(hits), Some(n)) => format!("{hits} of {n}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_api::gate::GateName;

    #[test]
    fn a_gate_that_failed_is_shown_as_failed_and_says_why() {
        let result = GateResult {
            name: GateName::DirectLeak,
            target: Some("<3>".into()),
            value: Some("0.0412".into()),
            bound: Some("0.0501".into()),
            threshold: Some("0.005".into()),
            hits: Some(41),
            n: Some(1000),
            base_rate: None,
            verdict: Verdict::Fail,
            message: Some("41 of 1000 samples & more".into()),
        };
        let html = gate_table(&[result]).into_string();
        assert!(
            html.contains("bad") && html.contains("\u{2717}\u{a0}Fail") && !html.contains("Pass"),
            "{html}"
        );
        assert!(html.contains("41 of 1000 samples &amp; more") && html.contains("&lt;3&gt;"), "{html}");
    }

    #[test]
    fn no_verdicts_are_no_pass() {
        let html = gate_table(&[]).into_string();
        assert!(html.contains("Missing") && html.contains("nothing has passed"), "{html}");
    }
}
