//! A stage in one line of a terminal.

use lethe_api::contract::Progress;
use rustix::termios::tcgetwinsize;

/// Back to the first column, and away with what is there.
pub(crate) const CLEAR: &str = "\r\x1b[K";
/// Columns of the bar itself.
const BAR: u64 = 24;
/// A terminal that does not say how wide it is, is as wide as they always were.
const COLUMNS: usize = 80;

pub(crate) fn columns() -> usize {
    let columns = tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { COLUMNS } else { columns }
}

/// A line of fewer than `columns` characters: where the stage stands, when it will be done, and as much of its last record
/// as there is room for.
pub(crate) fn draw(progress: &Progress, columns: usize) -> String {
    let Progress { stage, step, total, eta_seconds, metrics, .. } = progress;
    let part = |of: u64| (step.min(total) * of).checked_div(*total).unwrap_or(of);
    let done = part(BAR);
    let bar: String = (0..BAR).map(|column| if column < done { '█' } else { '░' }).collect();
    let mut line = format!("{stage} {bar} {:>3} %  {step}/{total}", part(100));
    if let Some(left) = eta_seconds.filter(|_| step < total) {
        line += &format!("  {} left", clock(left));
    }
    if let Some(metrics) = metrics {
        if let Some(pace) = metrics.seconds_per_1000_images {
            line += &format!("  {pace:.2} s/1000");
        }
        for (name, value) in metrics.looks.iter().chain(&metrics.losses) {
            line += &format!("  {name} {value:.3}");
        }
    }
    // One column is left free: a full line would wrap, and could not be cleared any more.
    line.chars().take(columns.saturating_sub(1)).collect()
}

/// `1:02:03`, or `2:03`.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_api::contract::Metrics;

    fn progress(step: u64) -> Progress {
        let losses = [("generator (forget)".to_owned(), 0.0314)].into();
        let metrics = Metrics { losses, seconds_per_1000_images: Some(0.4), ..Metrics::default() };
        let (stage, total, eta_seconds) = ("forget".into(), 1000, Some(125));
        Progress { stage, step, total, eta_seconds, metrics: Some(metrics), ..Progress::default() }
    }

    #[test]
    fn a_quarter_of_the_way_is_a_quarter_of_the_bar() {
        let line = draw(&progress(250), 120);
        let bar = format!("forget {}{}  25 %  250/1000  2:05 left", "█".repeat(6), "░".repeat(18));
        assert!(line.starts_with(&bar), "{line}");
        assert!(line.ends_with("  0.40 s/1000  generator (forget) 0.031"), "{line}");
    }

    #[test]
    fn the_line_fits_the_terminal() {
        for columns in [0, 1, 20, 80] {
            assert!(draw(&progress(250), columns).chars().count() <= columns.saturating_sub(1));
        }
    }

    #[test]
    fn what_is_done_is_full_and_has_nothing_left() {
        let line = draw(&progress(1000), 200);
        assert!(line.contains("100 %") && !line.contains("left") && !line.contains('░'), "{line}");
        assert!(draw(&Progress::default(), 80).contains("100 %"), "no steps are all done");
    }

    #[test]
    fn hours_are_shown_if_there_are_any() {
        assert_eq!((clock(59), clock(3600 + 62)), ("0:59".into(), "1:01:02".into()));
    }
}
