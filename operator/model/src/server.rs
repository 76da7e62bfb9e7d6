//! The API server's side: what a call changes, and when it is refused.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{ConfigMap, Service},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::ResourceExt;
use lethe_api::{
    Digest,
    v1alpha1::{ConditionType, UnlearnRun, UnlearnRunStatus},
};
use lethe_core::{Effect, FINALIZER};

use crate::{
    audit::Invariant,
    cluster::{Beside, Work, annotate, scale, settled},
    consent,
    decisions::{Call, Mind, Status, is_owned_by},
    shared::{Shared, hash_of},
    state::{Key, Pending, State, find, find_job, find_mut, written},
};

/// How the API server is to be wrong, to see that the checker notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// A status is written although the object has changed since it was decided about.
    pub overwrites: bool,
}

impl State {
    /// One call. False if it is refused. `pending` is told of the version that it leaves.
    pub fn call(&mut self, pending: &mut Pending, mind: &Mind, guards: Guards) -> bool {
        let call = &pending.calls.clone()[pending.done];
        pending.done += 1;
        let (done, changes_it) = match call {
            Call::Status(status) => {
                let found = self.objects.version(&pending.key);
                let accepted = found == Some(pending.version) || guards.overwrites && found.is_some();
                if let Some(status) = status.as_ref().filter(|_| accepted) {
                    let what = hash_of(&(&pending.calls, pending.done));
                    self.write(&pending.key, status, mind, what);
                }
                (accepted, status.is_some())
            }
            Call::Effect(effect) => {
                let done = self.carry_out(&pending.key, pending.version, effect);
                (done, matches!(**effect, Effect::AddFinalizer | Effect::RemoveFinalizer))
            }
        };
        if done && changes_it {
            pending.version = self.objects.version(&pending.key).unwrap_or_default();
        }
        done
    }

    /// Writes a status. `what` is its hash.
    fn write(&mut self, key: &Key, status: &Status, mind: &Mind, what: u64) {
        match (key, status) {
            (Key::Model, Status::Model(status)) => {
                if let Some(model) = &mut self.objects.model {
                    let written = || model.with(|model| model.status = Some((**status).clone()));
                    *model = mind.models.get(hash_of(&(&*model, what)), written);
                    self.audit.wrote_model(model);
                    self.judge(Invariant::People, consent::recorded(&self.objects));
                }
            }
            (Key::Request(name), Status::Request(status)) => {
                if let Some(request) = find_mut(&mut self.objects.requests, name) {
                    let before = request.clone();
                    let written = || request.with(|request| request.status = Some(status.clone()));
                    *request = mind.requests.get(hash_of(&(&before, what)), written);
                    self.audit.wrote_request(&before, request);
                    let after = request.clone();
                    self.judge(Invariant::People, consent::answered(&before, &after, &self.objects));
                }
            }
            (Key::Run(name), Status::Run(status)) => {
                if let Some(run) = find_mut(&mut self.objects.runs, name) {
                    *run = mind.runs.get(hash_of(&(&*run, what)), || run.with(|run| write_run(run, status)));
                    self.audit.wrote_run(run);
                }
            }
            (key, status) => unreachable!("{key:?} has no {status:?}"),
        }
    }

    fn judge(&mut self, invariant: Invariant, broken: Option<&str>) {
        if let Some(how) = broken {
            self.audit.breaks(invariant, how);
        }
    }

    fn carry_out(&mut self, key: &Key, version: u64, effect: &Effect) -> bool {
        if self.audit.publishes && matches!(effect, Effect::PatchServing { .. } | Effect::ScaleServing { .. })
        {
            self.audit.breaks(Invariant::Served, "the operator changes a target that only Git may change");
        }
        match effect {
            Effect::CreateRun(run) => self.create_run(run),
            Effect::CreateConfigMap(map) => self.create_plan(map),
            Effect::CreateJob(job) => self.create_job(job),
            Effect::DeleteJob { name, uid } => self.delete_job(key, name, uid.as_deref()),
            Effect::DeleteRun { uid, .. } => {
                self.objects.runs.retain(|run| run.metadata.uid.as_ref() != Some(uid));
                true
            }
            Effect::PatchServing { bundle, .. } => self.patch_serving(bundle.as_ref()),
            Effect::ScaleServing { replicas, .. } => {
                self.objects.deployment = self.objects.deployment.with(|it| scale(it, *replicas));
                true
            }
            Effect::CreateService(service) => self.create_service(service),
            Effect::CreateDeployment(deployment) => self.create_beside(deployment),
            Effect::ShapeCanary { uid, labels, replicas, .. } => self.shape_beside(uid, labels, *replicas),
            Effect::DeleteService { uid, .. } => {
                self.objects.service.take_if(|it| it.metadata.uid.as_ref() == Some(uid));
                true
            }
            Effect::DeleteDeployment { uid, .. } => {
                self.objects.canary.take_if(|it| it.deployment.metadata.uid.as_ref() == Some(uid));
                true
            }
            Effect::MarkPromoted { run, uid, condition } => self.mark_promoted(run, uid, condition),
            Effect::ArchiveLedger(map) => {
                self.objects.archive = Some(Shared::new((**map).clone()));
                true
            }
            Effect::SetLedgerAside(_) => unreachable!("nobody but the operator writes the archive here"),
            Effect::AddFinalizer => self.set_finalizer(version, true),
            Effect::RemoveFinalizer => self.set_finalizer(version, false),
        }
    }

    fn patch_serving(&mut self, bundle: Option<&Digest>) -> bool {
        self.audit.serves(bundle);
        self.annotate(bundle.map(Digest::as_str));
        true
    }

    /// Sets or removes the annotation. There are two generations: the one that pods run, and a newer one.
    pub fn annotate(&mut self, bundle: Option<&str>) {
        self.objects.deployment = self.objects.deployment.with(|deployment| {
            let before = deployment.metadata.generation;
            annotate(deployment, bundle);
            if deployment.metadata.generation != before {
                deployment.metadata.generation = Some(2);
                deployment.status = Some(settled(1));
            }
        });
    }

    fn create_service(&mut self, service: &Service) -> bool {
        if let Some(found) = &self.objects.service {
            return found.owner_references() == service.owner_references();
        }
        let mut service = service.clone();
        service.metadata.uid = Some(format!("uid-service-{}", self.births.add("service")));
        self.objects.service = Some(Shared::new(service));
        true
    }

    fn create_beside(&mut self, deployment: &Deployment) -> bool {
        if let Some(found) = &self.objects.canary {
            return found.deployment.owner_references() == deployment.owner_references();
        }
        let uid = format!("uid-canary-{}", self.births.add("canary"));
        self.objects.canary = Some(Shared::new(Beside::new(deployment.clone(), uid)));
        self.audit.is_beside(&self.objects);
        true
    }

    fn shape_beside(&mut self, uid: &str, labels: &BTreeMap<String, String>, replicas: i32) -> bool {
        let found = self.objects.canary.as_mut();
        let Some(canary) = found.filter(|it| it.deployment.metadata.uid.as_deref() == Some(uid)) else {
            return false;
        };
        *canary = canary.with(|canary| canary.shape(labels, replicas));
        self.audit.is_beside(&self.objects);
        true
    }

    fn create_run(&mut self, run: &UnlearnRun) -> bool {
        if let Some(found) = find(&self.objects.runs, &run.name_any()) {
            return found.spec == run.spec
                && found.owner_references()[0].uid == run.owner_references()[0].uid;
        }
        let mut run = run.clone();
        let births = self.births.add(&run.name_any());
        run.metadata.uid = Some(format!("uid-{}-{births}", run.name_any()));
        run.metadata.generation = Some(1);
        run.status = crate::objects::unseen();
        // Later than all others.
        let known = self.objects.runs.iter().filter_map(|run| run.creation_timestamp());
        let last = known.map(|at| at.0).max().unwrap_or(written() - SignedDuration::from_secs(500));
        run.metadata.creation_timestamp = Some(Time(last + SignedDuration::from_secs(1)));
        let name = run.name_any();
        self.objects.runs.push(Shared::new(run));
        self.objects.runs.sort_by_key(|run| run.name_any());
        self.audit.created_run(&self.objects);
        self.judge(Invariant::One, consent::tried_again(&self.objects, &name));
        true
    }

    fn create_plan(&mut self, map: &ConfigMap) -> bool {
        if let Some(found) = find(&self.objects.plans, &map.name_any()) {
            return found.owner_references() == map.owner_references() && found.data == map.data;
        }
        self.objects.plans.push(Shared::new(map.clone()));
        self.objects.plans.sort_by_key(|plan| plan.name_any());
        true
    }

    fn create_job(&mut self, job: &Job) -> bool {
        if let Some(found) = find_job(&self.objects.jobs, &job.name_any()) {
            return found.job.owner_references() == job.owner_references();
        }
        self.audit.created_job(&self.objects, job);
        let mut job = job.clone();
        job.metadata.uid = Some(format!("uid-{}-{}", job.name_any(), self.births.of(&job.name_any())));
        job.metadata.creation_timestamp = Some(Time(written()));
        self.objects.jobs.push(Shared::new(Work::new(job)));
        self.objects.jobs.sort_by_key(|work| work.job.name_any());
        true
    }

    fn delete_job(&mut self, key: &Key, name: &str, uid: Option<&str>) -> bool {
        let Key::Run(run) = key else { unreachable!("only runs have Jobs, not {key:?}") };
        let owner = find(&self.objects.runs, run).cloned();
        let is_own = |work: &Work| owner.as_ref().is_some_and(|owner| is_owned_by(&work.job, &**owner));
        let is_meant = |work: &Work| uid.is_none_or(|uid| work.job.metadata.uid.as_deref() == Some(uid));
        self.objects.jobs.retain(|work| work.job.name_any() != name || !is_own(work) || !is_meant(work));
        true
    }

    fn mark_promoted(&mut self, run: &str, uid: &str, condition: &Condition) -> bool {
        let run = find_mut(&mut self.objects.runs, run);
        let Some(run) = run.filter(|run| run.uid().as_deref() == Some(uid)) else { return false };
        *run = run.with(|run| {
            let conditions = &mut run.status.get_or_insert_default().conditions;
            if !conditions.contains(condition) {
                conditions.retain(|c| c.type_ != condition.type_);
                conditions.push(condition.clone());
            }
        });
        true
    }

    /// On exactly the version that is known.
    fn set_finalizer(&mut self, version: u64, wanted: bool) -> bool {
        let Some(model) = self.objects.model.as_mut().filter(|model| model.content() == version) else {
            return false;
        };
        *model = model.with(|model| {
            let finalizers = model.finalizers_mut();
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            if wanted {
                finalizers.push(FINALIZER.into());
            }
        });
        true
    }
}

fn write_run(run: &mut UnlearnRun, status: &UnlearnRunStatus) {
    // Promoted is applied by another field manager.
    let is_promoted = |c: &Condition| c.type_ == ConditionType::Promoted.as_str();
    let known = run.status.iter().flat_map(|status| &status.conditions);
    let promoted: Vec<_> = known.filter(|c| is_promoted(c)).cloned().collect();
    let mut status = status.clone();
    status.conditions.retain(|c| !is_promoted(c));
    status.conditions.extend(promoted);
    run.status = Some(status);
}

/// The hash of a state as far as it decides what comes next when nothing disturbs it any more.
pub fn undisturbed(state: &State) -> u64 {
    let State { objects, stale, pending, in_flight, births, audit, left: _, words: _ } = state;
    hash_of(&(objects, stale, pending, in_flight, births, audit))
}
