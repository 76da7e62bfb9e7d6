//! Effects, each of which may be carried out twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Service},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{NamespaceResourceScope, Status},
};
use lethe_api::{
    Digest,
    v1alpha1::{BUNDLE_ANNOTATION, UnlearnRun},
};
use lethe_core::{Effect, FINALIZER, rollout};
use lethe_transparency::Upshot;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{api, describe, replaced, stale, write};
use crate::{
    calls,
    context::Context,
    controller::Kind,
    error::{Error, Result},
    logbook::Page,
};

/// Field managers, one per thing that is written for another object than the one decided about.
const ROLLOUT: &str = "lethe-rollout";
const SCALE: &str = "lethe-scale";
const PROMOTION: &str = "lethe-promotion";
const ARCHIVE: &str = "lethe-archive";

/// Carries out effects in order. The first failure is what is told of, and the next decision begins again.
/// What becomes of each is said on `page`, from number `first` on. What puts something into service is left undone if it could
/// not be said before.
pub async fn carry_out<K: Kind>(
    context: &Context,
    mut current: K,
    effects: &[Effect],
    page: &mut Page,
    first: usize,
) -> Result<()> {
    let mut failure = Failure::default();
    for (index, effect) in (first..).zip(effects) {
        if failure.leaves_out(effect) {
            continue;
        }
        if let Some(why) = page.unlogged().filter(|_| effect.puts_into_service()) {
            let (action, why) = (format!("put anything into service for {}", describe(&current)), why.into());
            failure.add(effect, Error::Unlogged { action, why })?;
            continue;
        }
        match carry_out_one(context, &mut current, effect).await {
            Ok(()) => page.conclude(index, Upshot::Done, ""),
            Err(error) => {
                page.conclude(index, Upshot::Failed, error.category().as_str());
                failure.add(effect, error)?;
            }
        }
    }
    failure.told()
}

/// What failed of a decision. Of the rest, only what is of what is served is carried out all the same: a target goes back,
/// and a model that leaks is taken out of service, even if a run cannot be created in the same breath.
#[derive(Default)]
struct Failure(Option<Error>);

impl Failure {
    fn leaves_out(&self, effect: &Effect) -> bool {
        self.0.is_some() && !effect.is_of_what_is_served()
    }

    /// An error if nothing more may be carried out: this replica may not write, or what was decided about has changed.
    /// Effects of what is served name the version that they change themselves.
    fn add(&mut self, effect: &Effect, error: Error) -> Result<()> {
        let is_old = matches!(error, Error::Stale { .. }) && !effect.is_of_what_is_served();
        if is_old || matches!(error, Error::NotLeader { .. }) {
            return Err(self.0.take().unwrap_or(error));
        }
        self.0.get_or_insert(error);
        Ok(())
    }

    fn told(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// `current` is then as the API server has it.
async fn carry_out_one<K: Kind>(context: &Context, current: &mut K, effect: &Effect) -> Result<()> {
    let namespace = current.namespace().unwrap_or_default();
    match effect {
        Effect::CreateRun(run) => create(context, &namespace, &**run, same_run).await?,
        Effect::CreateConfigMap(map) => create(context, &namespace, &**map, |a, b| a.data == b.data).await?,
        Effect::CreateJob(job) => create(context, &namespace, &**job, |_, _| true).await?,
        Effect::DeleteJob { name, uid } => delete_job(context, current, name, uid.as_deref()).await?,
        Effect::DeleteRun { name, uid } => {
            delete_exactly::<UnlearnRun>(context, &namespace, name, uid).await?
        }
        Effect::PatchServing { deployment, bundle, .. } => {
            patch_serving(context, &namespace, deployment, bundle.as_ref()).await?;
        }
        Effect::ScaleServing { deployment, replicas } => {
            scale_serving(context, &namespace, deployment, *replicas).await?;
        }
        Effect::CreateService(service) => create(context, &namespace, &**service, |_, _| true).await?,
        Effect::CreateDeployment(deployment) => {
            create(context, &namespace, &**deployment, |_, _| true).await?
        }
        Effect::ShapeCanary { name, uid, labels, replicas } => {
            shape_canary(context, &namespace, name, uid, labels, *replicas).await?;
        }
        Effect::DeleteService { name, uid } => {
            delete_exactly::<Service>(context, &namespace, name, uid).await?
        }
        Effect::DeleteDeployment { name, uid } => {
            delete_exactly::<Deployment>(context, &namespace, name, uid).await?
        }
        Effect::MarkPromoted { run, uid, condition } => {
            let patch = json!({
                "apiVersion": UnlearnRun::api_version(&()),
                "kind": UnlearnRun::kind(&()),
                "metadata": {"name": run, "uid": uid},
                "status": {"conditions": [condition]},
            });
            let runs: Api<UnlearnRun> = Api::namespaced(context.client.clone(), &namespace);
            let (parameters, patch) = (PatchParams::apply(PROMOTION).force(), Patch::Apply(&patch));
            let call = runs.patch_status(run, &parameters, &patch);
            let done = write(context, format!("mark UnlearnRun {namespace}/{run} as promoted"), call).await;
            done.map_err(|error| stale(error, format!("UnlearnRun {namespace}/{run}")))?;
        }
        Effect::ArchiveLedger(map) => archive(context, &namespace, map).await?,
        Effect::SetLedgerAside(map) => set_aside(context, &namespace, map).await?,
        Effect::AddFinalizer => *current = set_finalizer(context, current.clone(), true).await?,
        Effect::RemoveFinalizer => *current = set_finalizer(context, current.clone(), false).await?,
    }
    Ok(())
}

/// Creates an object that is never applied again. One that is there already is fine, if it is `same` and
/// belongs to the same owners.
async fn create<K>(context: &Context, namespace: &str, wanted: &K, same: fn(&K, &K) -> bool) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), namespace);
    let (kind, name) = (K::kind(&()).into_owned(), wanted.name_any());
    let parameters = PostParams { field_manager: Some("lethe".into()), ..PostParams::default() };
    let call = api.create(&parameters, wanted);
    match write(context, format!("create {kind} {namespace}/{name}"), call).await {
        Err(Error::Api { source: kube::Error::Api(status), .. }) if status.reason == "AlreadyExists" => {}
        other => return other.map(|_| tracing::info!(kind, namespace, name, "created")),
    }
    let existing = calls::read(format!("read {kind} {namespace}/{name}"), api.get(&name)).await?;
    let name = format!("{namespace}/{name}");
    if is_leftover(&existing, wanted) {
        return Err(Error::Leftover { kind, name });
    }
    let is_ours = owners(&existing) == owners(wanted) && same(&existing, wanted);
    if is_ours { Ok(()) } else { Err(Error::Foreign { kind, name }) }
}

/// Whether the object is being deleted, or will be: its owner was an earlier one of the same kind and name.
fn is_leftover(existing: &impl Resource, wanted: &impl Resource) -> bool {
    existing.meta().deletion_timestamp.is_some()
        || (owners(existing) != owners(wanted) && owner_names(existing) == owner_names(wanted))
}

/// Kinds and names of the owners, of an object that has any.
fn owner_names(object: &impl Resource) -> Option<BTreeSet<(&str, &str)>> {
    let owners = object.meta().owner_references.as_ref()?;
    Some(owners.iter().map(|owner| (owner.kind.as_str(), owner.name.as_str())).collect())
}

fn owners(object: &impl Resource) -> BTreeSet<&str> {
    object.meta().owner_references.iter().flatten().map(|owner| owner.uid.as_str()).collect()
}

/// A run is named by a few digits of its plan's digest, and judged by the policy in it: one that somebody else made under that
/// name, or that was made before the policy was edited, is another one.
fn same_run(a: &UnlearnRun, b: &UnlearnRun) -> bool {
    a.spec == b.spec
}

/// Deletes the Job of this name if it belongs to `run`, and only that very Job: anybody else's stays.
async fn delete_job(context: &Context, run: &impl Resource, name: &str, uid: Option<&str>) -> Result<()> {
    let namespace = &run.namespace().unwrap_or_default();
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), namespace);
    let found = calls::read(format!("read Job {namespace}/{name}"), jobs.get_opt(name)).await?;
    let is_owned = |job: &Job| run.meta().uid.as_deref().is_some_and(|uid| owners(job).contains(uid));
    let is_meant = |job: &Job| is_owned(job) && uid.is_none_or(|uid| job.uid().as_deref() == Some(uid));
    let Some(job) = found.filter(is_meant) else { return Ok(()) };
    delete(context, &jobs, "Job", namespace, name, job.uid()).await
}

/// Deletes the object of this name, if it still is the one of this uid, and with it what it owns.
async fn delete_exactly<K>(context: &Context, namespace: &str, name: &str, uid: &str) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let all: Api<K> = Api::namespaced(context.client.clone(), namespace);
    match delete(context, &all, &K::kind(&()), namespace, name, Some(uid.into())).await {
        Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 409 => Ok(()),
        other => other,
    }
}

/// Deletes the object of this name and uid in the background, if it is there.
async fn delete<K: Clone + DeserializeOwned + Debug>(
    context: &Context,
    api: &Api<K>,
    kind: &str,
    namespace: &str,
    name: &str,
    uid: Option<String>,
) -> Result<()> {
    let parameters = DeleteParams {
        preconditions: Some(Preconditions { uid, resource_version: None }),
        ..DeleteParams::background()
    };
    let call = api.delete(name, &parameters);
    match write(context, format!("delete {kind} {namespace}/{name}"), call).await {
        Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => Ok(()),
        other => other.map(|_| tracing::info!(kind, namespace, name, "deleted")),
    }
}

/// Changes the bundle annotation of a Deployment's pod template, and nothing else. The patch names the uid and the
/// version of the Deployment that was read: it never creates one, and one that was sent by an operator that has died
/// since undoes nothing that its successor did.
async fn patch_serving(
    context: &Context,
    namespace: &str,
    name: &str,
    bundle: Option<&Digest>,
) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    let target = calls::read(format!("read Deployment {namespace}/{name}"), deployments.get(name)).await?;
    if rollout::annotation(&target) == bundle.map(Digest::as_str) {
        return Ok(());
    }
    let annotations = json!({BUNDLE_ANNOTATION: bundle});
    let patch = json!({
        "apiVersion": Deployment::api_version(&()),
        "kind": Deployment::kind(&()),
        "metadata": {
            "name": name,
            "uid": target.metadata.uid,
            "resourceVersion": target.metadata.resource_version,
        },
        "spec": {"template": {"metadata": {"annotations": annotations}}},
    });
    let (parameters, patch) = match bundle {
        Some(_) => (PatchParams::apply(ROLLOUT).force(), Patch::Apply(patch)),
        // Applying without the annotation would leave it, if somebody else has set it as well.
        None => (
            PatchParams { field_manager: Some(ROLLOUT.into()), ..PatchParams::default() },
            Patch::Merge(patch),
        ),
    };
    let call = deployments.patch(name, &parameters, &patch);
    let what = format!("Deployment {namespace}/{name}");
    write(context, format!("patch {what}"), call).await.map_err(|error| stale(error, what))?;
    tracing::info!(
        namespace,
        deployment = name,
        bundle = bundle.map(Digest::as_str),
        "changed what is served"
    );
    Ok(())
}

/// Says how many pods a Deployment of Lethe's own has, and adds labels to them. As for the target, the patch names the version
/// that was read: one that was sent by an operator that has died since brings nothing back into service.
async fn shape_canary(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
    labels: &BTreeMap<String, String>,
    replicas: i32,
) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    let what = format!("Deployment {namespace}/{name}");
    let found = calls::read(format!("read {what}"), deployments.get_opt(name)).await?;
    let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(uid)) else {
        return Err(Error::Stale { what });
    };
    let patch = Patch::Merge(json!({
        "metadata": {"uid": uid, "resourceVersion": found.metadata.resource_version},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": labels}}},
    }));
    let parameters = PatchParams { field_manager: Some("lethe".into()), ..PatchParams::default() };
    let call = deployments.patch(name, &parameters, &patch);
    write(context, format!("shape {what}"), call).await.map_err(|error| stale(error, what))?;
    tracing::info!(namespace, deployment = name, replicas, "put a candidate beside the serving target");
    Ok(())
}

/// Changes the number of pods of a Deployment, of the version that was read.
async fn scale_serving(context: &Context, namespace: &str, name: &str, replicas: i32) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    let target = calls::read(format!("read Deployment {namespace}/{name}"), deployments.get(name)).await?;
    if target.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) == replicas {
        return Ok(());
    }
    // Not applied: what is applied for the annotation, without the number, would take the number away again.
    let parameters = PatchParams { field_manager: Some(SCALE.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({
        "metadata": {"uid": target.metadata.uid, "resourceVersion": target.metadata.resource_version},
        "spec": {"replicas": replicas},
    }));
    let call = deployments.patch(name, &parameters, &patch);
    let what = format!("Deployment {namespace}/{name}");
    write(context, format!("scale {what}"), call).await.map_err(|error| stale(error, what))?;
    tracing::info!(namespace, deployment = name, replicas, "scaled");
    Ok(())
}

async fn archive(context: &Context, namespace: &str, map: &ConfigMap) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let name = map.name_any();
    let (parameters, patch) = (PatchParams::apply(ARCHIVE).force(), Patch::Apply(map));
    let call = maps.patch(&name, &parameters, &patch);
    match write(context, format!("archive the ledger in ConfigMap {namespace}/{name}"), call).await {
        // Whoever deletes a namespace deletes its archives. A model that waited for one would keep the namespace for ever.
        Err(Error::Api { source: kube::Error::Api(status), .. }) if is_of_going_namespace(&status) => {
            tracing::warn!(namespace, name, "the namespace is being deleted: the ledger goes with it");
        }
        other => other.map(|_| tracing::info!(namespace, name, "archived the ledger"))?,
    }
    Ok(())
}

/// Adds a ledger to those that a ConfigMap keeps.
async fn set_aside(context: &Context, namespace: &str, map: &ConfigMap) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let name = map.name_any();
    let (parameters, patch) = (
        PatchParams { field_manager: Some(ARCHIVE.into()), ..PatchParams::default() },
        Patch::Merge(json!({"data": map.data})),
    );
    let call = maps.patch(&name, &parameters, &patch);
    write(context, format!("set the ledger aside in ConfigMap {namespace}/{name}"), call).await?;
    tracing::warn!(namespace, name, "set the ledger aside: there is another");
    Ok(())
}

/// Whether something could not be created because its namespace is about to go.
fn is_of_going_namespace(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Adds or removes the finalizer, on exactly the version that is known.
async fn set_finalizer<K: Kind>(context: &Context, current: K, wanted: bool) -> Result<K> {
    let mut finalizers = current.finalizers().to_vec();
    if finalizers.iter().any(|f| f == FINALIZER) == wanted {
        return Ok(current);
    }
    finalizers.retain(|f| f != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER.into());
    }
    let patch = json!({"metadata": {
        "uid": current.uid(),
        "resourceVersion": current.resource_version(),
        "finalizers": finalizers,
    }});
    let what = describe(&current);
    let name = current.name_any();
    let api = api::<K>(context, &current);
    let (parameters, patch) = (
        PatchParams { field_manager: Some(K::MANAGER.into()), ..PatchParams::default() },
        Patch::Merge(&patch),
    );
    let call = api.patch(&name, &parameters, &patch);
    let action = format!("{} the finalizer of {what}", if wanted { "add" } else { "remove" });
    let written = write(context, action, call).await.map_err(|e| stale(e, what))?;
    replaced(context, &current, &written);
    Ok(written)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use lethe_core::Change;

    use super::*;
    use crate::error::Category;

    /// Names of the effects that are tried, if the first fails so, and the category of what is told.
    fn tried(first: Effect, error: Error) -> (Vec<&'static str>, Option<Category>) {
        let scale = Effect::ScaleServing { deployment: "server".into(), replicas: 0 };
        let patch =
            Effect::PatchServing { deployment: "server".into(), bundle: None, change: Change::TakeOut };
        let (mut failure, mut error, mut tried) = (Failure::default(), Some(error), vec![]);
        for effect in [first, Effect::AddFinalizer, patch, scale] {
            if failure.leaves_out(&effect) {
                continue;
            }
            tried.push(match &effect {
                Effect::PatchServing { .. } => "patch",
                Effect::ScaleServing { .. } => "scale",
                _ => "other",
            });
            if let Some(Err(told)) = error.take().map(|error| failure.add(&effect, error)) {
                return (tried, Some(told.category()));
            }
        }
        (tried, failure.told().err().map(|error| error.category()))
    }

    #[test]
    fn what_fails_keeps_nothing_in_service_that_has_to_go() {
        let forbidden = || {
            let status = Status { code: 403, ..Status::default() };
            Error::Api { action: "create".into(), source: kube::Error::Api(Box::new(status)) }
        };
        let told = Some(Category::Forbidden);
        assert_eq!(tried(Effect::AddFinalizer, forbidden()), (vec!["other", "patch", "scale"], told));
        let patch =
            Effect::PatchServing { deployment: "server".into(), bundle: None, change: Change::TakeOut };
        assert_eq!(tried(patch, forbidden()), (vec!["patch", "patch", "scale"], told));
    }

    #[test]
    fn nothing_follows_from_a_decision_that_is_old_or_was_another_replicas() {
        let stale = || Error::Stale { what: "the model".into() };
        assert_eq!(tried(Effect::AddFinalizer, stale()), (vec!["other"], Some(Category::Conflict)));
        // It is the target that has changed, not the model.
        let scale = Effect::ScaleServing { deployment: "server".into(), replicas: 0 };
        assert_eq!(tried(scale, stale()).0, ["scale", "patch", "scale"]);
        let patch =
            Effect::PatchServing { deployment: "server".into(), bundle: None, change: Change::TakeOut };
        let lost = Error::NotLeader { action: "patch".into() };
        assert_eq!(tried(patch, lost), (vec!["patch"], Some(Category::NotLeader)));
    }

    #[test]
    fn what_an_earlier_owner_of_the_same_name_left_is_waited_for() {
        let owned = |name: &str, uid: &str| {
            let owner = OwnerReference { name: name.into(), uid: uid.into(), ..OwnerReference::default() };
            let mut job = Job::default();
            job.metadata.owner_references = Some(vec![owner]);
            job
        };
        assert!(is_leftover(&owned("digits-1", "a"), &owned("digits-1", "b")));
        assert!(!is_leftover(&owned("digits-1", "a"), &owned("digits-1", "a")));
        assert!(!is_leftover(&owned("digits-2", "a"), &owned("digits-1", "b")));
        assert!(!is_leftover(&Job::default(), &owned("digits-1", "b")));
    }

    #[test]
    fn an_object_of_another_owner_is_not_ours() {
        let owned = |uid: &str| {
            let owner = OwnerReference { uid: uid.into(), ..OwnerReference::default() };
            let mut job = Job::default();
            job.metadata.owner_references = Some(vec![owner]);
            job
        };
        assert_eq!(owners(&owned("a")), owners(&owned("a")));
        assert_ne!(owners(&owned("a")), owners(&owned("b")));
        assert_ne!(owners(&owned("a")), owners(&Job::default()));
    }
}
