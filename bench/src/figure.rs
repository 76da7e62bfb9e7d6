//! Bars, as a figure.

use std::fmt::Write;

use lethe_report::figure::{self, MARGIN, SERIES, WIDTH, document, escape};

/// Where bars begin at least, and at most: what is left of it names them.
const AXIS: (f64, f64) = (120.0, 400.0);
/// Room for a value beside the longest bar.
const VALUE: f64 = 150.0;
const BAR: f64 = 18.0;
const GAP: f64 = 14.0;
const HEADER: f64 = 84.0;

/// One thing that was measured for every series.
#[derive(Debug)]
pub struct Group {
    pub name: String,
    /// Small print below the name.
    pub note: String,
    /// One bar per series: its length, and what stands beside it. None where a series has no value.
    pub bars: Vec<Option<(f64, String)>>,
    /// A length that is not to be exceeded: drawn as a dashed line.
    pub limit: Option<f64>,
}

/// Horizontal bars, in groups; every group has a scale of its own, because their units differ. Limits lie below each
/// other.
pub fn bars(title: &str, subtitle: &str, series: &[&str], groups: &[Group]) -> String {
    let mut body = figure::subtitle(subtitle);
    legend(&mut body, series);
    let widest = |group: &Group| text_width(&group.name, 13.0).max(text_width(&group.note, 11.0));
    let axis = MARGIN + 14.0 + groups.iter().map(widest).fold(0.0, f64::max);
    let axis = axis.clamp(AXIS.0, AXIS.1);
    // By how much the worst of the groups exceeds its limit.
    let excess = groups.iter().filter_map(|group| Some(longest(group) / group.limit?)).fold(1.0, f64::max);
    let mut y = HEADER;
    for group in groups {
        let most = group.limit.map_or_else(|| longest(group), |limit| limit * excess);
        y = draw(&mut body, group, (axis, (WIDTH - axis - VALUE) / most), y);
    }
    document(title, y + MARGIN, &body)
}

/// About how wide a text of this size is. System fonts differ: this is a wide one.
pub fn text_width(text: &str, size: f64) -> f64 {
    0.6 * size * text.chars().count() as f64
}

fn legend(body: &mut String, series: &[&str]) {
    let mut x = MARGIN;
    for (name, colour) in series.iter().zip(SERIES) {
        let (text, name_at) = (escape(name), x + 16.0);
        let _ = writeln!(
            body,
            "<rect x=\"{x:.0}\" y=\"60\" width=\"11\" height=\"11\" rx=\"2\" fill=\"var({colour})\"/>\
             <text x=\"{name_at:.0}\" y=\"70\">{text}</text>"
        );
        x += 36.0 + 7.0 * name.len() as f64;
    }
}

fn longest(group: &Group) -> f64 {
    group.bars.iter().flatten().map(|(value, _)| *value).fold(f64::MIN_POSITIVE, f64::max)
}

/// Draws one group below `y` and returns where it ends.
fn draw(body: &mut String, group: &Group, (axis, scale): (f64, f64), y: f64) -> f64 {
    let top = y + GAP;
    let _ = writeln!(
        body,
        "<line class=\"line\" x1=\"{MARGIN}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <text x=\"{MARGIN}\" y=\"{:.1}\">{}</text><text class=\"mute\" x=\"{MARGIN}\" y=\"{:.1}\" font-size=\"11\">{}</text>",
        WIDTH - MARGIN,
        top + 13.0,
        escape(&group.name),
        top + 30.0,
        escape(&group.note),
    );
    let mut at = top;
    for (bar, colour) in group.bars.iter().zip(SERIES) {
        let Some((value, text)) = bar else { continue };
        let length = (value * scale).max(1.0);
        let _ = writeln!(
            body,
            "<rect x=\"{axis:.1}\" y=\"{at:.1}\" width=\"{length:.1}\" height=\"{:.1}\" rx=\"2\" fill=\"var({colour})\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            BAR - 4.0,
            axis + length + 6.0,
            at + 11.5,
            escape(text),
        );
        at += BAR;
    }
    if let Some(limit) = group.limit {
        let _ = writeln!(
            body,
            "<line stroke=\"var(--fg)\" stroke-dasharray=\"4 3\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
            top - 4.0,
            at,
            x = axis + limit * scale,
        );
    }
    at.max(top + 2.0 * BAR) + GAP / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_of_a_group_fills_its_room_and_text_is_escaped() {
        let bar = |value: f64| Some((value, format!("{value} <ms>")));
        let group = Group {
            name: "a & b".into(),
            note: String::new(),
            bars: vec![bar(4.0), None, bar(2.0)],
            limit: None,
        };
        let svg = bars("Title", "where", &["ours", "none", "peer"], &[group]);
        let room = WIDTH - AXIS.0 - VALUE;
        assert!(svg.contains(&format!("width=\"{room:.1}\"")), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\"", room / 2.0)), "{svg}");
        assert!(svg.contains("a &amp; b") && svg.contains("4 &lt;ms&gt;"), "{svg}");
        assert!(!svg.contains("<ms>"), "{svg}");
    }

    #[test]
    fn bars_begin_beyond_what_names_them_and_a_limit_lies_on_their_scale() {
        let note = "a note that needs more room than most names";
        let group = Group {
            name: "leak".into(),
            note: note.into(),
            bars: vec![Some((1.0, "half".into()))],
            limit: Some(2.0),
        };
        let svg = bars("Title", "where", &["share"], &[group]);
        let axis = MARGIN + 14.0 + text_width(note, 11.0);
        let room = WIDTH - axis - VALUE;
        assert!(axis > AXIS.0 && svg.contains(&format!("<rect x=\"{axis:.1}\"")), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\"", room / 2.0)), "the limit is the longest: {svg}");
        assert!(svg.contains(&format!("x1=\"{:.1}\"", axis + room)), "{svg}");
    }
}
