//! What a bench leaves behind: its rows as JSON, and a figure of them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes `NAME.json` (`{"rows": [...]}`) and `NAME.svg` into `out`, and says where they are.
///
/// # Errors
/// If a file cannot be written.
pub fn write(out: &Path, name: &str, rows: &[impl Serialize], svg: &str) -> Result<()> {
    let json = serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))? + "\n";
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    for (extension, content) in [("json", json.as_str()), ("svg", svg)] {
        let file = out.join(name).with_extension(extension);
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        println!("wrote {}", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_figure_lie_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("made/on/demand");
        write(&out, "speed", &[serde_json::json!({"name": "a", "ratio": 2.5})], "<svg/>").unwrap();
        let json: serde_json::Value =
            serde_json::from_slice(&fs::read(out.join("speed.json")).unwrap()).unwrap();
        assert_eq!(json["rows"][0]["ratio"], 2.5);
        assert_eq!(fs::read_to_string(out.join("speed.svg")).unwrap(), "<svg/>");
    }
}
