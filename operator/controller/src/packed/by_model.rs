//! What belongs to a model, found without looking at all that there is: with thousands of requests that was most of what the
//! operator did.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use kube::{ResourceExt, core::NamespaceResourceScope};
use kube_runtime::reflector::{ObjectRef, Store};

use super::{Pack, Packed};
use crate::streams::Change;

/// Objects that name a model and keep to it.
pub trait OfModel {
    fn model(&self) -> &str;
}

/// Namespace and model.
type Key = (Box<str>, Box<str>);
type Names = HashSet<Box<str>>;

/// By namespace and model, the names of those objects. What is in the store counts: a name too many is of no consequence.
#[derive(Clone, Debug, Default)]
pub struct ByModel(Arc<RwLock<HashMap<Key, Names>>>);

impl ByModel {
    /// Keeps up with what the store has.
    pub fn hear<K>(&self, store: &Store<Packed<K>>, change: &Change<'_, Packed<K>>)
    where
        K: Pack<Index: OfModel, Scope = NamespaceResourceScope> + Clone,
    {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Applied(object) => _ = all.entry(key(object)).or_default().insert(name(object)),
            Change::Deleted(object) => {
                if let Some(names) = all.get_mut(&key(object)) {
                    names.remove(&name(object));
                    if names.is_empty() {
                        all.remove(&key(object));
                    }
                }
            }
            Change::Listed => {
                all.clear();
                for object in store.state() {
                    all.entry(key(&object)).or_default().insert(name(&object));
                }
            }
        }
    }

    /// Those of a model that are such.
    pub fn find<K>(
        &self,
        store: &Store<Packed<K>>,
        (namespace, model): (&str, &str),
        is_such: impl Fn(&Packed<K>) -> bool,
    ) -> Vec<Arc<Packed<K>>>
    where
        K: Pack<Index: OfModel, Scope = NamespaceResourceScope> + Clone,
    {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let names = all.get(&(namespace.into(), model.into()));
        let is_it = |object: &Arc<Packed<K>>| object.index.model() == model && is_such(object);
        let known =
            names.into_iter().flatten().filter_map(|name| store.get(&ObjectRef::new(name).within(namespace)));
        known.filter(is_it).collect()
    }
}

fn key<K: Pack<Index: OfModel>>(object: &Packed<K>) -> Key {
    (object.namespace().unwrap_or_default().into(), object.index.model().into())
}

fn name<K: Pack>(object: &Packed<K>) -> Box<str> {
    object.name_any().into()
}
