//! Memory and seconds against the number of requests, as a figure.

use std::fmt::Write;

use lethe_report::figure::{SERIES, document, subtitle};

use super::Row;

const HEIGHT: f64 = 360.0;
/// Of one of the two panels: its left edge, and the room for its lines.
const LEFT: [f64; 2] = [64.0, 444.0];
const ROOM: (f64, f64) = (290.0, 190.0);
const TOP: f64 = 84.0;
/// Dashes of the lines, in order.
const DASHES: [&str; 4] = ["", "6 3", "2 3", "9 3 2 3"];

/// The rows of these names, in these words.
const MEMORY: [(&str, &str); 2] = [("rss-settled", "settled"), ("rss-peak", "peak")];
const SECONDS: [(&str, &str); 3] = [
    ("burst-accepted", "burst accepted"),
    ("restart-first-decision", "restart to first decision"),
    ("restart-all-looked-at", "restart to all looked at"),
];

pub fn draw(rows: &[Row]) -> String {
    let mut body = subtitle("requests along the bottom, by their logarithm");
    panel(&mut body, 0, "MiB", &MEMORY, rows);
    panel(&mut body, 1, "seconds", &SECONDS, rows);
    document("The operator against the number of requests", HEIGHT, &body)
}

fn panel(body: &mut String, index: usize, unit: &str, lines: &[(&str, &str)], rows: &[Row]) {
    let left = LEFT[index];
    let points = |name: &str| -> Vec<(f64, f64)> {
        let mut points: Vec<_> =
            rows.iter().filter(|row| row.name == name).map(|row| (row.n as f64, row.value)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let all: Vec<(f64, f64)> = lines.iter().flat_map(|(name, _)| points(name)).collect();
    let Some(most) = all.iter().map(|point| point.1).reduce(f64::max).filter(|most| *most > 0.0) else {
        return;
    };
    let (first, last) =
        all.iter().fold((f64::MAX, 1.0_f64), |(a, b), point| (a.min(point.0), b.max(point.0)));
    let span = (last / first).ln();
    let x = |n: f64| left + if span > 0.0 { ROOM.0 * (n / first).ln() / span } else { ROOM.0 / 2.0 };
    let y = |value: f64| TOP + ROOM.1 * (1.0 - value / most);
    let _ = writeln!(body, "<text class=\"mute\" x=\"{left}\" y=\"{}\">{unit}</text>", TOP - 12.0);
    for share in [0.0, 0.5, 1.0] {
        let (value, at) = (most * share, y(most * share));
        let _ = writeln!(
            body,
            "<line class=\"line\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\"/>\
             <text class=\"mute\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left + ROOM.0,
            left - 6.0,
            at + 4.0,
            short(value)
        );
    }
    let mut numbers: Vec<_> = all.iter().map(|point| point.0 as u64).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for n in numbers {
        let (at, below) = (x(n as f64), TOP + ROOM.1 + 18.0);
        let _ = writeln!(
            body,
            "<text class=\"mute\" x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{n}</text>"
        );
    }
    for (index, (((name, words), colour), dash)) in lines.iter().zip(SERIES).zip(DASHES).enumerate() {
        let pen =
            format!("stroke=\"var({colour})\" stroke-width=\"2\" stroke-dasharray=\"{dash}\" fill=\"none\"");
        let points = points(name);
        let path: Vec<_> = points.iter().map(|&(n, value)| format!("{:.1},{:.1}", x(n), y(value))).collect();
        let _ = writeln!(body, "<polyline points=\"{}\" {pen}/>", path.join(" "));
        for &(n, value) in &points {
            let (x, y) = (x(n), y(value));
            let _ = writeln!(body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"var({colour})\"/>");
        }
        let at = TOP + ROOM.1 + 40.0 + 16.0 * index as f64;
        let _ = writeln!(
            body,
            "<line x1=\"{left}\" y1=\"{:.1}\" x2=\"{}\" y2=\"{:.1}\" {pen}/><text x=\"{}\" y=\"{at:.1}\">{words}</text>",
            at - 4.0,
            left + 24.0,
            at - 4.0,
            left + 32.0
        );
    }
}

fn short(value: f64) -> String {
    if value >= 10.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_number_lies_to_the_right_and_a_larger_value_above() {
        let row = |n, value| Row { name: "rss-settled".into(), n, value, limit: None, unit: "MiB".into() };
        let svg = draw(&[row(10_000, 80.0), row(1_000, 40.0)]);
        // Half of the highest value, at the left edge; the highest, at the right.
        assert!(svg.contains("points=\"64.0,179.0 354.0,84.0\""), "{svg}");
        assert!(svg.contains(">10000</text>"), "{svg}");
        // Without rows there is a figure without lines.
        assert!(!draw(&[]).contains("polyline"));
    }
}
