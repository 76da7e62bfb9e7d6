//! Condition types and the closed set of reasons. All conditions but Reconciling and Stalled are
//! positive: True is what one hopes for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Condition types. Which object carries which is said at the object's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// Model: the baseline, the judge and the reference statistics exist.
    Prepared,
    /// Model: the serving target runs the digest that it should.
    Serving,
    /// Model: nothing that was ever forgotten can be served.
    Compliant,
    /// Model: when the live server was last asked for what is forgotten, it showed nothing of it.
    Audited,
    /// Model: what is served descends from the base that the spec names.
    BaseInService,
    /// Request: it makes sense for its model and policy.
    Accepted,
    /// Request: as many people as the policy asks for agreed.
    Approved,
    /// Request: a run works for it.
    Scheduled,
    /// Request, run: a candidate exists.
    Trained,
    /// Request, run: the candidate was measured.
    Evaluated,
    /// Request, run: every required gate passed, for every ledger entry.
    GatesPassed,
    /// Request, run: the evidence about the candidate is signed, and in the store. Absent where nothing is signed.
    Signed,
    /// Request, run: the candidate is what is served, and the ledger says so.
    Promoted,
    /// Request: all of the above, recorded.
    Fulfilled,
    /// The summary that Argo CD, Flux and `kubectl wait` read.
    Ready,
    /// There, and True, only where Ready is Unknown: that it is under way, for whoever looks for the words of kstatus and not for Ready.
    Reconciling,
    /// There, and True, only where Ready is False: by the rules of kstatus, which Flux follows, an object that is not Ready is
    /// still under way unless it says so.
    Stalled,
}

/// Why a condition has its status. Stable: people alert on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    // Waiting and working.
    WaitingForModel,
    WaitingForRun,
    WaitingForAttempt,
    WaitingForOthers,
    WaitingForReference,
    GateOutOfReach,
    Duplicate,
    Aborting,
    WaitingForServing,
    WaitingForPromotion,
    WaitingForApproval,
    Suspended,
    WaitingForQuota,
    Preempted,
    Inadmissible,
    NotQueued,
    Preparing,
    Training,
    Evaluating,
    Auditing,
    Signing,
    RollingOut,
    // Success.
    Accepted,
    Approved,
    Prepared,
    BaseInService,
    Scheduled,
    Trained,
    Evaluated,
    GatesPassed,
    Signed,
    Promoted,
    Fulfilled,
    Serving,
    NothingForgotten,
    LedgerHonoured,
    AlreadyForgotten,
    Pilot,
    NotServed,
    Ready,
    Audited,
    NotAudited,
    // A request or model that cannot be carried out as written.
    UnknownLabel,
    NothingWouldRemain,
    OverrideIsForgotten,
    OverrideIsTarget,
    OverrideUnavailable,
    LedgerFull,
    BaseLacksLabels,
    ApprovalDenied,
    Aborted,
    RequesterUnknown,
    ApprovalsNotProtected,
    ModelNotFound,
    PolicyNotFound,
    PolicyNotWatched,
    LegalTermUnknown,
    // A run that failed.
    ImageUnavailable,
    Unschedulable,
    PodNotCreated,
    PodNotStarted,
    DeadlineExceeded,
    BackoffLimitExceeded,
    BadPlan,
    BadArtifact,
    BadConfiguration,
    TrainerFailed,
    NoOutcome,
    BadOutcome,
    RecordUnavailable,
    BadRecord,
    // Gates.
    GateFailed,
    GateInconclusive,
    GateError,
    // Evidence.
    SigningKeyUnusable,
    EvidenceUnavailable,
    EvidenceRefused,
    // Serving.
    ServingTargetNotFound,
    TargetTaken,
    ContainerNotFound,
    RolloutTimedOut,
    CanaryNotPossible,
    RunDeleted,
    DigestMismatch,
    AuditLogUnavailable,
    Drifted,
    LedgerMoved,
    LedgerConflict,
    LedgerUnreadable,
    LedgerLost,
    Superseded,
    Reexposed,
    BadSchedule,
}

impl ConditionType {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ConditionType::Prepared => "Prepared",
            ConditionType::Serving => "Serving",
            ConditionType::Compliant => "Compliant",
            ConditionType::Audited => "Audited",
            ConditionType::BaseInService => "BaseInService",
            ConditionType::Accepted => "Accepted",
            ConditionType::Approved => "Approved",
            ConditionType::Scheduled => "Scheduled",
            ConditionType::Trained => "Trained",
            ConditionType::Evaluated => "Evaluated",
            ConditionType::GatesPassed => "GatesPassed",
            ConditionType::Signed => "Signed",
            ConditionType::Promoted => "Promoted",
            ConditionType::Fulfilled => "Fulfilled",
            ConditionType::Ready => "Ready",
            ConditionType::Reconciling => "Reconciling",
            ConditionType::Stalled => "Stalled",
        }
    }

    /// This condition in `conditions`, if it is there.
    pub fn find(self, conditions: &[Condition]) -> Option<&Condition> {
        conditions.iter().find(|c| c.type_ == self.as_str())
    }

    /// Whether this condition is there and True. Missing and Unknown are not True.
    pub fn is_true(self, conditions: &[Condition]) -> bool {
        self.find(conditions).is_some_and(|c| c.status == "True")
    }

    /// Whether this condition is there and True or False, not Unknown.
    pub fn is_decided(self, conditions: &[Condition]) -> bool {
        self.is_true(conditions) || self.is_false(conditions)
    }

    /// Whether this condition is there and False.
    pub fn is_false(self, conditions: &[Condition]) -> bool {
        self.find(conditions).is_some_and(|c| c.status == "False")
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The variants are named as they are written.
        write!(f, "{self:?}")
    }
}

/// The schema of `status.conditions`: `metav1.Condition` with its limits, as a list keyed by type.
pub fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "description": "What is known about this object. True is what one hopes for; Reconciling and Stalled repeat Ready, where that is Unknown or False.",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 64},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {"type": "string", "maxLength": 64, "pattern": "^[A-Za-z]([A-Za-z0-9]*)$"},
                "message": {"type": "string", "maxLength": 4096}
            }
        }
    })
}
