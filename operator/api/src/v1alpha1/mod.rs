//! The custom resources of `lethe.dev/v1alpha1`.
//!
//! A request is a ticket, a run is the work, a model is the lineage, a policy is the rules.

// Printer columns repeat their type, which is not a mistake.
#![allow(clippy::duplicated_attributes)]

pub mod approval;
pub mod canary;
pub mod cluster_policy;
pub mod conditions;
pub mod legal;
pub mod model;
pub mod policy;
pub mod request;
pub mod run;

pub use crate::gate::{BaselineQuality, Gate, GateName, GateResult, Verdict};
pub use approval::{ApprovalDecision, ApprovedRequest, ApprovedStep, UnlearnApproval, UnlearnApprovalSpec};
pub use canary::{ApprovalStep, Canary, PauseStep, RolloutStep, RolloutStrategy};
pub use cluster_policy::{ClusterUnlearnPolicy, ClusterUnlearnPolicySpec};
pub use conditions::{ConditionType, Reason, conditions_schema};
pub use legal::{LegalTerm, Term};
pub use model::{
    Audit, AuditSpec, Baseline, CompliantBundle, DiffusionModel, DiffusionModelSpec, DiffusionModelStatus,
    InitialServing, KnownLabel, LEDGER_CAPACITY, LedgerEntry, LedgerRequest, ModelPhase, NeverSaw,
    PolicyKind, PolicyRef, PolicySource, Promotion, Published, Rollout, RolloutState, ScaledDown, Served,
    Serving, ServingTarget,
};
pub use policy::{
    ApprovalPolicy, CoalescePolicy, GateFailureAction, GateFailurePolicy, NoCompliantDigest, Probes,
    QueuePolicy, RetentionPolicy, RolloutPolicy, TrainerPolicy, TrainingPolicy, UnlearnPolicy,
    UnlearnPolicySpec,
};
pub use request::{
    Acknowledged, DataSubjectRequest, Extension, Mode, ModelRef, OverrideSpec, RequestPhase, RequestRun,
    Strategy, Target, UnlearnRequest, UnlearnRequestSpec, UnlearnRequestStatus,
};
pub use run::{
    Attempts, LostJob, MadeBefore, NewBase, Prepared, RequestRef, RunJob, RunPhase, RunProgress, RunType,
    Stage, UnlearnRun, UnlearnRunSpec, UnlearnRunStatus,
};

/// The API group of every kind.
pub const GROUP: &str = "lethe.dev";

/// The annotation on the serving pod template that names the bundle to serve. It is the only thing that
/// Lethe changes on a serving target; the server reads it through the downward API.
pub const BUNDLE_ANNOTATION: &str = "lethe.dev/bundle";

/// Annotations by which people ask something of the operator once. The value is a word of their choice, a time for example:
/// the same word never acts twice, and the status says which one was acted upon.
pub mod annotations {
    /// On a request: try again what was held, failed or aborted, or do not wait for the next attempt.
    pub const RETRY: &str = "lethe.dev/retry";
    /// On a request: give it up, unless its roll-out has begun.
    pub const ABORT: &str = "lethe.dev/abort";
    /// Both of them: what people ask of the operator.
    pub const ASKED: [&str; 2] = [RETRY, ABORT];
    /// So many characters of a value count.
    pub const LENGTH: usize = 64;
}

/// `status.observedGeneration` of what the operator has not looked at yet. The API server gives it to every object without a status:
/// whoever judges by the rules of kstatus would otherwise take what nobody has begun with for done.
pub const UNSEEN: i64 = -1;

/// The status that the API server gives to what has none.
pub fn unseen() -> serde_json::Value {
    serde_json::json!({"observedGeneration": UNSEEN})
}

/// Labels that Lethe puts on everything it creates.
pub mod labels {
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    pub const MANAGER: &str = "lethe";
    pub const MODEL: &str = "lethe.dev/model";
    pub const RUN: &str = "lethe.dev/run";
    pub const STAGE: &str = "lethe.dev/stage";
    /// On the pods of a second Deployment, whose selector it is, and on the Deployment and its Service: the model's name.
    pub const CANARY: &str = "lethe.dev/canary";
}

/// What a reference to another object looks like. A reference becomes part of the path of a request to the API server: one that
/// is no name could ask for something else.
pub const NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// What people call things: no control characters, which would steer the terminal of whoever reads them.
pub const PRINTABLE_PATTERN: &str = r"^\P{Cc}*$";

/// Longest name of a model: its runs add a dash and 8 digits, their jobs a dash and a stage,
/// and a Job's name is limited to 63 characters.
pub const MAX_MODEL_NAME: usize = 40;
