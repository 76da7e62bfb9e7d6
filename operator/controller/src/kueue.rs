//! What Kueue says of Jobs. It may come later than the operator, go, or never be there.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::{Api, Client, Resource, core::DeserializeGuard};
use kube_runtime::reflector::{self, Store, store::Writer};
use lethe_core::kueue::{Queueing, Workload};
use tokio::{sync::watch, time::timeout};

use crate::{
    calls,
    error::{Category, Result},
    run::is_owned_by,
    stores::{Stores, Triggers, in_namespace, namespace},
    streams::{Change, Watch},
};

/// How often to look whether the API server has come to know Workloads.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// So long does an operator that starts wait for the first answer. Without it, it could say of a Job that waits in its queue that
/// it is in none, and take it back a moment later.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// Whether Workloads are read, and what was read of them.
#[derive(Clone)]
pub enum Kueue {
    NotAsked,
    Asked { workloads: Store<Workload>, state: watch::Receiver<State> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Unknown,
    NotInstalled,
    /// The cache was filled.
    Listed,
}

/// The other end of [`Kueue`].
pub struct Workloads {
    writer: Writer<Workload>,
    state: watch::Sender<State>,
    client: Client,
}

impl Kueue {
    /// Workloads are to be read from now on.
    pub fn ask(&mut self, client: Client) -> Workloads {
        let (workloads, writer) = reflector::store();
        let (state, reader) = watch::channel(State::Unknown);
        *self = Self::Asked { workloads, state: reader };
        Workloads { writer, state, client }
    }

    /// Waits until it is known whether there is a Kueue, and what it says; but not for ever, since nothing but words depends on it.
    pub async fn ready(&self) {
        let Self::Asked { state, .. } = self else { return };
        let mut state = state.clone();
        let known = timeout(READY_WITHIN, state.wait_for(|state| *state != State::Unknown)).await;
        if known.is_err() {
            tracing::warn!("cannot read the Workloads of Kueue: why Jobs wait in queues is not known yet");
        }
    }

    pub fn says_of(&self, job: &Job) -> Queueing {
        let Self::Asked { workloads, state } = self else { return Queueing::NotAsked };
        match *state.borrow() {
            State::Unknown => return Queueing::NotAsked,
            State::NotInstalled => return Queueing::NotInstalled,
            State::Listed => {}
        }
        let of_job = job.metadata.namespace.as_deref().unwrap_or_default();
        // One that is being deleted gives way to another.
        let is_its = |workload: &Workload| {
            in_namespace(workload, of_job)
                && is_owned_by(workload, job)
                && workload.metadata.deletion_timestamp.is_none()
        };
        let found = workloads.find(is_its);
        Queueing::Asked(found.map(|workload| Box::new(workload.as_ref().clone())))
    }
}

impl Workloads {
    /// Waits until the API server knows Workloads, and then keeps what it knows of them up to date. Never ends.
    pub async fn follow(
        self,
        watch: Watch,
        api: Api<DeserializeGuard<Workload>>,
        mut observe: impl FnMut(Change<'_, Workload>),
    ) {
        let Self { writer, state, client } = self;
        loop {
            match is_served(&client).await {
                Ok(true) => break,
                Ok(false) => drop(state.send_replace(State::NotInstalled)),
                Err(error) => tracing::warn!(%error, "cannot find out whether there is a Kueue"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let observe = move |change: Change<'_, Workload>| {
            if matches!(change, Change::Listed) {
                state.send_replace(State::Listed);
            }
            observe(change);
        };
        watch.reflect(api, writer, observe).await;
    }
}

impl Triggers {
    /// What Kueue says of a Job of a run.
    pub fn on_workload(&self, stores: &Stores, change: Change<'_, Workload>) {
        let (Change::Applied(workload) | Change::Deleted(workload)) = change else {
            return self.everything(stores);
        };
        if let Some(run) = workload.run() {
            self.run(&namespace(workload), run);
        }
    }
}

/// Everybody may ask for it.
async fn is_served(client: &Client) -> Result<bool> {
    let version = Workload::api_version(&());
    let call = client.list_api_group_resources(&version);
    match calls::read(format!("list the resources of {version}"), call).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == Workload::plural(&()))),
        Err(error) if error.category() == Category::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use kube::Config;
    use kube_runtime::watcher::Event;
    use serde_json::{Value, json};

    use super::*;

    fn job() -> Job {
        let job = json!({"metadata": {"name": "digits-1-forget", "namespace": "studio", "uid": "job"}});
        serde_json::from_value(job).unwrap()
    }

    fn workload(name: &str, uid: &str, more: Value) -> Workload {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "digits-1-forget", "uid": uid});
        let mut metadata = json!({"name": name, "namespace": "studio", "ownerReferences": [owner]});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let workload = json!({
            "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": metadata, "spec": {},
        });
        serde_json::from_value(workload).unwrap()
    }

    #[tokio::test]
    async fn what_is_not_known_is_not_said() {
        let job = job();
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let mut kueue = Kueue::NotAsked;
        assert_eq!(kueue.says_of(&job), Queueing::NotAsked);
        let Workloads { mut writer, state, .. } = kueue.ask(client);
        assert_eq!(kueue.says_of(&job), Queueing::NotAsked);
        state.send_replace(State::NotInstalled);
        kueue.ready().await;
        assert_eq!(kueue.says_of(&job), Queueing::NotInstalled);

        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(workload("another", "other", json!({}))));
        let gone = json!({"deletionTimestamp": "2026-11-24T21:00:00Z"});
        writer.apply_watcher_event(&Event::InitApply(workload("gone", "job", gone)));
        writer.apply_watcher_event(&Event::InitDone);
        state.send_replace(State::Listed);
        assert_eq!(kueue.says_of(&job), Queueing::Asked(None));
        let its = workload("job-digits-1-forget-0a1b2", "job", json!({}));
        writer.apply_watcher_event(&Event::Apply(its.clone()));
        assert_eq!(kueue.says_of(&job), Queueing::Asked(Some(Box::new(its))));
    }
}
