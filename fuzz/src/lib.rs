//! What every target asks of an error.

use std::fmt::Display;

/// It is one line that a person can read: whatever was quoted from the input, no control character is in it, and it ends.
///
/// # Panics
/// If it is not.
pub fn assert_readable(error: impl Display) {
    let error = error.to_string();
    assert!(!error.is_empty() && error.len() < 2000, "{} bytes: {error:?}", error.len());
    assert!(!error.contains(char::is_control), "{error:?}");
}
