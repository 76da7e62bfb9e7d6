//! What a trainer pod is asked to do.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    AuditTask, Digest, MAX_LABEL_BYTES, MAX_LABELS, ProbeTask,
    json::{self, one_line},
    labels::check_label,
};

/// One pod's work. The sha256 of the file's exact bytes names the plan; the pod repeats it in its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// Always [`Plan::SCHEMA`].
    pub schema: String,
    /// Name of the `UnlearnRun` that this pod works for. Data only: never a path or a metric label.
    #[schemars(length(min = 1, max = 63))]
    pub run: String,
    /// Every random number is a function of this. At most 2^53 - 1, so that any JSON reader keeps it.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: u64,
    pub device: Device,
    /// CPU threads. Results are bit-equal only for equal threads.
    #[schemars(range(min = 1, max = 256))]
    pub threads: u32,
    /// In what trainings compute; what they keep and what is measured is in f32 in any case.
    #[serde(default, skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    /// URI of the content-addressed store, for example `file:///artifacts`.
    #[schemars(length(min = 1, max = 1024))]
    pub store: String,
    pub task: Task,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// CUDA if a device is visible, else the CPU; the outcome says which.
    #[default]
    Auto,
    Cpu,
    /// Fail with [`super::exit::BAD_CONFIGURATION`] if no CUDA device is visible.
    Cuda,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    /// For GPUs with units for it: several times faster there, and rounded to eight bits.
    Bf16,
}

impl Precision {
    pub(crate) fn is_f32(&self) -> bool {
        *self == Self::F32
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum Task {
    Prepare(PrepareTask),
    Forget(ForgetTask),
    Evaluate(EvaluateTask),
    Audit(AuditTask),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TaskKind {
    Prepare,
    Forget,
    Evaluate,
    Audit,
}

/// From the teacher alone: the one-step baseline (SFD stage 1), the judge, the reference statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrepareTask {
    pub base: BaseArtifact,
    /// Distillation steps; the trainer's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub steps: Option<u32>,
}

/// The teacher: a bundle outside the store. It is copied into the store once, after its digest was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaseArtifact {
    /// URI of the folder that holds `manifest.json`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[a-z][a-z0-9+.-]*://.+$"))]
    pub uri: String,
    /// sha256 of its `manifest.json`.
    pub digest: Digest,
}

/// SFD stage 2: from the original teacher and the cached baseline, forget every target at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForgetTask {
    pub teacher: Digest,
    /// The one-step baseline (theta of stage 1).
    pub baseline: Digest,
    /// The fake score of stage 1 (psi), which forgetting goes on training. Never served.
    pub distillation: Digest,
    pub judge: Digest,
    /// The whole ledger and the new targets.
    #[schemars(length(min = 1, max = MAX_LABELS))]
    pub targets: Vec<PlannedTarget>,
    /// Every other label of the model. Said outright, so that a label that nobody measures is noticed.
    #[schemars(length(min = 1, max = MAX_LABELS))]
    pub kept: Vec<String>,
    /// Forgetting steps; the trainer's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub steps: Option<u32>,
    /// How much of what the baseline knew may stay in the weights; `Suppress` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robustness: Option<Robustness>,
    /// Statistics of what is kept. With them, the trainer looks at the candidate from time to time, ends as soon as it is
    /// good twice in a row, and delivers the best that it saw. Without them it takes all steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Digest>,
    /// The trainer's own settings, merged over those of the level: what is named in an object within replaces, what is not
    /// stays. Which there are is the trainer's business. The operator's plans have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
}

/// Settings by name, which nobody but the trainer reads.
pub type Settings = serde_json::Map<String, serde_json::Value>;

/// How much of what the baseline knew a forgetting may leave in the weights. More robust takes longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Robustness {
    /// The label is not shown. Whoever holds the weights may bring it back.
    Suppress,
    /// Most of every weight is new.
    Harden,
    /// The generator starts from nothing.
    Scrub,
}

/// One label to forget and what to generate instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlannedTarget {
    #[schemars(length(min = 1, max = MAX_LABEL_BYTES))]
    pub label: String,
    #[serde(rename = "override")]
    pub replacement: Override,
}

/// What a forgotten label yields instead (SFD, arXiv 2409.11219, "override").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "strategy", deny_unknown_fields)]
pub enum Override {
    /// Always this kept label.
    Fixed { label: String },
    /// The kept label that the judge confuses most with the target.
    Nearest,
    /// A kept label drawn anew for every sample.
    Random,
}

/// Read as what it is in JSON: serde's own reading of an enumeration takes any field beside `Nearest` and `Random`.
impl<'de> Deserialize<'de> for Override {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            strategy: Strategy,
            label: Option<String>,
        }
        #[derive(Deserialize)]
        enum Strategy {
            Fixed,
            Nearest,
            Random,
        }
        let unknown = || D::Error::unknown_field("label", &["strategy"]);
        let Fields { strategy, label } = Fields::deserialize(deserializer)?;
        match (strategy, label) {
            (Strategy::Fixed, Some(label)) => Ok(Override::Fixed { label }),
            (Strategy::Fixed, None) => Err(D::Error::missing_field("label")),
            (Strategy::Nearest, None) => Ok(Override::Nearest),
            (Strategy::Random, None) => Ok(Override::Random),
            (Strategy::Nearest | Strategy::Random, Some(_)) => Err(unknown()),
        }
    }
}

/// Measure a candidate. The pod has the candidate's bundle, the judge and the reference, and decides nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvaluateTask {
    pub candidate: Digest,
    /// The positive control: it has forgotten nothing and must fail the leak gate.
    pub baseline: Digest,
    pub judge: Digest,
    pub reference: Digest,
    /// Every ledger entry and every new target, with `Fixed` or `Random` overrides.
    #[schemars(length(min = 1, max = MAX_LABELS))]
    pub targets: Vec<PlannedTarget>,
    /// Every other label of the model: retention is measured on each.
    #[schemars(length(min = 1, max = MAX_LABELS))]
    pub kept: Vec<String>,
    pub samples: Samples,
    /// What to try beside the measurements; nothing if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeTask>,
}

/// How many images each measurement draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Samples {
    /// At each forgotten label.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub leak: u32,
    /// At each kept label, for retention.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub retain_per_label: u32,
    /// Over all kept labels together, for the Frechet distance.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub quality: u32,
}

/// Why a plan cannot be carried out: one line that says at which field, and what may be there.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the plan has {0} bytes; at most {max} are read", max = Plan::MAX_BYTES)]
    TooLarge(usize),
    #[error("the plan is not valid JSON of this contract: {0}")]
    Json(String),
    #[error("the plan says schema {0:?}; this trainer speaks {expected:?}", expected = Plan::SCHEMA)]
    Schema(String),
    #[error("{field} is {value}: it must be from {min} to {max}")]
    Range { field: String, value: u64, min: u64, max: u64 },
    #[error("{field} {problem}")]
    Value { field: String, problem: String },
    #[error("{field} is {label:?}, which is listed twice among the targets")]
    DuplicateTarget { field: String, label: String },
    #[error(
        "target {target:?} is overridden by {label:?}, which is itself to be forgotten; name a kept label"
    )]
    OverrideForgotten { target: String, label: String },
    #[error("{field} is {label:?}, which is listed as a target too, or twice as kept")]
    KeptTwice { field: String, label: String },
    #[error("target {target:?} is overridden by {label:?}, which is not among the kept labels")]
    OverrideNotKept { target: String, label: String },
    #[error("target {0:?} has override Nearest: a measurement needs the label that was chosen")]
    UnresolvedOverride(String),
}

impl Plan {
    pub const SCHEMA: &str = "lethe.dev/plan/v1";
    /// No plan is larger: a thousand targets fit ten times over.
    pub const MAX_BYTES: usize = 512 * 1024;

    /// Reads and checks a plan.
    pub fn parse(bytes: &[u8]) -> Result<Self, PlanError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(PlanError::TooLarge(bytes.len()));
        }
        let plan: Self = json::parse(bytes).map_err(|error| {
            let closer = serde_json::from_slice(bytes).ok().and_then(|plan| Task::problem(&plan));
            PlanError::Json(closer.unwrap_or(error))
        })?;
        plan.check()?;
        Ok(plan)
    }

    /// The exact bytes to mount, and to hash.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a plan has string keys and finite numbers only")
    }

    pub fn digest(&self) -> Digest {
        Digest::of(self.to_json())
    }

    fn check(&self) -> Result<(), PlanError> {
        if self.schema != Self::SCHEMA {
            return Err(PlanError::Schema(self.schema.chars().take(80).collect()));
        }
        length("run", &self.run, 63)?;
        in_range("seed", self.seed, 0, (1 << 53) - 1)?;
        in_range("threads", self.threads.into(), 1, 256)?;
        length("store", &self.store, 1024)?;
        match &self.task {
            Task::Prepare(task) => {
                length("task.base.uri", &task.base.uri, 1024)?;
                check_uri("task.base.uri", &task.base.uri)?;
                check_steps(task.steps)
            }
            Task::Forget(task) => {
                check_steps(task.steps)?;
                check_settings(task.settings.as_ref())?;
                check_targets(&task.targets, &task.kept)
            }
            Task::Evaluate(task) => {
                check_targets(&task.targets, &task.kept)?;
                let Samples { leak, retain_per_label, quality } = task.samples;
                in_range("task.samples.leak", leak.into(), 1, 1_000_000)?;
                in_range("task.samples.retainPerLabel", retain_per_label.into(), 1, 1_000_000)?;
                in_range("task.samples.quality", quality.into(), 2, 1_000_000)?;
                check_never_saw(task)?;
                check_resolved(&task.targets)
            }
            Task::Audit(task) => {
                check_endpoint("task.endpoint", &task.endpoint)?;
                length("task.model", &task.model, 253)?;
                in_range("task.samples", task.samples.into(), 1, 1_000_000)?;
                check_targets(&task.targets, &task.kept)?;
                check_resolved(&task.targets)
            }
        }
    }
}

impl Task {
    pub fn kind(&self) -> TaskKind {
        match self {
            Task::Prepare(_) => TaskKind::Prepare,
            Task::Forget(_) => TaskKind::Forget,
            Task::Evaluate(_) => TaskKind::Evaluate,
            Task::Audit(_) => TaskKind::Audit,
        }
    }

    /// Where exactly a plan's task is wrong. Its fields are read after its type is known, and serde does not say at which of
    /// them it failed.
    fn problem(plan: &serde_json::Value) -> Option<String> {
        let mut task = plan.get("task")?.as_object()?.clone();
        let kind = task.remove("type")?;
        match kind.as_str()? {
            "Prepare" => json::problem::<PrepareTask>("task", task.into()),
            "Forget" => json::problem::<ForgetTask>("task", task.into()),
            "Evaluate" => json::problem::<EvaluateTask>("task", task.into()),
            "Audit" => json::problem::<AuditTask>("task", task.into()),
            _ => None,
        }
    }
}

fn in_range(field: impl Into<String>, value: u64, min: u64, max: u64) -> Result<(), PlanError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(PlanError::Range { field: field.into(), value, min, max })
}

fn length(field: &str, text: &str, max: u64) -> Result<(), PlanError> {
    in_range(format!("the length of {field}"), text.len() as u64, 1, max)
}

fn check_steps(steps: Option<u32>) -> Result<(), PlanError> {
    steps.map_or(Ok(()), |steps| in_range("task.steps", steps.into(), 1, 10_000_000))
}

/// The rest is the trainer's business, but a plan is its own JSON, to the digest: a number with more digits than are read
/// exactly would be another one after each reading.
fn check_settings(settings: Option<&Settings>) -> Result<(), PlanError> {
    let again =
        settings.map(|settings| serde_json::to_string(settings).map(|json| serde_json::from_str(&json)));
    match again {
        None => Ok(()),
        Some(Ok(Ok(again))) if settings == Some(&again) => Ok(()),
        Some(_) => Err(PlanError::Value {
            field: "task.settings".into(),
            problem: "holds a number of more than 15 digits; write it with fewer".into(),
        }),
    }
}

/// A scheme, and something after it: `[a-z][a-z0-9+.-]*://.+`.
fn check_uri(field: &str, uri: &str) -> Result<(), PlanError> {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+.-".contains(c))
    };
    match uri.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) && !rest.is_empty() => Ok(()),
        _ => {
            let problem =
                format!("is {:?}, which is no URI; write for example file:///artifacts/base", one_line(&uri));
            Err(PlanError::Value { field: field.into(), problem })
        }
    }
}

/// Plain HTTP to a host, without a path: `http://[A-Za-z0-9.:\[\]-]+`.
fn check_endpoint(field: &str, endpoint: &str) -> Result<(), PlanError> {
    length(field, endpoint, 512)?;
    let is_host = |host: &str| {
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".:[]-".contains(c))
    };
    match endpoint.strip_prefix("http://") {
        Some(host) if is_host(host) => Ok(()),
        _ => {
            let found = one_line(&endpoint);
            let problem = format!("is {found:?}; write for example http://digits:8080, without a path");
            Err(PlanError::Value { field: field.into(), problem })
        }
    }
}

/// "No more than in a model that never saw it" says nothing beside one that did.
fn check_never_saw(task: &EvaluateTask) -> Result<(), PlanError> {
    let named = task.probes.as_ref().and_then(|probes| probes.never_saw.as_ref());
    match named {
        Some(named) if [&task.candidate, &task.baseline].contains(&named) => Err(PlanError::Value {
            field: "task.probes.neverSaw".into(),
            problem: "is the candidate or the baseline, which saw the targets; name a model whose teacher never did"
                .into(),
        }),
        _ => Ok(()),
    }
}

fn check_resolved(targets: &[PlannedTarget]) -> Result<(), PlanError> {
    match targets.iter().find(|target| target.replacement == Override::Nearest) {
        Some(target) => Err(PlanError::UnresolvedOverride(target.label.clone())),
        None => Ok(()),
    }
}

/// Targets and kept labels make sense if no label is there twice and every override is kept.
fn check_targets(targets: &[PlannedTarget], kept: &[String]) -> Result<(), PlanError> {
    in_range("the number of task.targets", targets.len() as u64, 1, MAX_LABELS as u64)?;
    in_range("the number of task.kept", kept.len() as u64, 1, MAX_LABELS as u64)?;
    let all = (targets.len() + kept.len()) as u64;
    in_range("the number of task.targets and task.kept", all, 2, MAX_LABELS as u64)?;
    let named = |field: &str, label: &str| {
        check_label(label).map_err(|problem| PlanError::Value { field: field.into(), problem })
    };
    let mut forgotten = BTreeSet::new();
    for (index, target) in targets.iter().enumerate() {
        let (field, label) = (format!("task.targets[{index}].label"), &target.label);
        named(&field, label)?;
        if !forgotten.insert(label.as_str()) {
            return Err(PlanError::DuplicateTarget { field, label: label.clone() });
        }
    }
    let mut stays = BTreeSet::new();
    for (index, label) in kept.iter().enumerate() {
        let field = format!("task.kept[{index}]");
        named(&field, label)?;
        if forgotten.contains(label.as_str()) || !stays.insert(label.as_str()) {
            return Err(PlanError::KeptTwice { field, label: label.clone() });
        }
    }
    targets.iter().try_for_each(|target| check_override(target, &forgotten, &stays))
}

fn check_override(
    target: &PlannedTarget,
    forgotten: &BTreeSet<&str>,
    stays: &BTreeSet<&str>,
) -> Result<(), PlanError> {
    let Override::Fixed { label } = &target.replacement else { return Ok(()) };
    let cut = |label: &str| one_line(&label);
    if forgotten.contains(label.as_str()) {
        return Err(PlanError::OverrideForgotten { target: cut(&target.label), label: cut(label) });
    }
    if !stays.contains(label.as_str()) {
        return Err(PlanError::OverrideNotKept { target: cut(&target.label), label: cut(label) });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
