//! Everything that can happen next: to the cluster by itself, through people, through the operator, and to it.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModel, UnlearnRun},
};
use lethe_core::{Effect, rollout};

use crate::{
    audit::Invariant,
    checker::Checker,
    cluster::{Beside, settled},
    consent,
    decisions::{Call, Pods, Store, When, has_terms, is_owned_by},
    jobs::{End, bad_ends},
    people::{self, Word},
    shared::Shared,
    state::{InFlight, Key, Pending, Stale, State, find, find_job},
    trainer::digest,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    // The operator, as it is meant to be.
    Decides(Key),
    Calls(Key),
    // The cluster, as it is meant to be.
    CachesCatchUp,
    JobStarts(usize),
    JobEnds(usize),
    PodsRoll,
    CanaryRolls,
    Collects,
    // People, as they may.
    Asks(usize),
    Says(Word),
    Resumes(Arc<str>),
    AppliesModel,
    /// Git has the target name what is published.
    Promotes,
    // What was sent before its sender died.
    Arrives,
    GetsLost,
    // Disturbances.
    Disturbs(Disturbance),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// The operator decides when terms are over, or while somebody lies to it or keeps silent.
    DecidesWhen(Key, When),
    /// The API server refuses the call: what was decided is dropped, but for what is of what is served.
    Refuses(Key),
    /// The operator dies, or loses the lease. Its successor has fresh caches. One call of it may be under way.
    Dies(Option<Key>),
    CacheLags(Kind),
    JobEnds(usize, End),
    JobIsHeldBack(usize),
    /// A queue takes it back. It is let go on at any later time.
    JobIsTakenBack(usize),
    JobVanishes(usize),
    PodsVanish(usize),
    Suspends(Arc<str>),
    DeletesRequest(Arc<str>),
    DeletesRun(Arc<str>),
    DeletesModel,
    EditsPolicy,
    /// Names the other base artifact.
    EditsBase,
    Drifts(Drift),
    DeletesCanary,
    DeletesService,
    /// Whoever has let Git promote lets the operator change the target itself.
    EditsPromotion,
    /// The archived ledger cannot be read, until somebody sees to it.
    SpoilsArchive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Models,
    Requests,
    Runs,
    Jobs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    Nothing,
    Baseline,
    Garbage,
}

impl Checker {
    /// Everything that may happen in a state.
    pub fn possible(&self, state: &State, acts: &mut Vec<Act>) {
        self.operator_acts(state, acts);
        cluster_acts(state, acts);
        for which in 0..self.settings.requests {
            let name = self.settings.scene.asks(which).name_any();
            let often = state.births.of(&format!("request {name}"));
            if find(&state.objects.requests, &name).is_none() && often < 2 {
                acts.push(Act::Asks(which));
            }
        }
        for request in state.objects.requests.iter().filter(|request| request.spec.suspend) {
            acts.push(Act::Resumes(request.name_any().into()));
        }
        if state.objects.model.is_none() {
            acts.push(Act::AppliesModel);
        }
        if state.promotion().is_some() {
            acts.push(Act::Promotes);
        }
        if state.in_flight.is_some() {
            acts.extend([Act::Arrives, Act::GetsLost]);
        }
        if state.words > 0 {
            let mut all = Vec::new();
            people::words(self.settings.scene, state, &mut all);
            acts.extend(all.into_iter().map(Act::Says));
        }
        if state.left > 0 {
            let mut all = Vec::new();
            self.troubled_decisions(state, &mut all);
            operator_troubles(state, &mut all);
            job_troubles(state, &mut all);
            people::troubles(state, &mut all);
            acts.extend(all.into_iter().map(Act::Disturbs));
        }
    }

    fn operator_acts(&self, state: &State, acts: &mut Vec<Act>) {
        acts.extend(state.pending.iter().map(|pending| Act::Calls(pending.key.clone())));
        for key in state.keys() {
            if !state.is_busy(&key) && self.mind.decide(state, &key, When::NOW).calls.is_some() {
                acts.push(Act::Decides(key));
            }
        }
    }

    fn troubled_decisions(&self, state: &State, all: &mut Vec<Disturbance>) {
        for key in state.keys().into_iter().filter(|key| !state.is_busy(key)) {
            let usual = self.mind.decide(state, &key, When::NOW).calls;
            let troubles: &[When] = match key {
                Key::Model => &[
                    When::LATE,
                    When { pods: Pods::Silent, ..When::NOW },
                    When { pods: Pods::SayBaseline, ..When::NOW },
                ],
                Key::Run(_) => &[
                    When::LATE,
                    When { store: Store::Away, ..When::NOW },
                    When { store: Store::Lost, ..When::NOW },
                ],
                Key::Request(_) if has_terms(state) => &[When::LATE],
                Key::Request(_) => continue,
            };
            for &when in troubles {
                let unusual = self.mind.decide(state, &key, when).calls;
                if unusual.is_some() && unusual != usual {
                    all.push(Disturbance::DecidesWhen(key.clone(), when));
                }
            }
        }
    }

    /// The state after an act.
    pub fn after(&self, state: &State, act: &Act) -> State {
        let mut next = state.clone();
        match act {
            Act::Decides(key) => self.begin(&mut next, key, When::NOW),
            Act::Calls(key) => self.call(&mut next, key),
            Act::CachesCatchUp => next.stale = None,
            Act::JobStarts(index) => next.start(*index),
            Act::JobEnds(index) => next.end(&self.mind, *index, End::Honest),
            Act::PodsRoll => next.roll(),
            Act::CanaryRolls => next.roll_canary(),
            Act::Collects => next.collect(),
            Act::Asks(which) => next.ask(self.settings.scene.asks(*which), *which),
            Act::Says(word) => {
                next.words = next.words.saturating_sub(1);
                next.hear(word);
            }
            Act::Resumes(name) => next.suspend(name, false),
            Act::AppliesModel => next.apply_model(),
            Act::Promotes => next.promote(),
            Act::Arrives => self.arrive(&mut next),
            Act::GetsLost => next.in_flight = None,
            Act::Disturbs(disturbance) => {
                next.left = next.left.saturating_sub(1);
                self.disturb(&mut next, disturbance);
            }
        }
        next
    }

    pub fn begin(&self, next: &mut State, key: &Key, when: When) {
        let version = match key {
            Key::Model => next.model().map(Shared::content),
            Key::Request(name) => find(next.requests(), name).map(Shared::content),
            Key::Run(name) => find(next.runs(), name).map(Shared::content),
        };
        let decided = self.mind.decide(next, key, when);
        let (Some(version), Some(calls)) = (version, decided.calls) else { return };
        if self.settings.scene.has_words()
            && let Some(how) = consent::lacks(next, key, &calls)
        {
            next.audit.breaks(Invariant::People, how);
        }
        let mut pending = Pending { key: key.clone(), version, calls, done: 0 };
        if pending.calls.len() > 1 {
            return next.begin(pending);
        }
        // A status alone is written at once. Had anything else changed before, it would be what a decision from a cache
        // that lags behind comes to; had the object itself, the write would be refused.
        next.call(&mut pending, &self.mind, self.settings.guards);
    }

    fn call(&self, next: &mut State, key: &Key) {
        let Some(at) = next.pending.iter().position(|pending| pending.key == *key) else { return };
        let mut pending = next.pending.remove(at);
        let goes_on = match next.call(&mut pending, &self.mind, self.settings.guards) {
            true => Some(pending).filter(|pending| pending.done < pending.calls.len()),
            false if pending.is_outdated() => None,
            false => pending.left_after(pending.done - 1),
        };
        if let Some(pending) = goes_on {
            next.pending.insert(at, pending);
        }
    }

    /// What a dead operator had sent arrives. Of serving, it changes only the version that it had read.
    fn arrive(&self, next: &mut State) {
        let Some(mut sent) = next.in_flight.take() else { return };
        if let Call::Effect(effect) = sent.pending.next() {
            let read = sent.deployment == next.objects.deployment.content();
            if matches!(**effect, Effect::PatchServing { .. }) && !read {
                return;
            }
            let read = sent.canary == next.objects.canary.as_ref().map(Shared::content);
            if matches!(**effect, Effect::ShapeCanary { .. }) && !read {
                return;
            }
            // Not so late as that: no API server holds a creation back until its Job was made, has ended and is gone.
            if matches!(&**effect, Effect::CreateJob(job) if next.is_gone(job)) {
                return;
            }
            next.audit.stray |= matches!(**effect, Effect::CreateRun(_));
        }
        next.call(&mut sent.pending, &self.mind, self.settings.guards);
    }

    fn disturb(&self, next: &mut State, disturbance: &Disturbance) {
        match disturbance {
            Disturbance::DecidesWhen(key, when) => self.begin(next, key, *when),
            Disturbance::Refuses(key) => {
                let left = |pending: Pending| match pending.key == *key {
                    true => pending.left_after(pending.done),
                    false => Some(pending),
                };
                next.pending = std::mem::take(&mut next.pending).into_iter().filter_map(left).collect();
            }
            Disturbance::Dies(under_way) => next.die(under_way.as_ref()),
            Disturbance::CacheLags(kind) => next.lag(*kind),
            Disturbance::JobEnds(index, end) => next.end(&self.mind, *index, *end),
            Disturbance::JobIsHeldBack(index) => next.hold_back(*index),
            Disturbance::JobIsTakenBack(index) => next.take_back(*index),
            Disturbance::JobVanishes(index) => next.lose_job(*index),
            Disturbance::PodsVanish(index) => next.lose_pods(*index),
            Disturbance::Suspends(name) => next.suspend(name, true),
            Disturbance::DeletesRequest(name) => {
                next.objects.requests.retain(|request| request.name_any() != **name);
            }
            Disturbance::DeletesRun(name) => next.objects.runs.retain(|run| run.name_any() != **name),
            Disturbance::DeletesModel => next.delete_model(),
            Disturbance::DeletesCanary => next.objects.canary = None,
            Disturbance::DeletesService => next.objects.service = None,
            Disturbance::SpoilsArchive => next.spoil_archive(),
            Disturbance::EditsPromotion => next.edit_promotion(),
            Disturbance::EditsPolicy => next.edit_policy(77),
            Disturbance::EditsBase => next.edit_base(),
            Disturbance::Drifts(Drift::Nothing) => next.annotate(None),
            Disturbance::Drifts(Drift::Baseline) => next.annotate(Some(digest("baseline").as_str())),
            Disturbance::Drifts(Drift::Garbage) => next.annotate(Some("garbage")),
        }
    }
}

fn cluster_acts(state: &State, acts: &mut Vec<Act>) {
    if state.stale.is_some() {
        acts.push(Act::CachesCatchUp);
    }
    if state.garbage().is_some() {
        acts.push(Act::Collects);
    }
    for (index, work) in state.objects.jobs.iter().enumerate() {
        if work.is_running() {
            acts.push(Act::JobEnds(index));
        } else if !work.is_finished() {
            acts.push(Act::JobStarts(index));
        }
    }
    if state.can_roll() {
        acts.push(Act::PodsRoll);
    }
    if state.rolled_canary().is_some() {
        acts.push(Act::CanaryRolls);
    }
}

/// One of them, if nothing else happens.
pub fn cluster_act(state: &State) -> Option<Act> {
    let mut acts = Vec::new();
    cluster_acts(state, &mut acts);
    acts.into_iter().next()
}

fn job_troubles(state: &State, all: &mut Vec<Disturbance>) {
    for (index, work) in state.objects.jobs.iter().enumerate() {
        all.push(Disturbance::JobVanishes(index));
        if work.is_running() {
            all.extend(bad_ends(work).map(|end| Disturbance::JobEnds(index, end)));
            all.push(Disturbance::JobIsTakenBack(index));
        }
        if work.pods.is_empty() && !work.is_finished() && work.events.is_empty() {
            all.push(Disturbance::JobIsHeldBack(index));
        }
        if work.is_finished() && !work.pods.is_empty() {
            all.push(Disturbance::PodsVanish(index));
        }
    }
}

fn operator_troubles(state: &State, all: &mut Vec<Disturbance>) {
    for pending in &state.pending {
        all.push(Disturbance::Refuses(pending.key.clone()));
    }
    if !state.pending.is_empty() && state.in_flight.is_none() {
        all.push(Disturbance::Dies(None));
        let writes = state.pending.iter().filter(|pending| !matches!(pending.next(), Call::Status(None)));
        all.extend(writes.map(|pending| Disturbance::Dies(Some(pending.key.clone()))));
    }
    if state.stale.is_none() {
        all.extend([Kind::Models, Kind::Requests, Kind::Runs, Kind::Jobs].map(Disturbance::CacheLags));
    }
}

/// What the garbage collector takes next.
enum Garbage {
    Model,
    Run(usize),
    Job(usize),
    Plan(usize),
    Canary,
    Service,
}

impl State {
    /// Whether there was such a Job and is none any more.
    fn is_gone(&self, job: &Job) -> bool {
        self.audit.has_made(job) && find_job(&self.objects.jobs, &job.name_any()).is_none()
    }

    fn can_roll(&self) -> bool {
        self.objects.deployment.metadata.generation != Some(1)
    }

    /// New pods come up and old ones go.
    fn roll(&mut self) {
        let named: Option<Digest> = rollout::reference(&self.objects.deployment);
        self.objects.serving = named.map(Shared::new);
        self.objects.deployment = self.objects.deployment.with(|deployment| {
            deployment.metadata.generation = Some(1);
            deployment.status = Some(settled(1));
        });
    }

    fn rolled_canary(&self) -> Option<Beside> {
        let mut canary = (**self.objects.canary.as_ref()?).clone();
        canary.roll(true).then_some(canary)
    }

    fn roll_canary(&mut self) {
        if let Some(canary) = self.rolled_canary() {
            self.objects.canary = Some(Shared::new(canary));
        }
    }

    fn garbage(&self) -> Option<Garbage> {
        let objects = &self.objects;
        let model = objects.model.as_ref();
        if model.is_some_and(|it| it.metadata.deletion_timestamp.is_some() && it.finalizers().is_empty()) {
            return Some(Garbage::Model);
        }
        let lost =
            objects.runs.iter().position(|run| model.is_none_or(|model| !is_owned_by(&**run, &**model)));
        let orphan = |is_child: &dyn Fn(&Shared<UnlearnRun>) -> bool| !objects.runs.iter().any(is_child);
        let job = || objects.jobs.iter().position(|work| orphan(&|run| is_owned_by(&work.job, &**run)));
        let plan = || objects.plans.iter().position(|map| orphan(&|run| is_owned_by(&**map, &**run)));
        let is_lost = |is_ours: &dyn Fn(&Shared<DiffusionModel>) -> bool| !model.is_some_and(is_ours);
        let canary = || objects.canary.as_ref().filter(|it| is_lost(&|m| is_owned_by(&it.deployment, &**m)));
        let service = || objects.service.as_ref().filter(|it| is_lost(&|m| is_owned_by(&***it, &**m)));
        lost.map(Garbage::Run)
            .or_else(|| job().map(Garbage::Job))
            .or_else(|| plan().map(Garbage::Plan))
            .or_else(|| canary().map(|_| Garbage::Canary))
            .or_else(|| service().map(|_| Garbage::Service))
    }

    fn collect(&mut self) {
        match self.garbage() {
            Some(Garbage::Model) => self.objects.model = None,
            Some(Garbage::Run(index)) => drop(self.objects.runs.remove(index)),
            Some(Garbage::Job(index)) => drop(self.objects.jobs.remove(index)),
            Some(Garbage::Plan(index)) => drop(self.objects.plans.remove(index)),
            Some(Garbage::Canary) => self.objects.canary = None,
            Some(Garbage::Service) => self.objects.service = None,
            None => {}
        }
    }

    /// What was decided and not done is lost, but for one call that may be under way. Whoever comes next looks anew.
    pub fn die(&mut self, under_way: Option<&Key>) {
        let deployment = self.objects.deployment.content();
        let pending = std::mem::take(&mut self.pending);
        let sent = pending.into_iter().find(|pending| Some(&pending.key) == under_way);
        let canary = self.objects.canary.as_ref().map(Shared::content);
        self.in_flight = sent.map(|pending| Box::new(InFlight { pending, deployment, canary }));
        self.stale = None;
    }

    fn lag(&mut self, kind: Kind) {
        let objects = &self.objects;
        self.stale = Some(match kind {
            Kind::Models => Stale::Models(objects.model.clone()),
            Kind::Requests => Stale::Requests(objects.requests.clone()),
            Kind::Runs => Stale::Runs(objects.runs.clone()),
            Kind::Jobs => Stale::Jobs(objects.jobs.clone()),
        });
    }
}
