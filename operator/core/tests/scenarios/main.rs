//! The whole operator without a cluster: the three decisions, applied to a model of an API server, through
//! crashes, late caches and everything that people and trainers can do.

mod cluster;
mod invariants;
mod observe;
mod script;
mod server;
mod trainer;
mod world;

mod approvals;
mod chaos;
mod deletion;
mod lifecycle;
mod pilots;
mod requests;
mod serving;
mod trainers;
