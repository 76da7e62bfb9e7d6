//! Everything that is done to this repository or on a developer's machine, as a library: the `cargo xtask`
//! verbs are thin on top of it, and the tests start their clusters with it.

pub mod bench;
pub mod cache;
pub mod cargo;
pub mod cluster;
pub mod cmd;
pub mod codegen;
pub mod demo;
pub mod env;
pub mod host;
pub mod image;
pub mod progress;
pub mod setup;
pub mod test;
