//! The vocabulary of Lethe: what a user writes (`v1alpha1`), what operator and trainer tell each other (`contract`), and
//! what a candidate is judged by (`gate`). Types, names and their syntax only: nothing here decides, reads or writes.

#![forbid(unsafe_code)]

pub mod contract;
pub mod gate;
pub mod printable;
#[cfg(feature = "kubernetes")]
pub mod v1alpha1;

pub use contract::digest::{Digest, DigestError};
