//! The real binary, end to end, on networks small enough for seconds.

mod artifacts;
mod contract;
mod data_free;
mod import;
mod interruption;
mod networks;
mod probes;
mod reports;
mod serving;
mod store_faults;
mod world;
