//! The whole operator without a cluster: the three decisions, applied to a model of an API server, through
//! crashes, late caches and everything that people and trainers can do.

mod invariants;
mod observe;
mod script;
mod server;
mod world;

use lethe_model::{cluster, trainer};

mod approvals;
mod archives;
mod asked;
mod attempts;
mod audited_attempts;
mod audits;
mod bases;
mod canaries;
mod canary_faults;
mod chaos;
mod deletion;
mod duplicates;
mod evidence;
mod history;
mod lifecycle;
mod phases;
mod pilots;
mod policies;
mod probing;
mod promotion_faults;
mod publishing;
mod queues;
mod refuted;
mod requests;
mod reuse;
mod schedules;
mod serving;
mod sharing;
mod trainers;
mod unlogged;
