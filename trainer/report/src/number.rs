//! Numbers as people read them.

/// `12,345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Between a number and its unit, where no line breaks.
const SPACE: char = '\u{a0}';

/// A share as `99.6 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1}{SPACE}%", 100.0 * share)
}

/// An upper bound as `0.21 %`: rounded up, so that it never looks better than it is.
pub fn percent_above(share: f64) -> String {
    format!("{:.2}{SPACE}%", (share * 1e4 - 1e-9).ceil() / 100.0)
}

/// With three digits that count: `0.0123`, `1.25`, `1340`.
pub fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let magnitude = value.abs().log10().floor();
    if !(-4.0..6.0).contains(&magnitude) {
        return format!("{value:.1e}");
    }
    let decimals = (2.0 - magnitude).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// The first digits of a digest, for where it only has to be told from others.
pub fn short_digest(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_to_read_and_bounds_never_too_small() {
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!((thousands(0), thousands(1000)), ("0".into(), "1,000".into()));
        assert_eq!(percent_above(0.002_001), "0.21\u{a0}%");
        assert_eq!(percent_above(0.9994), "99.94\u{a0}%");
        assert_eq!(percent(0.9957), "99.6\u{a0}%");
        assert_eq!(short_digest("sha256:0123456789abcdef"), "0123456789ab");
    }

    #[test]
    fn three_digits_count() {
        for (value, text) in [
            (0.0, "0"),
            (0.01234, "0.0123"),
            (1.25, "1.25"),
            (1.0, "1"),
            (1340.2, "1340"),
            (-0.5, "-0.5"),
            (2.5e-7, "2.5e-7"),
            (1000.0, "1000"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
