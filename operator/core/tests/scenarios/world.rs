//! A cluster with an operator in it: observes through caches, decides with core, and carries out what was
//! decided one API call at a time, so that the operator can die, or see old things, anywhere in between.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use lethe_api::{
    Digest,
    contract::{Evidence, Plan},
};
use lethe_core::{
    Decision, Effect, Installation, evidence, model, request, rollout,
    run::{self, RecordProblem},
};
use serde_json::Value;

use crate::{
    cluster::Cluster,
    invariants::{self, Audit},
    trainer::{Fate, honest},
};

/// An object that a controller works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Model(String),
    Request(String),
    Run(String),
}

/// One API call that a decision asks for.
#[derive(Clone)]
enum Call {
    /// Write the status, or only ask whether the object is still the one that was decided about.
    Status {
        version: Option<String>,
        status: Option<Value>,
    },
    Effect(Effect),
}

/// The kinds that have a cache of their own.
#[derive(Clone, Copy, PartialEq)]
pub enum Cache {
    Models,
    Policies,
    Requests,
    Approvals,
    Runs,
    Jobs,
}

const CACHES: [Cache; 6] =
    [Cache::Models, Cache::Policies, Cache::Requests, Cache::Approvals, Cache::Runs, Cache::Jobs];

/// Where a world was after each wait of its scenario. A play of the same scenario that is disturbed later starts
/// from there: until then, it is the same.
#[derive(Default)]
pub enum Tape {
    #[default]
    None,
    Records(Vec<World>),
    Replays(Rc<Vec<World>>),
}

/// What becomes of a reference that the operator writes.
#[derive(Clone, Copy, PartialEq)]
pub enum Patches {
    Kept,
    /// By an admission webhook, say.
    Refused,
    /// By a repository that owns the Deployment.
    SetBack,
}

pub type Trainer = Box<dyn Fn(&Plan, usize) -> Fate>;
type ComesUp = Box<dyn Fn(Option<&Digest>) -> bool>;

pub struct World {
    pub cluster: Cluster,
    pub now: Timestamp,
    /// What becomes of a pod with this plan after so many failures.
    pub trainer: Trainer,
    /// Whether pods that are to serve this bundle come up.
    pub comes_up: ComesUp,
    /// What a pod says it serves, if it does not say the truth.
    pub lie: Option<Result<Digest, String>>,
    pub patches: Patches,
    /// Why the audit log cannot be written.
    pub unlogged: Option<String>,
    /// Whether the API server checks who creates an approval.
    pub protects_approvals: bool,
    /// Whether the operator watches all namespaces, and with them what is the cluster's.
    pub watches_all: bool,
    pub store: BTreeMap<Digest, Vec<u8>>,
    /// What every read of the store answers instead.
    pub store_problem: Option<RecordProblem>,
    /// Signed evidence in the store, by bundle.
    pub evidence: BTreeMap<Digest, Vec<Evidence>>,
    /// What signing, and looking at what is signed, comes to instead.
    pub evidence_problem: Option<evidence::Problem>,
    /// Bundles whose evidence somebody changed.
    pub tampered: BTreeSet<Digest>,
    pub audit: Audit,
    /// API calls that the operator has made.
    pub calls: usize,
    /// The operator dies before it makes this call.
    pub dies_before: Option<usize>,
    /// Random order and late caches, if there is a seed.
    pub chance: Option<Chance>,
    pub tape: Tape,
    /// Waits that the scenario has come to.
    waits: usize,
    pub installation: Installation,
    pending: BTreeMap<Key, VecDeque<Call>>,
    history: Vec<Rc<Cluster>>,
    seen: [usize; CACHES.len()],
    last: Option<Key>,
    versions: u64,
    /// API calls before what is particular about the scenario.
    pub prologue: usize,
    refused: bool,
    /// How often an object of this kind and name was created.
    births: BTreeMap<String, u32>,
}

impl World {
    pub fn new() -> Self {
        World {
            cluster: Cluster::default(),
            now: Timestamp::from_second(1_800_000_000).expect("in range"),
            trainer: Box::new(|plan, _| honest(plan)),
            comes_up: Box::new(|_| true),
            lie: None,
            patches: Patches::Kept,
            unlogged: None,
            protects_approvals: true,
            watches_all: true,
            store: BTreeMap::new(),
            store_problem: None,
            evidence: BTreeMap::new(),
            evidence_problem: None,
            tampered: BTreeSet::new(),
            audit: Audit::default(),
            calls: 0,
            dies_before: None,
            chance: None,
            tape: Tape::None,
            waits: 0,
            installation: Installation { store: "file:///artifacts".into(), ..Installation::default() },
            pending: BTreeMap::new(),
            history: vec![Rc::default()],
            seen: [0; CACHES.len()],
            last: None,
            versions: 0,
            prologue: 0,
            refused: false,
            births: BTreeMap::new(),
        }
    }

    /// A copy, but for the tape and for what the scenario lets pods do.
    fn copy(&self) -> Self {
        World {
            cluster: self.cluster.clone(),
            now: self.now,
            lie: self.lie.clone(),
            patches: self.patches,
            unlogged: self.unlogged.clone(),
            watches_all: self.watches_all,
            store: self.store.clone(),
            store_problem: self.store_problem.clone(),
            evidence: self.evidence.clone(),
            evidence_problem: self.evidence_problem.clone(),
            tampered: self.tampered.clone(),
            audit: self.audit.clone(),
            calls: self.calls,
            dies_before: self.dies_before,
            chance: self.chance.clone(),
            waits: self.waits,
            installation: self.installation.clone(),
            pending: self.pending.clone(),
            history: self.history.clone(),
            seen: self.seen,
            last: self.last.clone(),
            versions: self.versions,
            prologue: self.prologue,
            refused: self.refused,
            births: self.births.clone(),
            ..World::new()
        }
    }

    /// At the start of a wait: goes to its end, if that is on the tape and before the operator dies.
    pub fn skip_wait(&mut self) -> bool {
        self.waits += 1;
        let (Tape::Replays(known), Some(death)) = (&self.tape, self.dies_before) else { return false };
        let Some(end) = known.get(self.waits - 1).filter(|end| end.calls <= death) else { return false };
        let end = World { dies_before: self.dies_before, ..end.copy() };
        let start = std::mem::replace(self, end);
        (self.trainer, self.comes_up, self.tape) = (start.trainer, start.comes_up, start.tape);
        true
    }

    /// At the end of a wait.
    pub fn record_wait(&mut self) {
        if matches!(self.tape, Tape::Records(_)) {
            let copy = self.copy();
            if let Tape::Records(all) = &mut self.tape {
                all.push(copy);
            }
        }
    }

    /// A new object's metadata, as the API server fills it in.
    pub fn admit<K: Resource<DynamicType = ()>>(&mut self, object: &mut K) {
        self.versions += 1;
        let (version, now) = (self.versions, Time(self.now));
        let meta = object.meta_mut();
        let name = meta.name.clone().unwrap_or_default();
        let births = self.births.entry(format!("{}/{name}", K::kind(&()))).or_insert(0);
        *births += 1;
        meta.uid = Some(format!("uid-{name}-{births}"));
        meta.resource_version = Some(version.to_string());
        meta.generation = Some(1);
        meta.creation_timestamp = Some(now);
    }

    /// Changes the cluster from outside the operator, and keeps the version that caches may still show.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        let result = change(&mut self.cluster);
        self.changed();
        result
    }

    /// A new version for an object that was changed.
    pub fn bump(&mut self) -> Option<String> {
        self.versions += 1;
        Some(self.versions.to_string())
    }

    pub fn changed(&mut self) {
        if self.chance.is_some() {
            self.history.push(Rc::new(self.cluster.clone()));
        }
        invariants::check(self);
    }

    /// Every cache shows what is.
    pub fn catch_up(&mut self) {
        self.seen = [self.history.len() - 1; CACHES.len()];
    }

    pub fn cached(&self, cache: Cache) -> &Cluster {
        let seen = self.seen[cache as usize];
        if self.chance.is_none() || seen + 1 == self.history.len() {
            return &self.cluster;
        }
        &self.history[seen]
    }

    /// Everything that a controller works on, as the caches know it.
    pub fn keys(&self) -> Vec<Key> {
        let models = self.cached(Cache::Models).models.keys().cloned().map(Key::Model);
        let requests = self.cached(Cache::Requests).requests.keys().cloned().map(Key::Request);
        let runs = self.cached(Cache::Runs).runs.keys().cloned().map(Key::Run);
        models.chain(requests).chain(runs).collect()
    }

    /// One API call, or one move of the cluster. False if nobody has anything to do.
    pub fn step(&mut self) -> bool {
        if self.chance.as_ref().is_some_and(|chance| chance.left > 0) {
            self.random_step();
            return true;
        }
        self.catch_up();
        if let Some(key) = self.pending.keys().next().cloned() {
            self.call(&key);
            return true;
        }
        // An operator that was refused waits a little.
        if std::mem::take(&mut self.refused) && self.nature() {
            return true;
        }
        let keys = self.keys();
        let after = keys.iter().position(|key| Some(key) > self.last.as_ref()).unwrap_or(0);
        let in_turn = keys.iter().cycle().skip(after).take(keys.len()).cloned().collect::<Vec<_>>();
        for key in in_turn {
            if self.reconcile(&key) {
                self.last = Some(key.clone());
                self.call(&key);
                return true;
            }
        }
        self.nature()
    }

    fn random_step(&mut self) {
        let Some(chance) = &mut self.chance else { return };
        chance.left -= 1;
        let (what, which) = (chance.below(9), chance.below(1 << 20));
        match what {
            0..3 => {
                let busy: Vec<_> = self.pending.keys().cloned().collect();
                if !busy.is_empty() {
                    self.call(&busy[which % busy.len()]);
                }
            }
            3..6 => {
                let free: Vec<_> =
                    self.keys().into_iter().filter(|key| !self.pending.contains_key(key)).collect();
                if !free.is_empty() {
                    self.reconcile(&free[which % free.len()]);
                }
            }
            6 => drop(self.nature()),
            7 => {
                let cache = which % CACHES.len();
                let behind = self.history.len() - 1 - self.seen[cache];
                self.seen[cache] += if behind == 0 { 0 } else { 1 + which / 8 % behind };
            }
            _ => self.now += SignedDuration::from_secs((which % 3) as i64),
        }
    }

    /// Decides about one object. True if there is something to call.
    fn reconcile(&mut self, key: &Key) -> bool {
        let calls = self.decide(key);
        let busy = !calls.is_empty();
        if busy {
            self.pending.insert(key.clone(), calls);
        }
        busy
    }

    fn decide(&self, key: &Key) -> VecDeque<Call> {
        match key {
            Key::Model(name) => {
                let object = self.cached(Cache::Models).models[name].clone();
                let decision = model::decide(&self.observe_model(&object), &self.installation, self.now);
                calls(&object, object.status.as_ref(), decision)
            }
            Key::Request(name) => {
                let object = self.cached(Cache::Requests).requests[name].clone();
                let decision = request::decide(&self.observe_request(&object), self.now);
                calls(&object, object.status.as_ref(), decision)
            }
            Key::Run(name) => {
                let object = self.cached(Cache::Runs).runs[name].clone();
                let decision = run::decide(&self.observe_run(&object), &self.installation, self.now);
                calls(&object, object.status.as_ref(), decision)
            }
        }
    }

    /// The next API call about an object, unless the operator dies first.
    fn call(&mut self, key: &Key) {
        if self.dies_before == Some(self.calls) {
            self.dies_before = None;
            self.pending.clear();
            self.last = None;
            return self.catch_up();
        }
        let Some(calls) = self.pending.get_mut(key) else { return };
        let call = calls.pop_front();
        if calls.is_empty() {
            self.pending.remove(key);
        }
        let Some(call) = call else { return };
        self.calls += 1;
        let done = match call {
            Call::Status { version, status } => self.write_status(key, &version, status),
            Call::Effect(effect) => self.carry_out(key, effect),
        };
        if !done {
            self.pending.remove(key);
            self.refused = true;
        }
        self.changed();
    }

    /// One move of everything that is not the operator.
    fn nature(&mut self) -> bool {
        let now = self.now;
        let moved = self.cluster.collect(now) || self.cluster.roll(&self.comes_up) || self.advance_jobs();
        if moved {
            self.changed();
        }
        moved
    }

    fn advance_jobs(&mut self) -> bool {
        for name in self.cluster.jobs.keys().cloned().collect::<Vec<_>>() {
            let Some(plan) =
                self.cluster.config_maps.contains_key(&name).then(|| self.cluster.plan_of(&name))
            else {
                continue;
            };
            let Some(work) = self.cluster.jobs.get_mut(&name) else { continue };
            let mut left = None;
            let fate = |failed| {
                let fate = (self.trainer)(&plan, failed);
                left = Some(fate.clone());
                fate
            };
            if work.advance(fate, self.now) {
                if let (true, Some(Fate::Succeeds { record, .. })) = (work.is_finished(), left) {
                    self.audit.measured(&plan, &record);
                    self.store.insert(Digest::of(&record), record);
                }
                return true;
            }
        }
        false
    }

    /// Whether any decision, about anything, asks for an API call.
    pub fn wants_something(&self) -> Option<Key> {
        self.keys().into_iter().find(|key| !self.decide(key).is_empty())
    }

    pub fn named_bundle(&self) -> Option<Digest> {
        self.cluster.deployment.as_ref().and_then(rollout::reference)
    }
}

/// What the controller does with a decision: the status first, then the effects in order.
fn calls<K: Resource, S: serde::Serialize>(
    object: &K,
    observed: Option<&S>,
    decision: Decision<S>,
) -> VecDeque<Call> {
    let version = object.meta().resource_version.clone();
    let json = |status: &S| serde_json::to_value(status).expect("a status is JSON");
    let known = observed.map(json).unwrap_or_else(|| Value::Object(Default::default()));
    let wanted = json(&decision.status);
    let effects = decision.effects.into_iter().map(Call::Effect);
    if known != wanted {
        let status = Call::Status { version, status: Some(wanted) };
        return std::iter::once(status).chain(effects).collect();
    }
    if effects.len() == 0 {
        return VecDeque::new();
    }
    std::iter::once(Call::Status { version, status: None }).chain(effects).collect()
}

/// Reproducible chance (xorshift64*), for a limited number of steps.
#[derive(Clone)]
pub struct Chance {
    state: u64,
    pub left: usize,
}

impl Chance {
    pub fn new(seed: u64, steps: usize) -> Self {
        Chance { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, left: steps }
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }
}

/// Names that occur more than once.
pub fn repeated(names: &[String]) -> BTreeSet<&String> {
    let mut seen = BTreeSet::new();
    names.iter().filter(|name| !seen.insert(*name)).collect()
}
