//! An append-only log that cannot be changed unnoticed.
//!
//! ```text
//! entry -> leaf of a Merkle tree (RFC 6962) -> head of the tree -> checkpoint -> signed note (C2SP)
//! ```
//!
//! - [`Entry`]: what is said of one effect or decision, as canonical JSON.
//! - [`merkle`]: the tree, its right edge, and the proofs that an entry is in it and that one tree continues another.
//! - [`note`] and [`Checkpoint`]: what is signed, as <https://c2sp.org/signed-note> and <https://c2sp.org/tlog-checkpoint> say.
//! - [`Commit`]: some entries that were appended at once, with a signature over the whole tree up to them.
//! - [`tile`]: full tiles of hashes and bundles of entries, as <https://c2sp.org/tlog-tiles> says.
//! - [`Book`]: that every intent has one outcome.
//!
//! There is no IO here and no clock: bytes go in and come out, and `lethe-store` keeps them.

#![forbid(unsafe_code)]

mod book;
mod checkpoint;
mod commit;
mod entry;
pub mod merkle;
pub mod note;
pub mod tile;

pub use book::{Book, Unruly};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use commit::{Commit, CommitError};
pub use entry::{Action, Entry, EntryError, Object, Said, Upshot, Writer};
pub use merkle::Hash;
