//! The API server's side: what a call changes, and when it is refused.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::{
    api::{apps::v1::Deployment, batch::v1::Job},
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use kube::{Resource, ResourceExt};
use lethe_api::{
    Digest,
    v1alpha1::{ConditionType, UnlearnRun},
};
use lethe_core::{Effect, evidence};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    cluster::{Beside, Work, annotate, replicas, scale},
    invariants,
    world::{Key, Patches, World},
};

impl World {
    /// False if the object is no longer the one that was decided about. Without a status, only asks.
    pub fn write_status(&mut self, key: &Key, version: &Option<String>, status: Option<Value>) -> bool {
        let next = self.bump();
        let is_current = |meta: &ObjectMeta| meta.resource_version == *version;
        match key {
            Key::Model(name) => {
                let object = self.cluster.models.get_mut(name).filter(|object| is_current(object.meta()));
                object.map(|object| replace(&mut object.metadata, &mut object.status, status, next)).is_some()
            }
            Key::Request(name) => {
                let object = self.cluster.requests.get_mut(name).filter(|object| is_current(object.meta()));
                object.map(|object| replace(&mut object.metadata, &mut object.status, status, next)).is_some()
            }
            Key::Run(name) => {
                let object = self.cluster.runs.get_mut(name).filter(|object| is_current(object.meta()));
                let Some(object) = object else { return false };
                // Promoted is applied by another field manager.
                let known = object.status.iter().flat_map(|status| &status.conditions);
                let promoted = known.filter(|c| c.type_ == ConditionType::Promoted.as_str()).cloned();
                let promoted: Vec<_> = promoted.collect();
                replace(&mut object.metadata, &mut object.status, status, next);
                let conditions = &mut object.status.get_or_insert_default().conditions;
                conditions.retain(|c| c.type_ != ConditionType::Promoted.as_str());
                conditions.extend(promoted);
                self.signed(&name.clone());
                true
            }
        }
    }

    /// What a run's status names is in the store.
    fn signed(&mut self, run: &str) {
        let run = self
            .cluster
            .runs
            .get(run)
            .filter(|run| run.status.as_ref().is_some_and(|status| status.evidence.is_some()));
        let Some(statement) = run.and_then(evidence::of_run) else { return };
        let of_bundle = self.evidence.entry(statement.bundle().expect("it is about a bundle")).or_default();
        if !of_bundle.contains(&statement.predicate) {
            of_bundle.push(statement.predicate);
        }
    }

    /// False if the API server refuses the effect.
    pub fn carry_out(&mut self, key: &Key, effect: Effect) -> bool {
        if self.unlogged.is_some() && effect.puts_into_service() {
            // What was decided just before the log broke: nothing is done that it cannot say.
            return false;
        }
        match effect {
            Effect::CreateRun(run) => self.create_run(*run),
            Effect::CreateConfigMap(map) => {
                let mut map = *map;
                self.admit(&mut map);
                let found = self.cluster.config_maps.entry(map.name_any()).or_insert_with(|| map.clone());
                found.owner_references() == map.owner_references() && found.data == map.data
            }
            Effect::CreateJob(job) => self.create_job(*job),
            Effect::DeleteJob { name, uid } => self.delete_job(key, &name, uid.as_deref()),
            Effect::DeleteRun { name, uid } => self.delete_run(&name, &uid),
            Effect::PatchServing { deployment, bundle, .. } => self.patch_serving(&deployment, bundle),
            Effect::ScaleServing { replicas, .. } => {
                let found = self.cluster.deployment.as_mut();
                found.map(|deployment| scale(deployment, replicas)).is_some()
            }
            Effect::CreateService(service) => {
                let mut service = *service;
                self.admit(&mut service);
                let found = self.cluster.service.get_or_insert_with(|| service.clone());
                found.owner_references() == service.owner_references()
            }
            Effect::CreateDeployment(deployment) => self.create_beside(*deployment),
            Effect::ShapeCanary { uid, labels, replicas, .. } => self.shape_beside(&uid, &labels, replicas),
            Effect::DeleteService { uid, .. } => {
                let ours = self.cluster.service.as_ref().map(|it| it.owner_references().to_vec());
                let pods = self.cluster.canary.as_ref().map(|it| &it.deployment);
                let is_first = pods.is_some_and(|it| {
                    it.metadata.deletion_timestamp.is_none() && Some(it.owner_references()) == ours.as_deref()
                });
                assert!(!is_first, "users get the candidate for as long as its Service cannot be deleted");
                self.cluster.service.take_if(|it| it.uid().as_ref() == Some(&uid));
                true
            }
            Effect::DeleteDeployment { uid, .. } => {
                // One that is being deleted already waits for somebody's finalizer.
                let is_it = |it: &Beside| {
                    it.deployment.uid().as_ref() == Some(&uid)
                        && it.deployment.metadata.deletion_timestamp.is_none()
                };
                self.cluster.canary.take_if(|it| is_it(it));
                true
            }
            Effect::MarkPromoted { run, uid, condition } => self.mark_promoted(&run, &uid, condition),
            Effect::ArchiveLedger(map) => {
                self.cluster.config_maps.insert(map.name_any(), *map);
                true
            }
            Effect::SetLedgerAside(map) => {
                let kept =
                    self.cluster.config_maps.get_mut(&map.name_any()).expect("it is beside another ledger");
                kept.data.get_or_insert_default().extend(map.data.unwrap_or_default());
                true
            }
            Effect::AddFinalizer => self.set_finalizer(key, true),
            Effect::RemoveFinalizer => self.set_finalizer(key, false),
        }
    }

    fn patch_serving(&mut self, deployment: &str, bundle: Option<Digest>) -> bool {
        invariants::may_serve(self, bundle.as_ref());
        invariants::may_have_pods(self, bundle.as_ref());
        if self.patches != Patches::Kept {
            // The operator backs off, or looks again later.
            self.now += SignedDuration::from_secs(10);
        }
        let before = self.named_bundle();
        let found = self.cluster.deployment.as_mut().filter(|found| found.name_any() == *deployment);
        let Some(found) = found.filter(|_| self.patches != Patches::Refused) else { return false };
        annotate(found, bundle.as_ref().map(Digest::as_str));
        if self.patches == Patches::SetBack {
            annotate(found, before.as_ref().map(Digest::as_str));
        }
        if before != bundle {
            self.audit.served.push(bundle);
        }
        true
    }

    fn create_beside(&mut self, mut deployment: Deployment) -> bool {
        if let Some(found) = &self.cluster.canary {
            return found.deployment.owner_references() == deployment.owner_references();
        }
        assert!(replicas(&deployment) == 0, "what is created late must put nothing into service");
        self.admit(&mut deployment);
        let uid = deployment.uid().unwrap_or_default();
        self.cluster.canary = Some(Beside::new(deployment, uid));
        true
    }

    fn shape_beside(&mut self, uid: &str, labels: &BTreeMap<String, String>, replicas: i32) -> bool {
        let Some(canary) = &mut self.cluster.canary else { return false };
        if canary.deployment.metadata.uid.as_deref() != Some(uid) {
            return false;
        }
        canary.shape(labels, replicas);
        invariants::may_be_beside(self);
        true
    }

    fn create_run(&mut self, mut run: UnlearnRun) -> bool {
        match self.cluster.runs.get(&run.name_any()) {
            Some(found) => {
                found.spec.plan_digest == run.spec.plan_digest
                    && found.owner_references()[0].uid == run.owner_references()[0].uid
            }
            None => {
                self.admit(&mut run);
                run.status = lethe_model::objects::unseen();
                self.audit.runs_created.push(run.name_any());
                self.cluster.runs.insert(run.name_any(), run);
                true
            }
        }
    }

    fn create_job(&mut self, mut job: Job) -> bool {
        if let Some(found) = self.cluster.jobs.get(&job.name_any()) {
            return found.job.owner_references() == job.owner_references();
        }
        let owner = &job.owner_references()[0].uid;
        let lives = self.cluster.runs.values().any(|run| run.uid().as_ref() == Some(owner));
        // The garbage collector has taken the plan of a run that is gone, and will take its Job.
        assert!(
            !lives || self.cluster.config_maps.contains_key(&job.name_any()),
            "a Job needs its plan first"
        );
        self.admit(&mut job);
        // A run that comes back under its old name is another run.
        self.audit.jobs_created.push(format!("{} of {}", job.name_any(), job.owner_references()[0].uid));
        self.cluster.jobs.insert(job.name_any(), Work::new(job));
        true
    }

    fn delete_job(&mut self, key: &Key, name: &str, meant: Option<&str>) -> bool {
        let Key::Run(run) = key else { panic!("only runs have Jobs, not {key:?}") };
        let uid = self.cluster.runs.get(run).and_then(|run| run.uid());
        let is_own =
            |work: &Work| work.job.owner_references().iter().any(|owner| Some(&owner.uid) == uid.as_ref());
        let is_meant = |work: &Work| meant.is_none_or(|meant| work.job.uid().as_deref() == Some(meant));
        if self.cluster.jobs.get(name).is_some_and(|work| is_own(work) && is_meant(work)) {
            self.cluster.jobs.remove(name);
        }
        true
    }

    fn delete_run(&mut self, name: &str, uid: &str) -> bool {
        if self.cluster.runs.get(name).is_some_and(|run| run.uid().as_deref() == Some(uid)) {
            invariants::may_be_deleted(self, name);
            self.cluster.runs.remove(name);
        }
        true
    }

    fn mark_promoted(&mut self, run: &str, uid: &str, condition: Condition) -> bool {
        let version = self.bump();
        let run = self.cluster.runs.get_mut(run).filter(|run| run.uid().as_deref() == Some(uid));
        let Some(run) = run else { return false };
        let conditions = &mut run.status.get_or_insert_default().conditions;
        if conditions.contains(&condition) {
            return true;
        }
        conditions.retain(|c| c.type_ != condition.type_);
        conditions.push(condition);
        run.metadata.resource_version = version;
        true
    }

    fn set_finalizer(&mut self, key: &Key, wanted: bool) -> bool {
        let version = self.bump();
        let Key::Model(name) = key else { panic!("only models have a finalizer, not {key:?}") };
        let Some(model) = self.cluster.models.get_mut(name) else { return false };
        let finalizers = model.finalizers_mut();
        finalizers.retain(|finalizer| finalizer != lethe_core::FINALIZER);
        if wanted {
            finalizers.push(lethe_core::FINALIZER.into());
        }
        model.metadata.resource_version = version;
        true
    }
}

/// Writes a status, if there is one to write.
fn replace<S: DeserializeOwned>(
    meta: &mut ObjectMeta,
    found: &mut Option<S>,
    status: Option<Value>,
    version: Option<String>,
) {
    if let Some(status) = status {
        *found = Some(serde_json::from_value(status).expect("what was serialised"));
        meta.resource_version = version;
    }
}
