//! Appending to a log, one commit at a time.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use lethe_evidence::{SigningKey, TrustedKeys};
use lethe_transparency::{Book, Checkpoint, Commit, Entry, merkle, note, tile};

use super::{AT_ONCE, CHECKPOINT, ENTRIES, Head, Log, LogError, cursor::Cursor, found};
use crate::objects::Created;

/// The end of a log, and the key to write on.
pub struct Writer {
    /// At the end of the log. Its full tiles are those that were not written yet.
    cursor: Cursor,
    key: Arc<SigningKey>,
    /// How many entries the checkpoint in the store is of.
    published: u64,
    /// What is to be appended next, and whether it is there is not known.
    pending: Option<(Commit, Vec<u8>)>,
    /// Whether the store was seen to refuse to create what is there.
    is_exclusive: bool,
}

impl Writer {
    /// Finds the end of the log. At most a tile's commits are read before the checkpoint, and all after it.
    ///
    /// # Errors
    /// If the log cannot be read, is damaged, or is not signed by a trusted key.
    pub async fn open(
        log: Log,
        origin: &str,
        key: Arc<SigningKey>,
        trusted: TrustedKeys,
    ) -> Result<Self, LogError> {
        note::check_name(origin)?;
        if trusted.iter().all(|it| it != key.public()) {
            return Err(LogError::Untrusted);
        }
        let mut writer = Self {
            cursor: Cursor::new(log, origin, trusted),
            key,
            published: 0,
            pending: None,
            is_exclusive: false,
        };
        writer.walk().await?;
        if let Some(last) = writer.cursor.last {
            writer.check_exclusive(last).await?;
        }
        Ok(writer)
    }

    /// How many entries are in the log: the number of the next one.
    pub fn size(&self) -> u64 {
        self.cursor.size()
    }

    /// How far the log was written, for whoever goes through it later.
    pub fn head(&self) -> Head {
        self.cursor.head()
    }

    /// How many entries the checkpoint that was written, and the tiles before it, are of.
    pub fn shown(&self) -> u64 {
        self.published
    }

    /// What is open: without an outcome.
    pub fn book(&self) -> &Book {
        &self.cursor.book
    }

    /// An entry that may be open for long, and was not read on the way to the end.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn entry(&self, number: u64) -> Result<Entry, LogError> {
        let (index, place) = (number / tile::WIDTH, (number % tile::WIDTH) as usize);
        let damaged = |why: &str| LogError::damaged(format!("entry {number}"), why);
        let not_shown = self.cursor.full.iter().find(|(full, _)| *full == index);
        let bytes = if index == self.size() / tile::WIDTH {
            self.cursor.tail.get(place).cloned()
        } else if let Some((_, entries)) = not_shown {
            entries.get(place).cloned()
        } else {
            let (folder, name) = self.cursor.log.tile(ENTRIES, index);
            let bundle = folder.read(&name, Commit::MAX_BYTES).await?;
            let entries = tile::entries(&bundle).ok_or_else(|| damaged("it is in a bundle that is none"))?;
            entries.get(place).map(|entry| entry.to_vec())
        };
        Entry::parse(&bytes.ok_or_else(|| damaged("it is missing"))?)
            .map_err(|error| damaged(&error.to_string()))
    }

    /// Says what is to be appended next: as many of the entries as the tile has room for. Nothing is written.
    ///
    /// # Errors
    /// If an entry is too long, or the outcome of nothing.
    pub fn propose(&mut self, entries: &[Entry]) -> Result<usize, LogError> {
        let room = (tile::WIDTH - self.size() % tile::WIDTH) as usize;
        let entries = &entries[..entries.len().min(room)];
        let bad = |number: u64, why: String| LogError::damaged(format!("new entry {number}"), why);
        let (mut book, mut bytes) = (self.cursor.book.clone(), Vec::new());
        for (number, entry) in (self.size()..).zip(entries) {
            book.read(number, entry).map_err(|error| bad(number, error.to_string()))?;
            bytes.push(entry.to_bytes().map_err(|error| bad(number, error.to_string()))?);
        }
        let commit = Commit::after(&self.cursor.edge, bytes, book.open().collect());
        let bytes = commit.sign(&self.cursor.origin, &self.key)?;
        self.pending = (!entries.is_empty()).then_some((commit, bytes));
        Ok(entries.len())
    }

    /// Whether something was proposed of which it is not known whether it is in the log.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Appends what was proposed. **After an error it may be in the log or not**: to try again tells.
    ///
    /// # Errors
    /// [`LogError::Overtaken`] if another writer has written there, and the log has to be opened anew; otherwise the store's.
    pub async fn commit(&mut self) -> Result<(), LogError> {
        let Some((commit, bytes)) = &self.pending else { return Ok(()) };
        let first = commit.first();
        if let Some(last) = self.cursor.last {
            // A volume that was replaced, or emptied, is no place to go on.
            let (folder, name) = self.cursor.log.place(last);
            if !folder.has(&name).await? {
                return Err(LogError::damaged(folder.name(&name), "it was appended last, and is gone"));
            }
        }
        let (folder, name) = self.cursor.log.place(first);
        if folder.create(&name, bytes.clone()).await? == Created::WasThere
            && folder.read(&name, Commit::MAX_BYTES).await? != *bytes
        {
            self.pending = None;
            return Err(LogError::Overtaken);
        }
        if let Some((commit, _)) = self.pending.take() {
            self.cursor.adopt(&commit)?;
        }
        if !self.is_exclusive {
            self.check_exclusive(first).await?;
        }
        Ok(())
    }

    /// Writes full tiles, and the checkpoint after them, if they are not written yet.
    ///
    /// # Errors
    /// If the store cannot be written. Nothing is lost by it.
    pub async fn show(&mut self) -> Result<(), LogError> {
        while let Some((index, entries)) = self.cursor.full.first() {
            write_tile(&self.cursor.log, *index, entries).await?;
            self.cursor.full.remove(0);
        }
        if self.published < self.size() {
            self.write_checkpoint().await?;
        }
        Ok(())
    }

    /// Writes the checkpoint even if it is there: it tells whether the store can be written.
    ///
    /// # Errors
    /// If not.
    pub async fn write_checkpoint(&mut self) -> Result<(), LogError> {
        let Head { size, root } = self.head();
        let head = Checkpoint { origin: self.cursor.origin.clone(), size, root, extensions: Vec::new() };
        self.cursor.log.objects.write(CHECKPOINT, head.sign(&self.key)?.into_bytes()).await?;
        self.published = size;
        Ok(())
    }

    /// From the tile of the checkpoint to the end.
    async fn walk(&mut self) -> Result<(), LogError> {
        let known = self.cursor.log.shown(&self.cursor.origin, &self.cursor.trusted).await?;
        let size = known.map_or(0, |known| known.size);
        let mut tile = size / tile::WIDTH;
        if let Some(before) = tile.checked_sub(1) {
            self.cursor.begin_after(before).await?;
        }
        let fits = |cursor: &Cursor| known.is_none_or(|it| it == cursor.head());
        let mut is_known = fits(&self.cursor);
        loop {
            let after = |cursor: &mut Cursor| {
                is_known |= fits(cursor);
                Ok(false)
            };
            self.cursor.go_on(tile, after).await?;
            if self.size() / tile::WIDTH == tile {
                break;
            }
            tile += 1;
        }
        self.published = size;
        if !is_known {
            let why =
                format!("it is of {size} entries, which is not what the {} that are there are", self.size());
            return Err(LogError::damaged(CHECKPOINT, why));
        }
        Ok(())
    }

    /// Whether the store refuses to create what is there. It is tried with what is there, so that nothing is harmed if not.
    async fn check_exclusive(&mut self, first: u64) -> Result<(), LogError> {
        let (folder, name) = self.cursor.log.place(first);
        let bytes = folder.read(&name, Commit::MAX_BYTES).await?;
        if folder.create(&name, bytes).await? == Created::New {
            return Err(LogError::NotExclusive);
        }
        self.is_exclusive = true;
        Ok(())
    }
}

/// The files of a full tile: its entries, their hashes, and the tile above if that is full with it.
async fn write_tile(log: &Log, index: u64, entries: &[Vec<u8>]) -> Result<(), LogError> {
    let too_long = || LogError::damaged(format!("tile {index}"), "an entry is too long");
    let bundle = tile::bundle(entries.iter().map(Vec::as_slice)).ok_or_else(too_long)?;
    log.create_tile(ENTRIES, index, bundle).await?;
    let mut hashes: Vec<_> = entries.iter().map(|entry| merkle::leaf(entry)).collect();
    let (mut level, mut index) = (0_u32, index);
    loop {
        log.create_tile(&level.to_string(), index, tile::tile(&hashes)).await?;
        if (index + 1) % tile::WIDTH != 0 {
            return Ok(());
        }
        let below = index + 1 - tile::WIDTH..=index;
        hashes =
            stream::iter(below.map(|index| root(log, level, index))).buffered(AT_ONCE).try_collect().await?;
        (level, index) = (level + 1, index / tile::WIDTH);
    }
}

/// What a full tile is in the one above it.
async fn root(log: &Log, level: u32, index: u64) -> Result<merkle::Hash, LogError> {
    let (folder, name) = log.tile(&level.to_string(), index);
    let bytes =
        found(folder.read(&name, tile::WIDTH * merkle::Hash::BYTES as u64).await)?.unwrap_or_default();
    let hashes = tile::hashes(&bytes);
    let hashes = hashes.ok_or_else(|| LogError::damaged(folder.name(&name), "it is not a full tile"))?;
    Ok(tile::root(&hashes))
}
