//! By what requests are found.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use kube::ResourceExt;
use lethe_api::v1alpha1::{ConditionType, UnlearnRequest};
use lethe_core::{duplicates, request};

use super::{Dictionary, Pack, Packed, by_model::OfModel};
use crate::stores::{Stores, namespace};

#[derive(Clone, Debug)]
pub struct RequestIndex {
    pub model: Box<str>,
    /// It says that it waits for these, or that they have forgotten for it.
    duplicate_of: Box<[Box<str>]>,
    is_over: bool,
    /// It is in the queue, and not worked for.
    waits: bool,
    /// Hashes of the labels that it asks for.
    labels: Box<[u32]>,
}

impl Pack for UnlearnRequest {
    type Index = RequestIndex;

    fn index(&self) -> RequestIndex {
        let others = self.status.iter().flat_map(|status| &status.duplicate_of);
        RequestIndex {
            model: self.spec.model_ref.name.as_str().into(),
            duplicate_of: others.map(|name| name.as_str().into()).collect(),
            is_over: request::is_over(self),
            waits: duplicates::is_in_the_queue(self) && !is_worked_for(self),
            labels: self.spec.targets.iter().map(|target| hash_of(&target.label)).collect(),
        }
    }

    fn dictionary() -> &'static Dictionary {
        static REQUESTS: Dictionary = Dictionary::new();
        &REQUESTS
    }
}

fn is_worked_for(request: &UnlearnRequest) -> bool {
    let conditions = request.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    ConditionType::Scheduled.is_true(conditions)
}

impl OfModel for RequestIndex {
    fn model(&self) -> &str {
        &self.model
    }
}

impl RequestIndex {
    /// Whether it asks for a label that the other asks for as well. It may be said of some that do not.
    fn shares_with(&self, other: &Self) -> bool {
        self.labels.iter().any(|label| other.labels.contains(label))
    }
}

impl Stores {
    /// The requests that name a model.
    pub fn requests_of(&self, namespace: &str, model: &str) -> Vec<UnlearnRequest> {
        self.find_requests((namespace, model), |_| true).iter().map(|request| request.open()).collect()
    }

    /// The names of those of them that have their answer, or of those that have none.
    pub fn names_of_requests_of(&self, namespace: &str, model: &str, is_over: bool) -> Vec<String> {
        let found = self.find_requests((namespace, model), |request| request.index.is_over == is_over);
        found.iter().map(|request| request.name_any()).collect()
    }

    /// Other requests for the same model that may ask for what this one asks for.
    pub fn requests_like(&self, request: &UnlearnRequest) -> Vec<UnlearnRequest> {
        let (namespace, own) = (namespace(request), request.index());
        // One that is over covers nothing.
        let is_like = |other: &Packed<UnlearnRequest>| !other.index.is_over && other.index.shares_with(&own);
        let open = self.find_requests((&namespace, &own.model), is_like);
        open.iter().map(|other| other.open()).filter(|other| duplicates::may_cover(request, other)).collect()
    }

    /// The names of the requests that say that they wait for this one, or that it has forgotten for them; and if it is in the
    /// queue, of those that may have to say so.
    pub fn duplicates_of(&self, request: &Packed<UnlearnRequest>) -> Vec<String> {
        let (namespace, name, own) = (namespace(request), request.name_any(), &request.index);
        let concerns = |other: &Packed<UnlearnRequest>| {
            let index = &other.index;
            let names_it = index.duplicate_of.iter().any(|named| **named == *name);
            !index.is_over && (names_it || own.waits && index.shares_with(own))
        };
        let found = self.find_requests((&namespace, &own.model), concerns);
        found.iter().map(|other| other.name_any()).filter(|other| *other != name).collect()
    }

    fn find_requests(
        &self,
        of: (&str, &str),
        is_such: impl Fn(&Packed<UnlearnRequest>) -> bool,
    ) -> Vec<Arc<Packed<UnlearnRequest>>> {
        self.requests_by_model.find(&self.requests, of, is_such)
    }
}

/// Labels may be long, and are compared for being the same alone.
fn hash_of(label: &str) -> u32 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(label) as u32
}
