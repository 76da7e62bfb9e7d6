//! What is wrong with the bytes of a weights file.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("not a safetensors file: {}", Line(.0))]
    Malformed(String),
    #[error("tensor {} is missing", Line(.0))]
    Missing(String),
    #[error("tensor {} does not belong here", Line(.0))]
    Unknown(String),
    #[error("tensor {} has shape {}, expected {expected:?}", Line(name), Line(&format!("{found:?}")))]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("tensor {} has type {found}, expected {expected}", Line(name))]
    Type { name: String, found: String, expected: &'static str },
    #[error("tensor {} holds a value that is not finite", Line(.0))]
    NotFinite(String),
    #[error(
        "tensor {} must be {expected} in every place: another value belongs to another architecture",
        Line(name)
    )]
    Constant { name: String, expected: String },
    #[error("the header does not say what the file is: {}", Line(.0))]
    Header(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Text that may come from the file itself, as part of one line of readable length.
struct Line<'a>(&'a str);

/// A name that somebody chose is no longer; one that fills a screen is not read.
const MOST: usize = 160;

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_cut = self.0.chars().nth(MOST).is_some();
        for character in self.0.chars().take(MOST) {
            match character.is_control() {
                true => write!(f, "{}", character.escape_default())?,
                false => write!(f, "{character}")?,
            }
        }
        if is_cut { f.write_str("...") } else { Ok(()) }
    }
}
