//! One watch per kind, each with its own backoff, into a store.

use std::{fmt::Debug, hash::Hash, sync::Arc};

use futures::{StreamExt, stream::BoxStream};
use kube::{Api, Resource, ResourceExt, core::DeserializeGuard};
use kube_runtime::{
    WatchStreamExt,
    reflector::{ObjectRef, Store, store::Writer},
    watcher::{self, Event, InitialListStrategy, watcher},
};
use serde::de::DeserializeOwned;

use crate::{
    kept::{self, Kept},
    metrics::Metrics,
    unreadable::Unreadable,
    watchdog::Watchdog,
};

/// What a watch told.
pub enum Change<'a, K> {
    /// It is new, or it changed.
    Applied(&'a K),
    Deleted(&'a K),
    /// The store was filled anew: anything may have changed, and deletions may have been missed.
    Listed,
}

/// How to watch objects, optionally with a label selector.
pub fn config(labels: Option<&str>) -> watcher::Config {
    let config = watcher::Config::default();
    match labels {
        Some(labels) => config.labels(labels),
        None => config,
    }
}

/// A watch and what it reports to.
pub struct Watch {
    pub config: watcher::Config,
    pub watchdog: Arc<Watchdog>,
    pub metrics: Arc<Metrics>,
}

impl Watch {
    /// Keeps a store up to date, and tells `observe` about every change after the store has it. Never ends.
    ///
    /// An object that is not of its schema does not break the watch: it is as if it were not there, which a
    /// look at the API server then contradicts (see [`crate::stores::Stores::find`]).
    pub async fn reflect<K>(
        mut self,
        api: Api<DeserializeGuard<K>>,
        mut writer: Writer<K>,
        mut observe: impl FnMut(Change<'_, K>),
    ) where
        K: Kept + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Default + Eq + Hash + Clone,
    {
        let store = writer.as_reader();
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        self.metrics.malformed_objects.with_label_values(&[&kind]);
        let mut unreadable = Unreadable::new(&kind, self.metrics.clone());
        let path = api.resource_url().to_owned();
        // One object after the other, of what the API server has in memory.
        self.config = self.config.page_size(K::PAGE).streaming_lists();
        self.config.field_selector = K::FIELDS.map(Into::into);
        let mut events = self.open(api.clone());
        let mut is_listing = false;
        while let Some(event) = events.next().await {
            if self.config.initial_list_strategy == InitialListStrategy::StreamingList
                && cannot_stream(&event, is_listing)
            {
                tracing::warn!(
                    path,
                    "the API server streams no lists, or not to their end: they are read page by page"
                );
                self.metrics.watch_errors.with_label_values(&[resource(&path)]).inc();
                self.config.initial_list_strategy = InitialListStrategy::ListWatch;
                (events, is_listing) = (self.open(api.clone()), false);
                continue;
            }
            let Some(event) = self.heard(&path, event) else { continue };
            match event {
                Event::Init => is_listing = true,
                Event::InitDone => is_listing = false,
                _ => {}
            }
            unreadable.hear(&event);
            let Some(event) = self.well_formed(&store, event) else { continue };
            writer.apply_watcher_event(&event);
            match &event {
                Event::Apply(object) => observe(Change::Applied(object)),
                Event::Delete(object) => observe(Change::Deleted(object)),
                Event::InitDone => observe(Change::Listed),
                Event::Init | Event::InitApply(_) => {}
            }
        }
    }

    /// Tells `observe` about every change and keeps nothing. Never ends.
    pub async fn follow<K>(self, api: Api<K>, mut observe: impl FnMut(Change<'_, K>))
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let path = api.resource_url().to_owned();
        let mut events = self.open(api);
        while let Some(event) = events.next().await {
            match self.heard(&path, event) {
                Some(Event::Apply(object)) => observe(Change::Applied(&object)),
                Some(Event::Delete(object)) => observe(Change::Deleted(&object)),
                Some(Event::InitDone) => observe(Change::Listed),
                Some(Event::Init | Event::InitApply(_)) | None => {}
            }
        }
    }

    /// What happens, for as long as somebody asks. A watch that breaks is opened again.
    fn open<K>(&self, api: Api<K>) -> BoxStream<'static, watcher::Result<Event<K>>>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        self.metrics.watch_errors.with_label_values(&[resource(api.resource_url())]);
        let config = self.config.clone().timeout(self.watchdog.watch_seconds());
        watcher(api, config).default_backoff().boxed()
    }

    fn heard<K>(&self, path: &str, event: watcher::Result<Event<K>>) -> Option<Event<K>> {
        match event {
            Ok(event) => {
                self.watchdog.beat(path);
                Some(event)
            }
            Err(error) => {
                tracing::warn!(path, %error, "a watch failed; it is opened again");
                self.metrics.watch_errors.with_label_values(&[resource(path)]).inc();
                None
            }
        }
    }

    fn well_formed<K>(&self, store: &Store<K>, event: Event<DeserializeGuard<K>>) -> Option<Event<K>>
    where
        K: Kept + Clone + 'static,
        K::DynamicType: Default + Eq + Hash + Clone,
    {
        let wrap = match &event {
            Event::Apply(_) => Event::Apply,
            Event::Delete(_) => Event::Delete,
            Event::InitApply(_) => Event::InitApply,
            Event::Init => return Some(Event::Init),
            Event::InitDone => return Some(Event::InitDone),
        };
        let (Event::Apply(guard) | Event::Delete(guard) | Event::InitApply(guard)) = event else {
            return None;
        };
        let name = guard.name_any();
        let namespace = guard.namespace();
        match guard.0 {
            Ok(object) if !object.is_read() => None,
            Ok(mut object) => {
                kept::trim(&mut object);
                Some(wrap(object))
            }
            Err(invalid) => {
                let kind = K::kind(&K::DynamicType::default()).into_owned();
                let error = invalid.error;
                tracing::error!(kind, name, namespace, error, "ignored an object that is not of its schema");
                self.metrics.malformed_objects.with_label_values(&[&kind]).inc();
                let mut key = ObjectRef::<K>::new(&name);
                key.namespace = namespace;
                store.get(&key).map(|known| Event::Delete(known.as_ref().clone()))
            }
        }
    }
}

/// Whether a watch cannot begin with what there is: the API server refuses it, since its feature `WatchList` is switched off, or
/// what was begun ended before all was told, and begins anew.
fn cannot_stream<K>(event: &watcher::Result<Event<K>>, is_listing: bool) -> bool {
    match event {
        Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) => status.code == 422,
        Ok(Event::Init) => is_listing,
        _ => false,
    }
}

/// The last segment of a watched path: one of the few resources that are watched.
fn resource(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use kube_runtime::reflector;
    use lethe_api::v1alpha1::UnlearnPolicy;
    use serde_json::json;

    use super::*;

    fn watch() -> Watch {
        Watch {
            config: config(None),
            watchdog: Arc::new(Watchdog::new(200)),
            metrics: Arc::new(Metrics::new().unwrap()),
        }
    }

    fn policy(image: serde_json::Value) -> DeserializeGuard<UnlearnPolicy> {
        serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnPolicy",
            "metadata": {
                "name": "standard", "namespace": "studio", "managedFields": [{"manager": "kubectl"}],
                "annotations": {"note": "long"},
            },
            "spec": {"trainer": {"image": image}, "gates": []},
        }))
        .unwrap()
    }

    #[test]
    fn a_list_that_is_refused_or_does_not_come_to_its_end_is_read_page_by_page() {
        let refused = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            Err(watcher::Error::WatchStartFailed(kube::Error::Api(status.boxed())))
        };
        let begins = || Ok(Event::<UnlearnPolicy>::Init);
        assert!(cannot_stream::<UnlearnPolicy>(&refused(422), false) && cannot_stream(&begins(), true));
        assert!(!cannot_stream::<UnlearnPolicy>(&refused(403), false) && !cannot_stream(&begins(), false));
        assert!(!cannot_stream(&Ok(Event::<UnlearnPolicy>::InitDone), true));
    }

    #[test]
    fn a_malformed_object_leaves_the_store_and_is_counted() {
        let (store, mut writer) = reflector::store::<UnlearnPolicy>();
        let watch = watch();
        for event in [Event::Init, Event::InitApply(policy(json!("trainer:1"))), Event::InitDone] {
            writer.apply_watcher_event(&watch.well_formed(&store, event).unwrap());
        }
        assert_eq!(store.len(), 1);
        let kept = &store.state()[0].metadata;
        assert!(kept.managed_fields.is_none() && kept.annotations.is_none(), "{kept:?}");

        let event = watch.well_formed(&store, Event::Apply(policy(json!(7)))).unwrap();
        writer.apply_watcher_event(&event);
        assert!(store.is_empty());
        assert_eq!(watch.metrics.malformed_objects.with_label_values(&["UnlearnPolicy"]).get(), 1);
        assert!(watch.well_formed(&store, Event::Apply(policy(json!(7)))).is_none());
    }
}
