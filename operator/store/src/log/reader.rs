//! Reading a whole log, and everything that is wrong with it.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use lethe_evidence::TrustedKeys;
use lethe_transparency::{Book, Checkpoint, Commit, Entry, merkle, merkle::Tree, tile};

use super::{AT_ONCE, CHECKPOINT, COMMITS, ENTRIES, Log, TILES, cursor::number};
use crate::error::{Error, Result};

/// What is in a log.
#[derive(Debug, Default)]
pub struct Reading {
    /// Every entry, by its number.
    pub entries: Vec<Entry>,
    /// The tree of all of them.
    pub tree: Tree,
    pub book: Book,
    /// The head that is shown to others, if it is one, and its bytes.
    pub checkpoint: Option<(Checkpoint, Vec<u8>)>,
    /// What is not as it was written. Empty if nothing is wrong with it.
    pub faults: Vec<Fault>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// An object of the log, relative to its folder.
    pub what: String,
    pub why: String,
}

impl Log {
    /// Reads all of the log: every signature, every byte of every object, and that there is nothing beside. After a commit
    /// that is damaged, nothing is known of those behind it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn read(&self, origin: &str, trusted: &TrustedKeys) -> Result<Reading> {
        let mut reading = Reading::default();
        let mut names: BTreeSet<String> = self.objects.list().await?.into_iter().collect();
        self.read_commits(origin, trusted, &mut names, &mut reading).await?;
        self.read_tiles(&mut names, &mut reading).await?;
        if names.remove(CHECKPOINT) {
            self.read_checkpoint(origin, trusted, &mut reading).await?;
        }
        for name in names {
            let is_full = name.starts_with(&format!("{TILES}/"));
            let why = if is_full { "there are not so many entries" } else { "it is no part of a log" };
            reading.fault(name, why);
        }
        Ok(reading)
    }

    /// Takes the commits' names out of `names`.
    async fn read_commits(
        &self,
        origin: &str,
        trusted: &TrustedKeys,
        names: &mut BTreeSet<String>,
        reading: &mut Reading,
    ) -> Result<()> {
        let mut commits: Vec<(u64, String)> =
            names.iter().filter_map(|name| Some((first_entry(name)?, name.clone()))).collect();
        commits.sort();
        commits.iter().for_each(|(_, name)| _ = names.remove(name));
        let read = commits.into_iter().map(|(first, name)| async move {
            let (folder, file) = self.place(first);
            (first, name, folder.read(&file, Commit::MAX_BYTES).await)
        });
        let mut read = stream::iter(read.collect::<Vec<_>>()).buffered(AT_ONCE);
        let mut edge = merkle::Edge::default();
        while let Some((first, name, bytes)) = read.next().await {
            let Some(bytes) = reading.readable(&name, bytes)? else { return Ok(()) };
            if first != edge.size() {
                reading.fault(name, format!("entry {} should be before it, and is missing", edge.size()));
                return Ok(());
            }
            let opened = Commit::open(&bytes, origin, trusted, first)
                .and_then(|commit| commit.continues(&edge).map(|()| commit));
            match opened {
                Err(error) => {
                    reading.fault(name, error);
                    return Ok(());
                }
                Ok(commit) => {
                    reading.take(&name, first, &commit);
                    edge = commit.edge;
                }
            }
        }
        Ok(())
    }

    /// Compares the tiles that there should be with those that there are. The last one may be missing: it is written later.
    async fn read_tiles(&self, names: &mut BTreeSet<String>, reading: &mut Reading) -> Result<()> {
        let full = reading.tree.size() / tile::WIDTH;
        let (mut level, mut tiles) = (0_u32, full);
        for index in 0..full {
            let entries: Vec<_> =
                reading.range(index).iter().filter_map(|entry| entry.to_bytes().ok()).collect();
            let wanted = tile::bundle(entries.iter().map(Vec::as_slice)).unwrap_or_default();
            self.compare(ENTRIES, index, full, &wanted, names, reading).await?;
        }
        while tiles > 0 {
            for index in 0..tiles {
                let width = 1_u64 << (tile::HEIGHT * level);
                let first = index * tile::WIDTH;
                let hashes: Vec<_> = (first..first + tile::WIDTH)
                    .filter_map(|node| reading.tree.whole(node * width, width))
                    .collect();
                let wanted = tile::tile(&hashes);
                self.compare(&level.to_string(), index, tiles, &wanted, names, reading).await?;
            }
            (level, tiles) = (level + 1, tiles / tile::WIDTH);
        }
        Ok(())
    }

    async fn compare(
        &self,
        folder: &str,
        index: u64,
        of: u64,
        wanted: &[u8],
        names: &mut BTreeSet<String>,
        reading: &mut Reading,
    ) -> Result<()> {
        let name = format!("{TILES}/{folder}/{}", tile::path(index).join("/"));
        if !names.remove(&name) {
            if index + 1 < of {
                reading.fault(name, "it is missing");
            }
            return Ok(());
        }
        let (at, file) = self.tile(folder, index);
        let read = at.read(&file, Commit::MAX_BYTES).await;
        if reading.readable(&name, read)?.is_some_and(|found| found != wanted) {
            reading.fault(name, "it is not of the entries that were committed");
        }
        Ok(())
    }

    async fn read_checkpoint(
        &self,
        origin: &str,
        trusted: &TrustedKeys,
        reading: &mut Reading,
    ) -> Result<()> {
        let Some(bytes) = self.checkpoint().await? else { return Ok(()) };
        match Checkpoint::open(&bytes, origin, trusted) {
            Err(error) => reading.fault(CHECKPOINT.into(), error),
            Ok(checkpoint) => {
                let size = checkpoint.size;
                match reading.tree.root(size) {
                    Some(root) if root == checkpoint.root => {}
                    Some(_) => reading.fault(CHECKPOINT.into(), "it is of other entries"),
                    None => {
                        let there = reading.tree.size();
                        reading.fault(
                            CHECKPOINT.into(),
                            format!("it is of {size} entries, and {there} can be read"),
                        );
                    }
                }
                reading.checkpoint = Some((checkpoint, bytes));
            }
        }
        Ok(())
    }
}

impl Reading {
    fn fault(&mut self, what: String, why: impl ToString) {
        self.faults.push(Fault { what, why: why.to_string() });
    }

    /// The bytes; none, and a fault, if it is the object itself that cannot be read.
    fn readable(&mut self, name: &str, read: Result<Vec<u8>>) -> Result<Option<Vec<u8>>> {
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error @ (Error::TooLarge { .. } | Error::NotFound { .. })) => {
                self.fault(name.into(), error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, name: &str, first: u64, commit: &Commit) {
        for (number, bytes) in (first..).zip(&commit.entries) {
            self.tree.push(merkle::leaf(bytes));
            // It was parsed when the commit was opened.
            let Ok(entry) = Entry::parse(bytes) else { continue };
            if let Err(error) = self.book.read(number, &entry) {
                self.fault(name.into(), error);
            }
            self.entries.push(entry);
        }
        if !self.book.open().eq(commit.open.iter().copied()) {
            self.fault(name.into(), "it says that other entries are open than those that are");
        }
    }

    /// Entries of a full tile.
    fn range(&self, tile: u64) -> &[Entry] {
        let first = (tile * tile::WIDTH) as usize;
        &self.entries[first..first + tile::WIDTH as usize]
    }
}

/// The number of the first entry of the commit that has this name in the log.
fn first_entry(name: &str) -> Option<u64> {
    let path = name.strip_prefix(COMMITS)?.strip_prefix('/')?;
    let (tile, place) = path.rsplit_once('/')?;
    let digits: String = tile.split('/').map(|part| part.strip_prefix('x').unwrap_or(part)).collect();
    let index: u64 = digits.parse().ok()?;
    (tile::path(index).join("/") == tile).then(|| number(index, place)).flatten()
}
