//! The model as stateright sees it: states, acts, and what must hold in every state.

use kube::ResourceExt;
use lethe_api::v1alpha1::{
    ConditionType, Reason, RequestPhase, RolloutState, RunType, Stage, UnlearnRequest, UnlearnRun,
};
use stateright::{Model, Property};

use crate::{
    acts::Act,
    audit::{Audit, Broken, Invariant},
    cluster::{Work, deployment},
    decisions::Mind,
    jobs::End as Ends,
    objects::{self, MODEL},
    rest::{End, MOST_STEPS},
    scene::Scene,
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
    pub scene: Scene,
    /// How often people say something, each time whatever they may.
    pub words: u8,
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
    /// The candidate for a first request is being measured.
    Measured,
    /// The candidate for a first request has failed its gates.
    Leaked,
    /// The candidate for a first request is beside the target, and waits for people.
    AtStep,
    /// That for another base does.
    AtStepOfBase,
}

pub struct Checker {
    pub settings: Settings,
    pub mind: Mind,
    pub ends: Memo<End>,
}

impl Checker {
    pub fn new(settings: Settings) -> Self {
        let (asks_people, signs) = (settings.scene.has_words(), settings.scene.signs());
        let mind = Mind { asks_people, signs, ..Mind::default() };
        Checker { settings, mind, ends: Memo::default() }
    }

    /// Policy, Deployment and model are there; nothing was done yet.
    fn scratch(&self) -> State {
        let policy = self.settings.scene.policy(self.settings.start);
        let mut state = State {
            objects: Objects {
                model: None,
                policy: Shared::new(policy.clone()),
                requests: vec![],
                approvals: vec![],
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
            audit: Audit::new(&policy, self.mind.signs, self.settings.scene.publishes()),
            left: self.settings.disturbances,
            words: self.settings.words,
        };
        state.apply_model();
        state
    }

    /// Where it comes to rest from there; or not, which is then found from the state that it is left in.
    fn rested(&self, mut state: State) -> State {
        for _ in 0..MOST_STEPS {
            state = match (self.moves(&state), self.at_rest(&state)) {
                (Some(next), _) | (None, Ok(Some(next))) => next,
                _ => break,
            };
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
            Start::Measured => self.asked_until(|state| evaluation(state).is_some()),
            Start::Leaked => {
                let mut state = self.asked_until(|state| evaluation(state).is_some());
                let job = evaluation(&state).expect("reached");
                state.end(&self.mind, job, Ends::Leaks);
                self.until(state, is_held)
            }
            Start::AtStep => self.asked_until(waits_for_people),
            Start::AtStepOfBase => {
                let mut state = self.fulfilled();
                state.objects.approvals.clear();
                state.edit_base();
                self.until(state, waits_for_people)
            }
            Start::Beside => self.asked_until(|state| state.objects.canary.is_some()),
        }
    }

    /// A first request was made, and it has come as far as this.
    fn asked_until(&self, reached: impl Fn(&State) -> bool) -> State {
        self.until(self.after(&self.rested(self.scratch()), &Act::Asks(0)), reached)
    }

    fn until(&self, mut state: State, reached: impl Fn(&State) -> bool) -> State {
        while !reached(&state) {
            state = self.moves(&state).expect("what nobody disturbs comes that far");
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

    /// Whoever dies here, it ends the same. (After a disturbance or a word the end may depend on who was first.)
    fn survives(&self, state: &State, end: u64) -> bool {
        let is_disturbed = state.left < self.settings.disturbances || state.words < self.settings.words;
        if is_disturbed || state.pending.is_empty() {
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
        if self.settings.scene.has_words() {
            all.extend(self.settings.scene.sights());
        } else if self.settings.enough.is_none() {
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

/// The Job that measures a candidate, if it is at work.
fn evaluation(state: &State) -> Option<usize> {
    let is_it =
        |work: &Shared<Work>| work.is_running() && work.job.name_any().ends_with(Stage::Evaluate.as_str());
    state.objects.jobs.iter().position(is_it)
}

fn waits_for_people(state: &State) -> bool {
    let status = state.objects.model.as_ref().and_then(|model| model.status.as_ref());
    let conditions = status.map(|status| &status.conditions[..]).unwrap_or_default();
    let serving = ConditionType::Serving.find(conditions);
    serving.is_some_and(|it| it.reason == Reason::WaitingForApproval.to_string())
}

/// Whether the gates of a run did not pass.
fn is_held(state: &State) -> bool {
    let failed = |run: &Shared<UnlearnRun>| {
        let conditions = run.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        ConditionType::GatesPassed.is_false(conditions)
    };
    state.objects.runs.iter().any(failed)
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

pub fn is_any(state: &State, phase: RequestPhase) -> bool {
    let is = |request: &Shared<UnlearnRequest>| {
        request.status.as_ref().is_some_and(|status| status.phase == Some(phase))
    };
    state.objects.requests.iter().any(is)
}

pub fn gives(state: &State, reason: Reason) -> bool {
    let reason = reason.to_string();
    let conditions = state.objects.runs.iter().flat_map(|run| &run.status).flat_map(|s| &s.conditions);
    conditions.into_iter().any(|condition| condition.reason == reason)
}
