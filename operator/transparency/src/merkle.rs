//! The Merkle tree of RFC 6962, section 2.1, over SHA-256, and its proofs as RFC 9162, sections 2.1.3 and 2.1.4, checks them.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

/// The hash of a leaf, of a subtree, or of a whole tree: 32 bytes, in base64 where people see it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    pub const BYTES: usize = 32;

    /// From base64, in its one canonical spelling.
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// The hash of a tree without leaves.
pub fn empty() -> Hash {
    Hash(Sha256::digest(b"").into())
}

/// The hash of a leaf with these bytes.
pub fn leaf(bytes: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(bytes).finalize().into())
}

/// The hash of a node above these two. What it hashes begins with another byte than a leaf: neither can pass for the other.
pub fn node(left: Hash, right: Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The right edge of a tree: the roots of the largest whole subtrees that its leaves fill, from left to right. There are as
/// many as its size has binary ones. It is all that is needed to append, and to know the root.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Edge {
    size: u64,
    roots: Vec<Hash>,
}

impl Edge {
    /// Of a tree of this size; `None` if a tree of this size has another number of whole subtrees.
    pub fn of(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (roots.len() == size.count_ones() as usize).then_some(Self { size, roots })
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut whole = leaf;
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.roots.pop() else { break };
            whole = node(left, whole);
        }
        self.roots.push(whole);
        self.size += 1;
    }

    /// The hash of the whole tree.
    pub fn root(&self) -> Hash {
        let mut right_to_left = self.roots.iter().rev().copied();
        let Some(last) = right_to_left.next() else { return empty() };
        right_to_left.fold(last, |right, left| node(left, right))
    }

    /// The same tree without its last leaves, down to a multiple of `unit`, which is a power of two.
    pub fn down_to_multiple_of(&self, unit: u64) -> Self {
        let size = self.size - self.size % unit;
        Self { size, roots: self.roots[..size.count_ones() as usize].to_vec() }
    }
}

/// A tree with all its nodes, to make proofs from: 64 bytes for each leaf.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Roots of the whole subtrees of 1, 2, 4, ... leaves.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut whole = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let nodes = &mut self.levels[level];
            nodes.push(whole);
            if nodes.len() % 2 == 1 {
                return;
            }
            whole = node(nodes[nodes.len() - 2], whole);
        }
    }

    /// The hash of a leaf.
    pub fn leaf(&self, index: u64) -> Option<Hash> {
        self.levels.first()?.get(usize::try_from(index).ok()?).copied()
    }

    /// The hash that the tree had when it had `size` leaves; `None` if it never had so many.
    pub fn root(&self, size: u64) -> Option<Hash> {
        match size {
            0 => Some(empty()),
            _ => (size <= self.size()).then(|| self.span(0, size)),
        }
    }

    /// The root of the whole subtree of `leaves` leaves, a power of two, that begins with leaf `first`, a multiple of it; `None`
    /// if it is not whole.
    pub fn whole(&self, first: u64, leaves: u64) -> Option<Hash> {
        let is_one = leaves.is_power_of_two() && first.is_multiple_of(leaves);
        (is_one && first.checked_add(leaves)? <= self.size()).then(|| self.span(first, first + leaves))
    }

    /// The proof that leaf `index` is in the tree of `size` leaves; `None` if it is not.
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size || size > self.size() {
            return None;
        }
        let mut proof = Vec::new();
        let (mut from, mut to) = (0, size);
        while to - from > 1 {
            let middle = from + split(to - from);
            if index < middle {
                proof.push(self.span(middle, to));
                to = middle;
            } else {
                proof.push(self.span(from, middle));
                from = middle;
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// The proof that the tree of `size` leaves continues that of `first`; `None` if either is none of this tree's.
    pub fn consistency(&self, first: u64, size: u64) -> Option<Vec<Hash>> {
        if first > size || size > self.size() {
            return None;
        }
        if first == 0 || first == size {
            return Some(Vec::new());
        }
        let mut proof = Vec::new();
        let (mut from, mut to) = (0, size);
        while to != first {
            let middle = from + split(to - from);
            if first <= middle {
                proof.push(self.span(middle, to));
                to = middle;
            } else {
                proof.push(self.span(from, middle));
                from = middle;
            }
        }
        // Whoever asks has the first tree's root, if that is all that is left.
        if from != 0 {
            proof.push(self.span(from, to));
        }
        proof.reverse();
        Some(proof)
    }

    /// The hash of the leaves from `from` on and before `to`, which are there. `from` is a multiple of the power of two that is
    /// not less than their number.
    fn span(&self, from: u64, to: u64) -> Hash {
        let leaves = to - from;
        if leaves.is_power_of_two() {
            return self.levels[leaves.trailing_zeros() as usize][(from / leaves) as usize];
        }
        let middle = from + split(leaves);
        node(self.span(from, middle), self.span(middle, to))
    }
}

/// The largest power of two less than `leaves`, which are at least two.
fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// Whether the proof shows that the leaf is number `index` of the tree with this size and root.
pub fn is_included(leaf: Hash, index: u64, size: u64, root: Hash, proof: &[Hash]) -> bool {
    if index >= size {
        return false;
    }
    let (mut own, mut last, mut hash) = (index, size - 1, leaf);
    for other in proof {
        if last == 0 {
            return false;
        }
        if own % 2 == 1 || own == last {
            hash = node(*other, hash);
            // Where there is nothing to the right, the node is carried up unchanged.
            let levels = if own % 2 == 1 { 0 } else { own.trailing_zeros().min(63) };
            (own, last) = (own >> levels, last >> levels);
        } else {
            hash = node(hash, *other);
        }
        (own, last) = (own >> 1, last >> 1);
    }
    last == 0 && hash == root
}

/// Whether the proof shows that the tree of the second size and root begins with that of the first.
pub fn is_consistent(first: (u64, Hash), second: (u64, Hash), proof: &[Hash]) -> bool {
    let ((size, root), (later_size, later_root)) = (first, second);
    if size > later_size {
        return false;
    }
    if size == 0 {
        return root == empty() && proof.is_empty();
    }
    if size == later_size {
        return root == later_root && proof.is_empty();
    }
    let mut rest = proof.iter().copied();
    let start = if size.is_power_of_two() { Some(root) } else { rest.next() };
    let Some(start) = start else { return false };
    let levels = (size - 1).trailing_ones();
    let (mut own, mut last) = ((size - 1) >> levels, (later_size - 1) >> levels);
    let (mut old, mut new) = (start, start);
    for other in rest {
        if last == 0 {
            return false;
        }
        if own % 2 == 1 || own == last {
            (old, new) = (node(other, old), node(other, new));
            let levels = if own % 2 == 1 { 0 } else { own.trailing_zeros().min(63) };
            (own, last) = (own >> levels, last >> levels);
        } else {
            new = node(new, other);
        }
        (own, last) = (own >> 1, last >> 1);
    }
    last == 0 && old == root && new == later_root
}

#[cfg(test)]
#[path = "merkle/tests.rs"]
mod tests;
