//! Entries that were appended at once.
//!
//! ```text
//! {"at":...}                      entries, one a line
//! {"at":...}
//!                                 an empty line
//! lethe.dev/studio/commits        a signed note: how the whole log is after them
//! 2
//! <hash of the tree>
//! edge <hashes>                   the right edge of the tree
//! open <numbers>                  entries without an outcome
//!
//! — lethe.dev/studio/commits <signature>
//! ```
//!
//! Whoever has the last commit has all that is needed to append the next one, and can check it by itself. A commit is
//! signed in another name than a checkpoint: one that another writer was faster than is no second history of the log.

use lethe_evidence::{SigningKey, TrustedKeys};

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    entry::{Entry, EntryError},
    merkle::{self, Edge, Hash},
    note::{self, NoteError},
    tile,
};

/// What the name of a log gets for its commits.
const COMMITS: &str = "/commits";

/// Some entries, and the log up to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The canonical bytes of each.
    pub entries: Vec<Vec<u8>>,
    /// Of the tree with these entries.
    pub edge: Edge,
    /// Numbers of the entries of the log that have no outcome, in order.
    pub open: Vec<u64>,
}

/// Why bytes are not the next commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("it is not a commit: {0}")]
    Malformed(&'static str),
    #[error("its entry {number}: {error}")]
    Entry { number: u64, error: EntryError },
    #[error("it does not continue what is before it: {0}")]
    Another(&'static str),
}

impl Commit {
    /// More bytes are none.
    pub const MAX_BYTES: u64 = (tile::WIDTH as usize * (Entry::MAX_BYTES + 1) + 64 * 1024) as u64;

    /// These entries after the log with this edge.
    pub fn after(edge: &Edge, entries: Vec<Vec<u8>>, open: Vec<u64>) -> Self {
        let mut edge = edge.clone();
        entries.iter().for_each(|entry| edge.push(merkle::leaf(entry)));
        Self { entries, edge, open }
    }

    /// The number of its first entry.
    pub fn first(&self) -> u64 {
        self.edge.size() - self.entries.len() as u64
    }

    /// As it is kept.
    ///
    /// # Errors
    /// If the origin cannot be the name of a key.
    pub fn sign(&self, origin: &str, key: &SigningKey) -> Result<Vec<u8>, NoteError> {
        let hashes: Vec<_> = self.edge.roots().iter().map(Hash::to_string).collect();
        let mut extensions = vec![format!("edge {}", hashes.join(" "))];
        if !self.open.is_empty() {
            let numbers: Vec<_> = self.open.iter().map(u64::to_string).collect();
            extensions.push(format!("open {}", numbers.join(" ")));
        }
        let (size, root) = (self.edge.size(), self.edge.root());
        let head = Checkpoint { origin: format!("{origin}{COMMITS}"), size, root, extensions };
        let mut bytes = Vec::new();
        for entry in &self.entries {
            bytes.extend(entry);
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
        bytes.extend(head.sign(key)?.as_bytes());
        Ok(bytes)
    }

    /// A commit whose first entry has number `first`, if a trusted key signed it for this log. Whether it continues the log is
    /// told by [`Self::continues`].
    ///
    /// # Errors
    /// If it is not.
    pub fn open(bytes: &[u8], origin: &str, trusted: &TrustedKeys, first: u64) -> Result<Self, CommitError> {
        let (lines, note) = parts(bytes)?;
        Self::of(lines, &Checkpoint::open(note, &format!("{origin}{COMMITS}"), trusted)?, first)
    }

    /// What says that it is one, **whoever signed it**: to be believed once something that is signed by a trusted key continues it.
    ///
    /// # Errors
    /// If it cannot be one.
    pub fn read(bytes: &[u8], origin: &str, first: u64) -> Result<Self, CommitError> {
        let (lines, note) = parts(bytes)?;
        let wanted = format!("{origin}{COMMITS}");
        let head = Checkpoint::parse(note::claimed(note, &wanted).map_err(CheckpointError::from)?)?;
        match head.origin == wanted {
            true => Self::of(lines, &head, first),
            false => {
                Err(CheckpointError::Another { found: head.origin.chars().take(200).collect(), wanted }
                    .into())
            }
        }
    }

    fn of(lines: &[u8], head: &Checkpoint, first: u64) -> Result<Self, CommitError> {
        let entries: Vec<_> = lines.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        for (number, entry) in (first..).zip(&entries) {
            Entry::parse(entry).map_err(|error| CommitError::Entry { number, error })?;
        }
        if head.size != first + entries.len() as u64 {
            return Err(CommitError::Another("it is of another place in the log"));
        }
        let (edge, open) = extensions(head)?;
        Ok(Self { entries, edge, open })
    }

    /// Whether these entries after the log with this edge are what was signed.
    ///
    /// # Errors
    /// If they are not.
    pub fn continues(&self, edge: &Edge) -> Result<(), CommitError> {
        let again = Self::after(edge, self.entries.clone(), Vec::new());
        match again.edge == self.edge {
            true => Ok(()),
            false => Err(CommitError::Another("the hash of the log after it is another one")),
        }
    }
}

/// The entries, and the note after them.
fn parts(bytes: &[u8]) -> Result<(&[u8], &[u8]), CommitError> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n");
    let end = end.ok_or(CommitError::Malformed("no empty line is after its entries"))?;
    Ok((&bytes[..end], &bytes[end + 2..]))
}

fn extensions(head: &Checkpoint) -> Result<(Edge, Vec<u64>), CommitError> {
    const BAD: CommitError = CommitError::Malformed("what it says of the edge and of open entries");
    let (edge, open) = match &head.extensions[..] {
        [edge] => (edge, None),
        [edge, open] => (edge, Some(open.strip_prefix("open ").ok_or(BAD)?)),
        _ => return Err(BAD),
    };
    let hashes = edge.strip_prefix("edge ").ok_or(BAD)?.split(' ').map(Hash::from_base64);
    let edge = Edge::of(head.size, hashes.collect::<Option<_>>().ok_or(BAD)?).ok_or(BAD)?;
    let numbers = open.into_iter().flat_map(|open| open.split(' ')).map(|number| number.parse().ok());
    let open: Vec<u64> = numbers.collect::<Option<_>>().ok_or(BAD)?;
    let is_in_order = open.is_sorted_by(|a, b| a < b) && open.last().is_none_or(|last| *last < head.size);
    match edge.root() == head.root && is_in_order {
        true => Ok((edge, open)),
        false => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        entry::tests::{intent, outcome},
        note::tests::key,
    };

    const ORIGIN: &str = "lethe.dev/studio";

    fn before() -> Edge {
        let mut edge = Edge::default();
        (0_u8..5).for_each(|n| edge.push(merkle::leaf(&[n])));
        edge
    }

    fn commit() -> Commit {
        let entries = [intent("a"), outcome(3), intent("b")].map(|entry| entry.to_bytes().unwrap());
        Commit::after(&before(), entries.to_vec(), vec![2, 5, 7])
    }

    #[test]
    fn a_commit_says_all_that_is_needed_to_go_on() {
        let (commit, key) = (commit(), key(1));
        let trusted = TrustedKeys::only(key.public());
        let bytes = commit.sign(ORIGIN, &key).unwrap();
        let opened = Commit::open(&bytes, ORIGIN, &trusted, 5).unwrap();
        assert_eq!((opened.first(), &opened), (5, &commit));
        opened.continues(&before()).unwrap();
        assert!(opened.continues(&Edge::default()).is_err());
        assert!(Commit::open(&bytes, ORIGIN, &trusted, 4).is_err(), "it lies at another place");
        assert!(Commit::open(&bytes, "lethe.dev/another", &trusted, 5).is_err());
        let text = String::from_utf8(bytes).unwrap();
        // Nobody can take it for the head of the log itself.
        let note = text.split_once("\n\n").unwrap().1;
        assert!(Checkpoint::open(note.as_bytes(), ORIGIN, &trusted).is_err());
    }

    #[test]
    fn every_flipped_bit_of_a_commit_is_found() {
        let (commit, key) = (commit(), key(1));
        let trusted = TrustedKeys::only(key.public());
        let bytes = commit.sign(ORIGIN, &key).unwrap();
        let opens = |bytes: &[u8]| {
            Commit::open(bytes, ORIGIN, &trusted, 5).and_then(|commit| commit.continues(&before()))
        };
        opens(&bytes).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(opens(&bad).is_err(), "bit {bit}");
        }
        assert!(opens(&bytes[..bytes.len() - 1]).is_err());
        assert!(opens(&[&bytes[..], b"\n"].concat()).is_err());
        assert!(opens(&[b"\n", &bytes[..]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let trusted = TrustedKeys::only(key(1).public());
            prop_assert!(Commit::open(&bytes, ORIGIN, &trusted, 0).is_err());
        }
    }
}
