//! The Lethe operator: the only part of Lethe that holds a Kubernetes client.
//!
//! ```text
//! streams -> stores -> triggers -> controller: observe -> lethe_core::decide -> apply -> API server
//! ```
//!
//! - `streams`, `scope`, `stores`: one watch per kind, what is known, and who looks again at what. `kept` and `packed`: how little
//!   is kept of it. `last_told`: which changes of a model are news for its requests. `kueue`: what is known of the queue that others run.
//! - `controller` with `request`, `model` and `run`: observe one object and ask core.
//! - `logbook`, `scribe` and `repair`: the audit log, which says what `apply` is about to do, and what became of it. `inspector`
//!   sees that it stays so, and `clerk` says what the commands do.
//! - `telemetry` and `spans`: logs, and traces of looks for whoever asks for them.
//! - `apply`: **the one way from a decision to the cluster**, passable only with the lease of `leader`.
//!
//! **Nothing is decided here.** What is to be done about an object is a pure function of what was observed,
//! in `lethe-core`.

#![forbid(unsafe_code)]

mod apply;
mod args;
mod calls;
mod clerk;
mod client;
mod collect;
mod collector;
#[cfg(test)]
mod collector_tests;
mod context;
mod controller;
mod crds;
mod error;
mod evidence;
mod health;
mod herald;
mod inspector;
mod journal;
mod keeping;
mod kept;
mod kueue;
mod last_told;
mod leader;
mod logbook;
mod metrics;
mod model;
mod operator;
mod packed;
mod policies;
mod probe;
mod progress;
mod records;
mod repair;
mod request;
mod run;
mod scope;
mod scribe;
#[cfg(test)]
mod scribe_tests;
mod series;
mod serving;
mod sign_again;
mod spans;
mod stores;
#[cfg(test)]
mod stores_tests;
mod streams;
pub mod telemetry;
mod unreadable;
mod watchdog;
mod work;

pub use args::{Args, LogFormat, Traces};
pub use collect::{CollectArgs, CollectError, collect};
pub use operator::{OperatorError, run, run_with};
pub use sign_again::{SignAgainArgs, SignAgainError, sign_again};

/// Resolves on SIGTERM or SIGINT.
pub async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("asked to stop");
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "cannot listen for signals; only SIGKILL stops this process");
            std::future::pending().await
        }
    }
}
