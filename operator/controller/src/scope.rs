//! One watched scope: a namespace, or all of them. Everything that belongs together in Lethe lies in one
//! namespace, so scopes know nothing of each other.

use std::sync::Arc;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, NamespaceResourceScope},
};
use lethe_api::v1alpha1::labels;
use tokio::task::JoinSet;

use crate::{
    last_told::LastTold,
    metrics::Metrics,
    stores::{Inboxes, Stores, Triggers},
    streams::{Watch, config},
    watchdog::Watchdog,
};

pub struct Scope {
    pub stores: Stores,
    pub inboxes: Inboxes,
}

/// What every watch needs.
#[derive(Clone)]
pub struct Watching {
    pub client: Client,
    pub watchdog: Arc<Watchdog>,
    pub metrics: Arc<Metrics>,
    /// Whether Workloads are read.
    pub kueue: bool,
}

impl Scope {
    /// Starts the watches of a namespace, or of all. They end only if something is badly wrong.
    pub fn start(namespace: Option<&str>, with: &Watching, tasks: &mut JoinSet<()>) -> Self {
        let (mut stores, writers) = Stores::new(with.client.clone());
        let cluster_policies = namespace.is_none().then(|| stores.know_the_cluster());
        let workloads = with.kueue.then(|| stores.kueue.ask(with.client.clone()));
        let (triggers, inboxes) = Triggers::new();
        if let Some(workloads) = workloads {
            let (s, t) = (stores.clone(), triggers.clone());
            let watch = with.watch(None);
            let follow = workloads.follow(watch, with.api(namespace), move |c| t.on_workload(&s, c));
            tasks.spawn(follow);
        }
        let managed = format!("{}={}", labels::MANAGED_BY, labels::MANAGER);

        let (s, t) = (stores.clone(), triggers.clone());
        let mut told = LastTold::default();
        tasks.spawn(with.watch(None).reflect(with.api(namespace), writers.models, move |c| {
            t.on_model(&s, c, &mut told);
        }));
        let (s, t) = (stores.clone(), triggers.clone());
        tasks.spawn(
            with.watch(None).reflect(with.api(namespace), writers.policies, move |c| t.on_policy(&s, c)),
        );
        if let Some(writer) = cluster_policies {
            let (s, t) = (stores.clone(), triggers.clone());
            let policies = Api::all(with.client.clone());
            tasks.spawn(with.watch(None).reflect(policies, writer, move |c| t.on_cluster_policy(&s, c)));
        }
        let (s, t) = (stores.clone(), triggers.clone());
        tasks.spawn(
            with.watch(None).reflect(with.api(namespace), writers.requests, move |c| t.on_request(&s, c)),
        );
        let (s, t) = (stores.clone(), triggers.clone());
        tasks.spawn(
            with.watch(None).reflect(with.api(namespace), writers.approvals, move |c| t.on_approval(&s, c)),
        );
        let (s, t) = (stores.clone(), triggers.clone());
        tasks.spawn(with.watch(None).reflect(with.api(namespace), writers.runs, move |c| t.on_run(&s, c)));
        let (s, t) = (stores.clone(), triggers.clone());
        let jobs = with.watch(Some(&managed));
        tasks.spawn(jobs.reflect(with.api(namespace), writers.jobs, move |c| t.on_child::<Job>(&s, c)));
        let (s, t) = (stores.clone(), triggers.clone());
        let pods = with.watch(Some(&managed));
        tasks.spawn(pods.reflect(with.api(namespace), writers.pods, move |c| t.on_child::<Pod>(&s, c)));
        // A serving target is anybody's Deployment: only the fact that it changed is watched.
        let (s, t) = (stores.clone(), triggers);
        let deployments = with.plain_api(namespace);
        tasks.spawn(with.watch(None).follow(deployments, move |c| t.on_deployment(&s, c)));

        Self { stores, inboxes }
    }
}

impl Watching {
    fn watch(&self, labels: Option<&str>) -> Watch {
        Watch { config: config(labels), watchdog: self.watchdog.clone(), metrics: self.metrics.clone() }
    }

    fn api<K>(&self, namespace: Option<&str>) -> Api<DeserializeGuard<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        self.plain_api(namespace)
    }

    fn plain_api<K>(&self, namespace: Option<&str>) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}
