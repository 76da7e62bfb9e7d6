//! What each model last told its requests, and who has to look again when it changes: those that would hear nothing new need not.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use kube::ResourceExt;
use kube_runtime::reflector::ObjectRef;
use lethe_api::v1alpha1::DiffusionModel;
use lethe_core::told::Told;

use crate::{
    stores::{Stores, Triggers, namespace},
    streams::Change,
};

/// By model, a hash of each of the two things that it tells.
#[derive(Default)]
pub struct LastTold(HashMap<ObjectRef<DiffusionModel>, News<u64>>);

/// For each of the two kinds of requests that hear different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News<T> {
    /// Those that have no answer yet.
    pub open: T,
    /// Those that have one.
    pub settled: T,
}

impl News<bool> {
    pub const FOR_ALL: Self = Self { open: true, settled: true };
}

impl LastTold {
    /// Who hears something new of a model that changed.
    pub fn tell(&mut self, model: &DiffusionModel) -> News<bool> {
        let now = News { open: hash_of(&Told::to_open(model)), settled: hash_of(&Told::to_settled(model)) };
        let before = self.0.insert(ObjectRef::from_obj(model), now);
        News {
            open: before.is_none_or(|before| before.open != now.open),
            settled: before.is_none_or(|before| before.settled != now.settled),
        }
    }

    /// A model is gone: another of its name is another.
    pub fn forget(&mut self, model: &DiffusionModel) {
        self.0.remove(&ObjectRef::from_obj(model));
    }

    /// Everything was looked at as it was at some time in between.
    pub fn forget_all(&mut self) {
        self.0.clear();
    }
}

impl Triggers {
    pub fn on_model(&self, stores: &Stores, change: Change<'_, DiffusionModel>, told: &mut LastTold) {
        match change {
            Change::Listed => {
                told.forget_all();
                self.everything(stores);
            }
            Change::Applied(model) => {
                let news = told.tell(model);
                self.model(&namespace(model), &model.name_any());
                self.around_model(stores, model, news);
            }
            Change::Deleted(model) => {
                told.forget(model);
                self.around_model(stores, model, News::FOR_ALL);
            }
        }
    }

    /// Those that wait for its serving target, and those of its requests for which there are news.
    pub(crate) fn around_model(&self, stores: &Stores, model: &DiffusionModel, news: News<bool>) {
        let (namespace, name) = (namespace(model), model.name_any());
        for rival in stores.rivals_of(model) {
            self.model(&namespace, &rival.name_any());
        }
        for (is_over, _) in [(false, news.open), (true, news.settled)].into_iter().filter(|(_, any)| *any) {
            for request in stores.names_of_requests_of(&namespace, &name, is_over) {
                self.request(&namespace, &request);
            }
        }
    }
}

fn hash_of(told: &Told) -> u64 {
    let told = serde_json::to_vec(told).expect("objects have string keys");
    BuildHasherDefault::<DefaultHasher>::default().hash_one(told)
}
