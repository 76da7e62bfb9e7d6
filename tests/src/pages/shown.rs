//! What a page shows beside what was printed. Every line that is shown was printed, in this order; digests, times and ages
//! differ each time, and how wide a column is.

use anyhow::{Result, bail};

/// What is left out, at the end of a line or as one of its own.
const LEFT_OUT: &str = "...";
/// Fewer hexadecimal digits may be a word.
const SHORTEST_DIGEST: usize = 8;
/// What a number before it is a span of time by.
const UNITS: [&str; 5] = ["s", "min", "h", "days", "bytes"];
/// What stands for anything that differs each time.
const ANYTHING: &str = "\u{2026}";

/// Compares them.
///
/// # Errors
/// If a line that is shown was not printed, or not after the one before it.
pub fn compare(shown: &str, printed: &str) -> Result<()> {
    let mut rest = printed.lines().map(steady);
    for line in shown.lines().filter(|line| !matches!(line.trim(), "" | LEFT_OUT)) {
        let is_it = |printed: &String| match line.strip_suffix(LEFT_OUT) {
            Some(start) => printed.starts_with(steady(start).trim_end()),
            None => *printed == steady(line),
        };
        if !rest.any(|printed| is_it(&printed)) {
            bail!("{line:?} was not printed, or not in this order; to compare, it is {:?}", steady(line));
        }
    }
    Ok(())
}

/// A line without what differs each time.
fn steady(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut steady: Vec<String> = Vec::with_capacity(words.len());
    for (i, word) in words.iter().enumerate() {
        let unit = |word: &&str| UNITS.contains(&word.trim_matches(|c: char| !c.is_alphanumeric()));
        let is_number = word.chars().all(|c| c.is_ascii_digit() || ",.(".contains(c));
        let is_unit = i > 0 && unit(word) && steady.last().is_some_and(|last| last == ANYTHING);
        if is_unit {
            continue;
        }
        let differs = is_time(word) || (is_number && words.get(i + 1).is_some_and(unit));
        steady.push(if differs { ANYTHING.into() } else { without_digests(word) });
    }
    steady.join(" ")
}

/// A date, a time of day, or an age as kubectl writes it (`3m20s`).
fn is_time(word: &str) -> bool {
    let word = word.trim_matches(|c: char| "\"'(),;".contains(c));
    let starts = word.starts_with(|c: char| c.is_ascii_digit());
    let is_moment = word.chars().all(|c| c.is_ascii_digit() || "-:.TZ".contains(c))
        && word.chars().filter(|c| "-:".contains(*c)).count() > 1;
    let is_age = word.ends_with(['s', 'm', 'h', 'd'])
        && word.chars().all(|c| c.is_ascii_digit() || "smhd".contains(c));
    starts && (is_moment || is_age)
}

fn without_digests(word: &str) -> String {
    let mut rest = word;
    let mut steady = String::new();
    while !rest.is_empty() {
        let hex = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        let digest = hex >= SHORTEST_DIGEST && rest[..hex].contains(|c: char| c.is_ascii_digit());
        let end = if hex > 0 { hex } else { rest.chars().next().map_or(0, char::len_utf8) };
        steady += if digest { ANYTHING } else { &rest[..end] };
        rest = &rest[end..];
    }
    steady
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
NAME     PHASE   COMPLIANT   FORGOTTEN   SERVED         AGE
digits   Ready   True        1           dfa7896b0094   3m12s

studio/digits  Ready  serves fb5667fd99c7 for 12 s  policy standard
due 2026-12-20, 22 days left (30,123 bytes)
";

    #[test]
    fn digests_times_and_widths_may_differ() {
        let shown = "\
NAME   PHASE COMPLIANT FORGOTTEN SERVED AGE
digits Ready True 1 0011223344ff 5s
...
studio/digits  Ready  serves 0011223344ff for 3 h  policy ...
due 2025-01-01, 3 h left (4 bytes)
";
        compare(shown, PRINTED).unwrap();
    }

    #[test]
    fn words_counts_and_order_may_not() {
        for shown in [
            "NAME PHASE COMPLIANT SERVED AGE",
            "digits Ready True 2 dfa7896b0094 3m12s",
            "digits Ready False 1 dfa7896b0094 3m12s",
            "studio/digits Degraded ...",
            "due 2026-12-20, 22 days left",
            "studio/digits ...\ndigits Ready True 1 dfa7896b0094 3m12s",
        ] {
            assert!(compare(shown, PRINTED).is_err(), "{shown:?} is taken");
        }
    }
}
