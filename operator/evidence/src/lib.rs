//! Signed evidence: what was measured of a bundle, and what came of it, in a form that anybody can check without Lethe.
//!
//! - [`SigningKey`] and [`TrustedKeys`]: Ed25519 keys in the files that `openssl` writes.
//! - [`seal`] and [`open`]: a [`lethe_api::contract::Statement`] in a signed envelope, and out of it.
//!
//! What is in a statement is decided by the operator's core. Where envelopes lie is the store's business.

#![forbid(unsafe_code)]

mod envelope;
mod keys;
#[cfg(test)]
mod tests;

pub use envelope::{EnvelopeError, MAX_BYTES, PAYLOAD_TYPE, Proof, open, payload, seal, signed_bytes};
pub use keys::{KeyError, PublicKey, SigningKey, TrustedKeys};
