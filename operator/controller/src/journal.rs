//! What a controller remembers about the objects it works on. Nothing that matters: all of it is lost
//! with the process.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

/// More versions than that are not replaced within one reconciliation.
const VERSIONS: usize = 8;
/// Objects that are remembered before those without open business are forgotten.
const OBJECTS: usize = 4096;

/// By the uid of the object.
#[derive(Debug, Default)]
pub struct Journal {
    entries: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Resource versions that this process has replaced. A cache that still has one of them is behind.
    replaced: VecDeque<String>,
    failures: u32,
}

impl Journal {
    /// This process replaced version `old` of the object.
    pub fn replaced(&self, uid: &str, old: &str) {
        self.with(uid, |entry| {
            if entry.replaced.len() == VERSIONS {
                entry.replaced.pop_front();
            }
            entry.replaced.push_back(old.to_owned());
        });
    }

    /// Whether `version` is one that this process has replaced. If not, the cache has caught up.
    pub fn is_behind(&self, uid: &str, version: &str) -> bool {
        let Ok(mut entries) = self.entries.lock() else { return false };
        let Some(entry) = entries.get_mut(uid) else { return false };
        let behind = entry.replaced.iter().any(|old| old == version);
        if !behind {
            entry.replaced.clear();
        }
        behind
    }

    /// Counts a failure in a row.
    pub fn failed(&self, uid: &str) -> u32 {
        self.with(uid, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failures
        })
    }

    pub fn succeeded(&self, uid: &str) {
        if let Ok(mut entries) = self.entries.lock()
            && let Some(entry) = entries.get_mut(uid)
        {
            entry.failures = 0;
            if entry.replaced.is_empty() {
                entries.remove(uid);
            }
        }
    }

    fn with<T: Default>(&self, uid: &str, change: impl FnOnce(&mut Entry) -> T) -> T {
        let Ok(mut entries) = self.entries.lock() else { return T::default() };
        if entries.len() >= OBJECTS && !entries.contains_key(uid) {
            // Deleted objects are never asked about again. What is forgotten of others costs a conflict.
            entries.clear();
        }
        change(entries.entry(uid.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_has_a_replaced_version_is_behind_until_it_has_another() {
        let journal = Journal::default();
        journal.replaced("a", "10");
        journal.replaced("a", "11");
        assert!(journal.is_behind("a", "10"));
        assert!(journal.is_behind("a", "11"));
        assert!(!journal.is_behind("b", "10"));
        assert!(!journal.is_behind("a", "12"));
        // Nobody goes back to an old version once the new one was seen.
        assert!(!journal.is_behind("a", "10"));
    }

    #[test]
    fn failures_count_in_a_row_and_memory_is_bounded() {
        let journal = Journal::default();
        assert_eq!((journal.failed("a"), journal.failed("a")), (1, 2));
        journal.succeeded("a");
        assert_eq!(journal.failed("a"), 1);
        (0..3 * OBJECTS).for_each(|i| journal.replaced(&i.to_string(), "1"));
        assert!(journal.entries.lock().unwrap().len() <= OBJECTS);
    }
}
