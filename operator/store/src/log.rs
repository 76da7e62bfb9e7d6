//! Where an audit log is kept.
//!
//! ```text
//! checkpoint                  the head of the log, signed; may be older than the last entries
//! commits/<tile>/<entry>      what was appended at once: named by the tile of its first entry, and its place in that
//! tile/entries/<tile>         the 256 entries of a full tile
//! tile/<level>/<tile>         the 256 hashes of a full tile
//! ```
//!
//! **A commit is created, never changed, and never removed.** Its name follows from how many entries are before it, so that
//! of two writers who know the same log one is told that there is such a commit: there is no second history. Everything else
//! follows from the commits and may lag behind them, or be missing. Tiles and checkpoint are as
//! <https://c2sp.org/tlog-tiles> says, but that tiles which are not full are not written: what would be in them is in commits.

mod check;
mod cursor;
mod reader;
mod writer;

use std::collections::BTreeMap;

use lethe_evidence::TrustedKeys;
use lethe_transparency::{Checkpoint, merkle::Hash, note::NoteError, tile};

use crate::{
    error::{Error, Result},
    objects::{Created, Objects},
};

pub use check::Known;
pub use reader::{Fault, Reading};
pub use writer::Writer;

const CHECKPOINT: &str = "checkpoint";
const COMMITS: &str = "commits";
const TILES: &str = "tile";
const ENTRIES: &str = "entries";
/// A checkpoint with the signatures of many witnesses.
const MAX_CHECKPOINT: u64 = 64 * 1024;
/// Objects that are read at the same time.
const AT_ONCE: usize = 16;

/// The folder of an audit log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    objects: Objects,
}

/// How many entries a log was seen to have, and the root of the tree of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub size: u64,
    pub root: Hash,
}

/// Why a log cannot be written or read on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Store(#[from] Error),
    /// Something in it is not what was written.
    #[error("the audit log is damaged: {what}: {why}; restore it, and do not remove anything of it by hand")]
    Damaged { what: String, why: String },
    #[error(transparent)]
    Name(#[from] NoteError),
    #[error("the signing key is not one of the trusted keys: nobody could verify what it signs")]
    Untrusted,
    /// Somebody else has appended since.
    #[error("another writer was faster: the audit log is read anew")]
    Overtaken,
    #[error(
        "the store of the audit log lets an object be written twice although it was to be created: use one with \
         conditional writes (If-None-Match)"
    )]
    NotExclusive,
}

impl LogError {
    fn damaged(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Damaged { what: what.into(), why: why.to_string() }
    }
}

impl Log {
    /// Opens the log at `uri`, for example `file:///artifacts/log`. A folder on this machine must exist: one that was not
    /// mounted must not be mistaken for a log without entries.
    ///
    /// # Errors
    /// If it is no place for a store, or the folder does not exist.
    pub fn open(uri: &str) -> Result<Self> {
        Ok(Self { objects: Objects::open(uri, true)? })
    }

    /// The same, with variables of a provider instead of those of the environment.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_with(uri: &str, variables: BTreeMap<String, String>) -> Result<Self> {
        Ok(Self { objects: Objects::open_with(uri, true, || Ok(variables))? })
    }

    /// The head of the log as it was last written, as it lies there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn checkpoint(&self) -> Result<Option<Vec<u8>>> {
        found(self.objects.read(CHECKPOINT, MAX_CHECKPOINT).await)
    }

    /// What the checkpoint says, if there is one.
    async fn shown(
        &self,
        origin: &str,
        trusted: &TrustedKeys,
    ) -> std::result::Result<Option<Head>, LogError> {
        let Some(bytes) = self.checkpoint().await? else { return Ok(None) };
        let shown = Checkpoint::open(&bytes, origin, trusted);
        let shown = shown.map_err(|error| LogError::damaged(CHECKPOINT, error))?;
        Ok(Some(Head { size: shown.size, root: shown.root }))
    }

    fn commits(&self, tile: u64) -> Objects {
        below(&self.objects.below(COMMITS), tile::path(tile))
    }

    /// Folder and name of the commit whose first entry is number `first`.
    fn place(&self, first: u64) -> (Objects, String) {
        (self.commits(first / tile::WIDTH), format!("{:03}", first % tile::WIDTH))
    }

    /// Folder and name of a bundle of entries, or of a tile of a level.
    fn tile(&self, folder: &str, index: u64) -> (Objects, String) {
        let mut path = tile::path(index);
        let name = path.pop().unwrap_or_default();
        (below(&self.objects.below(TILES).below(folder), path), name)
    }

    async fn create_tile(&self, folder: &str, index: u64, bytes: Vec<u8>) -> Result<Created> {
        let (folder, name) = self.tile(folder, index);
        folder.create(&name, bytes).await
    }
}

fn below(objects: &Objects, path: Vec<String>) -> Objects {
    path.iter().fold(objects.clone(), |folder, part| folder.below(part))
}

/// What is not there is none.
fn found<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(Error::NotFound { .. }) => Ok(None),
        other => other.map(Some),
    }
}
