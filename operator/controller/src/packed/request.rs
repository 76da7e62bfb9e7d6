//! By what requests are found.

use kube::ResourceExt;
use lethe_api::v1alpha1::UnlearnRequest;
use lethe_core::{duplicates, request};

use super::{Dictionary, Pack, Packed};
use crate::stores::{Stores, in_namespace, namespace};

#[derive(Clone, Debug)]
pub struct RequestIndex {
    pub model: Box<str>,
    /// It says that it waits for these, or that they have forgotten for it.
    duplicate_of: Box<[Box<str>]>,
    is_over: bool,
}

impl Pack for UnlearnRequest {
    type Index = RequestIndex;

    fn index(&self) -> RequestIndex {
        let others = self.status.iter().flat_map(|status| &status.duplicate_of);
        RequestIndex {
            model: self.spec.model_ref.name.as_str().into(),
            duplicate_of: others.map(|name| name.as_str().into()).collect(),
            is_over: request::is_over(self),
        }
    }

    fn dictionary() -> &'static Dictionary {
        static REQUESTS: Dictionary = Dictionary::new();
        &REQUESTS
    }
}

impl Stores {
    /// The requests that name a model.
    pub fn requests_of(&self, namespace: &str, model: &str) -> Vec<UnlearnRequest> {
        let of_it = self.requests.state_filter(|request| is_of(request, namespace, model));
        of_it.iter().map(|request| request.open()).collect()
    }

    /// The names of those of them that have their answer, or of those that have none.
    pub fn names_of_requests_of(&self, namespace: &str, model: &str, is_over: bool) -> Vec<String> {
        let is_it = |request: &Packed<UnlearnRequest>| {
            request.index.is_over == is_over && is_of(request, namespace, model)
        };
        self.requests.state_filter(is_it).iter().map(|request| request.name_any()).collect()
    }

    /// Other requests for the same model that may ask for what this one asks for.
    pub fn requests_like(&self, request: &UnlearnRequest) -> Vec<UnlearnRequest> {
        let (namespace, model) = (namespace(request), &request.spec.model_ref.name);
        // One that is over covers nothing.
        let is_open =
            |other: &Packed<UnlearnRequest>| !other.index.is_over && is_of(other, &namespace, model);
        let open = self.requests.state_filter(is_open);
        open.iter().map(|other| other.open()).filter(|other| duplicates::may_cover(request, other)).collect()
    }

    /// The names of the requests that say that they wait for the one of this name, or that it has forgotten for them.
    pub fn duplicates_of(&self, namespace: &str, name: &str) -> Vec<String> {
        let names_it = |other: &Packed<UnlearnRequest>| {
            let index = &other.index;
            !index.is_over
                && in_namespace(other, namespace)
                && index.duplicate_of.iter().any(|named| **named == *name)
        };
        self.requests.state_filter(names_it).iter().map(|other| other.name_any()).collect()
    }
}

fn is_of(request: &Packed<UnlearnRequest>, namespace: &str, model: &str) -> bool {
    *request.index.model == *model && in_namespace(request, namespace)
}
