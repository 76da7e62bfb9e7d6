//! `UnlearnPolicy`: trainer, gates and rollout for the models that refer to it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    contract::{Device, Precision, ProbeLevel, Robustness},
    gate::Gate,
    v1alpha1::{
        NAME_PATTERN,
        canary::{RolloutStep, RolloutStrategy},
        legal::LegalTerm,
    },
};

/// The rules under which a model is made to forget. A run freezes the policy it was created under.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "lethe.dev",
    version = "v1alpha1",
    kind = "UnlearnPolicy",
    namespaced,
    shortname = "ulp",
    category = "lethe",
    doc = "The rules under which a model is made to forget: trainer, gates and rollout.",
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.trainer.image"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.probes) || self.gates.all(g, !(g.name in ['neighbour-accuracy', 'other-door-leak']))").message("gates neighbour-accuracy and other-door-leak need probes: Fast, or more"),
    validation = Rule::new("(has(self.probes) && self.probes != 'Fast') || self.gates.all(g, !(g.name in ['multistep-leak', 'stochastic-leak']))").message("gates multistep-leak and stochastic-leak need probes: Full, or more"),
    validation = Rule::new("(has(self.probes) && self.probes == 'Attack') || self.gates.all(g, !(g.name in ['embedding-inversion', 'seed-search', 'relearning', 'benign-resurgence']))").message("gates embedding-inversion, seed-search, relearning and benign-resurgence need probes: Attack"),
    validation = Rule::new("has(self.probes) || self.gates.all(g, !has(g.maxFidelityDrop))").message("maxFidelityDrop of retain-quality needs probes: Fast, or more")
)]
pub struct UnlearnPolicySpec {
    pub trainer: TrainerPolicy,
    #[serde(default)]
    pub training: TrainingPolicy,
    /// Five gates on a candidate are required: a policy that leaves one out is refused, not passed by default. With
    /// `served-leak`, what the live server shows is judged as well: after every roll-out, and by audits. All others judge
    /// what `probes` found, and need them.
    #[schemars(length(min = 5, max = 14))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("['direct-leak','override-conformity','retain-accuracy','retain-quality','hygiene'].all(n, self.exists_one(g, g.name == n))")
            .message("gates must list direct-leak, override-conformity, retain-accuracy, retain-quality and hygiene once each")
    )]
    pub gates: Vec<Gate>,
    /// Also try, in every evaluation, to bring back what was forgotten. What is found is in the record and on its page, and
    /// gates of their own judge it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    #[serde(default)]
    pub rollout: RolloutPolicy,
    #[serde(default, skip_serializing_if = "ApprovalPolicy::asks_nobody")]
    pub approvals: ApprovalPolicy,
    /// What becomes of a request whose candidate fails a gate.
    #[serde(default, skip_serializing_if = "GateFailurePolicy::holds")]
    pub on_gate_failure: GateFailurePolicy,
    /// Whether requests wait for others: many that are forgotten together cost as much as one.
    #[serde(default, skip_serializing_if = "CoalescePolicy::waits_for_nobody")]
    pub coalesce: CoalescePolicy,
    /// Legal terms beside those of GDPR and CCPA, or instead of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["regulation".into()]))]
    pub legal_terms: Vec<LegalTerm>,
    /// What is kept of runs that are over.
    #[serde(default, skip_serializing_if = "RetentionPolicy::is_usual")]
    pub retention: RetentionPolicy,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetentionPolicy {
    /// How many runs of each type (Forget, Audit) of a model are kept that are over and that nothing refers to; older ones are
    /// deleted, with their Jobs. A run is kept in any case while the ledger or the model's status names it, or a request that
    /// it works for has no answer.
    #[serde(default = "ten")]
    #[schemars(range(max = 1_000))]
    pub runs: u32,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self { runs: ten() }
    }
}

impl RetentionPolicy {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CoalescePolicy {
    /// How long a request that may begin waits for others to share its run. Those that come while the model is busy share one
    /// in any case.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub window_seconds: u32,
}

impl CoalescePolicy {
    fn waits_for_nobody(&self) -> bool {
        self.window_seconds == 0
    }
}

/// What follows a candidate that was measured and failed. A measurement that proves nothing (too few samples, a judge that
/// sees nothing) is held in any case: another seed mends neither.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.attempts) == (self.action == 'Retry')").message("attempts is required for action Retry and belongs to no other"),
    validation = Rule::new("!has(self.waitSeconds) || self.action == 'Retry'").message("waitSeconds belongs to action Retry only")
)]
pub struct GateFailurePolicy {
    #[serde(default)]
    pub action: GateFailureAction,
    /// `Retry`: how often to try in all, the first time included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 10))]
    pub attempts: Option<u32>,
    /// `Retry`: how long to wait in between, 60 seconds if absent. Whoever else waits for the model goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub wait_seconds: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateFailureAction {
    /// The request is held: a person has to look at it.
    #[default]
    Hold,
    /// It is tried again with another seed.
    Retry,
}

impl GateFailurePolicy {
    fn holds(&self) -> bool {
        *self == Self::default()
    }

    /// How often to try in all.
    pub fn allowed(&self) -> u32 {
        match self.action {
            GateFailureAction::Hold => 1,
            GateFailureAction::Retry => self.attempts.unwrap_or(1),
        }
    }

    /// Seconds from one attempt's verdict to the next attempt.
    pub fn wait(&self) -> u32 {
        self.wait_seconds.unwrap_or(60)
    }
}

/// How far to go. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Probes {
    /// What a plain user meets. Seconds.
    Fast,
    /// What somebody meets who samples in other ways.
    Full,
    /// What somebody finds who holds the weights. Minutes.
    Attack,
}

impl From<Probes> for ProbeLevel {
    fn from(probes: Probes) -> Self {
        match probes {
            Probes::Fast => Self::Fast,
            Probes::Full => Self::Full,
            Probes::Attack => Self::Attack,
        }
    }
}

/// Who has to agree before anything is trained.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalPolicy {
    /// How many people other than the requester, each by an `UnlearnApproval`. A pilot needs none.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10))]
    pub required: u8,
}

impl ApprovalPolicy {
    fn asks_nobody(&self) -> bool {
        self.required == 0
    }
}

/// The pods that train and measure.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrainerPolicy {
    /// An image that keeps the trainer contract.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    #[serde(default = "image_pull_policy")]
    #[x_kube(validation = Rule::new("self in ['Always', 'IfNotPresent', 'Never']").message("imagePullPolicy must be Always, IfNotPresent or Never"))]
    #[schemars(length(max = 16))]
    pub image_pull_policy: String,
    /// Defaults to one `nvidia.com/gpu`.
    #[serde(default = "one_gpu")]
    pub resources: ResourceRequirements,
    /// `auto` uses CUDA if the pod sees a device, else the CPU, and an event says so.
    #[serde(default)]
    pub device: Device,
    /// CPU threads of a pod. The same plan gives the same bytes only at the same number.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 256))]
    pub threads: u32,
    /// `bf16` trains several times faster on GPUs with units for it, and rounds more. What is served and measured is in
    /// f32 in any case.
    #[serde(default)]
    pub precision: Precision,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Where Jobs wait for their turn; without it they start at once. Audits hold no GPUs and wait for nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueuePolicy>,
    /// Longest time that one Job may take, waiting for a node included. In a queue no time counts, and a Job that was put back
    /// into it gets all of this anew.
    #[serde(default = "two_hours")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub active_deadline_seconds: i64,
    /// Retries of a pod that failed for a reason that may pass. A Job that is made again (`status.jobs[].lost` of a run) has all of
    /// them, and the whole deadline.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: i32,
    /// How long a finished Job is kept, with its logs. An operator that has seen it finish needs it no more; one that was
    /// away for longer than this cannot say what came of it: the run fails with `NoOutcome`, and is not repeated by itself.
    #[serde(default = "a_day")]
    #[schemars(range(min = 3_600, max = 2_592_000))]
    pub ttl_seconds_after_finished: i32,
}

/// A queue of Kueue, which lets a Job begin once its quota allows, and may take it back for one of higher priority.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueuePolicy {
    /// A LocalQueue in the model's namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// A WorkloadPriorityClass, which says who goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub priority_class: Option<String>,
}

/// How long to train. The trainer's defaults are measured; change them with measurements.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrainingPolicy {
    /// Distillation steps of `Prepare`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub prepare_steps: Option<u32>,
    /// Steps of `Forget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub forget_steps: Option<u32>,
    /// How much of what the baseline knew `Forget` may leave in the weights; `Suppress` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robustness: Option<Robustness>,
    /// Let `Forget` end as soon as what it has is good, instead of taking all steps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub early_stop: bool,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.steps) || self.steps.size() == 0 || self.strategy == 'Canary'").message("steps belong to strategy Canary only"))]
pub struct RolloutPolicy {
    #[serde(default)]
    pub strategy: RolloutStrategy,
    /// `Canary`: what happens, in this order, once the candidate runs beside the target and, where the policy has a
    /// `served-leak` gate, was asked there. Without any, it then takes the target's place at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub steps: Vec<RolloutStep>,
    /// How long the new pods may take to become available and to report the new digest.
    /// After that serving goes back to the previous digest.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 5, max = 86_400))]
    pub progress_deadline_seconds: u32,
    /// What becomes of serving where `served-leak` fails and there is no compliant digest to go back to. The model is not
    /// called compliant in either case.
    #[serde(default, skip_serializing_if = "NoCompliantDigest::is_default")]
    pub no_compliant_digest: NoCompliantDigest,
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self {
            strategy: RolloutStrategy::default(),
            steps: Vec::new(),
            progress_deadline_seconds: five_minutes(),
            no_compliant_digest: NoCompliantDigest::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NoCompliantDigest {
    /// The serving target is kept at no replicas until there is one.
    #[default]
    ScaleToZero,
    /// It goes on serving what it serves.
    Leave,
}

impl NoCompliantDigest {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn image_pull_policy() -> String {
    "IfNotPresent".into()
}

fn one_gpu() -> ResourceRequirements {
    let gpu = k8s_openapi::apimachinery::pkg::api::resource::Quantity("1".into());
    ResourceRequirements { limits: Some([("nvidia.com/gpu".to_owned(), gpu)].into()), ..Default::default() }
}

fn two() -> u32 {
    2
}

fn three() -> i32 {
    3
}

fn ten() -> u32 {
    10
}

fn two_hours() -> i64 {
    7_200
}

fn a_day() -> i32 {
    86_400
}

fn five_minutes() -> u32 {
    300
}
