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

/// What `operator.json` says of other numbers of requests than these; nothing, if there is none.
///
/// # Errors
/// If it cannot be read.
pub fn of_other_numbers(out: &Path, numbers: &[usize]) -> Result<Vec<Row>> {
    #[derive(serde::Deserialize)]
    struct Earlier {
        rows: Vec<Row>,
    }
    let file = out.join("operator.json");
    if !file.exists() {
        return Ok(Vec::new());
    }
    let of_file = || format!("cannot read {}", file.display());
    let text = fs::read(&file).with_context(of_file)?;
    let Earlier { mut rows } = serde_json::from_slice(&text).with_context(of_file)?;
    rows.retain(|row| !numbers.contains(&row.n));
    Ok(rows)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_of_other_numbers_is_kept() {
        let out = tempfile::tempdir().unwrap();
        assert!(of_other_numbers(out.path(), &[1000]).unwrap().is_empty(), "there is nothing yet");
        let row = |n, value| Row { name: "rss-peak".into(), n, value, limit: None, unit: "MiB".into() };
        write(out.path(), &[row(1000, 77.0), row(3000, 75.0)]).unwrap();
        let kept = of_other_numbers(out.path(), &[1000]).unwrap();
        assert_eq!(kept.iter().map(|row| (row.n, row.value)).collect::<Vec<_>>(), [(3000, 75.0)]);
        fs::write(out.path().join("operator.json"), "{").unwrap();
        assert!(of_other_numbers(out.path(), &[1000]).is_err());
    }
}
