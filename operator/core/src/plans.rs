//! Plans: what the pods of a run are asked to do.

use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{
        AuditTask, Device, EvaluateTask, ForgetTask, Plan, PlannedTarget, PrepareTask, ProbeLevel, ProbeTask,
        Samples, Task,
    },
    v1alpha1::{
        Baseline, DiffusionModel, Gate, GateName, KnownLabel, Prepared, RequestRef, UnlearnPolicySpec,
        UnlearnRunSpec,
    },
};

use crate::{Installation, names, reference};

/// The Prepare plan of a model. The same base artifact gives the same plan but for the run's name.
pub fn prepare(model: &DiffusionModel, policy: &UnlearnPolicySpec, installation: &Installation) -> Plan {
    let base = model.spec.base.clone();
    let seed = seed(["prepare", base.digest.as_str()]);
    let task = PrepareTask { base, steps: policy.training.prepare_steps };
    named(model, seed, policy, installation, Task::Prepare(task))
}

/// The Forget plan for everything that is to be forgotten, on behalf of `requests`.
pub fn forget(
    model: &DiffusionModel,
    baseline: &Baseline,
    labels: &[KnownLabel],
    targets: Vec<PlannedTarget>,
    requests: &[RequestRef],
    policy: &UnlearnPolicySpec,
    installation: &Installation,
) -> Plan {
    let uid = model.uid().unwrap_or_default();
    let requests: Vec<String> = requests.iter().map(attempt).collect();
    let seed = seed(["forget", uid.as_str()].into_iter().chain(requests.iter().map(String::as_str)));
    let task = forget_task(baseline, labels, targets, policy);
    named(model, seed, policy, installation, Task::Forget(task))
}

/// The plan by which another base forgets everything that is forgotten.
pub fn forget_all(
    model: &DiffusionModel,
    base: &Prepared,
    targets: Vec<PlannedTarget>,
    attempt: u32,
    policy: &UnlearnPolicySpec,
    installation: &Installation,
) -> Plan {
    let (uid, attempt) = (model.uid().unwrap_or_default(), attempt.to_string());
    let seed = seed(["base", uid.as_str(), base.baseline.teacher.as_str(), attempt.as_str()]);
    let task = forget_task(&base.baseline, &base.labels, targets, policy);
    named(model, seed, policy, installation, Task::Forget(task))
}

fn forget_task(
    baseline: &Baseline,
    labels: &[KnownLabel],
    targets: Vec<PlannedTarget>,
    policy: &UnlearnPolicySpec,
) -> ForgetTask {
    let is_target = |name: &str| targets.iter().any(|target| target.label == name);
    let kept = labels.iter().map(|label| label.name.clone()).filter(|name| !is_target(name)).collect();
    ForgetTask {
        teacher: baseline.teacher.clone(),
        baseline: baseline.bundle.clone(),
        distillation: baseline.distillation.clone(),
        judge: baseline.judge.clone(),
        targets,
        kept,
        steps: policy.training.forget_steps,
        robustness: policy.training.robustness,
        reference: policy.training.early_stop.then(|| baseline.reference.clone()),
        settings: None,
    }
}

/// What a seed follows from: the request, and which attempt at it this is.
fn attempt(request: &RequestRef) -> String {
    match request.attempt {
        1 => request.uid.clone(),
        attempt => format!("{}#{attempt}", request.uid),
    }
}

/// The Evaluate plan for the candidate of a Forget run; none for another kind of run.
///
/// It is a function of the run's frozen spec and the candidate, so that an operator that starts anew
/// arrives at the same plan.
pub fn evaluate(run: &str, spec: &UnlearnRunSpec, candidate: &Digest) -> Option<Plan> {
    let plan = Plan::parse(spec.plan.as_bytes()).ok()?;
    let Task::Forget(forget) = plan.task else { return None };
    let samples = samples(&spec.policy.gates, forget.kept.len());
    let task = EvaluateTask {
        candidate: candidate.clone(),
        baseline: forget.baseline,
        judge: forget.judge,
        reference: spec.reference.clone()?,
        targets: forget.targets,
        kept: forget.kept,
        samples,
        probes: spec.policy.probes.map(|probes| ProbeTask {
            level: probes.into(),
            teacher: forget.teacher,
            never_saw: spec.never_saw.clone(),
        }),
    };
    Some(Plan {
        run: run.to_owned(),
        seed: seed(["evaluate", spec.plan_digest.as_str(), candidate.as_str()]),
        task: Task::Evaluate(task),
        ..plan
    })
}

/// The first model that never saw any target of a Forget task, of those that the `DiffusionModel` names for its base.
pub(crate) fn never_saw(model: &DiffusionModel, task: &Task) -> Option<Digest> {
    let Task::Forget(ForgetTask { teacher, targets, .. }) = task else { return None };
    reference::find(&model.spec.never_saw, teacher, targets.iter().map(|target| &target.label))
}

/// What an audit looks for, and with what.
#[derive(Clone, Debug)]
pub struct AuditOf {
    /// Where it is asked, if not where users ask.
    pub endpoint: Option<String>,
    pub served: Digest,
    pub baseline: Digest,
    pub judge: Digest,
    pub targets: Vec<PlannedTarget>,
    pub kept: Vec<String>,
}

/// The plan of an audit of what is served; none without a `served-leak` gate. Audits of different occasions have
/// different names, and ask for different samples.
pub fn audit(
    model: &DiffusionModel,
    of: AuditOf,
    occasion: &str,
    policy: &UnlearnPolicySpec,
    installation: &Installation,
) -> Option<Plan> {
    let gate = policy.gates.iter().find(|gate| gate.name == GateName::ServedLeak)?;
    let serving = &model.spec.serving;
    let by_name = || format!("http://{}:{}", serving.target.name, serving.port);
    let uid = model.uid().unwrap_or_default();
    let seed = seed(["audit", uid.as_str(), of.served.as_str(), occasion]);
    let task = AuditTask {
        endpoint: of.endpoint.or_else(|| serving.endpoint.clone()).unwrap_or_else(by_name),
        model: model.name_any(),
        served: of.served,
        baseline: of.baseline,
        judge: of.judge,
        targets: of.targets,
        kept: of.kept,
        samples: gate.min_samples.unwrap_or(1),
    };
    // It waits for the server most of the time: no GPU is held for that.
    let plan = named(model, seed, policy, installation, Task::Audit(task));
    let nameless = Plan { run: String::new(), device: Device::Cpu, ..plan };
    Some(Plan { run: names::run(&model.name_any(), &nameless), ..nameless })
}

fn named(
    model: &DiffusionModel,
    seed: u64,
    policy: &UnlearnPolicySpec,
    installation: &Installation,
    task: Task,
) -> Plan {
    let nameless = Plan {
        schema: Plan::SCHEMA.into(),
        run: String::new(),
        seed,
        device: policy.trainer.device,
        threads: policy.trainer.threads,
        precision: policy.trainer.precision,
        store: installation.store.clone(),
        task,
    };
    Plan { run: names::run(&model.name_any(), &nameless), ..nameless }
}

/// More no plan asks for.
const MOST_SAMPLES: u32 = 1_000_000;

/// What the gates need, no more: every sample costs GPU time. Probes that draw as many as they are told draw as many as the
/// leak gates do; over all kept labels together that is rounded down to as many of each.
fn samples(gates: &[Gate], kept: usize) -> Samples {
    let wanted = |name: GateName, least: u32| {
        gates
            .iter()
            .filter(|g| g.name == name)
            .filter_map(|g| g.min_samples)
            .max()
            .unwrap_or(least)
            .max(least)
    };
    let kept = u32::try_from(kept).unwrap_or(u32::MAX).max(1);
    let doors = wanted(GateName::OtherDoorLeak, 0).div_ceil(kept).saturating_mul(kept).min(MOST_SAMPLES);
    let leaks = [GateName::DirectLeak, GateName::OverrideConformity, GateName::MultistepLeak];
    Samples {
        leak: leaks.map(|name| wanted(name, 1)).into_iter().fold(doors, u32::max),
        retain_per_label: wanted(GateName::RetainAccuracy, 1).max(wanted(GateName::NeighbourAccuracy, 1)),
        quality: wanted(GateName::RetainQuality, 2),
    }
}

/// Why no candidate could pass the gates of a policy, if so many labels are kept.
pub fn out_of_reach(policy: &UnlearnPolicySpec, kept: usize) -> Option<String> {
    let leak = samples(&policy.gates, kept).leak;
    lethe_gates::out_of_reach(&policy.gates, policy.probes.map(ProbeLevel::from), leak)
}

/// A seed from what a run is about: 52 bits, so that every JSON reader keeps it.
fn seed<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let text = parts.into_iter().collect::<Vec<_>>().join("\n");
    let digest = Digest::of(text);
    u64::from_str_radix(&digest.hex()[..13], 16).unwrap_or_default()
}
