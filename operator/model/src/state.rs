//! A state of everything: what the API server holds, what caches show, what the operator has decided and not yet done.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service},
};
use kube::ResourceExt;
use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModel, UnlearnApproval, UnlearnPolicy, UnlearnRequest, UnlearnRun},
};
use lethe_core::Effect;

use crate::{
    audit::Audit,
    cluster::{Beside, Work},
    decisions::Call,
    shared::{Shared, hash_of},
};

/// The API server's contents: one namespace with one model. Objects are the real ones, without resource versions
/// (their content is their version) and with canonical names, uids and times.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Objects {
    pub model: Option<Shared<DiffusionModel>>,
    pub policy: Shared<UnlearnPolicy>,
    /// By name.
    pub requests: Vec<Shared<UnlearnRequest>>,
    /// By name. No cache of them lags behind: all decisions about them share one, so that this is as if it was said later.
    pub approvals: Vec<Shared<UnlearnApproval>>,
    /// By name.
    pub runs: Vec<Shared<UnlearnRun>>,
    /// By name.
    pub jobs: Vec<Shared<Work>>,
    /// ConfigMaps with the plans of Jobs, by name.
    pub plans: Vec<Shared<ConfigMap>>,
    pub archive: Option<Shared<ConfigMap>>,
    pub deployment: Shared<Deployment>,
    /// What the pods of the Deployment really serve.
    pub serving: Option<Shared<Digest>>,
    pub canary: Option<Shared<Beside>>,
    pub service: Option<Shared<Service>>,
}

/// A cache that lags behind: what it goes on showing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stale {
    Models(Option<Shared<DiffusionModel>>),
    Requests(Vec<Shared<UnlearnRequest>>),
    Runs(Vec<Shared<UnlearnRun>>),
    Jobs(Vec<Shared<Work>>),
}

/// An object that a controller works on.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Model,
    Request(Arc<str>),
    Run(Arc<str>),
}

/// What was decided about an object and is not done yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    pub key: Key,
    /// The version that was decided about, or that came of the status write.
    pub version: u64,
    pub calls: Shared<Vec<Call>>,
    /// How many of them are done.
    pub done: usize,
}

/// A write that an operator had sent before it died or lost the lease. It may still arrive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InFlight {
    pub pending: Pending,
    /// The version of the Deployment when it was sent.
    pub deployment: u64,
    /// And of the one beside it.
    pub canary: Option<u64>,
}

/// How often something of a name was created: the uid of the next one differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Births(Vec<(Arc<str>, u8)>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub objects: Objects,
    pub stale: Option<Stale>,
    /// By key.
    pub pending: Vec<Pending>,
    pub in_flight: Option<Box<InFlight>>,
    pub births: Births,
    pub audit: Audit,
    /// How many more disturbances there may be.
    pub left: u8,
    /// How often people may say something more.
    pub words: u8,
}

/// The time of everything that is written.
pub fn written() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("in range")
}

impl Pending {
    pub fn next(&self) -> &Call {
        &self.calls[self.done]
    }

    /// Whether the last call, which failed, did so because its object has changed: then nothing more is done.
    pub fn is_outdated(&self) -> bool {
        match &self.calls[self.done - 1] {
            Call::Status(_) => true,
            Call::Effect(effect) => matches!(
                **effect,
                Effect::AddFinalizer | Effect::RemoveFinalizer | Effect::MarkPromoted { .. }
            ),
        }
    }

    /// What is carried out all the same once this call has failed: of an effect, those after it that are of what is served.
    pub fn left_after(&self, failed: usize) -> Option<Self> {
        let is_of_what_is_served =
            |call: &&Call| matches!(call, Call::Effect(effect) if effect.is_of_what_is_served());
        let rest: Vec<_> = match self.calls[failed] {
            Call::Status(_) => return None,
            Call::Effect(_) => {
                self.calls[failed + 1..].iter().filter(is_of_what_is_served).cloned().collect()
            }
        };
        let hash = hash_of(&(self.calls.content(), failed));
        let left = || Self { calls: Shared::with_hash(hash, rest.clone()), done: 0, ..self.clone() };
        (!rest.is_empty()).then(left)
    }
}

impl InFlight {
    /// Whether it is the creation of this Job.
    pub fn creates(&self, job: &str) -> bool {
        let Call::Effect(effect) = self.pending.next() else { return false };
        matches!(&**effect, Effect::CreateJob(created) if created.name_any() == job)
    }
}

impl Births {
    /// Counts one more, and says how many there were before.
    pub fn add(&mut self, name: &str) -> u8 {
        match self.0.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, count)) => {
                *count += 1;
                *count - 1
            }
            None => {
                self.0.push((name.into(), 1));
                self.0.sort();
                0
            }
        }
    }

    pub fn of(&self, name: &str) -> u8 {
        self.0.iter().find(|(known, _)| **known == *name).map_or(0, |(_, count)| *count)
    }
}

impl State {
    /// Requests as the cache shows them.
    pub fn requests(&self) -> &[Shared<UnlearnRequest>] {
        match &self.stale {
            Some(Stale::Requests(old)) => old,
            _ => &self.objects.requests,
        }
    }

    pub fn runs(&self) -> &[Shared<UnlearnRun>] {
        match &self.stale {
            Some(Stale::Runs(old)) => old,
            _ => &self.objects.runs,
        }
    }

    pub fn jobs(&self) -> &[Shared<Work>] {
        match &self.stale {
            Some(Stale::Jobs(old)) => old,
            _ => &self.objects.jobs,
        }
    }

    pub fn model(&self) -> Option<&Shared<DiffusionModel>> {
        match &self.stale {
            Some(Stale::Models(old)) => old.as_ref(),
            _ => self.objects.model.as_ref(),
        }
    }

    /// Everything that a controller works on, as the caches know it.
    pub fn keys(&self) -> Vec<Key> {
        let model = self.model().map(|_| Key::Model);
        let requests = self.requests().iter().map(|request| Key::Request(request.name_any().into()));
        let runs = self.runs().iter().map(|run| Key::Run(run.name_any().into()));
        model.into_iter().chain(requests).chain(runs).collect()
    }

    pub fn is_busy(&self, key: &Key) -> bool {
        self.pending.iter().any(|pending| pending.key == *key)
    }

    /// Adds what was decided, in the order of keys.
    pub fn begin(&mut self, pending: Pending) {
        self.pending.push(pending);
        self.pending.sort_by(|a, b| a.key.cmp(&b.key));
    }
}

impl Objects {
    /// The version of an object, if it exists.
    pub fn version(&self, key: &Key) -> Option<u64> {
        match key {
            Key::Model => self.model.as_ref().map(Shared::content),
            Key::Request(name) => find(&self.requests, name).map(Shared::content),
            Key::Run(name) => find(&self.runs, name).map(Shared::content),
        }
    }
}

pub fn find<'a, K: kube::Resource>(all: &'a [Shared<K>], name: &str) -> Option<&'a Shared<K>> {
    all.iter().find(|object| object.meta().name.as_deref() == Some(name))
}

pub fn find_mut<'a, K: kube::Resource>(all: &'a mut [Shared<K>], name: &str) -> Option<&'a mut Shared<K>> {
    all.iter_mut().find(|object| object.meta().name.as_deref() == Some(name))
}

pub fn find_job<'a>(all: &'a [Shared<Work>], name: &str) -> Option<&'a Shared<Work>> {
    all.iter().find(|work| work.job.metadata.name.as_deref() == Some(name))
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Model => f.write_str("the model"),
            Key::Request(name) => write!(f, "request {name}"),
            Key::Run(name) => write!(f, "run {name}"),
        }
    }
}
