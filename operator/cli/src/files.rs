//! Files, folders and standard input: what people name on a command line.

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use crate::exit::{Result, Trouble};

/// A larger file is no manifest.
const MAX_BYTES: u64 = 64 << 20;
/// Folders within folders are followed so deep.
const MAX_DEPTH: usize = 32;

/// A file as it was read.
pub struct Text {
    /// As people would type it; `-` is standard input.
    pub name: String,
    pub text: String,
}

/// Every file that is named, and of folders those that look like manifests.
///
/// # Errors
/// If one cannot be read.
pub fn read(named: &[PathBuf], recursive: bool) -> Result<Vec<Text>> {
    let mut found = Vec::new();
    for path in named {
        if path == Path::new("-") {
            let mut text = String::new();
            let mut input = io::stdin().lock().take(MAX_BYTES);
            input
                .read_to_string(&mut text)
                .map_err(|error| Trouble::unreachable(format!("standard input: {error}")))?;
            found.push(Text { name: "-".into(), text });
        } else if path.is_dir() {
            let mut files = Vec::new();
            walk(path, if recursive { MAX_DEPTH } else { 0 }, &mut files)?;
            files.sort();
            for file in files {
                found.push(one(&file)?);
            }
        } else {
            found.push(one(path)?);
        }
    }
    Ok(found)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = |error: io::Error| Trouble::unreachable(format!("{}: {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_hidden = name.starts_with('.');
        if path.is_dir() && depth > 0 && !is_hidden {
            walk(&path, depth - 1, files)?;
        }
        let is_manifest = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending));
        if path.is_file() && is_manifest && !is_hidden {
            files.push(path);
        }
    }
    Ok(())
}

fn one(path: &Path) -> Result<Text> {
    let unreadable = |error: io::Error| Trouble::unreachable(format!("{}: {error}", path.display()));
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_BYTES {
        return Err(Trouble::unreachable(format!(
            "{}: {size} bytes; a manifest has at most {MAX_BYTES}",
            path.display()
        )));
    }
    Ok(Text { name: path.display().to_string(), text: fs::read_to_string(path).map_err(unreadable)? })
}
