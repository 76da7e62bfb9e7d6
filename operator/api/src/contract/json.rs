//! Reading JSON that somebody else wrote: an error says in one line at which field it is wrong.

use std::fmt;

use serde::de::DeserializeOwned;

/// A type, from the whole of the bytes.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| at(&error))?;
    json.end().map_err(|error| one_line(&error))?;
    Ok(value)
}

/// What is wrong with a value below the field `above`, if anything is. For values that serde reads in two steps, whose place
/// it has forgotten by the second.
pub(super) fn problem<T: DeserializeOwned>(above: &str, value: serde_json::Value) -> Option<String> {
    let error = serde_path_to_error::deserialize::<_, T>(value).err()?;
    Some(format!("{above}.{}", at(&error)))
}

fn at(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = error.path().to_string();
    let problem = one_line(error.inner());
    // The root has no name.
    if path == "." { problem } else { format!("{}: {problem}", one_line(&path)) }
}

/// Text in which some of the input may be quoted, as one line of readable length.
pub fn one_line(text: &impl fmt::Display) -> String {
    const MOST: usize = 200;
    let text = text.to_string();
    let mut line = String::new();
    for character in text.chars().take(MOST) {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    if text.chars().nth(MOST).is_some() {
        line.push_str("...");
    }
    line
}
