//! From what the controllers see to the calls that they make, by the very `decide` functions of core. Each answer is
//! computed once per distinct observation: decide is pure.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service},
};
use kube::{Resource, ResourceExt};
use lethe_api::{
    Digest,
    contract::{Evidence, Plan},
    v1alpha1::{
        ConditionType, DiffusionModel, DiffusionModelStatus, GateFailureAction, UnlearnApproval,
        UnlearnApprovalSpec, UnlearnPolicy, UnlearnRequest, UnlearnRequestStatus, UnlearnRun,
        UnlearnRunStatus,
    },
};
use lethe_core::{
    Decision, Effect, asked, canary, duplicates, evidence,
    kueue::Queueing,
    model, names,
    policy::Policy,
    request,
    rollout::PodReport,
    run::{self, RecordProblem},
    stall,
    told::Told,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    cluster::{Beside, Work},
    scene::BETWEEN_ATTEMPTS,
    shared::{Memo, Shared, hash_of},
    state::{Key, State, find, find_job, written},
    trainer::digest,
};

/// One API call that a decision asks for.
#[derive(Clone, Debug)]
pub enum Call {
    /// Write the status, or only ask whether the object is still the one that was decided about.
    Status(Option<Box<Status>>),
    Effect(Box<Effect>),
}

#[derive(Clone, Debug)]
pub enum Status {
    Model(Box<DiffusionModelStatus>),
    Request(UnlearnRequestStatus),
    Run(UnlearnRunStatus),
}

/// When and under which circumstances somebody decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct When {
    /// Every term that ever began is over.
    pub late: bool,
    pub pods: Pods,
    pub store: Store,
}

/// What serving pods say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pods {
    Honest,
    Silent,
    SayBaseline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    Answers,
    Away,
    Lost,
}

/// What a decision comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decided {
    /// The status first, then the effects in order.
    pub calls: Option<Shared<Vec<Call>>>,
    /// Whether there are events to publish.
    pub tells: bool,
    /// Whether the object is looked at again, although nothing changes.
    pub looks_again: bool,
}

/// What was decided, by what was seen.
#[derive(Default)]
pub struct Mind {
    /// Approvals are looked up: it is checked who creates them.
    pub asks_people: bool,
    /// What is measured is signed.
    pub signs: bool,
    pub answers: Memo<Decided>,
    /// Observations for which that was computed once more.
    pub proven: Memo<()>,
    /// How Jobs ended, with their plans.
    pub ends: Memo<(Shared<Work>, Arc<Plan>)>,
    /// Objects by what they were and what was written.
    pub models: Memo<Shared<DiffusionModel>>,
    pub requests: Memo<Shared<UnlearnRequest>>,
    pub runs: Memo<Shared<UnlearnRun>>,
    /// Records by their digest, once a pod has left one.
    pub records: Memo<Vec<u8>>,
    /// What is in an envelope, once it was signed.
    pub signed: Memo<Evidence>,
}

struct ModelView<'a> {
    model: &'a Shared<DiffusionModel>,
    policy: &'a Shared<UnlearnPolicy>,
    requests: Vec<&'a Shared<UnlearnRequest>>,
    approvals: Option<Vec<&'a Shared<UnlearnApproval>>>,
    runs: Vec<&'a Shared<UnlearnRun>>,
    deployment: &'a Shared<Deployment>,
    /// What pods serve, if they are asked.
    serving: Option<&'a Shared<Digest>>,
    asked: bool,
    archive: Option<&'a Shared<ConfigMap>>,
    canary: Option<&'a Shared<Beside>>,
    service: Option<&'a Shared<Service>>,
    /// The envelopes in the store about each bundle that is to be looked at.
    evidence: Vec<(Digest, Vec<&'a Digest>)>,
    when: When,
}

struct RequestView<'a> {
    request: &'a Shared<UnlearnRequest>,
    model: Option<&'a Shared<DiffusionModel>>,
    policy: &'a Shared<UnlearnPolicy>,
    /// Others that may ask for the same.
    others: Vec<&'a Shared<UnlearnRequest>>,
    approvals: Option<Vec<&'a Shared<UnlearnApproval>>>,
    runs: Vec<&'a Shared<UnlearnRun>>,
    when: When,
}

struct RunView<'a> {
    run: &'a Shared<UnlearnRun>,
    job: Option<&'a Shared<Work>>,
    /// Where the pods are looked up, if that is not the same.
    pods: Option<&'a Shared<Work>>,
    requests: Vec<&'a Shared<UnlearnRequest>>,
    when: When,
}

/// Two keys of an observation: what a decision reads, and all that there is.
struct Keys {
    read: u64,
    all: u64,
}

/// One in so many answers that are known is computed once more, from all that there is, and must be the same.
const TRUSTED: u64 = 128;

impl When {
    pub const NOW: When = When { late: false, pods: Pods::Honest, store: Store::Answers };
    pub const LATE: When = When { late: true, ..When::NOW };

    fn time(self) -> Timestamp {
        written() + SignedDuration::from_secs(if self.late { 100_000 } else { 1 })
    }
}

impl Mind {
    /// What the controller of `key` would do, if the object is there for it.
    pub fn decide(&self, state: &State, key: &Key, when: When) -> Decided {
        match key {
            Key::Model => state.model().map(|object| self.about_model(state, object, when)),
            Key::Request(name) => {
                find(state.requests(), name).map(|object| self.about_request(state, object, when))
            }
            Key::Run(name) => find(state.runs(), name).map(|object| self.about_run(state, object, when)),
        }
        .unwrap_or_default()
    }

    fn about_model(&self, state: &State, object: &Shared<DiffusionModel>, when: When) -> Decided {
        let mut runs: Vec<_> = state.runs().iter().collect();
        // The absence of runs that are at work is confirmed by the API server.
        for named in object.status.iter().flat_map(model::named_runs) {
            if find(state.runs(), named).is_none() {
                runs.extend(find(&state.objects.runs, named));
            }
        }
        let active = object.status.as_ref().and_then(|status| status.active_run.as_deref());
        let mut requests: Vec<_> = state.requests().iter().collect();
        // So is that of the requests that it works for.
        let active = runs.iter().find(|run| run.metadata.name.as_deref() == active);
        // Before a roll-out they are asked for anew.
        let anew = active.is_some_and(|run| model::may_roll_out(object, run));
        for reference in active.iter().flat_map(|run| &run.spec.requests) {
            if anew {
                requests.retain(|request| request.metadata.uid.as_ref() != Some(&reference.uid));
            }
            if requests.iter().all(|request| request.metadata.uid.as_ref() != Some(&reference.uid)) {
                requests.extend(confirmed(state, &reference.name, &reference.uid));
            }
        }
        let rollout = object.status.as_ref().and_then(|status| status.rollout.as_ref());
        let approvals = self.said(state, |said| {
            requests.iter().any(|request| request.name_any() == said.request_ref.name)
                || said.rollout.as_ref().is_some_and(|it| rollout.is_some_and(|r| r.to == it.digest))
        });
        let asked = model::wants_reports(object);
        let looks = canary::to_look_for(object, Some(&state.objects.policy.spec)).is_some();
        let canary = state.objects.canary.as_ref().filter(|_| looks);
        let evidence = self.looked_at(state, object, &runs, canary);
        let view = ModelView {
            evidence,
            model: object,
            policy: &state.objects.policy,
            requests,
            approvals,
            runs,
            deployment: &state.objects.deployment,
            serving: state.objects.serving.as_ref().filter(|_| asked),
            asked,
            archive: state.objects.archive.as_ref(),
            canary,
            service: state.objects.service.as_ref().filter(|_| looks),
            when: if asked { when } else { When { pods: Pods::Honest, ..when } },
        };
        self.answer(&view.keys(), || {
            let observed = model::Observed { evidence: self.found(&view.evidence), ..view.expand() };
            let decision = model::decide(&observed, &self.installation(), when.time());
            let kind = |status: DiffusionModelStatus| Status::Model(status.into());
            decided(&**object, object.status.as_ref(), decision, when.time(), Clone::clone, kind)
        })
    }

    fn about_request(&self, state: &State, object: &Shared<UnlearnRequest>, when: When) -> Decided {
        // Whether an abort comes too late is not asked of a cache.
        let is_to_be_aborted = asked::abort(object).is_some() && !request::is_over(object);
        let model = match is_to_be_aborted {
            true => state.objects.model.as_ref(),
            false => state.model().or(state.objects.model.as_ref()),
        };
        let mut runs: Vec<_> = state.runs().iter().collect();
        let active = model.and_then(|model| model.status.as_ref()?.active_run.as_deref());
        if let Some(active) = active.filter(|_| is_to_be_aborted) {
            runs.retain(|run| run.name_any() != *active);
            runs.extend(find(&state.objects.runs, active));
        }
        let others = state.requests().iter().filter(|other| duplicates::may_cover(object, other)).collect();
        let policy = &state.objects.policy;
        let approvals = self.said(state, |said| said.request_ref.name == object.name_any());
        // A request waits for nothing but another attempt.
        let when = When { late: when.late && has_terms(state), ..When::NOW };
        let view = RequestView { request: object, model, policy, others, approvals, runs, when };
        self.answer(&view.keys(), || {
            let now = when.time();
            let decision = request::decide(&view.expand(), now);
            decided(&**object, object.status.as_ref(), decision, now, Clone::clone, Status::Request)
        })
    }

    /// What people said, if it is known who they are.
    fn said<'a>(
        &self,
        state: &'a State,
        is_about: impl Fn(&UnlearnApprovalSpec) -> bool,
    ) -> Option<Vec<&'a Shared<UnlearnApproval>>> {
        let about = state.objects.approvals.iter().filter(|said| is_about(&said.spec));
        self.asks_people.then(|| about.collect())
    }

    fn about_run(&self, state: &State, object: &Shared<UnlearnRun>, when: When) -> Decided {
        let job = run::stage(object).and_then(|stage| {
            let name = names::job(&object.name_any(), stage);
            let known = find_job(state.jobs(), &name).or_else(|| find_job(&state.objects.jobs, &name));
            known.filter(|work| is_owned_by(&work.job, &**object))
        });
        let late = |name: String| {
            let known = find_job(state.jobs(), &name);
            known.filter(|work| is_owned_by(&work.job, &**object) && run::works_for_nobody(&work.job))
        };
        let job = job.or_else(|| run::past_jobs(object).find_map(late));
        // The pods of a finished Job are listed afresh.
        let pods = match job {
            Some(work) if work.is_finished() => find_job(&state.objects.jobs, &work.job.name_any()),
            other => other,
        };
        let requests = object.spec.requests.iter().filter_map(|reference| {
            let known = find(state.requests(), &reference.name);
            let known = known.filter(|request| request.metadata.uid.as_ref() == Some(&reference.uid));
            known.or_else(|| confirmed(state, &reference.name, &reference.uid))
        });
        let view = RunView { run: object, job, pods, requests: requests.collect(), when };
        self.answer(&view.keys(), || {
            let decision = run::decide(&self.expand(&view), &self.installation(), when.time());
            decided(&**object, object.status.as_ref(), decision, when.time(), of_run, Status::Run)
        })
    }

    /// Known answers, by what is read. An answer that depends on anything else ends the check.
    fn answer(&self, keys: &Keys, decide: impl Fn() -> Decided) -> Decided {
        let known = self.answers.get(keys.read, &decide);
        if keys.all.is_multiple_of(TRUSTED) {
            self.proven.get(keys.all, || {
                let anew = decide();
                let same = anew == known;
                assert!(same, "a decision reads more than crate::facts says: {known:?} {anew:?}");
            });
        }
        known
    }

    fn expand(&self, view: &RunView<'_>) -> run::Observed {
        let now = view.when.time();
        let job = view.job.map(|work| work.job.clone());
        let pods = view.pods.map(|work| work.pods.clone()).unwrap_or_default();
        let stall = job.as_ref().and_then(|job| stall::find(job, &pods, now));
        let events = stall.and(view.job).map(|work| work.events.clone()).unwrap_or_default();
        let wanted = run::wanted_record(view.run, job.as_ref(), &pods, now);
        run::Observed {
            run: (**view.run).clone(),
            job,
            pods,
            events,
            queueing: Queueing::NotAsked,
            progress: None,
            record: wanted.map(|wanted| self.read(&wanted, view.when.store)),
            requests: view.requests.iter().map(|request| (***request).clone()).collect(),
            evidence: evidence::wanted(view.run, &self.installation())
                .map(|it| self.sign(&it, view.when.store)),
        }
    }

    fn read(&self, wanted: &Digest, store: Store) -> Result<Vec<u8>, RecordProblem> {
        let problem = |transient| RecordProblem { transient, message: "it cannot be read".into() };
        match store {
            Store::Answers => self.records.known(hash_of(wanted.as_str())).ok_or_else(|| problem(false)),
            Store::Away => Err(problem(true)),
            Store::Lost => Err(problem(false)),
        }
    }
}

impl RunView<'_> {
    fn keys(&self) -> Keys {
        let facts = |all: Vec<_>| hash_of(&("run", self.run, self.job, self.pods, self.when, all));
        let is_there = |request: &&Shared<UnlearnRequest>| {
            (hash_of(&request.metadata.uid), asked::is_withdrawn(request))
        };
        let read = facts(self.requests.iter().map(is_there).collect());
        let all = facts(self.requests.iter().map(|request| (request.content(), false)).collect());
        Keys { read, all }
    }
}

impl ModelView<'_> {
    fn keys(&self) -> Keys {
        let beside = (self.canary, self.service);
        let own = (self.model, self.policy, self.deployment, self.serving, self.archive, beside, self.when);
        let own = (own, &self.evidence);
        let facts = |all: &[u64]| hash_of(&("model", own, &self.approvals, all));
        let requests = self.requests.iter().map(|request| request.facts());
        let runs = self.runs.iter().map(|run| run.facts());
        let read = facts(&requests.chain(runs).collect::<Vec<_>>());
        let requests = self.requests.iter().map(|request| request.content());
        let runs = self.runs.iter().map(|run| run.content());
        Keys { read, all: facts(&requests.chain(runs).collect::<Vec<_>>()) }
    }

    fn expand(&self) -> model::Observed {
        let serves = match self.when.pods {
            Pods::Honest => self.serving.map(|digest| (**digest).clone()).ok_or("it serves nothing"),
            Pods::Silent => Err("it does not answer"),
            Pods::SayBaseline => Ok(digest("baseline")),
        };
        let report = |pod: &str| PodReport { pod: pod.into(), digest: serves.clone().map_err(Into::into) };
        model::Observed {
            model: (**self.model).clone(),
            policy: Ok(Policy::from(&**self.policy)),
            requests: self.requests.iter().map(|request| (***request).clone()).collect(),
            approvals: expanded(self.approvals.as_deref()),
            runs: self.runs.iter().map(|run| (***run).clone()).collect(),
            rivals: vec![],
            deployment: Some((**self.deployment).clone()),
            canary: canary::Seen {
                service: self.service.map(|service| (**service).clone()),
                ..self.canary.map(|canary| canary.seen()).unwrap_or_default()
            },
            reports: if self.asked { vec![report("digits-a"), report("digits-b")] } else { vec![] },
            archived: self.archive.map(|map| model::read_archive(map)).transpose(),
            unlogged: None,
            evidence: BTreeMap::new(),
        }
    }
}

impl RequestView<'_> {
    fn keys(&self) -> Keys {
        let uid = self.request.metadata.uid.as_deref();
        let works = |run: &&Shared<UnlearnRun>| run.spec.requests.iter().any(|r| Some(&*r.uid) == uid);
        let own: Vec<_> = self.runs.iter().copied().filter(works).collect();
        let model = self.model.map(|model| model.facts());
        let others: Vec<_> = self.others.iter().map(|other| other.facts()).collect();
        let asked = (self.policy, &self.approvals, self.when);
        let read = hash_of(&("request", self.request, model, asked, own, others));
        let others: Vec<_> = self.others.iter().map(|other| other.content()).collect();
        Keys { read, all: hash_of(&("all", self.request, self.model, asked, &self.runs, others)) }
    }

    fn expand(&self) -> request::Observed {
        request::Observed {
            others: self.others.iter().map(|other| (***other).clone()).collect(),
            request: (**self.request).clone(),
            model: self.model.map(|model| Told::to(self.request, model)),
            policy: Ok(Policy::from(&**self.policy)),
            runs: self.runs.iter().map(|run| (***run).clone()).collect(),
            approvals: expanded(self.approvals.as_deref()),
        }
    }
}

fn expanded(said: Option<&[&Shared<UnlearnApproval>]>) -> Option<Vec<UnlearnApproval>> {
    said.map(|said| said.iter().map(|said| (***said).clone()).collect())
}

/// Whether a request may wait for a time.
pub fn has_terms(state: &State) -> bool {
    state.objects.policy.spec.on_gate_failure.action == GateFailureAction::Retry
}

/// The very request that a run works for, asked of the API server.
fn confirmed<'a>(state: &'a State, name: &str, uid: &str) -> Option<&'a Shared<UnlearnRequest>> {
    find(&state.objects.requests, name).filter(|request| request.metadata.uid.as_deref() == Some(uid))
}

pub fn is_owned_by(child: &impl Resource, owner: &impl Resource) -> bool {
    let owners = child.meta().owner_references.iter().flatten();
    owners.into_iter().any(|reference| Some(&reference.uid) == owner.meta().uid.as_ref())
}

/// What the controller does with a decision: the status if it differs, then the effects in order.
fn decided<S: Serialize + DeserializeOwned>(
    object: &impl Resource,
    observed: Option<&S>,
    decision: Decision<S>,
    now: Timestamp,
    owned: fn(&S) -> S,
    kind: fn(S) -> Status,
) -> Decided {
    let json = |status: &S| serde_json::to_value(owned(status)).expect("a status is JSON");
    let known = observed.map(json).unwrap_or_else(|| json!({}));
    let wanted = json(&decision.status);
    let mut calls = Vec::new();
    // As it would be written: a status that differs in a time only is one more write.
    if known != wanted {
        calls.push(Call::Status(Some(Box::new(kind(timeless(&decision.status, now))))));
    } else if !decision.effects.is_empty() {
        calls.push(Call::Status(None));
    }
    calls.extend(decision.effects.into_iter().map(|effect| Call::Effect(Box::new(canonical(effect, now)))));
    let hash = hash_of(&(object.meta().uid.as_deref(), format!("{calls:?}")));
    let calls = (!calls.is_empty()).then(|| Shared::with_hash(hash, calls));
    Decided { calls, tells: !decision.events.is_empty(), looks_again: decision.recheck.is_some() }
}

/// The part of a run's status that its controller owns: `Promoted` is the model's.
fn of_run(status: &UnlearnRunStatus) -> UnlearnRunStatus {
    let mut owned = status.clone();
    owned.conditions.retain(|c| c.type_ != ConditionType::Promoted.as_str());
    owned
}

/// With every time that is written now as the one time of everything that is written.
fn timeless<T: Serialize + DeserializeOwned>(value: &T, now: Timestamp) -> T {
    let text = serde_json::to_string(value).expect("what is written is JSON");
    serde_json::from_str(&at_one_time(&text, now)).expect("it is as it was")
}

fn at_one_time(text: &str, now: Timestamp) -> String {
    let next = |from: Timestamp| (from + SignedDuration::from_secs(BETWEEN_ATTEMPTS.into())).to_string();
    text.replace(&now.to_string(), &written().to_string()).replace(&next(now), &next(written()))
}

fn canonical(effect: Effect, now: Timestamp) -> Effect {
    match effect {
        Effect::MarkPromoted { run, uid, condition } => {
            Effect::MarkPromoted { run, uid, condition: timeless(&condition, now) }
        }
        Effect::ArchiveLedger(mut map) => {
            for text in map.data.iter_mut().flat_map(|data| data.values_mut()) {
                *text = at_one_time(text, now);
            }
            Effect::ArchiveLedger(map)
        }
        other => other,
    }
}
