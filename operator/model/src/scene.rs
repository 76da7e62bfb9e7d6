//! What people ask for in a check, and what the policy asks of people.

use kube::ResourceExt;
use lethe_api::v1alpha1::{Mode, RequestPhase, UnlearnPolicy, UnlearnRequest};
use serde_json::{Value, json};
use stateright::Property;

use crate::{
    checker::{Checker, Start, is_any},
    objects::{self, fixed, nearest},
};

/// Whoever makes the requests of a scene in which it counts who that is.
pub const REQUESTER: &str = "maya";

/// How many seconds an attempt waits after one that failed.
pub const BETWEEN_ATTEMPTS: u32 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// Nobody is asked, and whoever makes a request leaves it at that.
    Plain,
    /// The same, and what is measured is signed.
    Signed,
    /// The same as [`Scene::Signed`], and the operator only publishes what is to be served: Git has the target name it.
    Published,
    /// So many people have to agree to a request.
    Approvals(u8),
    /// The first request is a pilot, which needs nobody. To the second one somebody has to agree.
    Pilots,
    /// A candidate stands beside the target until somebody agrees.
    Steps,
    /// A candidate that failed its gates is followed by one more.
    Attempts,
}

impl Scene {
    /// Whether people say anything.
    pub fn has_words(self) -> bool {
        !matches!(self, Scene::Plain | Scene::Signed | Scene::Published)
    }

    /// Whether nothing is rolled out without signed evidence.
    pub fn signs(self) -> bool {
        matches!(self, Scene::Signed | Scene::Published)
    }

    /// Whether somebody else changes the serving target.
    pub fn publishes(self) -> bool {
        self == Scene::Published
    }

    pub fn policy(self, start: Start) -> UnlearnPolicy {
        let mut policy = match (self, start) {
            (Scene::Plain | Scene::Signed | Scene::Published, Start::Asked) => objects::watchful(),
            (Scene::Plain | Scene::Signed | Scene::Published, Start::Beside) => {
                objects::careful(json!([{"weight": 50}]))
            }
            _ => objects::policy(),
        };
        let spec = &mut policy.spec;
        match self {
            Scene::Plain | Scene::Signed | Scene::Published => {}
            Scene::Approvals(required) => spec.approvals.required = required,
            Scene::Pilots => spec.approvals.required = 1,
            Scene::Steps => {
                let steps = json!([{"weight": 50}, {"approval": {"required": 1}}]);
                spec.rollout =
                    written(json!({"strategy": "Canary", "steps": steps, "progressDeadlineSeconds": 120}));
            }
            Scene::Attempts => {
                spec.on_gate_failure =
                    written(json!({"action": "Retry", "attempts": 2, "waitSeconds": BETWEEN_ATTEMPTS}));
            }
        }
        policy
    }

    /// What people ask for, one after the other or at once.
    pub fn asks(self, which: usize) -> UnlearnRequest {
        let mut request = match which {
            0 => objects::request("a", &["3"], fixed("8")),
            1 => objects::request("b", &["5"], nearest()),
            // Its first target becomes the override of another request's.
            _ => objects::request("c", &["8", "3"], nearest()),
        };
        if self == Scene::Pilots && request.name_any() == "a" {
            request.spec.mode = Mode::Pilot;
        }
        request.spec.requested_by = self.has_words().then(|| REQUESTER.to_owned());
        request
    }
}

impl Scene {
    /// What must be seen of it somewhere.
    pub fn sights(self) -> Vec<Property<Checker>> {
        use RequestPhase::{Aborted, AwaitingApproval, Denied};
        let phases: &[RequestPhase] = match self {
            Scene::Plain | Scene::Signed | Scene::Published => &[],
            Scene::Approvals(_) | Scene::Pilots => &[AwaitingApproval, Denied, Aborted],
            Scene::Steps | Scene::Attempts => &[Aborted],
        };
        phases.iter().filter_map(|phase| sight(*phase)).collect()
    }
}

fn sight(phase: RequestPhase) -> Option<Property<Checker>> {
    use RequestPhase::{Aborted, AwaitingApproval, Denied};
    Some(match phase {
        AwaitingApproval => {
            Property::sometimes("a request waits for people", |_, state| is_any(state, AwaitingApproval))
        }
        Denied => Property::sometimes("a request is denied", |_, state| is_any(state, Denied)),
        Aborted => Property::sometimes("a request is aborted", |_, state| is_any(state, Aborted)),
        _ => return None,
    })
}

fn written<T: serde::de::DeserializeOwned>(part: Value) -> T {
    serde_json::from_value(part).expect("a part of a policy as a person would write it")
}
