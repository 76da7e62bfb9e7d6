//! `UnlearnRequest`: a ticket that says what a model must forget.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    GateResult, NAME_PATTERN, PRINTABLE_PATTERN, conditions_schema,
    legal::REGULATION,
    run::{Attempts, RunProgress},
};
use crate::Digest;

/// What a model must forget. Immutable but for `suspend` and `dataSubjectRequest.extension`.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "lethe.dev",
    version = "v1alpha1",
    kind = "UnlearnRequest",
    namespaced,
    status = "UnlearnRequestStatus",
    shortname = "ulr",
    category = "lethe",
    doc = "A ticket that says what a model must forget.",
    selectable = ".spec.modelRef.name",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelRef.name"),
    printcolumn(name = "Targets", type_ = "string", json_path = ".status.targets"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Gates", type_ = "string", json_path = ".status.gateSummary"),
    printcolumn(name = "Due", type_ = "string", json_path = ".status.dueAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Run", type_ = "string", json_path = ".status.run.name", priority = "1"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.modelRef == oldSelf.modelRef && self.targets == oldSelf.targets && self.override == oldSelf.override && self.mode == oldSelf.mode && has(self.requestedBy) == has(oldSelf.requestedBy) && (!has(self.requestedBy) || self.requestedBy == oldSelf.requestedBy) && has(self.dataSubjectRequest) == has(oldSelf.dataSubjectRequest)")
        .message("a request is immutable but for suspend and dataSubjectRequest.extension: create another one"),
    validation = Rule::new("!has(self.override.label) || self.targets.all(t, t.label != self.override.label)")
        .message("the override label is itself a target"),
    validation = Rule::new("self.mode == 'Enforce' || !has(self.dataSubjectRequest)")
        .message("a Pilot answers nobody: the request that is to be fulfilled carries dataSubjectRequest, with mode Enforce")
)]
pub struct UnlearnRequestSpec {
    pub model_ref: ModelRef,
    /// The labels to forget.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["label".into()]))]
    pub targets: Vec<Target>,
    /// What the model yields instead.
    #[serde(rename = "override")]
    pub replacement: OverrideSpec,
    /// What becomes of a candidate that passes every gate.
    #[serde(default)]
    pub mode: Mode,
    /// The API user who creates this. Needed where the policy asks for approvals: nobody approves of their own request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = PRINTABLE_PATTERN))]
    pub requested_by: Option<String>,
    /// The legal side: an opaque reference and the date that starts the clock. No personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_subject_request: Option<DataSubjectRequest>,
    /// Do not start, and do not roll out, while this is true.
    #[serde(default)]
    pub suspend: bool,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelRef {
    /// Name of a `DiffusionModel` in the same namespace.
    #[schemars(length(min = 1, max = 40), regex(pattern = NAME_PATTERN))]
    pub name: String,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// A label that the model knows.
    #[schemars(length(min = 1, max = 128), regex(pattern = PRINTABLE_PATTERN))]
    pub label: String,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.label) == (self.strategy == 'Fixed')").message("label is required for strategy Fixed and belongs to no other")
)]
pub struct OverrideSpec {
    pub strategy: Strategy,
    /// `Fixed`: a kept label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = PRINTABLE_PATTERN))]
    pub label: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// Always the same label.
    Fixed,
    /// The kept label that the judge confuses most with the target.
    Nearest,
    /// A kept label drawn anew for every sample.
    Random,
}

/// What becomes of a candidate that passes every gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// It is rolled out, and the ledger has it.
    #[default]
    Enforce,
    /// Nothing: the target was tried, before anybody commits to it.
    Pilot,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.reference == oldSelf.reference && self.receivedAt == oldSelf.receivedAt && self.regulation == oldSelf.regulation").message("of dataSubjectRequest only the extension can be added"),
    validation = Rule::new("!has(oldSelf.extension) || (has(self.extension) && self.extension == oldSelf.extension)").message("an extension stands: the person was told of it")
)]
pub struct DataSubjectRequest {
    /// An opaque reference into the system that knows the person.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"))]
    pub reference: String,
    /// When the request was received: the legal term counts from here, not from this object's creation, unless that was
    /// before.
    pub received_at: Time,
    /// `GDPR`, `CCPA`, or what `legalTerms` of the model's policy names.
    #[schemars(length(min = 1, max = 32), regex(pattern = REGULATION))]
    pub regulation: String,
    /// That the term was extended. It counts if the person was told so, with the reasons, within the first term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
}

/// Of GDPR, by two further months (Article 12(3)); of CCPA, by 45 further days (11 CCR 7021); or as the policy says.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Extension {
    /// When the person was told.
    pub informed_at: Time,
    /// Why it is necessary, as the person was told. No personal data.
    #[schemars(length(min = 10, max = 512))]
    pub reason: String,
}

/// Conditions: Accepted, Approved (if the policy asks for it), Scheduled, Trained, Evaluated, GatesPassed, Signed, Promoted, Fulfilled, Ready,
/// Reconciling, Stalled.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = super::unseen()))]
pub struct UnlearnRequestStatus {
    /// The generation that the rest is about. -1: the operator has not looked at it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// For people. Nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RequestPhase>,
    /// Its targets for people: `3, 7`, or `3 and 4 more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    pub targets: Option<String>,
    /// Who approved of it, if the policy asks for approvals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub approved_by: Vec<String>,
    /// The kept labels that the judge confuses most with the targets: forgetting may disturb them first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(length(max = 128)))]
    pub at_risk: Vec<String>,
    /// End of the legal term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Time>,
    /// The run that works for this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RequestRun>,
    /// The requests by which everything that this one asks for is forgotten, or will be: it has no run of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub duplicate_of: Vec<String>,
    /// How often it was tried, and when the next attempt may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
    /// The last value of `lethe.dev/retry` that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Acknowledged>,
    /// The last value of `lethe.dev/abort` that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Acknowledged>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RunProgress>,
    /// Passed and required gates, for example `5/5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub gate_summary: Option<String>,
    /// Those on its own targets and on the whole candidate, and of those on what was forgotten before the ones that did
    /// not pass. All are in the status of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub gates: Vec<GateResult>,
    /// Digest of the measurement record that the verdict rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RequestRun {
    #[schemars(length(max = 63))]
    pub name: String,
}

/// What was asked for by an annotation, and what came of it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledged {
    /// The annotation's value, up to 64 characters of it.
    #[schemars(length(max = 64))]
    pub token: String,
    pub at: Time,
    /// What was done, or why nothing was.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// `lethe.dev/retry`: what came of attempts up to this one counts no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_attempt: Option<u32>,
}

/// Where a request stands. Fulfilled, Tried and Denied are final for this request; what is Held, Failed or
/// Aborted can be tried again by the annotation `lethe.dev/retry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RequestPhase {
    /// Not accepted yet: the message says what it waits for.
    Pending,
    /// Accepted; people other than the requester have to agree.
    AwaitingApproval,
    /// Accepted, waiting for the model to be free.
    Queued,
    Training,
    Evaluating,
    RollingOut,
    Fulfilled,
    /// It was Fulfilled, and what it had to forget may be shown again: what is served was changed, or an audit has seen it.
    Reexposed,
    /// A pilot whose candidate passed every gate. Nothing was rolled out, and nothing counts as forgotten.
    Tried,
    /// The gates did not pass. Nothing was rolled out.
    Held,
    /// It could not be carried out. Nothing was rolled out, or serving went back.
    Failed,
    /// Refused: it makes no sense for its model, or somebody said no. Nothing was started.
    Denied,
    /// Given up because somebody asked for that, before anything was rolled out.
    Aborted,
}

impl RequestPhase {
    pub const ALL: [RequestPhase; 13] = [
        RequestPhase::Pending,
        RequestPhase::AwaitingApproval,
        RequestPhase::Queued,
        RequestPhase::Training,
        RequestPhase::Evaluating,
        RequestPhase::RollingOut,
        RequestPhase::Fulfilled,
        RequestPhase::Reexposed,
        RequestPhase::Tried,
        RequestPhase::Held,
        RequestPhase::Failed,
        RequestPhase::Denied,
        RequestPhase::Aborted,
    ];
}
