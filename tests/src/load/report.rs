//! What the bench leaves behind.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{Row, figure};

/// Writes `operator.json` and `operator.svg`.
///
/// # Errors
/// If a file cannot be written.
pub fn write(out: &Path, rows: &[Row]) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let json = serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))? + "\n";
    for (name, content) in [("operator.json", json), ("operator.svg", figure::draw(rows))] {
        let file = out.join(name);
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// A table for people.
pub fn print(rows: &[Row]) {
    println!("{:<26} {:>8} {:>10} {:<5} {:>8}", "what", "requests", "value", "unit", "limit");
    for row in rows {
        let limit = row.limit.map(|limit| limit.to_string()).unwrap_or_default();
        let mark = if row.is_within() { "" } else { "  EXCEEDED" };
        println!("{:<26} {:>8} {:>10.2} {:<5} {limit:>8}{mark}", row.name, row.n, row.value, row.unit);
    }
}
