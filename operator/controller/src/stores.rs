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
    packed::{Pack, Packed, Parents},
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
    pub approvals: Store<UnlearnApproval>,
    pub runs: Store<Packed<UnlearnRun>>,
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
        let stores =
            Self { client, models, policies, cluster_policies, requests, approvals, runs, jobs, pods, kueue };
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
        let (Change::Applied(request) | Change::Deleted(request)) = change else {
            return self.everything(stores);
        };
        let (namespace, name) = (namespace(request), request.name_any());
        if matches!(change, Change::Applied(_)) {
            self.request(&namespace, &name);
        }
        self.model(&namespace, &request.index.model);
        for duplicate in stores.duplicates_of(&namespace, &name) {
            self.request(&namespace, &duplicate);
        }
        let works_for_it = |run: &Packed<UnlearnRun>| {
            in_namespace(run, &namespace) && run.index.requests.iter().any(|r| *r.name == *name)
        };
        for run in stores.runs.state_filter(works_for_it) {
            self.run(&namespace, &run.name_any());
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

#[cfg(test)]
mod tests {
    use kube::Config;
    use kube_runtime::watcher::Event;
    use lethe_api::{
        Digest,
        v1alpha1::{DiffusionModelStatus, ModelPhase, PolicyKind, UnlearnRequestStatus},
    };
    use serde_json::json;

    use super::*;
    use crate::last_told::LastTold;

    fn object<T: DeserializeOwned>(kind: &str, name: &str, spec: serde_json::Value) -> T {
        serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": "studio"}, "spec": spec,
        }))
        .unwrap()
    }

    fn asked(name: &str, model: &str) -> UnlearnRequest {
        let replacement = json!({"strategy": "Nearest"});
        let targets = json!([{"label": "3"}]);
        let spec = json!({"modelRef": {"name": model}, "targets": targets, "override": replacement});
        object("UnlearnRequest", name, spec)
    }

    fn model(name: &str, policy: &str, target: &str) -> DiffusionModel {
        let base = json!({"uri": "file:///b", "digest": Digest::of(b"")});
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": target});
        let serving = json!({"target": target, "container": "server"});
        object(
            "DiffusionModel",
            name,
            json!({"base": base, "policyRef": {"name": policy}, "serving": serving}),
        )
    }

    fn run(name: &str, model: &str, requests: &[&str]) -> Packed<UnlearnRun> {
        let requests: Vec<_> =
            requests.iter().map(|name| json!({"name": name, "uid": "u", "targets": ["3"]})).collect();
        let policy = json!({"trainer": {"image": "x"}, "gates": []});
        let spec = json!({
            "model": model, "type": "Forget", "requests": requests, "policy": policy,
            "plan": "", "planDigest": Digest::of(b""),
        });
        object("UnlearnRun", name, spec)
    }

    /// Two models under one policy and one under a policy of the cluster that is called the same, a request for each of the
    /// two and one that waits for the first, and a run for that.
    fn studio() -> Stores {
        // The client is never used: nothing here calls the API server.
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        let (stores, mut writers) = Stores::new(Client::try_from(config).unwrap());
        for (name, target) in [("digits", "digits-server"), ("faces", "faces-server")] {
            writers.models.apply_watcher_event(&Event::Apply(model(name, "standard", target)));
            writers
                .requests
                .apply_watcher_event(&Event::Apply(asked(&format!("forget-{name}"), name).into()));
        }
        let mut voices = model("voices", "standard", "voices-server");
        voices.spec.policy_ref.kind = PolicyKind::ClusterUnlearnPolicy;
        writers.models.apply_watcher_event(&Event::Apply(voices));
        let mut same = asked("same", "digits");
        let duplicate_of = vec!["forget-digits".into()];
        same.status = Some(UnlearnRequestStatus { duplicate_of, ..UnlearnRequestStatus::default() });
        writers.requests.apply_watcher_event(&Event::Apply(same.into()));
        writers.runs.apply_watcher_event(&Event::Apply(run("digits-1", "digits", &["forget-digits"])));
        stores
    }

    fn named<K: Resource<DynamicType = ()>>(mut inbox: UnboundedReceiver<ObjectRef<K>>) -> Vec<String> {
        let mut names: Vec<_> = std::iter::from_fn(|| inbox.try_recv().ok())
            .map(|reference| format!("{}/{}", reference.namespace.unwrap_or_default(), reference.name))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The models, requests and runs that look again after what `change` does.
    fn woken(change: impl FnOnce(&Triggers, &Stores)) -> [Vec<String>; 3] {
        let stores = studio();
        let (triggers, inboxes) = Triggers::new();
        change(&triggers, &stores);
        [named(inboxes.models), named(inboxes.requests), named(inboxes.runs)]
    }

    fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
        names.into_iter().map(|name| format!("studio/{name}")).collect()
    }

    #[tokio::test]
    async fn a_request_that_goes_wakes_its_model_its_run_and_those_that_wait_for_it() {
        let gone = asked("forget-digits", "digits").into();
        let woken = woken(|t, s| t.on_request(s, Change::Deleted(&gone)));
        assert_eq!(woken, [names(["digits"]), names(["same"]), names(["digits-1"])]);
    }

    #[tokio::test]
    async fn a_run_wakes_itself_its_model_and_its_requests_only() {
        let changed = run("digits-1", "digits", &["forget-digits"]);
        let woken = woken(|t, s| t.on_run(s, Change::Applied(&changed)));
        assert_eq!(woken, [names(["digits"]), names(["forget-digits"]), names(["digits-1"])]);
    }

    #[tokio::test]
    async fn a_policy_wakes_every_model_under_it_and_their_requests() {
        let spec = json!({"trainer": {"image": "x"}, "gates": []});
        let created = object("UnlearnPolicy", "standard", spec);
        let woken = woken(|t, s| t.on_policy(s, Change::Applied(&created)));
        assert_eq!(
            woken,
            [names(["digits", "faces"]), names(["forget-digits", "forget-faces", "same"]), vec![]]
        );
    }

    #[tokio::test]
    async fn a_policy_of_the_cluster_wakes_the_models_that_name_its_kind() {
        let spec = json!({"trainer": {"image": "x"}, "gates": []});
        let mut created: ClusterUnlearnPolicy = object("ClusterUnlearnPolicy", "standard", spec);
        created.metadata.namespace = None;
        let woken = woken(|t, s| t.on_cluster_policy(s, Change::Applied(&created)));
        assert_eq!(woken, [names(["voices"]), vec![], vec![]]);
    }

    #[tokio::test]
    async fn a_serving_target_wakes_its_model_and_a_child_its_run() {
        let deployment: PartialObjectMeta<Deployment> =
            serde_json::from_value(json!({"metadata": {"name": "faces-server", "namespace": "studio"}}))
                .unwrap();
        let pod: Packed<Pod> = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "studio", "labels": {labels::RUN: "digits-1"}},
        }))
        .unwrap();
        let woken = woken(|t, s| {
            t.on_deployment(s, Change::Applied(&deployment));
            t.on_child(s, Change::Deleted(&pod));
        });
        assert_eq!(woken, [names(["faces"]), vec![], names(["digits-1"])]);
    }

    #[tokio::test]
    async fn what_people_said_in_another_namespace_is_not_heard() {
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        let (stores, mut writers) = Stores::new(Client::try_from(config).unwrap());
        for (name, namespace, request) in [
            ("ada", "studio", "forget-digits"),
            ("ben", "elsewhere", "forget-digits"),
            ("cleo", "studio", "other"),
        ] {
            let spec = json!({
                "requestRef": {"name": request, "uid": "u"}, "decision": "Approve", "approver": name,
                "reason": "as agreed",
            });
            let mut approval: UnlearnApproval = object("UnlearnApproval", name, spec);
            approval.metadata.namespace = Some(namespace.into());
            writers.approvals.apply_watcher_event(&Event::Apply(approval));
        }
        let heard = stores.approvals_of("studio", |said| said.request_ref.name == "forget-digits");
        let by: Vec<_> = heard.iter().map(|approval| approval.spec.approver.as_str()).collect();
        assert_eq!(by, ["ada"]);
    }

    #[tokio::test]
    async fn a_model_that_goes_wakes_those_that_wait_for_its_target() {
        let gone = model("earlier", "standard", "faces-server");
        let woken = woken(|t, s| t.on_model(s, Change::Deleted(&gone), &mut LastTold::default()));
        assert_eq!(woken, [names(["faces"]), vec![], vec![]]);
    }

    #[tokio::test]
    async fn a_model_wakes_its_requests_only_if_it_tells_them_something_new() {
        let mut told = LastTold::default();
        let mut after = |change: &dyn Fn(&mut DiffusionModelStatus)| {
            let mut changed = model("digits", "standard", "digits-server");
            changed.status = Some(DiffusionModelStatus::default());
            change(changed.status.as_mut().unwrap());
            woken(|t, s| t.on_model(s, Change::Applied(&changed), &mut told))[1].clone()
        };
        assert_eq!(after(&|_| {}), names(["forget-digits", "same"]));
        assert_eq!(after(&|status| status.phase = Some(ModelPhase::Ready)), names([]));
        assert_eq!(
            after(&|status| status.active_run = Some("digits-1".into())),
            names(["forget-digits", "same"])
        );
        assert_eq!(after(&|status| status.active_run = Some("digits-2".into())), names([]));
    }

    #[tokio::test]
    async fn after_a_new_list_everything_is_looked_at() {
        let woken = woken(|t, s| t.on_child::<Pod>(s, Change::Listed));
        let requests = names(["forget-digits", "forget-faces", "same"]);
        assert_eq!(woken, [names(["digits", "faces", "voices"]), requests, names(["digits-1"])]);
    }
}
