//! Going through a log commit by commit, in the memory of one tile. Whatever does not continue what was before ends it.

use futures::{StreamExt, stream};
use lethe_evidence::TrustedKeys;
use lethe_transparency::{
    Book, CheckpointError, Commit, CommitError, Entry, merkle::Edge, note::NoteError, tile,
};

use super::{AT_ONCE, Head, Log, LogError};

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
    /// Commits may be by a key that is not trusted any more, if a later one by a trusted key continues them.
    pub former_keys: bool,
    /// Of such a commit that nothing has vouched for yet, what is wrong with it.
    pub unvouched: Option<LogError>,
}

impl Cursor {
    /// At the beginning of a log.
    pub fn new(log: Log, origin: &str, trusted: TrustedKeys) -> Self {
        Self {
            log,
            origin: origin.into(),
            trusted,
            edge: Edge::default(),
            book: Book::default(),
            tail: Vec::new(),
            full: Vec::new(),
            last: None,
            former_keys: false,
            unvouched: None,
        }
    }

    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    pub fn head(&self) -> Head {
        Head { size: self.size(), root: self.edge.root() }
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

    /// Goes through the commits of a tile, in order, until `after` one of them says that it is enough. Returns whether it did. Few
    /// of them are in memory at once: whoever may write there may make each as long as a commit can be.
    pub async fn go_on(
        &mut self,
        tile: u64,
        mut after: impl FnMut(&mut Self) -> Result<bool, LogError>,
    ) -> Result<bool, LogError> {
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
        let mut read = stream::iter(read.collect::<Vec<_>>()).buffered(AT_ONCE);
        while let Some(commit) = read.next().await {
            let (first, bytes) = commit?;
            self.take(first, &bytes)?;
            if after(self)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take(&mut self, first: u64, bytes: &[u8]) -> Result<(), LogError> {
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

    fn opened(&mut self, first: u64, bytes: &[u8]) -> Result<Commit, LogError> {
        let (folder, name) = self.log.place(first);
        let damaged = |error: &CommitError| LogError::damaged(folder.name(&name), error);
        match Commit::open(bytes, &self.origin, &self.trusted, first) {
            Ok(commit) => {
                self.unvouched = None;
                Ok(commit)
            }
            Err(error @ CommitError::Checkpoint(CheckpointError::Note(NoteError::Unknown { .. })))
                if self.former_keys =>
            {
                let commit = Commit::read(bytes, &self.origin, first).map_err(|error| damaged(&error))?;
                self.unvouched.get_or_insert(damaged(&error));
                Ok(commit)
            }
            Err(error) => Err(damaged(&error)),
        }
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
