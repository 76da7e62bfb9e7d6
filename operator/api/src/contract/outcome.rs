//! What a trainer pod says last: its termination message.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Device, Digest, TaskKind, json};

/// The termination message: digests and a verdict on the pod itself, never measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    /// Always [`Outcome::SCHEMA`].
    pub schema: String,
    #[schemars(length(max = Outcome::MAX_RUN))]
    pub run: String,
    /// sha256 of the plan file that this pod read. An outcome for another plan is not an outcome.
    pub plan: Digest,
    pub task: TaskKind,
    pub status: Status,
    /// Digest of the record in the store. Present if and only if the status is `Succeeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Digest>,
    /// The device that did the work: `cpu` or `cuda`, never `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Why it failed. Present if and only if the status is not `Succeeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// One line for people: what was wrong, where, and what to do. No personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = Outcome::MAX_MESSAGE))]
    pub message: Option<String>,
    /// Wall-clock seconds by stage, and speeds. For people; nothing is decided by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Status {
    Succeeded,
    Failed,
    /// Stopped by SIGTERM after a checkpoint; a new pod goes on from there.
    Interrupted,
}

/// The classes of failure, each with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Failure {
    BadPlan,
    BadArtifact,
    BadConfiguration,
    Diverged,
    OutOfMemory,
    StoreUnavailable,
    Interrupted,
    Internal,
}

/// Why a termination message is not an outcome for the plan at hand.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    #[error("the termination message is empty: the trainer ended without saying anything")]
    Missing,
    #[error("the termination message has {0} bytes; at most {max} are allowed", max = Outcome::MAX_BYTES)]
    TooLarge(usize),
    #[error("the termination message is not an outcome of this contract: {0}")]
    Malformed(String),
    #[error("the outcome is for plan {found}, not for {expected}: it is stale or someone else's")]
    ForeignPlan { expected: Digest, found: Digest },
    #[error("the outcome says {0:?} but carries {1}")]
    Contradiction(Status, &'static str),
}

impl Outcome {
    pub const SCHEMA: &str = "lethe.dev/outcome/v1";
    /// Kubernetes keeps no more of a termination message.
    pub const MAX_BYTES: usize = 4096;
    const MAX_FIGURES: usize = 16;
    const MAX_RUN: usize = 63;
    const MAX_MESSAGE: usize = 1024;

    /// Reads the termination message of a pod that was given the plan with digest `plan`.
    pub fn parse(message: &str, plan: &Digest) -> Result<Self, OutcomeError> {
        if message.trim().is_empty() {
            return Err(OutcomeError::Missing);
        }
        if message.len() > Self::MAX_BYTES {
            return Err(OutcomeError::TooLarge(message.len()));
        }
        let outcome: Self = json::parse(message.as_bytes()).map_err(OutcomeError::Malformed)?;
        outcome.check(plan)?;
        Ok(outcome)
    }

    fn check(&self, plan: &Digest) -> Result<(), OutcomeError> {
        if self.schema != Self::SCHEMA {
            return Err(OutcomeError::Malformed(format!("its schema is not {}", Self::SCHEMA)));
        }
        let too_long = |field: &str, text: &str, most: usize| {
            let long = text.chars().nth(most).is_some();
            long.then(|| OutcomeError::Malformed(format!("{field} has more than {most} characters")))
        };
        let message = self.message.as_deref().unwrap_or_default();
        let long = too_long("run", &self.run, Self::MAX_RUN);
        if let Some(error) = long.or_else(|| too_long("message", message, Self::MAX_MESSAGE)) {
            return Err(error);
        }
        if self.figures.len() > Self::MAX_FIGURES {
            return Err(OutcomeError::Malformed(format!("it has more than {} figures", Self::MAX_FIGURES)));
        }
        if self.plan != *plan {
            return Err(OutcomeError::ForeignPlan { expected: plan.clone(), found: self.plan.clone() });
        }
        match (self.status, &self.record, &self.failure) {
            (Status::Succeeded, None, _) => Err(OutcomeError::Contradiction(self.status, "no record")),
            (Status::Succeeded, _, Some(_)) => Err(OutcomeError::Contradiction(self.status, "a failure")),
            (Status::Failed | Status::Interrupted, _, None) => {
                Err(OutcomeError::Contradiction(self.status, "no failure"))
            }
            (Status::Failed | Status::Interrupted, Some(_), _) => {
                Err(OutcomeError::Contradiction(self.status, "a record"))
            }
            _ => Ok(()),
        }
    }

    /// The message to write: cut down, if need be, to what Kubernetes keeps.
    pub fn to_message(&self) -> String {
        let mut outcome = self.clone();
        // A figure that is not finite would make the message unreadable (JSON has no NaN).
        outcome.figures.retain(|_, value| value.is_finite());
        let first_line = outcome.message.take().and_then(|m| m.lines().next().map(str::to_owned));
        let mut line: String = first_line.unwrap_or_default().chars().take(Self::MAX_MESSAGE).collect();
        loop {
            outcome.message = Some(line.clone()).filter(|line| !line.is_empty());
            let json = serde_json::to_string(&outcome).expect("string keys and finite numbers only");
            if json.len() <= Self::MAX_BYTES || line.is_empty() {
                return json;
            }
            // Escapes and wide characters take more bytes than characters.
            line = line.chars().take(line.chars().count() / 2).collect();
        }
    }
}

impl Failure {
    /// The exit code that goes with it.
    pub fn exit_code(self) -> i32 {
        use super::exit;
        match self {
            Failure::BadPlan => exit::BAD_PLAN,
            Failure::BadArtifact => exit::BAD_ARTIFACT,
            Failure::BadConfiguration => exit::BAD_CONFIGURATION,
            Failure::StoreUnavailable => exit::TRY_AGAIN,
            Failure::Interrupted => exit::INTERRUPTED,
            Failure::Diverged => exit::DIVERGED,
            Failure::OutOfMemory => exit::OUT_OF_MEMORY,
            Failure::Internal => exit::INTERNAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn succeeded() -> Outcome {
        Outcome {
            schema: Outcome::SCHEMA.into(),
            run: "digits-7f3a".into(),
            plan: Digest::of(b"plan"),
            task: TaskKind::Forget,
            status: Status::Succeeded,
            record: Some(Digest::of(b"record")),
            device: Some(Device::Cpu),
            failure: None,
            message: None,
            figures: BTreeMap::from([("trainSeconds".into(), 28.5)]),
        }
    }

    #[test]
    fn an_outcome_survives_the_termination_message() {
        let outcome = succeeded();
        let read = Outcome::parse(&outcome.to_message(), &outcome.plan).unwrap();
        assert_eq!(read, outcome);
    }

    #[test]
    fn nothing_else_passes_for_an_outcome() {
        let plan = Digest::of(b"plan");
        assert!(matches!(Outcome::parse(" \n", &plan), Err(OutcomeError::Missing)));
        assert!(matches!(Outcome::parse("done", &plan), Err(OutcomeError::Malformed(_))));
        let huge = "x".repeat(Outcome::MAX_BYTES + 1);
        assert!(matches!(Outcome::parse(&huge, &plan), Err(OutcomeError::TooLarge(4097))));
        let foreign = Outcome::parse(&succeeded().to_message(), &Digest::of(b"another plan"));
        assert!(matches!(foreign, Err(OutcomeError::ForeignPlan { .. })));
    }

    #[test]
    fn a_success_without_a_record_is_a_contradiction() {
        let outcome = Outcome { record: None, ..succeeded() };
        let read = Outcome::parse(&outcome.to_message(), &outcome.plan);
        assert!(matches!(read, Err(OutcomeError::Contradiction(Status::Succeeded, "no record"))));
    }

    #[test]
    fn what_did_not_succeed_says_why_and_carries_no_record() {
        for status in [Status::Failed, Status::Interrupted] {
            let read = |outcome: Outcome| Outcome::parse(&outcome.to_message(), &outcome.plan);
            let silent = Outcome { status, record: None, ..succeeded() };
            assert!(matches!(read(silent), Err(OutcomeError::Contradiction(_, "no failure"))));
            let both = Outcome { status, failure: Some(Failure::Internal), ..succeeded() };
            assert!(matches!(read(both), Err(OutcomeError::Contradiction(_, "a record"))));
        }
        let both = Outcome { failure: Some(Failure::Internal), ..succeeded() };
        let read = Outcome::parse(&both.to_message(), &both.plan);
        assert!(matches!(read, Err(OutcomeError::Contradiction(Status::Succeeded, "a failure"))));
    }

    #[test]
    fn the_longest_message_still_fits_into_what_kubernetes_keeps() {
        let outcome = Outcome {
            status: Status::Failed,
            record: None,
            failure: Some(Failure::Internal),
            message: Some("\u{1}\u{1F600}".repeat(5000)),
            figures: (0..16).map(|i| (format!("figure{i}"), f64::MAX)).collect(),
            ..succeeded()
        };
        let message = outcome.to_message();
        assert!(message.len() <= Outcome::MAX_BYTES, "{}", message.len());
        let read = Outcome::parse(&message, &outcome.plan).unwrap();
        assert!(read.message.is_some_and(|m| m.starts_with("\u{1}\u{1F600}")));
    }
}
