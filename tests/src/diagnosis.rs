//! What a failed scenario shows.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod, events::v1::Event};
use kube::{Api, ResourceExt, api::ListParams};
use lethe_api::v1alpha1::{DiffusionModel, UnlearnRequest, UnlearnRun};
use serde::de::DeserializeOwned;

use crate::{
    place::Place,
    wait::{Kind, show},
};

impl Place {
    /// Objects and events.
    pub async fn diagnose(&self) -> String {
        let mut text = format!("namespace {}", self.namespace);
        text += &self.shown::<DiffusionModel>().await;
        text += &self.shown::<UnlearnRequest>().await;
        text += &self.shown::<UnlearnRun>().await;
        text += &self.statuses::<Job>().await;
        text += &self.statuses::<Pod>().await;
        text + &events(&self.api()).await
    }

    async fn shown<K>(&self) -> String
    where
        K: Kind + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    {
        let objects = self.api::<K>().list(&ListParams::default()).await.map(|list| list.items);
        let objects = objects.unwrap_or_default();
        objects.iter().map(|object| format!("\n---\n{}", show(object))).collect()
    }

    async fn statuses<K>(&self) -> String
    where
        K: Kind + DeserializeOwned + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    {
        let objects = self.api::<K>().list(&ListParams::default()).await.map(|list| list.items);
        let one = |object: &K| {
            let value = serde_json::to_value(object).unwrap_or_default();
            format!("\n{} {}: {}", K::kind(&()), object.name_any(), value["status"])
        };
        objects.unwrap_or_default().iter().map(one).collect()
    }
}

/// One line per event, in the order in which they were published.
pub async fn events(api: &Api<Event>) -> String {
    let mut events = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    events.sort_by_key(|event| event.creation_timestamp().map(|at| at.0));
    let line = |event: &Event| {
        let object = event.regarding.as_ref();
        let (kind, name) = object.map(|o| (o.kind.clone(), o.name.clone())).unwrap_or_default();
        format!(
            "\nevent {} {} {}/{}: {}",
            event.type_.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            kind.unwrap_or_default(),
            name.unwrap_or_default(),
            event.note.as_deref().unwrap_or_default()
        )
    };
    events.iter().map(line).collect()
}
