//! The manifests in `examples/`, as people apply them.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::server::repository;

/// All documents of `examples/FILE`.
///
/// # Errors
/// If the file cannot be read or is not YAML.
pub fn read(file: &str) -> Result<Vec<Value>> {
    let path = repository("examples").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    documents(&text).with_context(|| format!("{} is not YAML", path.display()))
}

/// The first document of `examples/FILE`.
///
/// # Errors
/// As [`read`], and if there is none.
pub fn first(file: &str) -> Result<Value> {
    read(file)?.into_iter().next().with_context(|| format!("examples/{file} holds nothing"))
}

/// Every YAML file in `examples/`.
///
/// # Errors
/// If the folder cannot be read.
pub fn files() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repository("examples")).context("cannot list examples/")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".yaml") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The documents of a YAML stream, without empty ones.
///
/// # Errors
/// If it is not YAML.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}
