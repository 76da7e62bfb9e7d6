//! Horizontal bars with names and values.

use maud::{Markup, html};

use crate::chart::SERIES;

/// A bar. `start` and `length` are shares of the width.
pub struct Bar {
    pub name: String,
    pub value: String,
    pub start: f64,
    pub length: f64,
    /// A pale bar behind it.
    pub behind: Option<f64>,
    /// Where a limit lies, as a share of the width.
    pub limit: Option<f64>,
    /// Part of the bar above it.
    pub is_part: bool,
    /// Which of the colours.
    pub series: usize,
}

impl Default for Bar {
    fn default() -> Self {
        Self {
            name: String::new(),
            value: String::new(),
            start: 0.0,
            length: 0.0,
            behind: None,
            limit: None,
            is_part: false,
            series: 0,
        }
    }
}

pub fn bars(bars: &[Bar]) -> Markup {
    html! {
        div.bars role="list" {
            @for bar in bars {
                div.bar role="listitem" {
                    span.name.part[bar.is_part] { (bar.name) }
                    span.num { (bar.value) }
                    span.track aria-hidden="true" { (track(bar)) }
                }
            }
        }
    }
}

fn track(bar: &Bar) -> Markup {
    let at = |share: f64| format!("{:.2}%", 100.0 * share.clamp(0.0, 1.0));
    let class = SERIES[bar.series % SERIES.len()];
    html! {
        @if let Some(behind) = bar.behind { i class={ "pale " (class) } style={ "left:0;width:" (at(behind)) } {} }
        i class=(class) style={ "left:" (at(bar.start)) ";width:" (at(bar.length.min(1.0 - bar.start))) } {}
        @if let Some(limit) = bar.limit { u style={ "left:" (at(limit)) } {} }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_stays_within_its_track() {
        let bar = Bar { name: "<b>".into(), start: 0.9, length: 5.0, limit: Some(2.0), ..Bar::default() };
        let html = bars(&[bar]).into_string();
        assert!(html.contains("left:90.00%;width:10.00%") && html.contains("left:100.00%"), "{html}");
        assert!(html.contains("&lt;b&gt;"), "{html}");
    }
}
