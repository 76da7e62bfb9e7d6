//! What every target asks of an error.

use std::fmt::Display;

/// Bytes of a message: a label of 128 bytes that is quoted from the input is escaped, and may stand in it twice.
const MOST: usize = 1 << 12;

/// It is one line that a person can read: whatever was quoted from the input, no control character is in it, and it ends.
///
/// # Panics
/// If it is not.
pub fn assert_readable(error: impl Display) {
    let error = error.to_string();
    assert!(!error.is_empty() && error.len() < MOST, "{} bytes: {error:?}", error.len());
    assert!(!error.contains(char::is_control), "{error:?}");
}
