//! `UnlearnRun`: one execution. Created by the operator only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Baseline, KnownLabel, Mode, PolicySource, UnlearnPolicySpec, conditions_schema};
use crate::{
    Digest,
    contract::{Device, Outcome},
    gate::{BaselineQuality, GateResult, Verdict},
};

/// One execution of a frozen plan under a frozen policy.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "lethe.dev",
    version = "v1alpha1",
    kind = "UnlearnRun",
    namespaced,
    status = "UnlearnRunStatus",
    shortname = "ulrun",
    category = "lethe",
    doc = "One execution of a frozen plan. Created by the operator only.",
    selectable = ".spec.model",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a run's spec is immutable"))]
pub struct UnlearnRunSpec {
    /// Name of the `DiffusionModel`.
    #[schemars(length(min = 1, max = 40))]
    pub model: String,
    #[serde(rename = "type")]
    pub type_: RunType,
    /// The requests that this run works for; empty for `Prepare` and `Audit`, and for a new base.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub requests: Vec<RequestRef>,
    /// `Forget`: the base artifact that is made to forget the whole ledger. Absent for that in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_base: Option<NewBase>,
    /// That of its requests: the candidate of a `Pilot` is never rolled out.
    #[serde(default)]
    pub mode: Mode,
    /// The policy as it was when the run was created.
    pub policy: UnlearnPolicySpec,
    /// Where that was copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_source: Option<PolicySource>,
    /// The first pod's plan: the exact JSON text that is mounted. A string, since an object would be reordered.
    #[schemars(length(max = 524_288))]
    pub plan: String,
    /// sha256 of `plan`, which is what the pod reports back. The run's name is the model's name, a dash and
    /// the first 8 hexadecimal digits of the digest of the same plan without a run name; with a number if that is taken, and of the
    /// plan that was not needed where there is `madeBefore`.
    pub plan_digest: Digest,
    /// The statistics that the candidate is measured against; absent but for `Forget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Digest>,
    /// The record of the `Prepare` run that made what the candidate starts from; absent but for `Forget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_record: Option<Digest>,
    /// What `Prepare` measured of the baseline; absent but for `Forget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_quality: Option<BaselineQuality>,
    /// The model that never saw any of the targets, of those that the `DiffusionModel` named; absent but for `Forget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never_saw: Option<Digest>,
    /// `Forget`: what an earlier run trained with the plan that is repeated here, which passed and was never served. It is measured
    /// again, and not trained again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_before: Option<MadeBefore>,
}

/// A candidate that was trained by an earlier run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MadeBefore {
    /// The run that trained it.
    #[schemars(length(min = 1, max = 63))]
    pub run: String,
    pub candidate: Digest,
    /// The Job that did.
    #[schemars(length(min = 1, max = 63))]
    pub job: String,
    /// The record that this left in the store.
    pub record: Digest,
    /// Where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// What ran, as the container runtime named the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RunType {
    /// One-step baseline, judge and reference statistics, once per base artifact.
    Prepare,
    /// Forget, then evaluate.
    Forget,
    /// Ask the live server for samples and judge them.
    Audit,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// Its targets, so that the ledger can be written even if the request is gone by then.
    #[schemars(length(min = 1, max = 64), inner(length(max = 128)))]
    pub targets: Vec<String>,
    /// Of what of its spec cannot be changed, as canonical JSON, when the run was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_digest: Option<Digest>,
    /// Who approved of it, when the run was created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub approved_by: Vec<String>,
    /// The how manyeth attempt at it this run is. Each has a seed of its own.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    #[schemars(range(min = 1))]
    pub attempt: u32,
}

/// A base artifact that is to replace the one in service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewBase {
    /// Of its `manifest.json`.
    pub digest: Digest,
    /// The how manyeth attempt this run is. Each has a seed of its own.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    #[schemars(range(min = 1))]
    pub attempt: u32,
}

/// Conditions: Trained, Evaluated, GatesPassed, Signed, Ready, Reconciling, Stalled (written with the rest), and
/// Promoted (written by the model's controller alone).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = super::unseen()))]
pub struct UnlearnRunStatus {
    /// The generation that the rest is about. -1: the operator has not looked at it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// For people. Nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RunPhase>,
    /// One per stage that was started. A finished one is never started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["stage".into()]))]
    pub jobs: Vec<RunJob>,
    /// `Forget`: the how manyeth attempt this is, and whether there will be another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RunProgress>,
    /// What a `Prepare` run made, copied from its record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<Prepared>,
    /// The bundle that `Forget` produced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub gates: Vec<GateResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The signed evidence about the candidate: the sha256 of its envelope in the store. Absent where nothing is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RunPhase {
    Pending,
    Preparing,
    Training,
    Evaluating,
    Auditing,
    /// Done, with a verdict; a Prepare run is done when its record was read.
    Complete,
    Failed,
}

/// The stages of a run, each one Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Stage {
    Prepare,
    Forget,
    Evaluate,
    Audit,
}

/// A Job of this run and what it said.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunJob {
    pub stage: Stage,
    #[schemars(length(max = 63))]
    pub name: String,
    pub plan_digest: Digest,
    /// When its first pod began to work; of a Job that a queue took back, or that was made again, the first one since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When its last pod ended; if it left none, when that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// How often a queue took it back after it had begun.
    #[serde(default, skip_serializing_if = "is_never")]
    pub preemptions: u32,
    /// Seconds that its pods had worked by then, or before it was made again.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub earlier_seconds: u64,
    /// The first one, if it completed and nobody saw what it found, since its pod was gone. It was made again, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostJob>,
    /// Where it ran: `cpu` or `cuda`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// What ran, as the container runtime names the image of its last pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// Digest of its record in the store, once the Job has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Digest>,
}

/// A Job whose pod was gone before anybody had read what it found.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LostJob {
    /// Which of those of its name.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// When that was seen.
    pub at: Time,
}

/// How often a request was tried.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Attempts {
    /// The one at work, or the last one, included.
    pub used: u32,
    /// By the policy; as many as were used, if people asked for more.
    pub allowed: u32,
    /// The last one failed its gates: when the next may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Time>,
}

/// The result of a `Prepare` run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Prepared {
    #[schemars(length(max = 1024))]
    pub labels: Vec<KnownLabel>,
    pub baseline: Baseline,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RunProgress {
    #[schemars(length(max = 32))]
    pub stage: String,
    pub step: u64,
    pub total: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
}

impl Stage {
    /// As in names and labels of Jobs.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Prepare => "prepare",
            Stage::Forget => "forget",
            Stage::Evaluate => "evaluate",
            Stage::Audit => "audit",
        }
    }
}

impl UnlearnRunStatus {
    pub fn job(&self, stage: Stage) -> Option<&RunJob> {
        self.jobs.iter().find(|job| job.stage == stage)
    }
}

// The limit that the schema gives for a plan must not be below the contract's.
const _: () = assert!(crate::contract::Plan::MAX_BYTES <= 524_288);
// A termination message is read from the pod, never stored whole in a status.
const _: () = assert!(Outcome::MAX_BYTES <= 4096);

fn first() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_never(times: &u32) -> bool {
    *times == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_nothing(seconds: &u64) -> bool {
    *seconds == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_first(attempt: &u32) -> bool {
    *attempt == first()
}
