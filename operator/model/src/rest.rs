//! How a state ends once nothing disturbs it any more and everybody does what they should. From every state that
//! the checker reaches it is followed to its end, so that what is left to prove is not "something good may happen",
//! but "it happens".

use std::{fmt::Write, sync::Arc};

use kube::ResourceExt;
use lethe_api::v1alpha1::ConditionType;
use lethe_core::targets::ledger_targets;

use crate::{
    acts::{Act, Disturbance, cluster_act},
    audit::{Broken, Invariant, at_the_end},
    checker::Checker,
    decisions::When,
    server::undisturbed,
    shared::hash_of,
    state::{Key, State},
};

/// More steps than any orderly end takes.
pub const MOST_STEPS: usize = 2_000;

/// Steps to the end that are shown.
const SHOWN: usize = 100;

/// The answers at the end as a hash, or what is wrong there.
pub type End = Result<u64, Arc<Broken>>;

impl Checker {
    pub fn end(&self, state: &State) -> End {
        let mut path = vec![undisturbed(state)];
        if let Some(known) = self.ends.known(path[0]) {
            return known;
        }
        let mut current = state.clone();
        let end = loop {
            if let Some(broken) = &current.audit.broken {
                break Err(Arc::new((**broken).clone()));
            }
            let moved = match self.moves(&current) {
                Some(moved) => moved,
                None => match self.at_rest(&current) {
                    Ok(Some(moved)) => moved,
                    Ok(None) => break at_the_end(&current).map(|()| answers(&current)).map_err(Arc::new),
                    Err(broken) => break Err(Arc::new(broken)),
                },
            };
            current = moved;
            let key = undisturbed(&current);
            if let Some(known) = self.ends.known(key) {
                break known;
            }
            if path.len() > MOST_STEPS {
                let how = "it never comes to rest".to_owned();
                break Err(Arc::new(Broken { invariant: Invariant::Idle, how }));
            }
            path.push(key);
        };
        for key in path {
            self.ends.keep(key, end.clone());
        }
        end
    }

    /// What the operator or the cluster does next, if there is anything to do. What is late
    /// comes last.
    pub fn next(&self, state: &State) -> Option<Act> {
        if state.stale.is_some() {
            return Some(Act::CachesCatchUp);
        }
        if state.in_flight.is_some() {
            return Some(Act::Arrives);
        }
        if let Some(pending) = state.pending.first() {
            return Some(Act::Calls(pending.key.clone()));
        }
        let keys = state.keys();
        let wants = |key: &&Key, when| self.mind.decide(state, key, when).calls.is_some();
        let now = || keys.iter().find(|key| wants(key, When::NOW)).cloned().map(Act::Decides);
        // Time passes by itself, but only who wanted to look again does so.
        let wakes = |key: &&Key| self.mind.decide(state, key, When::NOW).looks_again;
        let late = || {
            let key = keys.iter().find(|key| wants(key, When::LATE) && wakes(key))?;
            Some(Act::Disturbs(Disturbance::DecidesWhen(key.clone(), When::LATE)))
        };
        // The cluster first: an operator that is refused because of what is left over tries again.
        let git = || state.promotion().map(|_| Act::Promotes);
        cluster_act(state).or_else(now).or_else(git).or_else(late)
    }

    pub fn moves(&self, state: &State) -> Option<State> {
        self.next(state).map(|act| self.after(state, &act))
    }

    /// The acts from a state to its end, for people.
    pub fn way(&self, state: &State) -> Vec<String> {
        let mut current = state.clone();
        let mut acts = Vec::new();
        while acts.len() < SHOWN && current.audit.broken.is_none() {
            current = match self.next(&current) {
                Some(act) => {
                    acts.push(format!("{act:?}"));
                    self.after(&current, &act)
                }
                None => match self.at_rest(&current) {
                    Ok(Some(next)) => {
                        acts.push("(at rest: people see to it)".into());
                        next
                    }
                    _ => break,
                },
            };
        }
        acts
    }

    /// Nothing moves. The next state is what people do who do not leave it there.
    pub fn at_rest(&self, state: &State) -> Result<Option<State>, Broken> {
        for key in state.keys() {
            if [When::NOW, When::LATE].into_iter().any(|when| self.mind.decide(state, &key, when).tells) {
                let how = format!("at rest there is an event about {key:?} again and again");
                return Err(Broken { invariant: Invariant::Idle, how });
            }
        }
        let wants = |key: &&Key| self.mind.decide(state, key, When::LATE).calls.is_some();
        if let Some(key) = state.keys().iter().find(wants) {
            let how = format!("there will be something to do about {key:?}, and nobody will look at it");
            return Err(Broken { invariant: Invariant::Answered, how });
        }
        if state.is_archive_spoilt()
            && let Some(status) = state.objects.model.as_ref().and_then(|model| model.status.as_ref())
            && !ConditionType::Compliant.is_false(&status.conditions)
        {
            let how =
                "a model of which nobody knows what it had to forget is not said to be not compliant".into();
            return Err(Broken { invariant: Invariant::Served, how });
        }
        let mut next = state.clone();
        next.repair_archive();
        for request in state.objects.requests.iter().filter(|request| request.spec.suspend) {
            next.suspend(&request.name_any(), false);
        }
        if self.settings.scene.has_words() {
            next.agree();
        }
        match &state.objects.model {
            None => next.apply_model(),
            // A failed preparation waits for another policy.
            Some(model) if model.status.as_ref().is_none_or(|status| status.baseline.is_none()) => {
                next.edit_policy(99);
            }
            Some(_) => {}
        }
        Ok(Some(next).filter(|next| next != state))
    }
}

/// What people care about: answers, ledger and serving, but not by which runs it came to be.
fn answers(state: &State) -> u64 {
    let mut text = String::new();
    for request in &state.objects.requests {
        let phase = request.status.as_ref().and_then(|status| status.phase);
        let _ = write!(text, "{} {phase:?} ", request.name_any());
    }
    let forgotten: Vec<_> = ledger_targets(&state.audit.ledger).into_keys().collect();
    let _ = write!(text, "{forgotten:?}");
    hash_of(&text)
}
