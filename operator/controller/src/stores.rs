//! What is known of the watched scope, and who has to look again when it changes.

use std::{fmt::Debug, sync::Arc};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{NamespaceResourceScope, PartialObjectMeta},
};
use kube_runtime::reflector::{self, ObjectRef, Store, store::Writer};
use lethe_api::v1alpha1::{
    ClusterUnlearnPolicy, DiffusionModel, UnlearnApproval, UnlearnApprovalSpec, UnlearnPolicy,
    UnlearnRequest, UnlearnRun, labels,
};
use serde::de::DeserializeOwned;

use crate::{
    calls,
    error::Result,
    kueue::Kueue,
    packed::{ByModel, Pack, Packed, Parents},
    streams::Change,
};

/// Caches of one namespace, or of all. Reading them costs nothing; they may lag behind the API server.
#[derive(Clone)]
pub struct Stores {
    pub(crate) client: Client,
    pub models: Store<DiffusionModel>,
    pub policies: Store<UnlearnPolicy>,
    /// None if some namespaces are watched only.
    pub cluster_policies: Option<Store<ClusterUnlearnPolicy>>,
    pub requests: Store<Packed<UnlearnRequest>>,
    pub requests_by_model: ByModel,
    pub approvals: Store<UnlearnApproval>,
    pub runs: Store<Packed<UnlearnRun>>,
    pub runs_by_model: ByModel,
    pub jobs: Store<Packed<Job>>,
    pub pods: Store<Packed<Pod>>,
    pub kueue: Kueue,
}

/// The other ends of [`Stores`].
pub struct Writers {
    pub models: Writer<DiffusionModel>,
    pub policies: Writer<UnlearnPolicy>,
    pub requests: Writer<Packed<UnlearnRequest>>,
    pub approvals: Writer<UnlearnApproval>,
    pub runs: Writer<Packed<UnlearnRun>>,
    pub jobs: Writer<Packed<Job>>,
    pub pods: Writer<Packed<Pod>>,
}

impl Stores {
    pub fn new(client: Client) -> (Self, Writers) {
        let (models, write_models) = reflector::store();
        let (policies, write_policies) = reflector::store();
        let (requests, write_requests) = reflector::store();
        let (approvals, write_approvals) = reflector::store();
        let (runs, write_runs) = reflector::store();
        let (jobs, write_jobs) = reflector::store();
        let (pods, write_pods) = reflector::store();
        let writers = Writers {
            models: write_models,
            policies: write_policies,
            requests: write_requests,
            approvals: write_approvals,
            runs: write_runs,
            jobs: write_jobs,
            pods: write_pods,
        };
        let (cluster_policies, kueue) = (None, Kueue::NotAsked);
        let (requests_by_model, runs_by_model) = (ByModel::default(), ByModel::default());
        let stores = Self {
            client,
            models,
            policies,
            cluster_policies,
            requests,
            requests_by_model,
            approvals,
            runs,
            runs_by_model,
            jobs,
            pods,
            kueue,
        };
        (stores, writers)
    }

    /// What is the cluster's is known as well.
    pub fn know_the_cluster(&mut self) -> Writer<ClusterUnlearnPolicy> {
        let (store, writer) = reflector::store();
        self.cluster_policies = Some(store);
        writer
    }

    /// Waits until every cache was filled once.
    pub async fn ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.models.wait_until_ready().await?;
        self.policies.wait_until_ready().await?;
        if let Some(policies) = &self.cluster_policies {
            policies.wait_until_ready().await?;
        }
        self.requests.wait_until_ready().await?;
        self.approvals.wait_until_ready().await?;
        self.runs.wait_until_ready().await?;
        self.jobs.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.kueue.ready().await;
        Ok(())
    }

    /// The object of that name. **Absence is confirmed by the API server**: a cache that lags behind must
    /// not make an object that was just created look lost.
    pub async fn find<K>(&self, store: &Store<K>, namespace: &str, name: &str) -> Result<Option<Arc<K>>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let key = ObjectRef::<K>::new(name).within(namespace);
        if let Some(known) = store.get(&key) {
            return Ok(Some(known));
        }
        Ok(self.confirm(store, namespace, name).await?.map(Arc::new))
    }

    /// The object of that name, as the API server has it. The store says only of which kind.
    pub async fn confirm<K>(&self, _: &Store<K>, namespace: &str, name: &str) -> Result<Option<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("read {} {namespace}/{name}", <K as Resource>::kind(&()));
        calls::read(what, api.get_opt(name)).await
    }

    /// A model, if the cache has it.
    pub fn model(&self, namespace: &str, name: &str) -> Option<Arc<DiffusionModel>> {
        self.models.get(&ObjectRef::new(name).within(namespace))
    }

    /// Other models with the same serving target.
    pub fn rivals_of(&self, model: &DiffusionModel) -> Vec<Arc<DiffusionModel>> {
        let (namespace, name) = (namespace(model), model.name_any());
        let target = &model.spec.serving.target.name;
        self.models.state_filter(|m| {
            in_namespace(m, &namespace) && m.spec.serving.target.name == *target && m.name_any() != name
        })
    }

    /// What people said that is such.
    pub fn approvals_of(
        &self,
        namespace: &str,
        is_such: impl Fn(&UnlearnApprovalSpec) -> bool,
    ) -> Vec<UnlearnApproval> {
        let of = |a: &UnlearnApproval| in_namespace(a, namespace) && is_such(&a.spec);
        self.approvals.state_filter(of).iter().map(|approval| approval.as_ref().clone()).collect()
    }
}

pub(crate) fn in_namespace(object: &impl ResourceExt, namespace: &str) -> bool {
    object.meta().namespace.as_deref() == Some(namespace)
}

/// Tells the three controllers which objects to look at. The queues behind it keep an object once,
/// however often it is named.
#[derive(Clone)]
pub struct Triggers {
    models: UnboundedSender<ObjectRef<DiffusionModel>>,
    requests: UnboundedSender<ObjectRef<Packed<UnlearnRequest>>>,
    runs: UnboundedSender<ObjectRef<Packed<UnlearnRun>>>,
}

/// What [`Triggers`] sends, for the controllers.
pub struct Inboxes {
    pub models: UnboundedReceiver<ObjectRef<DiffusionModel>>,
    pub requests: UnboundedReceiver<ObjectRef<Packed<UnlearnRequest>>>,
    pub runs: UnboundedReceiver<ObjectRef<Packed<UnlearnRun>>>,
}

impl Triggers {
    pub fn new() -> (Self, Inboxes) {
        let (models, models_inbox) = unbounded();
        let (requests, requests_inbox) = unbounded();
        let (runs, runs_inbox) = unbounded();
        let inboxes = Inboxes { models: models_inbox, requests: requests_inbox, runs: runs_inbox };
        (Self { models, requests, runs }, inboxes)
    }

    pub(crate) fn model(&self, namespace: &str, name: &str) {
        let _ = self.models.unbounded_send(ObjectRef::new(name).within(namespace));
    }

    pub(crate) fn request(&self, namespace: &str, name: &str) {
        let _ = self.requests.unbounded_send(ObjectRef::new(name).within(namespace));
    }

    pub(crate) fn run(&self, namespace: &str, name: &str) {
        let _ = self.runs.unbounded_send(ObjectRef::new(name).within(namespace));
    }

    pub(crate) fn everything(&self, stores: &Stores) {
        stores.models.state().iter().for_each(|m| self.model(&namespace(&**m), &m.name_any()));
        stores.requests.state().iter().for_each(|r| self.request(&namespace(&**r), &r.name_any()));
        stores.runs.state().iter().for_each(|r| self.run(&namespace(&**r), &r.name_any()));
    }

    pub fn on_request(&self, stores: &Stores, change: Change<'_, Packed<UnlearnRequest>>) {
        stores.requests_by_model.hear(&stores.requests, &change);
        let (Change::Applied(request) | Change::Deleted(request)) = change else {
            return self.everything(stores);
        };
        let (namespace, name) = (namespace(request), request.name_any());
        if matches!(change, Change::Applied(_)) {
            self.request(&namespace, &name);
        }
        self.model(&namespace, &request.index.model);
        for other in stores.duplicates_of(request) {
            self.request(&namespace, &other);
        }
        for run in stores.names_of_runs_for(request) {
            self.run(&namespace, &run);
        }
    }

    pub fn on_approval(&self, stores: &Stores, change: Change<'_, UnlearnApproval>) {
        match change {
            Change::Listed => self.everything(stores),
            Change::Applied(approval) | Change::Deleted(approval) => {
                let (namespace, name) = (namespace(approval), &approval.spec.request_ref.name);
                self.request(&namespace, name);
                if let Some(request) = stores.requests.get(&ObjectRef::new(name).within(&namespace)) {
                    self.model(&namespace, &request.index.model);
                }
            }
        }
    }

    pub fn on_run(&self, stores: &Stores, change: Change<'_, Packed<UnlearnRun>>) {
        stores.runs_by_model.hear(&stores.runs, &change);
        let (Change::Applied(run) | Change::Deleted(run)) = change else {
            return self.everything(stores);
        };
        let namespace = namespace(run);
        if matches!(change, Change::Applied(_)) {
            self.run(&namespace, &run.name_any());
        }
        self.model(&namespace, &run.index.model);
        for request in &run.index.requests {
            self.request(&namespace, &request.name);
        }
    }

    /// A Job or a pod of a run.
    pub fn on_child<K: Pack<Index = Parents>>(&self, stores: &Stores, change: Change<'_, Packed<K>>) {
        let (Change::Applied(child) | Change::Deleted(child)) = change else {
            return self.everything(stores);
        };
        if let Some(run) = &child.index.run {
            self.run(&namespace(child), run);
        }
    }

    pub fn on_deployment(&self, stores: &Stores, change: Change<'_, PartialObjectMeta<Deployment>>) {
        let (Change::Applied(target) | Change::Deleted(target)) = change else {
            return self.everything(stores);
        };
        let namespace = namespace(target);
        // One beside a target says whose it is.
        let beside = target.labels().get(labels::CANARY);
        let served_by = |m: &DiffusionModel| {
            let is_it = m.spec.serving.target.name == target.name_any() || Some(&m.name_any()) == beside;
            in_namespace(m, &namespace) && is_it
        };
        for model in stores.models.state_filter(served_by) {
            self.model(&namespace, &model.name_any());
        }
    }
}

pub(crate) fn namespace(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_default()
}
