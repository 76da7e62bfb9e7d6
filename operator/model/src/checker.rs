//! The model as stateright sees it: states, acts, and what must hold in every state.

use kube::ResourceExt;
use lethe_api::v1alpha1::{Reason, RequestPhase, RolloutState, RunType, UnlearnRequest};
use stateright::{Model, Property};

use crate::{
    acts::Act,
    audit::{Audit, Broken, Invariant},
    cluster::deployment,
    decisions::Mind,
    objects::{self, MODEL},
    rest::{End, MOST_STEPS},
    server::Guards,
    shared::{Memo, Shared},
    state::{Births, Objects, State},
};

/// How much happens.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many requests people make, each at any time, and once more if it was deleted.
    pub requests: usize,
    /// How many disturbances there are at most, each at any time.
    pub disturbances: u8,
    pub start: Start,
    pub guards: Guards,
    /// Enough transitions, where going through all of them takes too long.
    pub enough: Option<usize>,
}

/// Where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing was done for the model yet.
    Scratch,
    /// It is prepared, and its baseline is served.
    Ready,
    /// A first request is fulfilled.
    Fulfilled,
    /// It is, and the model names another base.
    Rebased,
    /// The candidate for a first request passed and is rolled out, and the live server is about to be asked what it shows.
    Asked,
    /// The policy tries candidates beside the target first, and a second Deployment was just created for the first.
    Beside,
}

pub struct Checker {
    pub settings: Settings,
    pub mind: Mind,
    pub ends: Memo<End>,
}

impl Checker {
    pub fn new(settings: Settings) -> Self {
        Checker { settings, mind: Mind::default(), ends: Memo::default() }
    }

    /// Policy, Deployment and model are there; nothing was done yet.
    fn scratch(&self) -> State {
        let policy = match self.settings.start {
            Start::Asked => objects::watchful(),
            Start::Beside => objects::careful(serde_json::json!([{"weight": 50}])),
            Start::Scratch | Start::Ready | Start::Fulfilled | Start::Rebased => objects::policy(),
        };
        let mut state = State {
            objects: Objects {
                model: None,
                policy: Shared::new(policy.clone()),
                requests: vec![],
                runs: vec![],
                jobs: vec![],
                plans: vec![],
                archive: None,
                deployment: Shared::new(deployment(MODEL, "server")),
                serving: None,
                canary: None,
                service: None,
            },
            stale: None,
            pending: vec![],
            in_flight: None,
            births: Births::default(),
            audit: Audit::new(&policy),
            left: self.settings.disturbances,
        };
        state.apply_model();
        state
    }

    /// Where it comes to rest from there; or not, which is then found from the state that it is left in.
    fn rested(&self, mut state: State) -> State {
        for _ in 0..MOST_STEPS {
            match self.moves(&state) {
                Some(next) => state = next,
                None => break,
            }
        }
        state
    }

    fn fulfilled(&self) -> State {
        let ready = self.rested(self.scratch());
        self.rested(self.after(&ready, &Act::Asks(0)))
    }

    fn first(&self) -> State {
        match self.settings.start {
            Start::Scratch => self.scratch(),
            Start::Ready => self.rested(self.scratch()),
            Start::Fulfilled => self.fulfilled(),
            Start::Rebased => {
                let mut state = self.fulfilled();
                state.edit_base();
                state
            }
            Start::Asked => self.asked_until(is_asked),
            Start::Beside => self.asked_until(|state| state.objects.canary.is_some()),
        }
    }

    /// A first request was made, and it has come as far as this.
    fn asked_until(&self, reached: impl Fn(&State) -> bool) -> State {
        let mut state = self.after(&self.rested(self.scratch()), &Act::Asks(0));
        while !reached(&state) {
            state = self.moves(&state).expect("an undisturbed request comes that far");
        }
        state
    }

    /// What is broken in a state, at once or in the end.
    pub fn broken(&self, state: &State) -> Option<Broken> {
        match (&state.audit.broken, self.end(state)) {
            (Some(broken), _) => Some((**broken).clone()),
            (None, Err(broken)) => Some((*broken).clone()),
            (None, Ok(end)) if !self.survives(state, end) => {
                let how = "it ends otherwise if the operator dies here".into();
                Some(Broken { invariant: Invariant::Crash, how })
            }
            _ => None,
        }
    }

    /// Whoever dies here, it ends the same. (After a disturbance the end may depend on who was first.)
    fn survives(&self, state: &State, end: u64) -> bool {
        if state.left < self.settings.disturbances || state.pending.is_empty() {
            return true;
        }
        let mut dead = state.clone();
        dead.die(None);
        self.end(&dead).is_ok_and(|other| other == end)
    }
}

impl Model for Checker {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, acts: &mut Vec<Act>) {
        if state.audit.broken.is_none() {
            self.possible(state, acts);
        }
    }

    fn next_state(&self, state: &State, act: Act) -> Option<State> {
        Some(self.after(state, &act)).filter(|next| next != state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all =
            vec![Property::always("nothing is broken, and everything ends well", |model: &Self, state| {
                model.broken(state).is_none()
            })];
        // What must be seen where everything is gone through: a model in which nothing happens keeps every promise.
        if self.settings.enough.is_none() {
            all.push(Property::sometimes("a request is fulfilled", |_, state| {
                is_any(state, RequestPhase::Fulfilled)
            }));
            if self.settings.requests > 1 {
                all.push(Property::sometimes("two requests share a run", |_, state: &State| {
                    state.objects.runs.iter().any(|run| run.spec.requests.len() > 1)
                }));
            }
            if self.settings.disturbances > 0 {
                all.extend(disturbed());
            }
        }
        all
    }
}

/// Whether there is a run that asks the live server.
fn is_asked(state: &State) -> bool {
    state.objects.runs.iter().any(|run| run.spec.type_ == RunType::Audit)
}

fn disturbed() -> Vec<Property<Checker>> {
    vec![
        Property::sometimes("a request is held", |_, state| is_any(state, RequestPhase::Held)),
        Property::sometimes("a request fails", |_, state| is_any(state, RequestPhase::Failed)),
        Property::sometimes("another base is in service", |_, state: &State| {
            let status = state.objects.model.as_ref().and_then(|model| model.status.as_ref());
            let base = status.and_then(|status| status.baseline.as_ref()).map(|baseline| &baseline.teacher);
            base.is_some_and(|base| *base != objects::base(objects::BASES[0]).digest)
        }),
        Property::sometimes("a run is given up", |_, state| gives(state, Reason::Superseded)),
        Property::sometimes("a roll-out is taken back", |_, state: &State| {
            let model = state.objects.model.as_ref().and_then(|model| model.status.as_ref());
            let rollout = model.and_then(|status| status.rollout.as_ref());
            rollout.is_some_and(|rollout| rollout.state == RolloutState::RolledBack)
        }),
        Property::sometimes(
            "what a dead operator sent is on its way while its successor acts",
            |_, state: &State| state.in_flight.is_some() && !state.pending.is_empty(),
        ),
        Property::sometimes(
            "a model that came back has its ledger before it is prepared",
            |_, state: &State| {
                let status = state.objects.model.as_ref().and_then(|model| model.status.as_ref());
                status.is_some_and(|status| status.baseline.is_none() && !status.ledger.is_empty())
            },
        ),
    ]
}

fn is_any(state: &State, phase: RequestPhase) -> bool {
    let is = |request: &Shared<UnlearnRequest>| {
        request.status.as_ref().is_some_and(|status| status.phase == Some(phase))
    };
    state.objects.requests.iter().any(is)
}

fn gives(state: &State, reason: Reason) -> bool {
    let reason = reason.to_string();
    let conditions = state.objects.runs.iter().flat_map(|run| &run.status).flat_map(|s| &s.conditions);
    conditions.into_iter().any(|condition| condition.reason == reason)
}

/// A state in a few lines, for people.
pub fn summary(state: &State) -> String {
    let mut lines = Vec::new();
    if let Some(model) = &state.objects.model {
        let status = model.status.clone().unwrap_or_default();
        let rollout = status.rollout.map(|r| (r.run, r.state, r.to.short().to_owned()));
        let base = status.baseline.map(|baseline| baseline.teacher.short().to_owned());
        lines.push(format!("base {base:?}, asked for {}", model.spec.base.digest.short()));
        lines.push(format!("model {:?} runs {:?}, rollout {rollout:?}", status.phase, status.active_run));
        for entry in status.ledger {
            lines.push(format!("  forgot {:?} by {} {}", entry.targets, entry.run, entry.digest.short()));
        }
    }
    for request in &state.objects.requests {
        let status = request.status.clone().unwrap_or_default();
        let run = status.run.map(|run| run.name);
        lines.push(format!("request {} {:?} {run:?}", request.name_any(), status.phase));
    }
    for run in &state.objects.runs {
        let status = run.status.clone().unwrap_or_default();
        lines.push(format!("run {} {:?} {:?}", run.name_any(), status.phase, status.verdict));
        for condition in status.conditions {
            lines.push(format!("  {}={} {}", condition.type_, condition.status, condition.reason));
        }
    }
    let jobs: Vec<_> = state.objects.jobs.iter().map(|work| work.job.name_any()).collect();
    lines.push(format!("jobs {jobs:?}"));
    let named = lethe_core::rollout::annotation(&state.objects.deployment);
    lines.push(format!("named {named:?} serving {:?}", state.objects.serving.as_deref()));
    lines.join("\n")
}
