//! The real binary, end to end, on networks small enough for seconds.

mod artifacts;
mod contract;
mod curves;
mod data_free;
mod endings;
mod files;
mod import;
mod interruption;
mod membership;
mod networks;
mod probes;
mod reports;
mod serving;
mod settings;
mod spoiled;
mod store_faults;
mod teaching;
mod world;
