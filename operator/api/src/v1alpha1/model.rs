//! `DiffusionModel`: one lineage, from the base artifact to what is served.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NAME_PATTERN, OverrideSpec, Prepared, UNSEEN, canary::Canary, conditions_schema};
use crate::{
    Digest,
    contract::{BaseArtifact, MAX_LABELS},
    gate::{BaselineQuality, Verdict},
};

/// One lineage: a base model, everything it had to forget, and what is served of it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "lethe.dev",
    version = "v1alpha1",
    kind = "DiffusionModel",
    namespaced,
    status = "DiffusionModelStatus",
    shortname = "dm",
    category = "lethe",
    doc = "One lineage: a base model, everything it had to forget, and what is served of it.",
    validation = Rule::new("self.metadata.name.size() <= 40").message("a model's name has at most 40 characters: its runs and jobs add to it"),
    // A rule on the ledger itself is not asked when the ledger is left out.
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.ledger) || (has(self.status) && has(self.status.ledger))").message("the ledger only grows"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Compliant", type_ = "string", json_path = ".status.conditions[?(@.type=='Compliant')].status"),
    printcolumn(name = "Forgotten", type_ = "integer", json_path = ".status.forgotten"),
    printcolumn(name = "Served", type_ = "string", json_path = ".status.served.short"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Base", type_ = "string", json_path = ".spec.base.uri", priority = "1"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.policyRef.name", priority = "1"),
    printcolumn(name = "Canary", type_ = "string", json_path = ".status.rollout.canary.at", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = "1")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiffusionModelSpec {
    /// The teacher. Never served by Lethe. If it is changed, the lineage stays: what it has forgotten is forgotten by the new
    /// base as well, before anything of that is served. Until then, and if that fails, the old one stays in service.
    pub base: BaseArtifact,
    pub policy_ref: PolicyRef,
    pub serving: Serving,
    /// When to ask the live server for what is forgotten, beside after every roll-out. The policy needs a `served-leak`
    /// gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditSpec>,
    /// One-step models whose teachers never saw some labels. A run compares what its probes find with the first one for its
    /// base that never saw any of its targets, those of earlier requests included; without one, nothing is compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["bundle".into()]))]
    pub never_saw: Vec<NeverSaw>,
}

/// A one-step model whose teacher never saw some labels, and that has the labels of this model all the same.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NeverSaw {
    /// A bundle of kind Generator in the store.
    pub bundle: Digest,
    /// The `digest` of the base that it stands beside: its teacher was taught as that one, but for the labels. Candidates of
    /// another base are not compared with it.
    pub base: Digest,
    #[schemars(length(min = 1, max = MAX_LABELS), inner(length(min = 1, max = 128)))]
    pub labels: Vec<String>,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditSpec {
    /// Five fields of cron: minute, hour, day of the month, month, day of the week. In UTC.
    #[schemars(length(min = 9, max = 128), regex(pattern = r"^[0-9A-Za-z*/,-]+( [0-9A-Za-z*/,#-]+){4}$"))]
    pub schedule: String,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRef {
    #[serde(default)]
    pub kind: PolicyKind,
    /// Of an `UnlearnPolicy` in the same namespace, or of a `ClusterUnlearnPolicy`.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PolicyKind {
    /// One in the model's namespace.
    #[default]
    UnlearnPolicy,
    /// One of the cluster's. Only an operator that watches all namespaces sees these.
    ClusterUnlearnPolicy,
}

/// A policy as it was found.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySource {
    pub kind: PolicyKind,
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The generation that was found: it counts the edits of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// What serves the model. Lethe changes the annotation `lethe.dev/bundle` on its pod template and nothing else.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Serving {
    pub target: ServingTarget,
    /// The container that serves.
    #[schemars(length(min = 1, max = 63))]
    pub container: String,
    /// Its HTTP port, where `/v2/models/NAME` reports the digest.
    #[serde(default = "http_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Where audits ask the live server, as its users do. If absent, a Service of the target's name at `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^http://[A-Za-z0-9.:\[\]-]+$"))]
    pub endpoint: Option<String>,
    #[serde(default)]
    pub initial: InitialServing,
    #[serde(default)]
    pub promotion: Promotion,
}

/// Who changes which bundle the serving target names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Promotion {
    /// Lethe does.
    #[default]
    Apply,
    /// Whoever owns the Deployment, a Git repository for example: Lethe says in `status.published` what it has to name, and writes
    /// nothing of it, its replicas included.
    Publish,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.apiVersion == 'apps/v1' && self.kind == 'Deployment'").message("only an apps/v1 Deployment can be a serving target"),
    validation = Rule::new("self == oldSelf").message("the serving target is immutable: the old one would go on serving, and nobody would watch it")
)]
pub struct ServingTarget {
    #[schemars(length(max = 64))]
    pub api_version: String,
    #[schemars(length(max = 64))]
    pub kind: String,
    /// In the model's namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InitialServing {
    /// Serve the one-step baseline until something has to be forgotten.
    #[default]
    Baseline,
    /// Serve nothing before the first fulfilled request.
    None,
}

/// Conditions: Prepared, Serving, Compliant, Audited, BaseInService, Ready, Reconciling, Stalled.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = super::unseen()))]
pub struct DiffusionModelStatus {
    /// The generation that the rest is about. -1: the operator has not looked at it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// For people. Nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ModelPhase>,
    /// The policy that the next run would be under. Absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySource>,
    /// What the base in service knows, in the order of its condition table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub labels: Vec<KnownLabel>,
    /// Of the base in service. Requests are worked for with it, whatever `spec.base` says meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// What was prepared of another base, which is not in service yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_base: Option<Prepared>,
    /// The last bundle that passed every gate for the whole ledger: what should be served. Absent if nothing is forgotten, and
    /// in statuses of earlier versions, for which it is that of the ledger's last entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compliant: Option<CompliantBundle>,
    /// The last digest that was confirmed to be served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Served>,
    /// The change of serving under way, or the last one. Written before serving is touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// With `spec.serving.promotion: Publish`: what the serving target has to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// The last audit of what is served that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// When the next one is due. Of times that were missed, one audit comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_audit: Option<Time>,
    /// Forgotten labels that may be shown now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 128)))]
    pub exposed: Vec<String>,
    /// Lethe keeps the serving target at no replicas: nothing that it could serve is compliant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaled_down: Option<ScaledDown>,
    /// The run under way for this lineage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub active_run: Option<String>,
    /// Everything this lineage had to forget. Grows only. At most [`LEDGER_CAPACITY`] entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    // Most writes leave it as it is: only where it grows is each entry looked for in all others.
    #[x_kube(validation = Rule::new("self == oldSelf || (self.size() > oldSelf.size() && self.filter(e, e in oldSelf) == oldSelf)").message("the ledger only grows"))]
    pub ledger: Vec<LedgerEntry>,
    /// Number of labels that are forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

impl DiffusionModel {
    /// The status, if the operator has written one.
    pub fn seen(&self) -> Option<&DiffusionModelStatus> {
        self.status.as_ref().filter(|status| status.observed_generation != Some(UNSEEN))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ModelPhase {
    Pending,
    Preparing,
    Ready,
    Forgetting,
    RollingOut,
    Degraded,
}

/// A label of the base artifact.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KnownLabel {
    #[schemars(length(max = 128))]
    pub name: String,
    /// The labels that the judge confuses most with it, nearest first.
    #[schemars(length(max = 8))]
    pub nearest: Vec<String>,
}

/// What `Prepare` made of the base artifact.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// The teacher, in the store.
    pub teacher: Digest,
    /// The one-step generator that has forgotten nothing.
    pub bundle: Digest,
    /// The training state that forgetting starts from.
    pub distillation: Digest,
    pub judge: Digest,
    pub reference: Digest,
    pub quality: BaselineQuality,
    /// The record of the Prepare run.
    pub record: Digest,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    pub digest: Digest,
    /// The digest's first digits, for people.
    #[schemars(length(max = 12))]
    pub short: String,
    pub since: Time,
}

/// A bundle that honours the whole ledger.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CompliantBundle {
    pub digest: Digest,
    /// The base artifact that it descends from.
    pub base: Digest,
    /// The run that made it.
    #[schemars(length(max = 63))]
    pub run: String,
    /// Counts the changes of this: other bundles, and what audits found of them.
    #[serde(default)]
    pub turn: u32,
    /// The audit that saw it show what it had to forget. It stands, whatever else is audited, until one of this bundle passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuted: Option<Audit>,
}

/// A change of what is served.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// The run whose candidate is rolled out, or whose baseline, of a new base; absent for the first baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub run: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    pub to: Digest,
    /// Of a canary that is over: when it was, and the target began to be changed.
    pub started_at: Time,
    /// When the reference had to be written once more: the time that the pods have counts from here. An operator
    /// that was away before the first write has not used it up; whoever keeps changing the reference gains nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_again_at: Option<Time>,
    /// Since when a target that was changed is on its way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turned_back_at: Option<Time>,
    pub state: RolloutState,
    /// The run that asks the live server for samples, where the policy has a `served-leak` gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub audit: Option<String>,
    /// The second Deployment that serves `to`, until it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Why it was turned back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // By its path: the derive macro has a `Reason` of its own.
    pub reason: Option<super::Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
}

/// What an audit of the live server found.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    #[schemars(length(max = 63))]
    pub run: String,
    /// What was served.
    pub digest: Digest,
    /// `Error` as well if nothing could be measured.
    pub verdict: Verdict,
    /// The labels that did not pass, if it is known which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 128)))]
    pub shows: Vec<String>,
    /// When it was seen to have ended.
    pub at: Time,
    /// Why the verdict is not Pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
}

/// A serving target that is kept at no replicas.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScaledDown {
    /// How many it had, and gets back.
    pub replicas: i32,
    pub since: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutState {
    /// `to` is served by a second Deployment, and the target goes on serving `from`.
    Canary,
    /// `to` may be served, and is waited for: whoever owns the serving target has it name that.
    Published,
    /// Serving is being changed to `to`.
    Progressing,
    /// `to` is available and every pod reports it; what the live server shows is being judged.
    Auditing,
    /// `to` is served.
    Complete,
    /// `to` did not become available in time, or shows what it should have forgotten: serving is being changed back to `from`.
    RollingBack,
    /// Serving is at `from` again.
    RolledBack,
}

impl RolloutState {
    pub const ALL: [RolloutState; 7] = [
        RolloutState::Canary,
        RolloutState::Published,
        RolloutState::Progressing,
        RolloutState::Auditing,
        RolloutState::Complete,
        RolloutState::RollingBack,
        RolloutState::RolledBack,
    ];

    /// Whether serving is still being changed, or judged.
    pub fn is_under_way(self) -> bool {
        match self {
            Self::Canary | Self::Published | Self::Progressing | Self::Auditing | Self::RollingBack => true,
            Self::Complete | Self::RolledBack => false,
        }
    }

    /// Whether the requests whose candidate it is say where it stands.
    pub fn is_told(self) -> bool {
        self.leaves_target_alone() || self == Self::RollingBack
    }

    /// Whether the serving target is as it was before, and may stay so.
    pub fn leaves_target_alone(self) -> bool {
        matches!(self, Self::Canary | Self::Published)
    }
}

/// What is to be served, for whoever owns the serving target.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// Absent if nothing is to be served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
    /// Its first twelve digits, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12))]
    pub short: Option<String>,
    pub since: Time,
}

/// Something that this lineage had to forget.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    #[schemars(length(min = 1, max = 64), inner(length(max = 128)))]
    pub targets: Vec<String>,
    /// As resolved: `Nearest` has become `Fixed`.
    #[serde(rename = "override")]
    pub replacement: OverrideSpec,
    pub request: LedgerRequest,
    #[schemars(length(max = 63))]
    pub run: String,
    /// The bundle with which it was first fulfilled.
    pub digest: Digest,
    pub at: Time,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LedgerRequest {
    #[schemars(length(max = 253))]
    pub name: String,
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// A lineage's ledger holds no more entries; a request that would need another one is refused.
pub const LEDGER_CAPACITY: usize = 256;

fn http_port() -> u16 {
    crate::contract::Progress::PORT
}
