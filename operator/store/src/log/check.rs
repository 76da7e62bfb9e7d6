//! What somebody who appends to a log asks of it once in a while: whether all of it is still what was appended.

use lethe_evidence::TrustedKeys;
use lethe_transparency::{Checkpoint, Commit, merkle, tile};

use super::{CHECKPOINT, ENTRIES, Head, Log, LogError, cursor::Cursor};
use crate::error::Error;

impl Log {
    /// Goes through the whole log, in the memory of one tile: every signature, that each commit continues the one before it,
    /// that full tiles are of their entries, and that it begins with what was `seen`. Objects beside it are left to
    /// [`Self::read`].
    ///
    /// # Errors
    /// [`LogError::Damaged`] names the first object that is not as it was written; otherwise the store's: nothing is known then.
    pub async fn check(
        &self,
        origin: &str,
        trusted: &TrustedKeys,
        seen: Option<&Head>,
    ) -> Result<(), LogError> {
        let shown = self.checkpoint().await?;
        let shown = shown.map(|bytes| Checkpoint::open(&bytes, origin, trusted)).transpose();
        let shown = shown.map_err(|error| LogError::damaged(CHECKPOINT, error))?;
        let shown = shown.map(|shown| Head { size: shown.size, root: shown.root });
        // Whoever writes a checkpoint has written all tiles that are full by then.
        let mut tiles = Tiles { log: self, written: shown.map_or(0, |shown| shown.size), upper: Vec::new() };
        let mut heads = [(CHECKPOINT, shown.as_ref()), ("the log", seen)];
        let mut cursor = Cursor::new(self.clone(), origin, trusted.clone());
        loop {
            pass(&mut heads, &cursor)?;
            let tile = cursor.size() / tile::WIDTH;
            for (first, bytes) in cursor.read_tile(tile).await.map_err(gone)? {
                cursor.take(first, &bytes)?;
                pass(&mut heads, &cursor)?;
            }
            let Some((index, entries)) = cursor.full.pop() else { break };
            tiles.check(index, &entries).await?;
        }
        match heads.into_iter().find_map(|(what, head)| Some((what, head?.size))) {
            None => Ok(()),
            Some((what, size)) => {
                let why = format!("it had {size} entries, and {} are there", cursor.size());
                Err(LogError::damaged(what, why))
            }
        }
    }
}

/// Compares a head with the log up to here, if it is of so many entries.
fn pass(heads: &mut [(&str, Option<&Head>); 2], cursor: &Cursor) -> Result<(), LogError> {
    for (what, head) in heads {
        if let Some(found) = head.take_if(|head| head.size == cursor.size())
            && found.root != cursor.edge.root()
        {
            return Err(LogError::damaged(*what, format!("its first {} entries were others", found.size)));
        }
    }
    Ok(())
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
