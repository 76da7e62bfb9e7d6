//! The vocabulary of Lethe: what a user writes (`v1alpha1`), and what operator and trainer tell each
//! other (`contract`). Types, names and their syntax only: nothing here decides, reads or writes.

#![forbid(unsafe_code)]

pub mod contract;
#[cfg(feature = "kubernetes")]
pub mod v1alpha1;

pub use contract::digest::{Digest, DigestError};
