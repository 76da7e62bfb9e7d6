//! The labels of a model: one limit, for whoever trains, plans or measures.

use std::collections::BTreeSet;

/// A model has no more labels.
pub const MAX_LABELS: usize = 1024;
/// A label's name is not longer, in bytes of UTF-8.
pub const MAX_LABEL_BYTES: usize = 128;

/// Whether a model may have these labels.
///
/// # Errors
/// One line that says which of them it may not have, and why.
pub fn check_labels(labels: &[String]) -> Result<(), String> {
    let count = labels.len();
    if !(2..=MAX_LABELS).contains(&count) {
        let why = "one is forgotten, another is kept";
        return Err(format!("there are {count} labels; 2 to {MAX_LABELS} are needed ({why})"));
    }
    let mut seen = BTreeSet::new();
    for (index, label) in labels.iter().enumerate() {
        check_label(label).map_err(|problem| format!("label {index} {problem}"))?;
        if !seen.insert(label) {
            return Err(format!("label {index} is {label:?}, like one before it; give each its own name"));
        }
    }
    Ok(())
}

/// Whether a label may have this name. If not: what is wrong with it.
pub(super) fn check_label(label: &str) -> Result<(), String> {
    match label.len() {
        0 => Err("has no name".into()),
        bytes if bytes > MAX_LABEL_BYTES => {
            Err(format!("has a name of {bytes} bytes; at most {MAX_LABEL_BYTES} are allowed"))
        }
        _ if label.contains(char::is_control) => {
            Err(format!("is {label:?}: a name has no control characters"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(count: usize) -> Vec<String> {
        (0..count).map(|index| index.to_string()).collect()
    }

    #[test]
    fn two_to_a_thousand_and_twenty_four_different_names_are_labels() {
        for count in [2, 3, 1000, MAX_LABELS] {
            assert_eq!(check_labels(&labels(count)), Ok(()));
        }
        for count in [0, 1, MAX_LABELS + 1] {
            assert!(
                check_labels(&labels(count)).unwrap_err().starts_with(&format!("there are {count} labels"))
            );
        }
    }

    #[test]
    fn a_name_that_is_none_is_said_to_be_by_its_place() {
        let refusal = |name: &str| check_labels(&["cat".into(), name.into()]).unwrap_err();
        assert_eq!(refusal(""), "label 1 has no name");
        assert_eq!(refusal("cat"), "label 1 is \"cat\", like one before it; give each its own name");
        assert_eq!(refusal("a\nb"), "label 1 is \"a\\nb\": a name has no control characters");
        // 43 characters of three bytes each.
        assert!(refusal(&"\u{732b}".repeat(43)).contains("129 bytes; at most 128"));
        assert_eq!(check_labels(&["cat".into(), "\u{732b}".repeat(42)]), Ok(()));
    }
}
