//! `UnlearnRun`: observe its Job and what that has left, and ask core how to go on.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use kube_runtime::reflector::ObjectRef;
use lethe_api::v1alpha1::{ConditionType, UnlearnRequest, UnlearnRun, UnlearnRunStatus};
use lethe_core::{
    Decision, evidence,
    job_state::{is_finished, is_suspended},
    kueue::{self, Queueing},
    names, run, stall, trail,
};
use lethe_transparency::Said;
use serde::Serialize;

use crate::{
    calls, context::Context, controller::Kind, error::Result, packed::Packed, records, stores::in_namespace,
};

/// The label that Kubernetes puts on every pod of a Job.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

impl Kind for UnlearnRun {
    type Status = UnlearnRunStatus;

    const CONTROLLER: &'static str = "run";
    const MANAGER: &'static str = "lethe-run";

    fn status(&self) -> Option<&UnlearnRunStatus> {
        self.status.as_ref()
    }

    /// `Promoted` is the model controller's.
    fn owned(status: &UnlearnRunStatus) -> UnlearnRunStatus {
        let mut owned = status.clone();
        owned.conditions.retain(|c| c.type_ != ConditionType::Promoted.as_str());
        owned
    }

    async fn decide(object: &Self, context: &Context) -> Result<Decision<UnlearnRunStatus>> {
        let now = Timestamp::now();
        let observed = observe(object, context, now).await?;
        Ok(run::decide(&observed, &context.installation, now))
    }

    fn said(&self, after: &UnlearnRunStatus) -> Vec<Said> {
        trail::of_run(self, after)
    }

    fn wrote(context: &Context, observed: &Self, status: &UnlearnRunStatus) {
        context.metrics.run_progressed(observed, status);
    }
}

async fn observe(object: &UnlearnRun, context: &Context, now: Timestamp) -> Result<run::Observed> {
    let Some(stage) = run::stage(object) else {
        return Ok(settled(context, object).await);
    };
    let namespace = object.namespace().unwrap_or_default();
    let name = names::job(&object.name_any(), stage);
    let job = context.stores.find(&context.stores.jobs, &namespace, &name).await?;
    let job = job.filter(|job| job.index.include(object)).map(|job| job.open());
    let pods = match &job {
        Some(job) => pods(context, &namespace, job).await?,
        None => Vec::new(),
    };
    let queueing = match &job {
        Some(job) => context.stores.kueue.says_of(job),
        None => Queueing::NotAsked,
    };
    let stalled = |job: &Job| {
        let stall = stall::find(job, &pods, now).map(|stall| stall.uid);
        stall.or_else(|| kueue::to_ask_about(job, &queueing, now))
    };
    let events = match job.as_ref().and_then(stalled) {
        Some(uid) => warnings(context, &namespace, &uid).await?,
        None => Vec::new(),
    };
    let progress = match &job {
        Some(job) if !is_finished(job) => context.progress.read(&pods).await,
        _ => None,
    };
    let record = match run::wanted_record(object, job.as_ref(), &pods, now) {
        Some(digest) => Some(records::read(&context.installation.store, &digest).await),
        None => None,
    };
    let requests = requests(context, &namespace, object).await?;
    Ok(run::Observed {
        run: object.clone(),
        job,
        pods,
        events,
        queueing,
        progress,
        record,
        requests,
        evidence: None,
    })
}

/// Of a run that is over, nothing matters but its evidence, and a Job that was created late. Its watch tells of that: nobody is
/// asked.
async fn settled(context: &Context, object: &UnlearnRun) -> run::Observed {
    let namespace = object.namespace().unwrap_or_default();
    let known = |name: String| context.stores.jobs.get(&ObjectRef::new(&name).within(&namespace));
    let its_own = run::past_jobs(object).filter_map(known).filter(|job| job.index.include(object));
    let job = its_own.map(|job| job.open()).find(run::works_for_nobody);
    let evidence = match (&context.notary, evidence::wanted(object, &context.installation)) {
        (Some(notary), Some(wanted)) => Some(notary.sign(&context.installation.store, object, &wanted).await),
        _ => None,
    };
    run::Observed {
        run: object.clone(),
        job,
        pods: Vec::new(),
        events: Vec::new(),
        queueing: Queueing::NotAsked,
        progress: None,
        record: None,
        requests: Vec::new(),
        evidence,
    }
}

/// The pods of a Job. As long as one of them is at work, the cache has all that counts. Otherwise they are listed afresh: what has
/// succeeded is not watched, and the watch of the Job may have told of the end before that of the pods, in which the outcome is.
async fn pods(context: &Context, namespace: &str, job: &Job) -> Result<Vec<Pod>> {
    let is_its = |pod: &Packed<Pod>| in_namespace(pod, namespace) && pod.index.include(job);
    let known: Vec<_> = context.stores.pods.state_filter(is_its).iter().map(|pod| pod.open()).collect();
    let is_at_work = || known.iter().any(|pod| !stall::has_ended(pod));
    if !is_finished(job) && (is_suspended(job) || is_at_work()) {
        return Ok(known);
    }
    let name = job.name_any();
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let of_job = ListParams::default().labels(&format!("{JOB_NAME}={name}"));
    let what = format!("list the pods of Job {namespace}/{name}");
    let mut listed = calls::read(what, api.list(&of_job)).await?.items;
    listed.retain(|pod| is_owned_by(pod, job));
    Ok(listed)
}

/// The warnings that the cluster has published about the object with this uid.
async fn warnings(context: &Context, namespace: &str, uid: &str) -> Result<Vec<Event>> {
    let events: Api<Event> = Api::namespaced(context.client.clone(), namespace);
    let about_it = ListParams::default().fields(&format!("involvedObject.uid={uid},type=Warning"));
    let action = format!("list the events about {uid} in namespace {namespace}");
    Ok(calls::read(action, events.list(&about_it)).await?.items)
}

/// Whatever else has the name of a child is none. Of what is packed its index says so: without being opened it shows no owners,
/// and is no `Serialize` either.
pub(crate) fn is_owned_by(child: &(impl Resource + Serialize), owner: &impl ResourceExt) -> bool {
    let uid = owner.uid();
    let owners = child.meta().owner_references.iter().flatten();
    uid.is_some() && owners.into_iter().any(|reference| Some(&reference.uid) == uid.as_ref())
}

/// The requests that the run works for, as far as they exist.
async fn requests(context: &Context, namespace: &str, object: &UnlearnRun) -> Result<Vec<UnlearnRequest>> {
    let stores = &context.stores;
    let mut requests = Vec::new();
    for reference in &object.spec.requests {
        let is_it = |request: &Arc<Packed<UnlearnRequest>>| request.uid().as_ref() == Some(&reference.uid);
        let known = stores.find(&stores.requests, namespace, &reference.name).await?.filter(is_it);
        let found = match known {
            Some(request) => Some(request),
            // The cache may still have an earlier one of that name.
            None => stores.confirm(&stores.requests, namespace, &reference.name).await?.map(Arc::new),
        };
        requests.extend(found.map(|request| request.open()));
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(json: serde_json::Value) -> Job {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_child_belongs_to_the_owner_with_that_uid() {
        let owner = job(json!({"metadata": {"name": "digits-1", "uid": "a"}}));
        let owned_by = |uid| {
            let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "digits-1", "uid": uid});
            job(json!({"metadata": {"ownerReferences": [owner]}}))
        };
        assert!(is_owned_by(&owned_by("a"), &owner));
        assert!(!is_owned_by(&owned_by("b"), &owner));
        assert!(!is_owned_by(&Job::default(), &owner));
        assert!(!is_owned_by(&owned_by("a"), &Job::default()));
    }

    #[test]
    fn the_condition_of_the_model_controller_is_left_to_it() {
        let condition = |type_| json!({"type": type_, "status": "True", "reason": "Promoted", "message": "", "lastTransitionTime": "2026-11-24T21:00:00Z"});
        let status = json!({"conditions": [condition("Promoted"), condition("Ready")]});
        let owned = UnlearnRun::owned(&serde_json::from_value(status).unwrap());
        let types: Vec<_> = owned.conditions.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, ["Ready"]);
    }
}
