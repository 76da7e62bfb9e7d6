//! Rows of the result, as a table, as JSON and as a figure.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::figure::{self, Group};
use crate::report;

/// One comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub name: String,
    pub ours: f64,
    /// What ours is compared with: the plain loop, or what `what` says.
    pub peer: f64,
    /// How many times better ours is.
    pub ratio: f64,
    /// Lowest and highest ratio of a single pair of blocks.
    pub spread: Option<[f64; 2]>,
    pub unit: &'static str,
    /// What a machine that did nothing but the arithmetic would need, in the same unit.
    pub floor: Option<f64>,
    pub threads: u8,
    pub what: String,
}

impl Row {
    /// Of costs that were measured in pairs; there is at least one.
    pub fn of_pairs(name: &str, ours: Vec<f64>, peer: Vec<f64>, unit: &'static str, threads: u8) -> Self {
        let ratios: Vec<f64> = ours.iter().zip(&peer).map(|(ours, peer)| peer / ours).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        Self {
            name: name.to_owned(),
            spread: (ratios.len() > 1).then_some([least, most]),
            ratio: median(ratios),
            ours: median(ours),
            peer: median(peer),
            unit,
            floor: None,
            threads,
            what: String::new(),
        }
    }
}

/// The middle value, or the mean of the two in the middle; there is at least one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    f64::midpoint(below, above)
}

/// Prints the rows and leaves them as `sfd.json` and `sfd.svg`.
///
/// # Errors
/// If a file cannot be written.
pub fn publish(out: &Path, rows: &[Row]) -> Result<()> {
    println!("\n{:<24} {:>7} {:>11} {:>11} {:>11}  ratio", "", "threads", "ours", "peer", "floor");
    for row in rows {
        let floor = row.floor.map_or(String::new(), number);
        let spread = row.spread.map_or(String::new(), |[low, high]| format!(" ({low:.2} to {high:.2})"));
        println!(
            "{:<24} {:>7} {:>11} {:>11} {floor:>11}  {:.2}{spread}  {}",
            row.name,
            row.threads,
            number(row.ours),
            number(row.peer),
            row.ratio,
            row.unit
        );
    }
    let groups: Vec<Group> = rows.iter().map(group).collect();
    let subtitle = "shorter is better; each group has its own scale";
    let title = "Lethe's trainer beside a plain PyTorch loop";
    report::write(out, "sfd", rows, &figure::bars(title, subtitle, &["ours", "peer", "floor"], &groups))
}

fn group(row: &Row) -> Group {
    let bar = |value: f64, note: &str| Some((value, format!("{} {}{note}", number(value), row.unit)));
    Group {
        name: format!("{} ({} thread{})", row.name, row.threads, if row.threads == 1 { "" } else { "s" }),
        note: row.what.clone(),
        bars: vec![
            bar(row.ours, &format!(", {:.2}x", row.ratio)),
            bar(row.peer, ""),
            row.floor.and_then(|floor| bar(floor, "")),
        ],
        limit: None,
    }
}

/// Three significant digits.
fn number(value: f64) -> String {
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_a_pair_and_not_of_medians() {
        let row = Row::of_pairs("", vec![1.0, 2.0, 10.0], vec![3.0, 4.0, 20.0], "ms", 1);
        assert_eq!((row.ours, row.peer, row.ratio, row.spread), (2.0, 4.0, 2.0, Some([2.0, 3.0])));
    }

    #[test]
    fn of_an_even_count_the_median_lies_between_the_two_in_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 9.0, 2.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![7.0]), 7.0);
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([number(1234.6), number(56.78), number(0.012_34)], ["1235", "56.8", "0.0123"]);
    }
}
