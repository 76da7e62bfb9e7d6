//! That every intent and every decision has one outcome.

use std::collections::BTreeMap;

use crate::entry::{Entry, Said};

/// What of a log is open, as one reads it from its beginning or from a place whose open entries are known.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// By number: what was said and has no outcome yet. Of what was said before one began to read, nothing is known.
    open: BTreeMap<u64, Option<Entry>>,
}

/// An outcome of something that has one already, or that nobody said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {number} is the outcome of entry {of}, which is not open")]
pub struct Unruly {
    pub number: u64,
    pub of: u64,
}

impl Book {
    /// From a place at which these are open.
    pub fn with(open: impl IntoIterator<Item = u64>) -> Self {
        Self { open: open.into_iter().map(|number| (number, None)).collect() }
    }

    /// Reads the next entry.
    ///
    /// # Errors
    /// If it is an outcome of nothing.
    pub fn read(&mut self, number: u64, entry: &Entry) -> Result<(), Unruly> {
        match &entry.said {
            Said::Intent { .. } | Said::Decision { .. } => {
                self.open.insert(number, Some(entry.clone()));
            }
            Said::Outcome { of, .. } => {
                self.open.remove(of).ok_or(Unruly { number, of: *of })?;
            }
            Said::Began | Said::Gap { .. } => {}
        }
        Ok(())
    }

    /// Numbers of what is open, in order.
    pub fn open(&self) -> impl Iterator<Item = u64> + '_ {
        self.open.keys().copied()
    }

    /// An open entry, if it was read.
    pub fn entry(&self, number: u64) -> Option<&Entry> {
        self.open.get(&number)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::{entry, intent, outcome};

    #[test]
    fn what_has_no_outcome_is_open_and_has_no_second_one() {
        let mut book = Book::default();
        book.read(0, &entry(Said::Began)).unwrap();
        book.read(1, &intent("a")).unwrap();
        book.read(2, &intent("b")).unwrap();
        book.read(3, &outcome(1)).unwrap();
        assert_eq!(book.open().collect::<Vec<_>>(), [2]);
        assert_eq!(book.entry(2), Some(&intent("b")));
        assert_eq!(book.read(4, &outcome(1)), Err(Unruly { number: 4, of: 1 }));
        assert_eq!(book.read(4, &outcome(0)), Err(Unruly { number: 4, of: 0 }));
        assert_eq!(book.read(4, &outcome(4)), Err(Unruly { number: 4, of: 4 }));
        let mut later = Book::with([2]);
        later.read(4, &outcome(2)).unwrap();
        assert_eq!(later.open().count(), 0);
    }
}
