//! Going through a log commit by commit, in the memory of one tile. Whatever does not continue what was before ends it.

use futures::{StreamExt, TryStreamExt, stream};
use lethe_evidence::TrustedKeys;
use lethe_transparency::{Book, Commit, Entry, merkle::Edge, tile};

use super::{AT_ONCE, Log, LogError};

/// A place in a log, and all that is needed to go on from there.
pub(super) struct Cursor {
    pub log: Log,
    pub origin: String,
    pub trusted: TrustedKeys,
    pub edge: Edge,
    pub book: Book,
    /// Entries of the tile that is not full.
    pub tail: Vec<Vec<u8>>,
    /// Full tiles that were gone through and not taken: the number of each, and its entries.
    pub full: Vec<(u64, Vec<Vec<u8>>)>,
    /// The last commit.
    pub last: Option<u64>,
}

impl Cursor {
    /// At the beginning of a log.
    pub fn new(log: Log, origin: &str, trusted: TrustedKeys) -> Self {
        let (edge, book) = (Edge::default(), Book::default());
        Self {
            log,
            origin: origin.into(),
            trusted,
            edge,
            book,
            tail: Vec::new(),
            full: Vec::new(),
            last: None,
        }
    }

    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Begins at the end of this tile, of which only the last commit is read: it says all that is needed.
    pub async fn begin_after(&mut self, tile: u64) -> Result<(), LogError> {
        let folder = self.log.commits(tile);
        let names = folder.list().await?;
        let gone = || LogError::damaged(format!("the commits of tile {tile}"), "they are gone");
        let name = names.last().ok_or_else(gone)?;
        let first = number(tile, name)
            .ok_or_else(|| LogError::damaged(folder.name(name), "its name is not that of a commit"))?;
        let bytes = folder.read(name, Commit::MAX_BYTES).await?;
        let commit = self.opened(first, &bytes)?;
        if commit.edge.size() != (tile + 1) * tile::WIDTH {
            return Err(LogError::damaged(
                folder.name(name),
                "the tile after it was begun before it was full",
            ));
        }
        (self.edge, self.book) = (commit.edge, Book::with(commit.open));
        self.last = Some(first);
        Ok(())
    }

    /// Every commit of a tile, with the number of its first entry, in order.
    pub async fn read_tile(&self, tile: u64) -> Result<Vec<(u64, Vec<u8>)>, LogError> {
        let folder = self.log.commits(tile);
        let names = folder.list().await?;
        let read = names.iter().map(|name| {
            let folder = &folder;
            async move {
                let first = number(tile, name).ok_or_else(|| {
                    LogError::damaged(folder.name(name), "its name is not that of a commit")
                })?;
                Ok::<_, LogError>((first, folder.read(name, Commit::MAX_BYTES).await?))
            }
        });
        stream::iter(read.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await
    }

    pub fn take(&mut self, first: u64, bytes: &[u8]) -> Result<(), LogError> {
        let (folder, name) = self.log.place(first);
        let damaged = |why: String| LogError::damaged(folder.name(&name), why);
        if first != self.size() {
            return Err(damaged(format!("entry {} should be before it, and is missing", self.size())));
        }
        let commit = self.opened(first, bytes)?;
        commit.continues(&self.edge).map_err(|error| damaged(error.to_string()))?;
        self.adopt(&commit)?;
        match self.book.open().eq(commit.open.iter().copied()) {
            true => Ok(()),
            false => Err(damaged("it says that other entries are open than those that are".into())),
        }
    }

    fn opened(&self, first: u64, bytes: &[u8]) -> Result<Commit, LogError> {
        let (folder, name) = self.log.place(first);
        Commit::open(bytes, &self.origin, &self.trusted, first)
            .map_err(|error| LogError::damaged(folder.name(&name), error))
    }

    /// The commit is in the log.
    pub fn adopt(&mut self, commit: &Commit) -> Result<(), LogError> {
        let damaged = |number: u64, why: String| LogError::damaged(format!("entry {number}"), why);
        for (number, bytes) in (commit.first()..).zip(&commit.entries) {
            let entry = Entry::parse(bytes).map_err(|error| damaged(number, error.to_string()))?;
            self.book.read(number, &entry).map_err(|error| damaged(number, error.to_string()))?;
        }
        self.tail.extend(commit.entries.iter().cloned());
        self.last = Some(commit.first());
        self.edge = commit.edge.clone();
        if self.tail.len() as u64 == tile::WIDTH {
            self.full.push((self.size() / tile::WIDTH - 1, std::mem::take(&mut self.tail)));
        }
        Ok(())
    }
}

/// The number of the first entry of the commit with this name.
pub(super) fn number(tile: u64, name: &str) -> Option<u64> {
    let place =
        name.parse::<u64>().ok().filter(|place| *place < tile::WIDTH && format!("{place:03}") == name)?;
    Some(tile * tile::WIDTH + place)
}
