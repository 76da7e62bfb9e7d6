//! What a check found, beside its limit.

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// Most that it may be; nothing is demanded without one.
    pub most: Option<f64>,
    pub ok: bool,
    pub what: String,
}

impl Row {
    /// A difference that must not be larger than `most`.
    pub fn limited(name: impl Into<String>, value: f64, most: f64, what: impl Into<String>) -> Self {
        // Not `value > most`: what is no number fails.
        let ok = value <= most;
        Self { name: name.into(), value, unit: "", most: Some(most), ok, what: what.into() }
    }

    /// A figure that is only reported.
    pub fn figure(name: impl Into<String>, value: f64, unit: &'static str, what: impl Into<String>) -> Self {
        Self { name: name.into(), value, unit, most: None, ok: true, what: what.into() }
    }

    pub fn failed(name: &str, why: &str) -> Self {
        Self { name: name.to_owned(), value: f64::NAN, unit: "", most: None, ok: false, what: why.to_owned() }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, unit, most, ok, what } = self;
        let verdict = if *ok { "ok" } else { "FAILED" };
        let value = if most.is_some() { format!("{value:.2e}") } else { format!("{value:.4} {unit}") };
        let most = most.map_or(String::new(), |most| format!("<= {most:.0e}"));
        write!(f, "{verdict:<6} {name:<36} {value:>16} {most:<9} {what}")
    }
}

/// What `check` finds; why it could not be made if it could not. Others go on in any case.
pub fn attempt(name: &str, check: impl Fn() -> Result<Vec<Row>>) -> Vec<Row> {
    let began = Instant::now();
    let rows = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        // A message without anything to fill in is a literal, also where it was written with braces.
        let literal = panic.downcast_ref::<&str>().copied();
        let words = panic.downcast_ref::<String>().map(String::as_str).or(literal);
        Err(anyhow!("{}", words.unwrap_or("panicked").lines().next().unwrap_or_default()))
    });
    let rows = rows.unwrap_or_else(|error| vec![Row::failed(name, &format!("{error:#}"))]);
    rows.iter().for_each(|row| println!("{row}"));
    println!("    ({name}: {:.1} s)", began.elapsed().as_secs_f64());
    rows
}

/// Leaves the rows as `device.json`.
///
/// # Errors
/// If it cannot be written.
pub fn publish(out: &Path, device: &str, rows: &[Row]) -> Result<()> {
    let json = serde_json::to_string_pretty(&serde_json::json!({ "device": device, "rows": rows }))? + "\n";
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let file = out.join("device.json");
    fs::write(&file, json).with_context(|| format!("cannot write {}", file.display()))?;
    println!("wrote {}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_or_no_number_has_failed() {
        assert!(Row::limited("a", 1e-6, 1e-4, "").ok);
        assert!(!Row::limited("a", 1e-3, 1e-4, "").ok);
        assert!(!Row::limited("a", f64::NAN, 1e-4, "").ok);
    }

    #[test]
    fn a_check_that_cannot_be_made_has_failed_and_says_why() {
        let rows = attempt("a", || panic!("out of {}\nmany words", "memory"));
        assert!(matches!(&rows[..], [Row { ok: false, what, .. }] if what == "out of memory"));
        let rows = attempt("a", || Err(anyhow!("no device")));
        assert!(matches!(&rows[..], [Row { ok: false, what, .. }] if what == "no device"));
    }
}
