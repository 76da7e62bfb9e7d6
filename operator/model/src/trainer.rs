//! What trainer pods do: honest ones, and all the others.

use std::collections::BTreeMap;

use lethe_api::{
    Digest,
    contract::{
        Attempt, AuditMeasurement, AuditRecord, AuditTask, Budget, Count, Device, EvaluateRecord,
        EvaluateTask, Fidelity, FidelityMeasurement, ForgetRecord, ForgetTask, HygieneCheck,
        LabelMeasurement, NeighbourMeasurement, Outcome, Override, Plan, PlannedTarget, PrepareRecord,
        PrepareTask, ProbeName, ProbeRecord, ProbeTask, Quality, Record, RecordBody, Sighting, Status,
        TargetMeasurement, Task,
    },
};

use crate::cluster::Waits;

/// What becomes of one attempt of a pod.
#[derive(Clone)]
pub enum Fate {
    Succeeds { message: String, record: Vec<u8> },
    Exits { code: i32, message: String },
    Waits(Waits),
    Hangs,
}

pub fn digest(name: &str) -> Digest {
    Digest::of(name)
}

/// The labels that the base artifact knows.
pub const LABELS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Does what the plan says, and does it well.
pub fn honest(plan: &Plan) -> Fate {
    reports(plan, honest_body(plan))
}

/// Succeeds with a record of its plan that says `body`.
pub fn reports(plan: &Plan, body: RecordBody) -> Fate {
    let record = Record {
        schema: Record::SCHEMA.into(),
        run: plan.run.clone(),
        plan: plan.digest(),
        seed: plan.seed,
        trainer: "lethe-trainer test".into(),
        body,
    };
    let record = serde_json::to_vec(&record).expect("a record is JSON");
    Fate::Succeeds { message: outcome(plan, &record).to_message(), record }
}

pub fn outcome(plan: &Plan, record: &[u8]) -> Outcome {
    Outcome {
        schema: Outcome::SCHEMA.into(),
        run: plan.run.clone(),
        plan: plan.digest(),
        task: plan.task.kind(),
        status: Status::Succeeded,
        record: Some(Digest::of(record)),
        device: Some(Device::Cpu),
        failure: None,
        message: None,
        figures: BTreeMap::new(),
    }
}

pub fn honest_body(plan: &Plan) -> RecordBody {
    match &plan.task {
        Task::Prepare(task) => RecordBody::Prepare(prepared(task)),
        Task::Forget(task) => RecordBody::Forget(forgotten(plan.seed, task)),
        Task::Evaluate(task) => RecordBody::Evaluate(measured(task)),
        Task::Audit(task) => RecordBody::Audit(audited(task)),
    }
}

/// What is made of a base artifact: of each something else.
pub fn made_of(base: &Digest, what: &str) -> Digest {
    match *base == digest("teacher") {
        true => digest(what),
        false => digest(&format!("{what} of {base}")),
    }
}

/// A good baseline. The label nearest to i is i + 1.
fn prepared(task: &PrepareTask) -> PrepareRecord {
    let count = LABELS.len();
    let digest = |what: &str| made_of(&task.base.digest, what);
    let near = |i: usize, j: usize| 1.0 / (1 + (j + count - i) % count) as f64;
    PrepareRecord {
        teacher: task.base.digest.clone(),
        labels: LABELS.map(Into::into).to_vec(),
        baseline: digest("baseline"),
        distillation: digest("distillation"),
        judge: digest("judge"),
        reference: digest("reference"),
        judge_accuracy: Count { hits: 998, n: 1000 },
        baseline_accuracy: vec![Count { hits: 99, n: 100 }; count],
        confusion: (0..count).map(|i| (0..count).map(|j| near(i, j)).collect()).collect(),
        quality: Quality { candidate: 0.7, baseline: 0.7, floor: 0.25, n: 3600 },
        curves: None,
    }
}

/// The candidate is a function of the plan.
fn forgotten(seed: u64, task: &ForgetTask) -> ForgetRecord {
    let of = made_of(&task.teacher, "candidate");
    let candidate = digest(&format!("{} {seed} {:?}", of, task.targets));
    ForgetRecord { candidate, targets: task.targets.clone(), steps: 500, curves: None }
}

/// `hits` samples of the override: all of one label, or `Random`, spread evenly.
fn most_common(target: &PlannedTarget, hits: u64, kept: usize) -> u64 {
    if target.replacement == Override::Random { hits.div_ceil(kept as u64) } else { hits }
}

pub fn measured(task: &EvaluateTask) -> EvaluateRecord {
    let n = u64::from(task.samples.leak);
    let target = |target: &PlannedTarget| {
        assert_ne!(target.replacement, Override::Nearest, "an evaluation needs resolved overrides");
        TargetMeasurement {
            label: target.label.clone(),
            leak: Count { hits: 2, n },
            override_hits: Count { hits: n - 20, n },
            most_common: Count { hits: most_common(target, n - 20, task.kept.len()), n },
            control: Count { hits: n - 10, n },
            base_rate: Count { hits: 3, n },
        }
    };
    EvaluateRecord {
        candidate: task.candidate.clone(),
        baseline: task.baseline.clone(),
        judge: task.judge.clone(),
        reference: task.reference.clone(),
        targets: task.targets.iter().map(target).collect(),
        retain: task.kept.iter().map(|label| kept(task, label)).collect(),
        quality: Quality { candidate: 0.9, baseline: 0.7, floor: 0.25, n: task.samples.quality.into() },
        hygiene: HygieneCheck::REQUIRED
            .map(|name| HygieneCheck { name: name.into(), passed: true, detail: String::new() })
            .into(),
        probes: task.probes.as_ref().map(|asked| probed(task, asked)),
        before: digest("before"),
        after: digest("after"),
        pictured: vec![],
    }
}

fn kept(task: &EvaluateTask, label: &str) -> LabelMeasurement {
    let n = u64::from(task.samples.retain_per_label);
    let count = Count { hits: n - 1, n };
    LabelMeasurement { label: label.into(), candidate: count, baseline: count }
}

/// Nothing is found in the candidate, and everything in what has forgotten nothing.
fn probed(task: &EvaluateTask, asked: &ProbeTask) -> ProbeRecord {
    let n = u64::from(task.samples.leak);
    let attempt = |probe: ProbeName, attempt: &str, target: &PlannedTarget| Attempt {
        probe,
        attempt: attempt.into(),
        target: target.label.clone(),
        seeds: vec![1],
        budget: Budget::least(probe, attempt),
        candidate: Sighting { hits: 2, inside: 0, n },
        control: Sighting { hits: n - 10, inside: n - 20, n },
        never_saw: asked.never_saw.as_ref().map(|_| Sighting { hits: n / 20, inside: 0, n }),
    };
    let at = |target| {
        let made = ProbeName::ALL.into_iter().filter(|probe| probe.level() <= asked.level);
        made.flat_map(move |probe| {
            probe.attempts(asked.level).iter().map(move |name| attempt(probe, name, target))
        })
    };
    let near = |target: &PlannedTarget| {
        let near = task.kept.iter().take(NeighbourMeasurement::EACH).map(|label| kept(task, label));
        let target = target.label.clone();
        near.map(move |neighbour| NeighbourMeasurement { target: target.clone(), neighbour })
    };
    let share = Count { hits: 140, n: 150 };
    let same = Fidelity { precision: share, recall: share };
    let fixed = task.targets.iter().filter(|target| target.replacement != Override::Random);
    let places = std::iter::once(None).chain(fixed.map(|target| Some(target.label.clone())));
    ProbeRecord {
        attacker: None,
        asked: asked.clone(),
        attempts: task.targets.iter().flat_map(at).collect(),
        neighbours: task.targets.iter().flat_map(near).collect(),
        fidelity: places
            .map(|target| FidelityMeasurement { target, candidate: same, baseline: same })
            .collect(),
    }
}

/// A live server that shows nothing that it should have forgotten.
pub fn audited(task: &AuditTask) -> AuditRecord {
    let target = |target: &PlannedTarget| AuditMeasurement {
        label: target.label.clone(),
        leak: Count { hits: 2, n: task.samples.into() },
        unlabelled: None,
        control: Count { hits: 298, n: 300 },
    };
    AuditRecord {
        served: task.served.clone(),
        baseline: task.baseline.clone(),
        judge: task.judge.clone(),
        targets: task.targets.iter().map(target).collect(),
        kept: Count { hits: 596, n: 600 },
    }
}

/// An audit that differs from a good one by `change`; the other stages are honest.
pub fn shows(plan: &Plan, change: impl FnOnce(&mut AuditRecord)) -> Fate {
    let mut body = honest_body(plan);
    if let RecordBody::Audit(record) = &mut body {
        change(record);
    }
    reports(plan, body)
}

/// An evaluation that differs from a good one by `change`; the other stages are honest.
pub fn measures(plan: &Plan, change: impl FnOnce(&mut EvaluateRecord)) -> Fate {
    let mut body = honest_body(plan);
    if let RecordBody::Evaluate(record) = &mut body {
        change(record);
    }
    reports(plan, body)
}
