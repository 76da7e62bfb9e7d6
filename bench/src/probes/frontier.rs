//! The figure of the frontier: what is left of the label, and what it costs, against the part of the weights that starts
//! fresh. One panel for each measure, one line for each number of steps, dashed what a model that never saw it shows.

use std::fmt::Write;

use lethe_report::figure::document;

use super::row::Row;
use super::summary::{NEVER_SAW, Summary};

const LEFT: f64 = 56.0;
const TOP: f64 = 84.0;
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 150.0;
/// From one panel to the next.
const STRIDE: (f64, f64) = (372.0, 222.0);
const COLOURS: [&str; 4] = ["--a", "--b", "--c", "--d"];

/// A measure of a model, by a probe if it is one of a probe.
struct Panel {
    title: &'static str,
    probe: &'static str,
    value: fn(&Row) -> f64,
    /// The unit is per cent.
    is_share: bool,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "embedding inversion, J_m %",
        probe: "embedding: denoising",
        value: |row| row.jm,
        is_share: true,
    },
    Panel {
        title: "relearning, 100 steps, J_m %",
        probe: "relearning: 100 steps",
        value: |row| row.jm,
        is_share: true,
    },
    Panel {
        title: "without a condition, J %",
        probe: "other doors: null",
        value: |row| row.j,
        is_share: true,
    },
    Panel {
        title: "Frechet distance, kept labels",
        probe: "direct: label",
        value: |row| row.fd,
        is_share: false,
    },
];

/// None if there are no models of the frontier among the rows.
pub fn draw(rows: &[Row], summary: &Summary<'_>) -> Option<String> {
    let mut steps: Vec<u64> = rows.iter().filter(|row| row.fresh.is_some()).map(|row| row.steps).collect();
    steps.sort_unstable();
    steps.dedup();
    if steps.is_empty() {
        return None;
    }
    let mut body = String::new();
    let mut x = 16.0;
    for (steps, colour) in steps.iter().zip(COLOURS) {
        let seconds: Vec<f64> = rows
            .iter()
            .filter(|row| row.fresh.is_some() && row.steps == *steps)
            .map(|row| row.seconds)
            .collect();
        let text = format!("{steps} steps, {:.0} s", seconds.iter().sum::<f64>() / seconds.len() as f64);
        let _ = writeln!(
            body,
            "<rect x=\"{x}\" y=\"44\" width=\"11\" height=\"11\" rx=\"2\" fill=\"var({colour})\"/>\
             <text x=\"{}\" y=\"54\">{text}</text>",
            x + 16.0
        );
        x += 170.0;
    }
    let _ = writeln!(body, "<text class=\"mute\" x=\"{x}\" y=\"54\">dashed: never saw the digit</text>");
    for (index, panel) in PANELS.iter().enumerate() {
        let at = (LEFT + STRIDE.0 * (index % 2) as f64, TOP + STRIDE.1 * (index / 2) as f64);
        draw_panel(&mut body, at, panel, rows, &steps, summary);
    }
    Some(document("Part of the weights that starts fresh", TOP + 2.0 * STRIDE.1, &body))
}

fn draw_panel(
    body: &mut String,
    (left, top): (f64, f64),
    panel: &Panel,
    rows: &[Row],
    steps: &[u64],
    summary: &Summary<'_>,
) {
    let lines: Vec<Vec<(f64, f64)>> = steps.iter().map(|&steps| line(rows, panel, steps)).collect();
    let never_saw = summary.mean(NEVER_SAW, panel.probe, panel.value);
    let most =
        lines.iter().flatten().map(|point| point.1).chain(never_saw).fold(f64::MIN_POSITIVE, f64::max) * 1.08;
    let (x, y) = (|part: f64| left + part * WIDTH, |value: f64| top + HEIGHT * (1.0 - value / most));
    let _ = writeln!(body, "<text x=\"{left}\" y=\"{}\">{}</text>", top - 8.0, panel.title);
    for part in [0.0, 0.5, 1.0] {
        let value = part * most;
        let label = if panel.is_share { format!("{:.1}", 100.0 * value) } else { format!("{value:.2}") };
        let _ = writeln!(
            body,
            "<line class=\"line\" x1=\"{left}\" x2=\"{}\" y1=\"{y1:.1}\" y2=\"{y1:.1}\"/>\
             <text class=\"mute\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\">{label}</text>\
             <text class=\"mute\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{part}</text>",
            left + WIDTH,
            left - 6.0,
            y(value) + 4.0,
            x(part),
            top + HEIGHT + 16.0,
            y1 = y(value),
        );
    }
    if let Some(value) = never_saw {
        let _ = writeln!(
            body,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"var(--mute)\" stroke-dasharray=\"5 4\"/>",
            left + WIDTH,
            y = y(value)
        );
    }
    for (line, colour) in lines.iter().zip(COLOURS) {
        let points = line.iter().map(|&(part, value)| format!("{:.1},{:.1}", x(part), y(value)));
        let _ = writeln!(
            body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"var({colour})\" stroke-width=\"2\"/>",
            points.collect::<Vec<_>>().join(" ")
        );
        for &(part, value) in line {
            let _ = writeln!(
                body,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"var({colour})\"/>",
                x(part),
                y(value)
            );
        }
    }
}

/// The mean over digits and seeds at each part, from none to all.
fn line(rows: &[Row], panel: &Panel, steps: u64) -> Vec<(f64, f64)> {
    let of = |row: &&Row| row.probe == panel.probe && row.steps == steps && row.fresh.is_some();
    let rows: Vec<&Row> = rows.iter().filter(of).collect();
    let mut parts: Vec<f64> = rows.iter().filter_map(|row| row.fresh).collect();
    parts.sort_by(f64::total_cmp);
    parts.dedup();
    let mean = |part: f64| {
        let values: Vec<f64> =
            rows.iter().filter(|row| row.fresh == Some(part)).map(|row| (panel.value)(row)).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    parts.into_iter().map(|part| (part, mean(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    fn fresh(part: f64, label: i64, inside: u64) -> Row {
        Row { fresh: Some(part), ..row("Harden", label, 1000, inside) }
    }

    #[test]
    fn a_line_goes_through_the_means_of_the_digits_in_order() {
        let rows = [fresh(1.0, 3, 10), fresh(0.0, 3, 400), fresh(0.0, 4, 600), row("Harden", 3, 1000, 1000)];
        assert_eq!(line(&rows, &PANELS[1], 7), [(0.0, 0.5), (1.0, 0.01)]);
    }

    #[test]
    fn without_a_frontier_there_is_no_figure() {
        let rows = [row("Harden", 3, 1000, 1000)];
        assert!(draw(&rows, &Summary::of(&rows)).is_none());
        let rows = [fresh(0.0, 3, 1), fresh(1.0, 3, 1)];
        assert!(draw(&rows, &Summary::of(&rows)).unwrap().contains("polyline"));
    }
}
