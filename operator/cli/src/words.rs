//! Times, shares and digests as people read them.

use jiff::Timestamp;
use lethe_report::number::thousands;

/// A span of time in one unit that is large enough: `23 days`, `5 h`, `40 s`.
pub fn span(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    match seconds.abs() {
        s if s >= 2 * DAY => format!("{} days", s / DAY),
        s if s >= 2 * HOUR => format!("{} h", s / HOUR),
        s if s >= 2 * MINUTE => format!("{} min", s / MINUTE),
        s => format!("{s} s"),
    }
}

/// Seconds from `from` to `to`.
pub fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second() - from.as_second()
}

/// How long a term still runs.
pub fn left(now: Timestamp, due: Timestamp) -> String {
    match seconds(now, due) {
        left if left > 0 => format!("{} left", span(left)),
        late => format!("overdue by {}", span(late)),
    }
}

/// A date and a time of day, to the minute.
pub fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// The day alone.
pub fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// `2 of 3,000`.
pub fn of(hits: u64, n: u64) -> String {
    format!("{} of {}", thousands(hits), thousands(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_says_how_long_it_runs_or_by_how_much_it_was_missed() {
        let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        let at = |text: &str| left(now, text.parse().unwrap());
        assert_eq!(at("2026-12-20T09:00:00Z"), "22 days left");
        assert_eq!(at("2026-11-27T19:30:00Z"), "7 h left");
        assert_eq!(at("2026-11-27T12:00:30Z"), "30 s left");
        assert_eq!(at("2026-11-27T12:00:00Z"), "overdue by 0 s");
        assert_eq!(at("2026-11-20T12:00:00Z"), "overdue by 7 days");
    }
}
