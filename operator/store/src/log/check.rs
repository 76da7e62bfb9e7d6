//! What somebody who appends to a log asks of it once in a while: whether all of it is still what was appended.

use lethe_evidence::TrustedKeys;
use lethe_transparency::{Commit, merkle, tile};

use super::{CHECKPOINT, ENTRIES, Head, Log, LogError, cursor::Cursor};
use crate::error::Error;

/// What is known of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// How far it was seen to go, at different times. The last has the most entries.
    pub heads: Vec<Head>,
    /// So many entries were seen to be in a checkpoint and in the tiles before it.
    pub shown: u64,
}

/// More heads are not kept while nobody goes through the log: the first and the last.
const MOST_HEADS: usize = 64;

impl Known {
    /// Somebody has found the end of the log. It may be another log than before, so that what was known of that is kept beside it.
    ///
    /// # Errors
    /// If it is shorter than it was.
    pub fn opened(&mut self, head: Head) -> Result<(), LogError> {
        let had = self.heads.last().map_or(0, |last| last.size);
        if head.size < had {
            return Err(LogError::damaged(
                "the log",
                format!("it had {had} entries, and {} are there", head.size),
            ));
        }
        self.heads.push(head);
        self.heads.dedup();
        if self.heads.len() > MOST_HEADS {
            self.heads.remove(1);
        }
        Ok(())
    }

    /// Who has opened it last has appended to it, or shown more of it.
    pub fn continued(&mut self, head: Head, shown: u64) {
        if let Some(last) = self.heads.last_mut() {
            *last = head;
        }
        self.shown = self.shown.max(shown);
    }

    /// All of this was found in the log: of that, only the last head is of use.
    pub fn found(&mut self, known: &Self) {
        let Some(last) = self.heads.pop() else { return };
        self.heads.retain(|head| !known.heads.contains(head));
        self.heads.push(last);
    }
}

impl Log {
    /// Goes through the log as far as it is known, in the memory of one tile: every signature, that each commit continues the one
    /// before it, that full tiles are of their entries, and that it has every head that it had. Of what was appended since, and of
    /// objects beside it, nothing is said: that is [`Self::read`]'s.
    ///
    /// Commits may be by a key that is not trusted any more: what follows them vouches for their entries, as whoever wrote that had
    /// verified them.
    ///
    /// # Errors
    /// [`LogError::Damaged`] names the first object that is not as it was written; otherwise the store's: nothing is known then.
    pub async fn check(&self, origin: &str, trusted: &TrustedKeys, known: &Known) -> Result<(), LogError> {
        let shown = self.shown(origin, trusted).await?;
        if shown.is_none() && known.shown > 0 {
            return Err(LogError::damaged(CHECKPOINT, "it is missing"));
        }
        // Whoever writes a checkpoint has written all tiles that are full by then. Who was slow may have set it back.
        let written = known.shown.max(shown.map_or(0, |shown| shown.size));
        let mut tiles = Tiles { log: self, written, upper: Vec::new() };
        let heads = known.heads.iter().map(|head| ("the log", *head));
        let mut heads: Vec<_> = heads.chain(shown.map(|head| (CHECKPOINT, head))).collect();
        let is_known = !heads.is_empty();
        let mut cursor = Cursor::new(self.clone(), origin, trusted.clone());
        cursor.former_keys = true;
        let mut is_enough = pass(&mut heads, &mut cursor)? && is_known;
        while !is_enough {
            let tile = cursor.size() / tile::WIDTH;
            let went_on = cursor.go_on(tile, |cursor| Ok(pass(&mut heads, cursor)? && is_known));
            is_enough = went_on.await.map_err(gone)?;
            let Some((index, entries)) = cursor.full.pop() else { break };
            tiles.check(index, &entries).await?;
        }
        match (heads.first(), cursor.unvouched) {
            (Some((what, head)), _) => {
                let why = format!("it had {} entries, and {} are there", head.size, cursor.edge.size());
                Err(LogError::damaged(*what, why))
            }
            (None, Some(unvouched)) => Err(unvouched),
            (None, None) => Ok(()),
        }
    }
}

/// Compares what is known of the log up to here with it, and returns whether nothing more is known.
fn pass(heads: &mut Vec<(&str, Head)>, cursor: &mut Cursor) -> Result<bool, LogError> {
    let here = cursor.head();
    for (what, found) in heads.extract_if(.., |(_, head)| head.size <= here.size) {
        // A smaller one is not even known as where a commit ended.
        if found != here {
            return Err(LogError::damaged(what, format!("its first {} entries were others", found.size)));
        }
        cursor.unvouched = None;
    }
    Ok(heads.is_empty())
}

/// What was listed a moment ago, and what is too long, is no fault of the store's.
fn gone(error: LogError) -> LogError {
    match error {
        LogError::Store(error @ (Error::NotFound { .. } | Error::TooLarge { .. })) => {
            LogError::damaged("an object of it", error)
        }
        other => other,
    }
}

struct Tiles<'a> {
    log: &'a Log,
    /// Those that are full with so many entries are there.
    written: u64,
    /// By level, the roots of the tiles below the one that is not full.
    upper: Vec<Vec<merkle::Hash>>,
}

impl Tiles<'_> {
    /// Compares a full tile, and those above that are full with it, with its entries.
    async fn check(&mut self, index: u64, entries: &[Vec<u8>]) -> Result<(), LogError> {
        let bundle = tile::bundle(entries.iter().map(Vec::as_slice)).unwrap_or_default();
        let end = (index + 1) * tile::WIDTH;
        self.compare(ENTRIES, index, end, &bundle).await?;
        let mut hashes: Vec<_> = entries.iter().map(|entry| merkle::leaf(entry)).collect();
        let (mut level, mut index) = (0, index);
        loop {
            self.compare(&level.to_string(), index, end, &tile::tile(&hashes)).await?;
            if self.upper.len() == level {
                self.upper.push(Vec::new());
            }
            let above = &mut self.upper[level];
            above.push(tile::root(&hashes));
            if above.len() < tile::WIDTH as usize {
                return Ok(());
            }
            hashes = std::mem::take(above);
            (level, index) = (level + 1, index / tile::WIDTH);
        }
    }

    async fn compare(&self, folder: &str, index: u64, end: u64, wanted: &[u8]) -> Result<(), LogError> {
        let (at, name) = self.log.tile(folder, index);
        let damaged = |why: &str| LogError::damaged(at.name(&name), why);
        match at.read(&name, Commit::MAX_BYTES).await {
            Ok(found) if found == wanted => Ok(()),
            Ok(_) => Err(damaged("it is not of the entries that were committed")),
            Err(Error::NotFound { .. }) if end > self.written => Ok(()),
            Err(Error::NotFound { .. }) => Err(damaged("it is missing")),
            Err(error) => Err(gone(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(size: u64) -> Head {
        Head { size, root: merkle::Hash([size as u8; 32]) }
    }

    #[test]
    fn a_log_that_is_opened_anew_does_away_with_nothing_that_was_known() {
        let mut known = Known::default();
        known.opened(head(3)).unwrap();
        known.continued(head(5), 4);
        known.opened(head(5)).unwrap();
        known.continued(head(6), 3);
        assert_eq!(known, Known { heads: vec![head(6)], shown: 4 });
        known.opened(head(8)).unwrap();
        assert_eq!(known.heads, [head(6), head(8)]);
        let shorter = known.opened(head(7)).unwrap_err();
        assert!(shorter.to_string().contains("it had 8 entries, and 7 are there"), "{shorter}");
        for size in 9..500 {
            known.opened(head(size)).unwrap();
        }
        assert_eq!((known.heads.len(), known.heads[0], known.heads[63]), (64, head(6), head(499)));
    }

    #[test]
    fn what_was_found_in_the_log_is_forgotten_and_what_came_meanwhile_is_not() {
        let found = Known { heads: vec![head(3), head(5)], shown: 5 };
        let mut now = Known { heads: vec![head(3), head(6), head(9)], shown: 9 };
        now.found(&found);
        assert_eq!(now, Known { heads: vec![head(6), head(9)], shown: 9 });
        let mut same = found.clone();
        same.found(&found);
        assert_eq!(same.heads, [head(5)]);
    }
}
