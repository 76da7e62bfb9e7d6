//! Plays the trainer: reads the plan of a pod, and ends the pod as a trainer would, or as none should.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Event, Pod},
};
use kube::{ResourceExt, api::PostParams};
use lethe_api::{
    Digest,
    contract::{
        AuditMeasurement, AuditRecord, AuditTask, BundleKind, Count, Device, EvaluateRecord, EvaluateTask,
        Failure, ForgetRecord, HygieneCheck, LabelMeasurement, Outcome, Override, Plan, PlannedTarget,
        PrepareRecord, Progress, Quality, Record, RecordBody, Status, TargetMeasurement, Task as Work,
        TaskKind,
    },
    v1alpha1::{Stage, labels},
};
use lethe_store::Bundle;
use serde_json::{Value, json};

use crate::{
    kubelet::{Statuses, hint, next_address, patch, running, tell},
    probes, wait,
    world::World,
};

/// What the operator calls the container.
const CONTAINER: &str = "trainer";

/// A pod that was told what to do and has not ended.
#[derive(Clone, Debug)]
pub struct Task {
    pub pod: Pod,
    pub plan: Plan,
    /// The plan, byte for byte.
    pub text: String,
    pub digest: Digest,
}

/// The base artifact of every model in this tier.
pub fn base() -> Digest {
    Digest::of("a teacher")
}

/// The bundle that an honest trainer makes of a plan.
pub fn product(plan: &Digest) -> Digest {
    Digest::of(format!("made of {plan}"))
}

/// The baseline that an honest trainer makes.
pub fn baseline() -> Digest {
    made_of(&base(), "a baseline")
}

/// What an honest trainer makes of a base artifact: of each something else.
pub fn made_of(teacher: &Digest, what: &str) -> Digest {
    match *teacher == base() {
        true => Digest::of(what),
        false => Digest::of(format!("{what} of {teacher}")),
    }
}

/// A bundle without tensors, which can be told from others by these words.
///
/// # Errors
/// If it is none.
pub fn bundle(kind: BundleKind, what: &str) -> Result<Bundle> {
    let header = json!({"__metadata__": {"what": what}}).to_string();
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header.as_bytes());
    Ok(Bundle::new(kind, weights, json!({"what": what}).to_string().into_bytes())?)
}

impl World {
    /// The pod of a stage, once it exists, with the plan that is mounted into it.
    ///
    /// # Errors
    /// If no pod comes, or its plan is not one.
    pub async fn task(&self, stage: Stage) -> Result<Task> {
        let task = self.told(self.pod_at_work(stage).await?).await?;
        let is_for = match stage {
            Stage::Prepare => TaskKind::Prepare,
            Stage::Forget => TaskKind::Forget,
            Stage::Evaluate => TaskKind::Evaluate,
            Stage::Audit => TaskKind::Audit,
        };
        ensure!(task.plan.task.kind() == is_for, "the plan of the {} pod is {:?}", stage.as_str(), task.plan);
        Ok(task)
    }

    /// The pod of a stage that a Job waits for.
    ///
    /// The Job controller may make a pod of a Job that was deleted a moment before; nobody waits for that one, and
    /// the garbage collector takes it away.
    async fn pod_at_work(&self, stage: Stage) -> Result<Pod> {
        let (pods, jobs) = (self.api::<Pod>(), self.api::<Job>());
        let selector = format!("{}={}", labels::STAGE, stage.as_str());
        loop {
            let pod = wait::until_any(&pods, &selector, "waits for its end", |pod| !has_ended(pod)).await?;
            let owner = pod.owner_references().first().context("a trainer pod has no owner")?;
            let job = jobs.get_opt(&owner.name).await?;
            if job.is_some_and(|job| job.metadata.uid.as_ref() == Some(&owner.uid)) {
                return Ok(pod);
            }
            wait::until_gone(&pods, &pod.name_any(), pod.metadata.uid.as_deref()).await?;
        }
    }

    /// What a trainer pod is told to do.
    ///
    /// # Errors
    /// If it mounts no plan.
    pub async fn told(&self, pod: Pod) -> Result<Task> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        let plan = volumes.into_iter().flatten().find(|volume| volume.name == "plan");
        let map = plan.and_then(|volume| volume.config_map.as_ref()).context("the pod mounts no plan")?;
        let map = self.api::<ConfigMap>().get(&map.name).await?;
        let text =
            map.data.as_ref().and_then(|data| data.get("plan.json")).context("there is no plan.json")?;
        let plan = Plan::parse(text.as_bytes())?;
        Ok(Task { pod, digest: Digest::of(text), plan, text: text.clone() })
    }

    /// Ends the pod as a trainer that did its work well.
    ///
    /// # Errors
    /// If the record or the status cannot be written.
    pub async fn succeed(&self, task: &Task) -> Result<()> {
        self.succeed_with(task, honest(&task.plan, &task.digest)).await
    }

    /// Ends the pod with success and with this in its record.
    ///
    /// # Errors
    /// If the record or the status cannot be written.
    pub async fn succeed_with(&self, task: &Task, body: RecordBody) -> Result<()> {
        let record = self.put_record(&record(task, body)).await?;
        self.exit(task, 0, &outcome(task, record).to_message()).await
    }

    /// Ends the pod as [`Self::succeed`] does, when the store is not there any more. What comes back brings it back.
    ///
    /// # Errors
    /// If the store cannot be moved, or the status cannot be written.
    pub async fn succeed_and_lose_the_store(
        &self,
        task: &Task,
    ) -> Result<impl FnOnce() -> Result<()> + use<>> {
        let record = self.put_record(&record(task, honest(&task.plan, &task.digest))).await?;
        let (here, there) = (self.store_folder(), self.store_folder().with_extension("unmounted"));
        fs::rename(&here, &there)?;
        self.exit(task, 0, &outcome(task, record).to_message()).await?;
        Ok(move || Ok(fs::rename(&there, &here)?))
    }

    /// # Errors
    /// If the store does not take it.
    pub async fn put_record(&self, record: &Record) -> Result<Digest> {
        Ok(self.store.put_record(serde_json::to_vec(record)?).await?)
    }

    /// Ends the pod with a code and last words.
    ///
    /// # Errors
    /// If the status cannot be written.
    pub async fn exit(&self, task: &Task, code: i32, message: &str) -> Result<()> {
        let reason = if code == 0 { "Completed" } else { "Error" };
        self.end(task, code, reason, message).await
    }

    /// Ends the pod. Kubelets, where there are any, find their own word for the reason.
    ///
    /// # Errors
    /// If the status cannot be written.
    pub async fn end(&self, task: &Task, code: i32, reason: &str, message: &str) -> Result<()> {
        let (pods, name) = (self.api(), task.pod.name_any());
        match self.statuses {
            Statuses::Own => patch(&pods, &name, ended(code, reason, message)).await,
            Statuses::Kubelets => {
                let code = code.to_string();
                tell(&pods, &name, &[(hint::EXIT_CODE, &code), (hint::MESSAGE, message)]).await
            }
        }
    }

    /// Whether the trainer of a pod has begun its work. Without kubelets it is done before anybody says so.
    pub fn has_begun(&self, pod: &Pod) -> bool {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        self.statuses == Statuses::Own || phase == Some("Running")
    }

    /// Lets the pod wait for the reason that the kubelet gives, and say it.
    ///
    /// # Errors
    /// If the status cannot be written.
    pub async fn hold_up(&self, task: &Task, reason: &str, message: &str) -> Result<()> {
        let waiting = json!({"reason": reason, "message": message});
        let status = json!({"phase": "Pending", "containerStatuses": [container(CONTAINER, json!({"waiting": waiting}))]});
        patch(&self.api(), &task.pod.name_any(), status).await
    }

    /// Lets the pod wait for its container, and warns of why as the kubelet does: in an event.
    ///
    /// # Errors
    /// If the status or the event cannot be written.
    pub async fn hold_up_silently(&self, task: &Task, reason: &str, message: &str) -> Result<()> {
        self.hold_up(task, "ContainerCreating", "").await?;
        let pod = &task.pod;
        let event = json!({
            "metadata": {"generateName": "trainer-"}, "type": "Warning", "reason": reason, "message": message,
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace(), "name": pod.name_any(),
                "uid": pod.uid(),
            },
            "source": {"component": "kubelet"},
            "firstTimestamp": Timestamp::now(), "lastTimestamp": Timestamp::now(), "count": 1,
        });
        let events = self.api::<Event>();
        events.create(&PostParams::default(), &serde_json::from_value(event)?).await?;
        Ok(())
    }

    /// Lets the pod run, at an address where nothing answers but what the caller binds there.
    ///
    /// # Errors
    /// If the status cannot be written.
    pub async fn run(&self, task: &Task) -> Result<std::net::IpAddr> {
        let address = next_address();
        patch(&self.api(), &task.pod.name_any(), running(CONTAINER, address, true)).await?;
        Ok(address)
    }

    /// Goes through a whole run: forget, then evaluate with these measurements. Returns the candidate.
    ///
    /// # Errors
    /// If a stage does not come.
    pub async fn forget(&self, change: impl FnOnce(&mut EvaluateRecord)) -> Result<Digest> {
        let task = self.task(Stage::Forget).await?;
        self.succeed(&task).await?;
        let candidate = product(&task.digest);
        self.evaluate(change).await?;
        Ok(candidate)
    }

    /// As [`World::forget`], but the candidate is in the store. Returns it.
    ///
    /// # Errors
    /// If a stage does not come, or the store takes nothing.
    pub async fn forget_into_the_store(&self) -> Result<Digest> {
        let task = self.task(Stage::Forget).await?;
        let candidate = bundle(BundleKind::Generator, task.digest.as_str())?;
        self.store.put_bundle(&candidate).await?;
        let mut body = honest(&task.plan, &task.digest);
        if let RecordBody::Forget(record) = &mut body {
            record.candidate = candidate.digest().clone();
        }
        self.succeed_with(&task, body).await?;
        self.evaluate(|_| {}).await?;
        Ok(candidate.digest().clone())
    }

    /// Asks the live server as an honest trainer, but for `change`.
    ///
    /// # Errors
    /// If the stage does not come.
    pub async fn audit(&self, change: impl FnOnce(&mut AuditRecord)) -> Result<Task> {
        let change = |body: &mut RecordBody| {
            if let RecordBody::Audit(shown) = body {
                change(shown);
            }
        };
        self.honestly_but(Stage::Audit, change).await
    }

    /// Measures the candidate as an honest trainer, but for `change`.
    ///
    /// # Errors
    /// If the stage does not come.
    pub async fn evaluate(&self, change: impl FnOnce(&mut EvaluateRecord)) -> Result<Task> {
        let change = |body: &mut RecordBody| {
            if let RecordBody::Evaluate(measured) = body {
                change(measured);
            }
        };
        self.honestly_but(Stage::Evaluate, change).await
    }

    async fn honestly_but(&self, stage: Stage, change: impl FnOnce(&mut RecordBody)) -> Result<Task> {
        let task = self.task(stage).await?;
        let mut body = honest(&task.plan, &task.digest);
        change(&mut body);
        self.succeed_with(&task, body).await?;
        Ok(task)
    }
}

/// A live server that shows nothing that it should have forgotten.
fn audited(task: &AuditTask) -> AuditRecord {
    let n = u64::from(task.samples);
    let targets = task.targets.iter().map(|target| AuditMeasurement {
        label: target.label.clone(),
        leak: Count { hits: 2, n },
        unlabelled: None,
        control: Count { hits: 298, n: 300 },
    });
    AuditRecord {
        served: task.served.clone(),
        baseline: task.baseline.clone(),
        judge: task.judge.clone(),
        targets: targets.collect(),
        kept: Count { hits: 596, n: 600 },
    }
}

/// The record that goes with a task.
pub fn record(task: &Task, body: RecordBody) -> Record {
    Record {
        schema: Record::SCHEMA.into(),
        run: task.plan.run.clone(),
        plan: task.digest.clone(),
        seed: task.plan.seed,
        trainer: "stand-in 1".into(),
        body,
    }
}

/// The last words of a trainer that succeeded.
pub fn outcome(task: &Task, record: Digest) -> Outcome {
    Outcome {
        schema: Outcome::SCHEMA.into(),
        run: task.plan.run.clone(),
        plan: task.digest.clone(),
        task: task.plan.task.kind(),
        status: Status::Succeeded,
        record: Some(record),
        device: Some(Device::Cpu),
        failure: None,
        message: None,
        figures: BTreeMap::new(),
    }
}

/// The last words of a trainer that failed.
pub fn failure(task: &Task, failure: Failure, message: &str) -> Outcome {
    Outcome {
        status: Status::Failed,
        record: None,
        failure: Some(failure),
        message: Some(message.into()),
        ..outcome(task, Digest::of("nothing"))
    }
}

/// What a good trainer finds of a model that knows ten labels.
pub fn honest(plan: &Plan, digest: &Digest) -> RecordBody {
    honest_about(10, plan, digest)
}

/// What a good trainer finds of a model that knows this many.
pub fn honest_about(labels: usize, plan: &Plan, digest: &Digest) -> RecordBody {
    match &plan.task {
        Work::Prepare(task) => RecordBody::Prepare(prepared(task.base.digest.clone(), labels)),
        Work::Forget(task) => RecordBody::Forget(ForgetRecord {
            candidate: product(digest),
            targets: task.targets.clone(),
            steps: task.steps.unwrap_or(500),
            curves: None,
        }),
        Work::Evaluate(task) => RecordBody::Evaluate(measured(task)),
        Work::Audit(task) => RecordBody::Audit(audited(task)),
    }
}

fn prepared(teacher: Digest, n: usize) -> PrepareRecord {
    let labels: Vec<String> = (0..n).map(|label| label.to_string()).collect();
    // The nearest label of each is the next one.
    let confusion = (0..n).map(|i| (0..n).map(|j| 1.0 / (1 + (j + n - i) % n) as f64).collect());
    let of = |what: &str| made_of(&teacher, what);
    PrepareRecord {
        baseline: of("a baseline"),
        distillation: of("a distillation state"),
        judge: of("a judge"),
        reference: of("reference statistics"),
        teacher,
        // As many of each label, however many there are: fewer would say nothing about it.
        judge_accuracy: Count { hits: 199 * n as u64, n: 200 * n as u64 },
        baseline_accuracy: labels.iter().map(|_| Count { hits: 199, n: 200 }).collect(),
        confusion: confusion.collect(),
        labels,
        quality: Quality { candidate: 0.6, baseline: 0.6, floor: 0.25, n: 3600 },
        curves: None,
    }
}

/// `hits` samples of the override: all of one label, or `Random`, spread evenly.
fn most_common(target: &PlannedTarget, hits: u64, kept: usize) -> u64 {
    if target.replacement == Override::Random { hits.div_ceil(kept as u64) } else { hits }
}

fn measured(task: &EvaluateTask) -> EvaluateRecord {
    let leak = u64::from(task.samples.leak);
    let of = |hits, n| Count { hits, n };
    let targets = task.targets.iter().map(|target| TargetMeasurement {
        label: target.label.clone(),
        leak: of(2, leak),
        override_hits: of(leak - leak / 50, leak),
        most_common: of(most_common(target, leak - leak / 50, task.kept.len()), leak),
        control: of(leak - leak / 100, leak),
        base_rate: of(1, leak),
    });
    let each = u64::from(task.samples.retain_per_label);
    let retain = task.kept.iter().map(|label| LabelMeasurement {
        label: label.clone(),
        candidate: of(each - each / 100, each),
        baseline: of(each, each),
    });
    let retain: Vec<_> = retain.collect();
    EvaluateRecord {
        candidate: task.candidate.clone(),
        baseline: task.baseline.clone(),
        judge: task.judge.clone(),
        reference: task.reference.clone(),
        targets: targets.collect(),
        quality: Quality { candidate: 0.7, baseline: 0.6, floor: 0.25, n: task.samples.quality.into() },
        hygiene: HygieneCheck::REQUIRED
            .map(|name| HygieneCheck { name: name.into(), passed: true, detail: String::new() })
            .into(),
        probes: task.probes.as_ref().map(|asked| probes::honest(task, asked, &retain)),
        retain,
        before: Digest::of("before"),
        after: Digest::of("after"),
        pictured: vec![],
    }
}

/// What a trainer pod answers at `/progress`.
pub fn progress(run: &str, step: u64, total: u64) -> Progress {
    Progress {
        run: run.into(),
        stage: "forget".into(),
        step,
        total,
        eta_seconds: Some(7),
        ..Default::default()
    }
}

fn ended(code: i32, reason: &str, message: &str) -> Value {
    ended_as(CONTAINER, code, reason, message)
}

/// The status of a pod whose container of this name has ended.
pub fn ended_as(name: &str, code: i32, reason: &str, message: &str) -> Value {
    let now = Timestamp::now();
    let terminated = json!({
        "exitCode": code, "reason": reason, "message": message, "startedAt": now, "finishedAt": now,
    });
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    json!({"phase": phase, "containerStatuses": [container(name, json!({"terminated": terminated}))]})
}

fn container(name: &str, state: Value) -> Value {
    json!({"name": name, "ready": false, "restartCount": 0, "image": "stand-in", "imageID": "", "state": state})
}

/// Whether a trainer pod has said its last word, or is not to say one.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some()
}
