//! Decimal strings: thresholds as written, values as shown.

/// A threshold. `None` if the text is not a finite decimal number.
pub fn parse(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse::<f64>().ok().filter(|value| plain && value.is_finite())
}

/// A value, with four decimals; one that no measurement should give, short.
pub fn show(value: f64) -> String {
    if value.abs() < 1e9 { format!("{value:.4}") } else { format!("{value:.4e}") }
}

/// An upper bound, rounded up in its fourth decimal: what is shown is never better than what was found.
pub fn show_upper(value: f64) -> String {
    format!("{:.4}", ((value * 1e4) - 1e-9).ceil() / 1e4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_decimals_are_thresholds() {
        assert_eq!(parse("0.005"), Some(0.005));
        assert_eq!(parse(".5"), Some(0.5));
        for bad in ["", "NaN", "inf", "-1", "1e3", "0.5 ", "0,5"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_shown_bound_is_never_better_than_the_bound() {
        assert_eq!(show_upper(0.00210001), "0.0022");
        assert_eq!(show_upper(0.005), "0.0050");
        assert_eq!(show_upper(1.0), "1.0000");
    }
}
