//! The contract between the operator and a trainer image.
//!
//! In: one [`Plan`], a JSON file mounted read-only. Out: an [`Outcome`] of at most
//! [`Outcome::MAX_BYTES`] in the pod's termination message, and a [`Record`] in the store, named by
//! the digest that the outcome gives. The pod exits with one of the [`exit`] codes. Whoever keeps
//! this contract can bring another trainer.
//!
//! JSON schemas of every type are generated into `docs/contract/`.

pub mod audit;
/// A variable of pods whose Job was made again, since nobody had heard what the pod before found. What that did may be done, and
/// need not be done again.
pub const MADE_AGAIN: &str = "LETHE_MADE_AGAIN";

pub mod bundle;
pub mod digest;
pub mod evidence;
pub mod exit;
mod json;
pub mod labels;
pub mod metrics;
pub mod outcome;
pub mod plan;
pub mod probes;
pub mod progress;
pub mod record;

pub use audit::{AuditMeasurement, AuditRecord, AuditTask};
pub use bundle::{BundleKind, FileEntry, Manifest};
pub use digest::{Digest, DigestError};
pub use evidence::{
    Evidence, EvidenceGate, EvidencePolicy, EvidenceRecords, EvidenceRequest, EvidenceRun, EvidenceTrainer,
    Forgotten, Materials, Statement, Subject,
};
pub use json::one_line;
pub use labels::{MAX_LABEL_BYTES, MAX_LABELS, check_labels};
pub use metrics::Metrics;
pub use outcome::{Failure, Outcome, OutcomeError, Status};
pub use plan::{
    BaseArtifact, Device, EvaluateTask, ForgetTask, Override, Plan, PlanError, PlannedTarget, Precision,
    PrepareTask, Robustness, Samples, Settings, Task, TaskKind,
};
pub use probes::{
    Attempt, Budget, Fidelity, FidelityMeasurement, NeighbourMeasurement, ProbeLevel, ProbeName, ProbeRecord,
    ProbeTask, Sighting,
};
pub use progress::Progress;
pub use record::{
    Count, EvaluateRecord, ForgetRecord, HygieneCheck, LabelMeasurement, PrepareRecord, Quality, Record,
    RecordBody, RecordError, TargetMeasurement,
};

/// The variable of a pod that names the folder with the credentials for a store in a bucket: a file for each variable of the
/// provider's own tools.
pub const STORE_CREDENTIALS: &str = "LETHE_STORE_CREDENTIALS";
