//! What the scenarios stand on. There are three tiers, each one test binary (`tests/api`, `tests/ecosystem`,
//! `tests/node`).
//!
//! **API tier**: a real API server with etcd and the controller manager, and the operator as a process of its
//! own, with the rights that the chart gives it. There is no node: the test plays the kubelet ([`kubelet`])
//! and the trainer ([`trainer`]), and can therefore lie as no trainer would. Needs no root.
//!
//! **Ecosystem tier**: the same, with programs of others around it that people use with Lethe: a real Prometheus and
//! Alertmanager ([`monitoring`]), a real OpenTelemetry Collector ([`traces`]), a real Argo CD ([`gitops`]), a real Kueue
//! ([`kueue`]), a real Chromium ([`browser`]).
//!
//! **Node tier** ([`node`]): a real node, real images, the real chart, and the real trainer.
//!
//! Rules for scenarios: named by behaviour; a namespace each; whatever is waited for is watched, with a
//! deadline, and a failure shows the objects, the events and the operator's log. Nothing sleeps to let
//! something happen.

pub mod audit;
pub mod audit_log;
pub mod browser;
pub mod bucket;
pub mod chaos;
pub mod cli;
pub mod collecting;
pub mod deaths;
mod diagnosis;
pub mod examples;
pub mod gitops;
pub mod keys;
pub mod kubelet;
pub mod kueue;
pub mod late;
pub mod load;
pub mod loopback;
pub mod monitoring;
pub mod node;
pub mod operator;
pub mod pages;
pub mod place;
pub mod probes;
pub mod proxy;
pub mod real;
#[cfg(test)]
mod reasons;
pub mod rights;
pub mod scenario;
pub mod server;
pub mod studio;
pub mod traces;
pub mod trainer;
pub mod wait;
pub mod weather;
pub mod world;

pub use place::Place;
pub use scenario::{Scenario, Tier};
pub use server::Server;
pub use trainer::Task;
pub use world::World;
