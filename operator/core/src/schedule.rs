//! When audits are due.

use cronexpr::{FallbackTimezoneOption, ParseOptions};
use jiff::Timestamp;

/// The first time after `after` that a schedule of five cron fields names, in UTC.
///
/// # Errors
/// What is wrong with it, in words.
pub fn next(schedule: &str, after: Timestamp) -> Result<Timestamp, String> {
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    let parsed = cronexpr::parse_crontab_with(schedule, options);
    let next = parsed.and_then(|crontab| crontab.find_next(after.to_string().as_str()));
    let next = next.map(|next| next.timestamp()).map_err(|error| error.to_string());
    next.map_err(|why| why.lines().next().unwrap_or_default().chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(schedule: &str, after: &str) -> String {
        next(schedule, after.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_schedule_is_read_in_utc() {
        assert_eq!(after("0 3 * * *", "2026-11-26T02:59:59Z"), "2026-11-26T03:00:00Z");
        assert_eq!(after("0 3 * * *", "2026-11-26T03:00:00Z"), "2026-11-27T03:00:00Z");
        assert_eq!(after("*/15 * * * *", "2026-11-26T03:01:00.5Z"), "2026-11-26T03:15:00Z");
        assert_eq!(after("30 4 1 * *", "2026-11-26T00:00:00Z"), "2026-12-01T04:30:00Z");
        assert_eq!(after("0 0 * * MON", "2026-11-26T00:00:00Z"), "2026-11-30T00:00:00Z");
    }

    #[test]
    fn what_is_no_schedule_or_names_no_time_is_refused_in_one_line() {
        for bad in ["", "0 3 * *", "61 3 * * *", "0 3 * * NOON", "0 0 30 2 *"] {
            let why = next(bad, Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(!why.is_empty() && !why.contains('\n'), "{bad}: {why}");
        }
    }
}
