//! The figure: a row per attempt, a column per model, darker where more of the forgotten label is seen.

use std::fmt::Write;

use lethe_report::figure::{document, escape};

use super::summary::Summary;
use crate::figure::text_width;

const LEFT: f64 = 16.0;
/// Where headings begin, and how high one line of them is.
const TOP: f64 = 70.0;
const LINE: f64 = 16.0;
const RIGHT: f64 = 744.0;
const HEIGHT: f64 = 24.0;
const GAP: f64 = 3.0;

pub fn draw(labels: &[i64], summary: &Summary<'_>) -> String {
    let (models, probes) = (&summary.models, &summary.probes);
    let mut body = String::new();
    // Where the cells begin: what is left of them names the attempt.
    let axis = LEFT + 10.0 + probes.iter().map(|probe| text_width(probe, 13.0)).fold(0.0, f64::max);
    let width = (RIGHT - axis) / models.len().max(1) as f64;
    let note = "per cent that the judge takes for it; in brackets and as shade: that also lie among the teacher's samples";
    let _ = writeln!(body, "<text class=\"mute\" x=\"{LEFT}\" y=\"50\">{note}</text>");
    let headings: Vec<Vec<String>> = models.iter().map(|model| wrapped(model, width - GAP)).collect();
    let top = TOP + LINE * headings.iter().map(Vec::len).max().unwrap_or(1) as f64;
    for (index, heading) in headings.iter().enumerate() {
        let middle = axis + width * (index as f64 + 0.5);
        for (above, line) in heading.iter().rev().enumerate() {
            let (y, line) = (top - 12.0 - LINE * above as f64, escape(line));
            let _ = writeln!(body, "<text x=\"{middle:.1}\" y=\"{y}\" text-anchor=\"middle\">{line}</text>");
        }
    }
    for (line, probe) in probes.iter().enumerate() {
        let y = top + HEIGHT * line as f64;
        let _ = writeln!(body, "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>", y + 15.0, escape(probe));
        for (index, model) in models.iter().enumerate() {
            let jm = summary.mean(model, probe, |row| row.jm);
            if let (Some(jm), Some(text)) = (jm, summary.percent(model, probe)) {
                cell(&mut body, (axis + width * index as f64, y), width - GAP, jm, &text);
            }
        }
    }
    let labels: Vec<String> = labels.iter().map(i64::to_string).collect();
    let title = match &labels[..] {
        [one] => format!("Where the forgotten digit {one} is still found"),
        many => format!("Where a forgotten digit is still found: mean over {}", many.join(", ")),
    };
    document(&title, top + HEIGHT * probes.len() as f64 + LEFT, &body)
}

/// Lines of whole words that fit into `width`, if the words do.
fn wrapped(text: &str, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if text_width(line, 13.0) + text_width(word, 13.0) < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn cell(body: &mut String, (x, y): (f64, f64), width: f64, jm: f64, text: &str) {
    // A square root, so that one per cent can be told from none.
    let shade = 0.8 * jm.sqrt();
    let (height, middle) = (HEIGHT - GAP, x + width / 2.0);
    let _ = writeln!(
        body,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" rx=\"2\" fill=\"var(--b)\" \
         fill-opacity=\"{shade:.3}\" stroke=\"var(--line)\"/>\
         <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
        y + 15.0
    );
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::super::summary::{CONTROL, NEVER_SAW};
    use super::*;

    #[test]
    fn a_heading_breaks_between_words() {
        assert_eq!(wrapped("nothing forgotten", 100.0), ["nothing", "forgotten"]);
        assert_eq!(wrapped("nothing forgotten", 150.0), ["nothing forgotten"]);
        assert_eq!(wrapped("unbreakable", 10.0), ["unbreakable"]);
    }

    #[test]
    fn every_model_has_a_cell_and_more_is_darker() {
        let rows = [row(CONTROL, 3, 1000, 810), row(NEVER_SAW, 3, 500, 0)];
        let svg = draw(&[3], &Summary::of(&rows));
        assert!(svg.contains("100 (81)") && svg.contains("50 (0)"), "{svg}");
        assert!(svg.contains("fill-opacity=\"0.720\"") && svg.contains("fill-opacity=\"0.000\""), "{svg}");
        assert!(svg.contains(">never saw<") && svg.contains("relearning: 100 steps"), "{svg}");
    }
}
