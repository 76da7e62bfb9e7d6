//! A model checker for the operator's decisions: every interleaving, up to a number of disturbances, of what the
//! operator, the cluster, people and trainers can do, through **the same** `decide` functions that the operator runs.
//!
//! - [`state`]: the API server's contents, caches, what is decided and not done.
//! - [`decisions`]: from a state to API calls, by core; computed once per distinct observation, as [`facts`] tell them apart.
//!   What is signed, and looked at before, is beside it.
//! - [`server`], [`jobs`], [`people`], [`acts`]: what calls, pods, people and accidents change.
//! - [`audit`]: what really happened, and the invariants; [`consent`]: those about what people say.
//! - [`scene`]: what people ask for in a check, and are asked.
//! - [`rest`]: how a state ends once nothing disturbs it any more.
//! - [`checker`]: the whole as a stateright model.
//!
//! [`cluster`], [`trainer`] and [`objects`] are shared with the scenarios of `lethe-core`.

#![forbid(unsafe_code)]

pub mod acts;
pub mod audit;
pub mod checker;
pub mod cluster;
pub mod consent;
pub mod decisions;
mod evidence;
pub mod facts;
pub mod jobs;
pub mod objects;
pub mod people;
pub mod report;
pub mod rest;
pub mod scene;
pub mod server;
pub mod shared;
pub mod state;
pub mod trainer;
