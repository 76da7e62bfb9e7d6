//! Objects of a watched kind that cannot be read: by the operator they are as good as not there, so somebody has to be told which
//! they are, for as long as that is so.

use std::{collections::BTreeSet, sync::Arc};

use kube::{Resource, ResourceExt, core::DeserializeGuard};
use kube_runtime::watcher::Event;

use crate::metrics::Metrics;

/// Namespace and name.
type Key = [String; 2];

/// Those of one watch.
pub struct Unreadable {
    kind: String,
    metrics: Arc<Metrics>,
    now: BTreeSet<Key>,
    /// Since the watch was opened anew. What is not among them by the end of the list is gone, or can be read.
    listed: BTreeSet<Key>,
}

impl Unreadable {
    pub fn new(kind: &str, metrics: Arc<Metrics>) -> Self {
        Self { kind: kind.into(), metrics, now: BTreeSet::new(), listed: BTreeSet::new() }
    }

    /// Hears of everything that the watch tells.
    pub fn hear<K: Resource>(&mut self, event: &Event<DeserializeGuard<K>>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) if object.0.is_err() => {
                self.listed.insert(key(object));
                self.add(key(object));
            }
            Event::InitApply(_) => {}
            Event::InitDone => {
                let gone: Vec<_> = self.now.difference(&self.listed).cloned().collect();
                gone.iter().for_each(|key| self.drop(key));
            }
            Event::Apply(object) if object.0.is_err() => self.add(key(object)),
            Event::Apply(object) | Event::Delete(object) => self.drop(&key(object)),
        }
    }

    fn add(&mut self, key: Key) {
        self.metrics.unreadable_objects.with_label_values(&[&self.kind, &key[0], &key[1]]).set(1);
        self.now.insert(key);
    }

    fn drop(&mut self, key: &Key) {
        if self.now.remove(key) {
            // Of the labels under which it was added.
            let _ = self.metrics.unreadable_objects.remove_label_values(&[&self.kind, &key[0], &key[1]]);
        }
    }
}

fn key<K: Resource>(object: &DeserializeGuard<K>) -> Key {
    [object.namespace().unwrap_or_default(), object.name_any()]
}

#[cfg(test)]
mod tests {
    use lethe_api::v1alpha1::UnlearnPolicy;
    use serde_json::{Value, json};

    use super::*;

    fn policy(name: &str, image: Value) -> DeserializeGuard<UnlearnPolicy> {
        serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnPolicy",
            "metadata": {"name": name, "namespace": "studio"},
            "spec": {"trainer": {"image": image}, "gates": []},
        }))
        .unwrap()
    }

    fn good(name: &str) -> DeserializeGuard<UnlearnPolicy> {
        policy(name, json!("trainer:1"))
    }

    fn bad(name: &str) -> DeserializeGuard<UnlearnPolicy> {
        policy(name, json!(7))
    }

    /// The names of those that are told of.
    fn told(metrics: &Metrics) -> Vec<String> {
        let text = metrics.render().unwrap();
        let of_it = |line: &&str| line.starts_with("lethe_unreadable_object{") && line.ends_with("} 1");
        let name = |line: &str| line.split("object=\"").nth(1)?.split('"').next().map(str::to_owned);
        text.lines().filter(of_it).filter_map(name).collect()
    }

    #[test]
    fn an_object_that_cannot_be_read_is_named_until_it_can_be_or_is_gone() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut unreadable = Unreadable::new("UnlearnPolicy", metrics.clone());
        let steps = [
            (Event::Init, &[][..]),
            (Event::InitApply(bad("a")), &["a"][..]),
            (Event::InitApply(good("b")), &["a"]),
            (Event::InitDone, &["a"]),
            (Event::Apply(bad("b")), &["a", "b"]),
            (Event::Apply(bad("b")), &["a", "b"]),
            (Event::Apply(good("a")), &["b"]),
            (Event::Delete(bad("b")), &[]),
            (Event::Delete(good("a")), &[]),
        ];
        for (event, names) in steps {
            unreadable.hear(&event);
            assert_eq!(told(&metrics), names);
        }
    }

    #[test]
    fn what_was_put_right_or_deleted_while_the_watch_was_broken_is_forgotten_by_the_next_list() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut unreadable = Unreadable::new("UnlearnPolicy", metrics.clone());
        for event in ["a", "b", "c"].map(|name| Event::Apply(bad(name))) {
            unreadable.hear(&event);
        }
        let list =
            [Event::Init, Event::InitApply(good("a")), Event::InitApply(bad("b")), Event::<_>::InitDone];
        for event in &list {
            unreadable.hear(event);
        }
        assert_eq!(told(&metrics), ["b"]);
    }
}
