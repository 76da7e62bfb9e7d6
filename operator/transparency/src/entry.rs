//! One entry of the log: what is to be done, what became of it, or what was decided.
//!
//! An entry names objects by kind, namespace, name and uid, and content by digest. **It holds nobody's words**: reasons are
//! from closed sets, so that nothing personal can get into what cannot be taken out again.

use std::collections::BTreeMap;

use lethe_api::{Digest, printable::printable};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// More of what is wrong with an entry is not said.
const MOST_QUOTED: usize = 300;

/// An entry as it is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// When it was said, by the clock of who says it, in RFC 3339.
    pub at: String,
    pub by: Writer,
    /// The log could not be written when it was said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    pub said: Said,
}

/// Who says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Writer {
    /// Of the operator.
    pub version: String,
    /// As in the lease.
    pub replica: String,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Said {
    /// Something is about to be changed.
    Intent {
        action: Action,
        object: Object,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        before: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        after: String,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        digests: BTreeMap<String, Digest>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Something is about to be written into the status of an object: it is decided.
    Decision {
        action: Action,
        object: Object,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        before: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        after: String,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        digests: BTreeMap<String, Digest>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// What became of an intent or a decision.
    Outcome {
        /// Its number: the first entry is 0.
        of: u64,
        upshot: Upshot,
        /// Of what failed: the kind of error.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// A replica begins to write, after it has closed what its predecessor left open.
    Began,
    /// So many entries could not be kept while the log could not be written.
    Gap { entries: u64 },
}

/// What an intent or a decision is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// Absent where the object is not there yet, or is known by its name alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What is done or decided. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    // Effects.
    Create,
    Delete,
    /// The annotation that says what is served.
    Serve,
    Scale,
    ShapeCanary,
    MarkPromoted,
    ArchiveLedger,
    AddFinalizer,
    RemoveFinalizer,
    /// Something of the store that nothing refers to.
    Collect,
    /// What another trusted key has signed, with the new one.
    SignAgain,
    // Decisions about a request.
    Accept,
    Refuse,
    Approve,
    Deny,
    Fulfil,
    Reexpose,
    /// It is over without being fulfilled.
    Close,
    // About a run.
    Judge,
    /// It is over without a verdict.
    Fail,
    // About a model.
    BeginRollout,
    TurnBack,
    /// Served, confirmed, and in the ledger or what honours it.
    Promote,
    /// What the live server was seen to show.
    Audit,
    /// Nothing that was forgotten can be served, or it may be.
    Comply,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upshot {
    Done,
    /// It was tried and refused, or the answer did not come.
    Failed,
    /// It was not tried.
    LeftUndone,
    /// Who said it was to be done has died since. A successor looked, and it was.
    FoundDone,
    /// The same, and it was not.
    FoundUndone,
    /// The same, and nobody can tell.
    Unknown,
}

/// Why bytes are not an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("it has {0} bytes; at most {max} are an entry", max = Entry::MAX_BYTES)]
    TooLong(usize),
    #[error("it is not an entry: {0}")]
    Malformed(String),
    #[error("it is not written as entries are: sorted, without spaces, on one line")]
    NotCanonical,
}

impl Entry {
    /// Longer ones are not written.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// The canonical bytes, which are a leaf of the tree: one line of JSON as RFC 8785 writes it.
    ///
    /// # Errors
    /// If they would be too long.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EntryError> {
        // There is nothing in an entry that JSON cannot say.
        let value = serde_json::to_value(self).map_err(|error| EntryError::Malformed(error.to_string()))?;
        let mut text = String::new();
        write_canonical(&value, &mut text);
        match text.len() > Self::MAX_BYTES {
            true => Err(EntryError::TooLong(text.len())),
            false => Ok(text.into_bytes()),
        }
    }

    /// Of canonical bytes alone: no entry can be written in two ways.
    ///
    /// # Errors
    /// If they are not an entry.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(EntryError::TooLong(bytes.len()));
        }
        // What it quotes is somebody's.
        let quoted =
            |error: serde_json::Error| printable(&error.to_string()).chars().take(MOST_QUOTED).collect();
        let entry: Self =
            serde_json::from_slice(bytes).map_err(|error| EntryError::Malformed(quoted(error)))?;
        match entry.to_bytes()? == bytes {
            true => Ok(entry),
            false => Err(EntryError::NotCanonical),
        }
    }
}

/// RFC 8785, for what is in an entry: its keys are ASCII and its numbers whole.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let mut before = '{';
            for (key, value) in fields {
                text.push(before);
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
                before = ',';
            }
            text.push_str(if before == '{' { "{}" } else { "}" });
        }
        other => text.push_str(&other.to_string()),
    }
}

impl Said {
    /// Of an intent or a decision: what is to be done, and to what.
    pub fn is_to_be(&self) -> Option<(Action, &Object)> {
        match self {
            Self::Intent { action, object, .. } | Self::Decision { action, object, .. } => {
                Some((*action, object))
            }
            Self::Outcome { .. } | Self::Began | Self::Gap { .. } => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn entry(said: Said) -> Entry {
        let by = Writer { version: "0.1.0".into(), replica: "lethe-0".into() };
        Entry { at: "2026-11-24T21:00:00Z".into(), by, late: false, said }
    }

    pub(crate) fn intent(name: &str) -> Entry {
        let object = Object {
            kind: "Deployment".into(),
            namespace: "studio".into(),
            name: name.into(),
            uid: String::new(),
        };
        let digests = [("bundle".to_owned(), Digest::of(name))].into();
        let (action, reason) = (Action::Serve, "RollOut".into());
        entry(Said::Intent { action, object, before: String::new(), after: String::new(), digests, reason })
    }

    pub(crate) fn outcome(of: u64) -> Entry {
        entry(Said::Outcome { of, upshot: Upshot::Done, reason: String::new() })
    }

    #[test]
    fn an_entry_is_one_sorted_line_and_nothing_else_is_read_as_it() {
        let bytes = outcome(7).to_bytes().unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let written = r#"{"at":"2026-11-24T21:00:00Z","by":{"replica":"lethe-0","version":"0.1.0"},"said":{"of":7,"type":"outcome","upshot":"done"}}"#;
        assert_eq!(text, written);
        assert_eq!(Entry::parse(&bytes), Ok(outcome(7)));
        let bad = [
            text.replace(":7", ": 7"),
            text.replace(":7", ":7.0"),
            text.replace("\"of\":7", "\"of\":7,\"more\":1"),
            text.replace("\"at\"", "\"late\":false,\"at\""),
            text.replace("done", "Done"),
            text.replace("done", "d\\u006fne"),
            format!("{text}\n"),
            "{}".into(),
        ];
        for bad in bad {
            assert!(Entry::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_entry_that_is_too_long_is_not_written() {
        let long = intent(&"x".repeat(Entry::MAX_BYTES));
        assert!(matches!(long.to_bytes(), Err(EntryError::TooLong(_))));
        assert!(matches!(Entry::parse(&vec![b' '; Entry::MAX_BYTES + 1]), Err(EntryError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn every_entry_comes_back_and_is_one_line(name in ".{0,40}", of in any::<u64>(), late in any::<bool>()) {
            for entry in [Entry { late, ..intent(&name) }, outcome(of), entry(Said::Gap { entries: of })] {
                let bytes = entry.to_bytes().unwrap();
                prop_assert!(!bytes.contains(&b'\n'));
                prop_assert_eq!(Entry::parse(&bytes), Ok(entry));
            }
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(entry) = Entry::parse(&bytes) {
                prop_assert_eq!(entry.to_bytes().unwrap(), bytes);
            }
        }
    }
}
