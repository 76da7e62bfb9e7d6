//! A plain data model of what an API server holds, and of what happens in a cluster by itself.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStatus},
        batch::v1::{Job, JobCondition, JobStatus},
        core::v1::{
            ConfigMap, Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
            ContainerStateWaiting, ContainerStatus, Event, ObjectReference, Pod, PodCondition, PodSpec,
            PodStatus, PodTemplateSpec, Service,
        },
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Resource, ResourceExt};
use lethe_api::{
    Digest,
    contract::{Plan, exit},
    v1alpha1::{
        BUNDLE_ANNOTATION, ClusterUnlearnPolicy, DiffusionModel, UnlearnApproval, UnlearnPolicy,
        UnlearnRequest, UnlearnRun,
    },
};
use lethe_core::{
    canary::Seen,
    job::CONTAINER,
    kueue::Workload,
    rollout::{self, PodReport},
};
use serde::Serialize;

use crate::trainer::Fate;

pub type Named<T> = BTreeMap<String, T>;

/// Every object there is, by name: one namespace, and what is the whole cluster's.
#[derive(Clone, Default)]
pub struct Cluster {
    pub models: Named<DiffusionModel>,
    pub policies: Named<UnlearnPolicy>,
    pub cluster_policies: Named<ClusterUnlearnPolicy>,
    pub requests: Named<UnlearnRequest>,
    pub approvals: Vec<UnlearnApproval>,
    pub runs: Named<UnlearnRun>,
    pub config_maps: Named<ConfigMap>,
    pub jobs: Named<Work>,
    pub deployment: Option<Deployment>,
    /// What the pods of the Deployment really serve.
    pub serving: Option<Digest>,
    /// A second Deployment beside it.
    pub canary: Option<Beside>,
    pub service: Option<Service>,
    /// Whether the API server knows Workloads, and somebody reads them.
    pub has_kueue: bool,
}

/// A Deployment beside the serving target, and what its pods really serve.
#[derive(Clone, Debug, Serialize)]
pub struct Beside {
    pub deployment: Deployment,
    pub serving: Option<Digest>,
}

impl Beside {
    /// As the API server admits it, under a uid.
    pub fn new(mut deployment: Deployment, uid: String) -> Self {
        deployment.metadata.uid = Some(uid);
        deployment.metadata.generation = Some(1);
        Beside { deployment, serving: None }
    }

    /// Changes its pods, as a patch would.
    pub fn shape(&mut self, labels: &BTreeMap<String, String>, replicas: i32) {
        let spec = self.deployment.spec.as_mut().expect("built with a spec");
        spec.replicas = Some(replicas);
        let pods = spec.template.metadata.get_or_insert_default();
        pods.labels.get_or_insert_default().extend(labels.clone());
        // Two generations are enough: the one that its pods run, and a newer one.
        self.deployment.metadata.generation = Some(2);
        self.deployment.status = Some(settled(1));
    }

    /// One move of the Deployment controller.
    pub fn roll(&mut self, works: bool) -> bool {
        let wanted = replicas(&self.deployment);
        let status = settled_with(self.deployment.metadata.generation.unwrap_or_default(), wanted);
        let status = match works {
            true => status,
            false => DeploymentStatus { available_replicas: Some(0), ..status },
        };
        let serving = rollout::reference(&self.deployment).filter(|_| works && wanted > 0);
        if self.deployment.status.as_ref() == Some(&status) && self.serving == serving {
            return false;
        }
        (self.deployment.status, self.serving) = (Some(status), serving);
        true
    }

    /// What the operator sees of it.
    pub fn seen(&self) -> Seen {
        let pods = if self.serving.is_some() { replicas(&self.deployment) } else { 0 };
        let digest = || self.serving.clone().ok_or_else(|| "it serves nothing".into());
        let report = |pod| PodReport { pod: format!("digits-canary-{pod}"), digest: digest() };
        let deployment = Some(self.deployment.clone());
        Seen { deployment, service: None, reports: (0..pods).map(report).collect() }
    }
}

/// A Job and its pods.
#[derive(Clone, Serialize)]
pub struct Work {
    pub job: Job,
    pub pods: Vec<Pod>,
    /// What the cluster has published about them.
    pub events: Vec<Event>,
    /// What Kueue says of the Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

impl Work {
    pub fn new(job: Job) -> Self {
        Work { job, pods: vec![], events: vec![], workload: None }
    }

    /// Somebody lets it go on, or takes its pods away.
    pub fn suspend(&mut self, suspend: Option<bool>) {
        self.job.spec.as_mut().expect("every Job has a spec").suspend = suspend;
    }

    /// Pods of a suspended Job are deleted, and no time counts for it. True if something had to be done.
    fn rest(&mut self) -> bool {
        let pods = self.pods.len();
        self.pods.retain(|pod| matches!(phase(pod), "Failed" | "Succeeded"));
        let started = self.job.status.as_mut().and_then(|status| status.start_time.take());
        started.is_some() || pods > self.pods.len()
    }

    pub fn is_finished(&self) -> bool {
        self.job.status.as_ref().is_some_and(|status| status.conditions.is_some())
    }

    pub fn has_succeeded(&self) -> bool {
        let conditions = self.job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Complete")
    }

    pub fn is_running(&self) -> bool {
        !self.is_finished() && self.pods.iter().any(|pod| phase(pod) == "Running")
    }

    /// Ends the Job with a condition, at `now`.
    pub fn end(&mut self, type_: &str, reason: &str, message: &str, now: Timestamp) {
        let status = self.job.status.get_or_insert_default();
        status.completion_time = (type_ == "Complete").then_some(Time(now));
        status.conditions = Some(vec![JobCondition {
            type_: type_.into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_transition_time: Some(Time(now)),
            ..Default::default()
        }]);
    }

    fn ended_at(&self) -> Option<Timestamp> {
        let conditions = self.job.status.as_ref()?.conditions.as_ref()?;
        conditions.first()?.last_transition_time.as_ref().map(|at| at.0)
    }

    fn spec(&self) -> &k8s_openapi::api::batch::v1::JobSpec {
        self.job.spec.as_ref().expect("every Job has a spec")
    }

    /// One move of the Job controller and the kubelet, if there is one to make.
    pub fn advance(&mut self, fate: impl FnOnce(usize) -> Fate, now: Timestamp) -> bool {
        if self.is_finished() {
            return false;
        }
        if self.spec().suspend == Some(true) {
            return self.rest();
        }
        let status = self.job.status.get_or_insert_with(JobStatus::default);
        let started = status.start_time.get_or_insert(Time(now)).0;
        let deadline = self.spec().active_deadline_seconds.expect("every Job has a deadline");
        if now.duration_since(started) >= SignedDuration::from_secs(deadline) {
            self.pods.clear();
            self.end("Failed", "DeadlineExceeded", "Job was active longer than specified deadline", now);
            return true;
        }
        let failed = self.pods.iter().filter(|pod| phase(pod) == "Failed" && !was_told_to_stop(pod)).count();
        match self.pods.last().map(phase) {
            None | Some("Failed") => match fate(failed) {
                Fate::Waits(Waits::Quota) => {
                    let words =
                        "Error creating: pods \"x\" is forbidden: exceeded quota: none, requested: pods=1";
                    self.warn(self.job.uid(), "FailedCreate", words, now)
                }
                _ => {
                    self.pods.push(pod(&self.job, self.pods.len(), now));
                    true
                }
            },
            Some("Pending") => match fate(failed) {
                Fate::Waits(Waits::Mount) => {
                    let words =
                        "MountVolume.SetUp failed for volume \"store\" : claim \"artifacts\" not found";
                    set_waiting(self.pods.last_mut(), Waits::Mount)
                        | self.warn(self.pods.last().and_then(|pod| pod.uid()), "FailedMount", words, now)
                }
                Fate::Waits(state) => set_waiting(self.pods.last_mut(), state),
                _ => set_state(self.pods.last_mut(), "Running", running(now)),
            },
            Some("Running") => self.finish(fate(failed), failed, now),
            _ => false,
        }
    }

    /// Publishes a warning, unless it was published before.
    fn warn(&mut self, about: Option<String>, reason: &str, message: &str, now: Timestamp) -> bool {
        if self.events.iter().any(|event| event.involved_object.uid == about) {
            return false;
        }
        self.events.push(Event {
            type_: Some("Warning".into()),
            reason: Some(reason.into()),
            message: Some(message.into()),
            involved_object: ObjectReference { uid: about, ..Default::default() },
            last_timestamp: Some(Time(now)),
            ..Default::default()
        });
        true
    }

    fn finish(&mut self, fate: Fate, failed: usize, now: Timestamp) -> bool {
        match fate {
            Fate::Hangs | Fate::Waits(_) => false,
            Fate::Succeeds { message, .. } => {
                set_state(self.pods.last_mut(), "Succeeded", terminated(exit::DONE, message, now));
                self.end("Complete", "CompletionsReached", "", now);
                true
            }
            Fate::Exits { code, message } => {
                set_state(self.pods.last_mut(), "Failed", terminated(code, message, now));
                let limit = self.spec().backoff_limit.unwrap_or_default() as usize;
                if exit::FATAL.contains(&code) {
                    self.end("Failed", "PodFailurePolicy", "a pod failed with a fatal exit code", now);
                } else if failed >= limit && code != exit::INTERRUPTED {
                    self.end("Failed", "BackoffLimitExceeded", "Job has reached the specified limit", now);
                }
                true
            }
        }
    }
}

/// As the Job's policy wants it, such an end is no failure.
fn was_told_to_stop(pod: &Pod) -> bool {
    let state =
        pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first()?.state.as_ref());
    state.and_then(|state| state.terminated.as_ref()).is_some_and(|end| end.exit_code == exit::INTERRUPTED)
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn pod(job: &Job, index: usize, now: Timestamp) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("{}-{index}", job.name_any())),
            uid: Some(format!("uid-{}-{index}", job.name_any())),
            ..Default::default()
        },
        status: Some(PodStatus {
            phase: Some("Pending".into()),
            start_time: Some(Time(now)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn running(now: Timestamp) -> ContainerState {
    let running = ContainerStateRunning { started_at: Some(Time(now)) };
    ContainerState { running: Some(running), ..Default::default() }
}

fn terminated(exit_code: i32, message: String, now: Timestamp) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code,
        message: Some(message).filter(|message| !message.is_empty()),
        finished_at: Some(Time(now)),
        ..Default::default()
    };
    ContainerState { terminated: Some(terminated), ..Default::default() }
}

/// What pods of the trainer run, in the words of the container runtime.
pub const IMAGE: &str = "example.org/lethe/trainer@sha256:0000";

/// True if this changed the pod.
fn set_state(pod: Option<&mut Pod>, phase: &str, state: ContainerState) -> bool {
    let Some(pod) = pod else { return false };
    let container = ContainerStatus {
        name: CONTAINER.into(),
        image_id: IMAGE.into(),
        state: Some(state),
        ..Default::default()
    };
    let status = PodStatus {
        phase: Some(phase.into()),
        start_time: pod.status.as_ref().and_then(|status| status.start_time.clone()),
        container_statuses: Some(vec![container]),
        ..Default::default()
    };
    pod.status.replace(status.clone()) != Some(status)
}

/// Why a pod stays Pending, or never comes to be.
#[derive(Clone, Copy)]
pub enum Waits {
    Quota,
    Unschedulable,
    Mount,
    ImagePull,
}

fn set_waiting(pod: Option<&mut Pod>, waits: Waits) -> bool {
    let waiting = |reason: &str, message: Option<&str>| {
        let waiting = ContainerStateWaiting { reason: Some(reason.into()), message: message.map(Into::into) };
        ContainerState { waiting: Some(waiting), ..Default::default() }
    };
    match waits {
        // There is no pod then.
        Waits::Quota => false,
        Waits::Mount => set_state(pod, "Pending", waiting("ContainerCreating", None)),
        Waits::ImagePull => {
            let message = "Back-off pulling image \"lethe/trainer:none\"";
            set_state(pod, "Pending", waiting("ImagePullBackOff", Some(message)))
        }
        Waits::Unschedulable => {
            let Some(pod) = pod else { return false };
            let condition = PodCondition {
                type_: "PodScheduled".into(),
                status: "False".into(),
                reason: Some("Unschedulable".into()),
                message: Some("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.".into()),
                ..Default::default()
            };
            let status = PodStatus {
                phase: Some("Pending".into()),
                conditions: Some(vec![condition]),
                ..Default::default()
            };
            pod.status.replace(status.clone()) != Some(status)
        }
    }
}

/// A Deployment that Lethe may change, settled at generation 1.
pub fn deployment(name: &str, container: &str) -> Deployment {
    let pod = PodSpec {
        containers: vec![Container { name: container.into(), ..Default::default() }],
        ..Default::default()
    };
    let meta =
        ObjectMeta { labels: Some([("app".to_owned(), name.to_owned())].into()), ..ObjectMeta::default() };
    Deployment {
        metadata: ObjectMeta {
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            generation: Some(1),
            ..Default::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(2),
            template: PodTemplateSpec { metadata: Some(meta), spec: Some(pod) },
            ..Default::default()
        }),
        status: Some(settled(1)),
    }
}

pub fn settled(generation: i64) -> DeploymentStatus {
    settled_with(generation, 2)
}

fn settled_with(generation: i64, replicas: i32) -> DeploymentStatus {
    DeploymentStatus {
        observed_generation: Some(generation),
        replicas: Some(replicas),
        updated_replicas: Some(replicas),
        available_replicas: Some(replicas),
        ..Default::default()
    }
}

/// How many pods it should have.
pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Changes that, as a patch would.
pub fn scale(deployment: &mut Deployment, replicas: i32) {
    deployment.spec.as_mut().expect("built with a spec").replicas = Some(replicas);
    *deployment.metadata.generation.get_or_insert(0) += 1;
}

/// Sets or removes the annotation, as a patch would.
pub fn annotate(deployment: &mut Deployment, bundle: Option<&str>) {
    let spec = deployment.spec.as_mut().expect("built with a spec");
    let annotations = spec.template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    let before = annotations.get(BUNDLE_ANNOTATION).cloned();
    match bundle {
        Some(bundle) => annotations.insert(BUNDLE_ANNOTATION.into(), bundle.into()),
        None => annotations.remove(BUNDLE_ANNOTATION),
    };
    if before.as_deref() != bundle {
        *deployment.metadata.generation.get_or_insert(0) += 1;
    }
}

impl Cluster {
    /// One move of the Deployment controller: pods of a bundle that `works` come up, others never do.
    pub fn roll(&mut self, works: impl Fn(Option<&Digest>) -> bool) -> bool {
        if let Some(canary) = &mut self.canary
            && canary.roll(works(rollout::reference(&canary.deployment).as_ref()))
        {
            return true;
        }
        let Some(deployment) = &mut self.deployment else { return false };
        let generation = deployment.metadata.generation.unwrap_or_default();
        let named = rollout::reference(deployment);
        let replicas = replicas(deployment);
        let works = replicas == 0 || works(named.as_ref());
        let status = match works {
            true => settled_with(generation, replicas),
            false => DeploymentStatus { updated_replicas: Some(1), replicas: Some(3), ..settled(generation) },
        };
        let serving = if works { named.filter(|_| replicas > 0) } else { self.serving.clone() };
        if deployment.status.as_ref() == Some(&status) && self.serving == serving {
            return false;
        }
        (deployment.status, self.serving) = (Some(status), serving);
        true
    }

    /// Removes one object whose owner is gone, or whose time is over. True if there was one.
    pub fn collect(&mut self, now: Timestamp) -> bool {
        let gone = |model: &&DiffusionModel| {
            model.meta().deletion_timestamp.is_some() && model.finalizers().is_empty()
        };
        if let Some(name) = self.models.values().find(gone).map(|model| model.name_any()) {
            return self.models.remove(&name).is_some();
        }
        let models: Vec<_> = self.models.values().filter_map(|model| model.uid()).collect();
        if self.canary.take_if(|canary| is_orphan(&canary.deployment, &models)).is_some()
            || self.service.take_if(|service| is_orphan(service, &models)).is_some()
        {
            return true;
        }
        if let Some(name) = self.runs.values().find(|run| is_orphan(*run, &models)).map(|run| run.name_any())
        {
            return self.runs.remove(&name).is_some();
        }
        let runs: Vec<_> = self.runs.values().filter_map(|run| run.uid()).collect();
        let expired = |work: &Work| {
            let ttl = i64::from(work.spec().ttl_seconds_after_finished.unwrap_or(i32::MAX));
            work.ended_at().is_some_and(|at| now.duration_since(at) >= SignedDuration::from_secs(ttl))
        };
        let job = self.jobs.iter().find(|(_, work)| is_orphan(&work.job, &runs) || expired(work));
        if let Some(name) = job.map(|(name, _)| name.clone()) {
            return self.jobs.remove(&name).is_some();
        }
        let plan = self.config_maps.iter().find(|(_, map)| is_orphan(*map, &runs));
        match plan.map(|(name, _)| name.clone()) {
            Some(name) => self.config_maps.remove(&name).is_some(),
            None => false,
        }
    }

    /// The plan that a Job's pods read.
    pub fn plan_of(&self, job: &str) -> Plan {
        let data = self.config_maps[job].data.as_ref().expect("a plan's ConfigMap has data");
        let text = data.values().next().expect("with one file");
        Plan::parse(text.as_bytes()).expect("the operator writes plans that a trainer can read")
    }
}

/// Whether the object has an owner and none of its owners lives.
fn is_orphan(object: &impl Resource, living: &[String]) -> bool {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    !owners.is_empty() && owners.iter().all(|owner| !living.contains(&owner.uid))
}
