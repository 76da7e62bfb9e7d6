//! What there is beside the serving target: a second Deployment, and a Service where audits ask it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{Service, ServicePort, ServiceSpec},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::{Resource, ResourceExt, core::ObjectMeta};
use lethe_api::v1alpha1::{BUNDLE_ANNOTATION, Canary, DiffusionModel, Rollout, labels};

use crate::{Effect, job, model::Lineage, rollout::PodReport};

/// What there is of a second Deployment. Not from a cache.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Of the name that [`to_look_for`] says, whoever made it.
    pub deployment: Option<Deployment>,
    /// The same of the Service.
    pub service: Option<Service>,
    /// What its pods say that are ready, even if it is gone.
    pub reports: Vec<PodReport>,
}

impl Seen {
    /// What of it is somebody else's.
    pub(crate) fn is_taken(&self, model: &DiffusionModel) -> Option<&'static str> {
        let deployment = self.deployment.as_ref().filter(|found| !is_ours(model, *found));
        let service = self.service.as_ref().filter(|found| !is_ours(model, *found));
        deployment.map(|_| "Deployment").or(service.map(|_| "Service"))
    }
}

/// Whether it is this very model's.
pub fn is_ours(model: &DiffusionModel, object: &impl Resource) -> bool {
    let uid = model.uid();
    let owners = object.meta().owner_references.iter().flatten();
    uid.is_some() && owners.into_iter().any(|owner| Some(&owner.uid) == uid.as_ref())
}

/// Whether somebody has deleted it, and it is not gone yet.
pub(crate) fn is_going(object: &impl Resource) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Whether its pods have every label of the target's, by which the users' Services find them.
pub fn gets_traffic(canary: &Deployment, target: &Deployment) -> bool {
    let own = pod_labels(canary);
    traffic_labels(target).iter().all(|(key, value)| own.get(key) == Some(value))
}

pub(crate) fn pod_labels(deployment: &Deployment) -> BTreeMap<String, String> {
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    template.and_then(|meta| meta.labels.clone()).unwrap_or_default()
}

pub(crate) fn traffic_labels(target: &Deployment) -> BTreeMap<String, String> {
    let mut labels = pod_labels(target);
    labels.remove(labels::CANARY);
    labels
}

/// Takes away what there is of it. False if nothing of it is there any more.
pub(crate) fn take_away(lineage: &mut Lineage<'_>) -> bool {
    let observed = lineage.observed;
    let Seen { deployment, service, reports } = &observed.canary;
    let found = deployment.as_ref().filter(|found| is_ours(&observed.model, *found));
    let service = service.as_ref().filter(|found| is_ours(&observed.model, *found));
    // Users may get the candidate by its pods. What is being deleted already waits for somebody's finalizer, not for us.
    lineage.effects.extend(found.filter(|it| !is_going(*it)).map(delete));
    let service_is_deleted = service
        .filter(|it| !is_going(*it))
        .map(|it| Effect::DeleteService { name: it.name_any(), uid: it.uid().unwrap_or_default() });
    lineage.effects.extend(service_is_deleted);
    // The Deployment goes before its pods do. Somebody else's of the name has none of ours.
    let has_pods = deployment.is_none() && !reports.is_empty();
    let is_there = found.is_some() || service.is_some() || has_pods;
    if is_there {
        lineage.look_again_in(crate::POLL);
    }
    is_there
}

pub(crate) fn delete(found: &Deployment) -> Effect {
    Effect::DeleteDeployment { name: found.name_any(), uid: found.uid().unwrap_or_default() }
}

fn meta(model: &DiffusionModel, canary: &Canary) -> ObjectMeta {
    let own = [
        (labels::MANAGED_BY, labels::MANAGER.to_owned()),
        (labels::MODEL, model.name_any()),
        (labels::CANARY, model.name_any()),
    ];
    ObjectMeta {
        name: Some(canary.name.clone()),
        namespace: model.namespace(),
        owner_references: job::owner(model).map(|owner| vec![owner]),
        labels: Some(own.map(|(key, value)| (key.to_owned(), value)).into()),
        ..ObjectMeta::default()
    }
}

fn selector(model: &DiffusionModel) -> BTreeMap<String, String> {
    [(labels::CANARY.to_owned(), model.name_any())].into()
}

/// The target's pods with another bundle and without their labels.
pub(crate) fn deployment(
    model: &DiffusionModel,
    target: &Deployment,
    rollout: &Rollout,
    canary: &Canary,
) -> Deployment {
    let of_target = target.spec.clone().unwrap_or_default();
    let mut template = of_target.template;
    let pods = template.metadata.get_or_insert_default();
    let annotations = pods.annotations.take().unwrap_or_default();
    let bundle = (BUNDLE_ANNOTATION.to_owned(), rollout.to.to_string());
    *pods = ObjectMeta {
        labels: Some(selector(model)),
        annotations: Some(annotations.into_iter().chain([bundle]).collect()),
        ..ObjectMeta::default()
    };
    Deployment {
        metadata: meta(model, canary),
        spec: Some(DeploymentSpec {
            replicas: Some(0),
            selector: LabelSelector { match_labels: Some(selector(model)), ..LabelSelector::default() },
            template,
            min_ready_seconds: of_target.min_ready_seconds,
            revision_history_limit: Some(0),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// Where the audit asks the candidate, whoever else sees it.
pub(crate) fn service(model: &DiffusionModel, canary: &Canary) -> Service {
    let port = i32::from(model.spec.serving.port);
    let port = ServicePort { port, target_port: Some(IntOrString::Int(port)), ..ServicePort::default() };
    Service {
        metadata: meta(model, canary),
        spec: Some(ServiceSpec {
            selector: Some(selector(model)),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
