//! Follows objects of Lethe while the operator works: every change of a condition once, and where the run
//! stands.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::interrupt;
use super::kubectl::Kubectl;
use super::timeline::Timeline;

/// A `kubectl` costs a twentieth of a second of CPU, which the pods could use.
const POLL: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// What is shown of a message: it is for a line, the rest is in the object.
const MESSAGE: usize = 96;
/// Conditions in the order in which they come True.
const LIFE: [&str; 11] = [
    "Accepted",
    "Scheduled",
    "Prepared",
    "Trained",
    "Evaluated",
    "GatesPassed",
    "Promoted",
    "Serving",
    "Compliant",
    "Fulfilled",
    "Ready",
];

/// Every model, request and run of the namespace at one moment.
pub struct Seen(Vec<Value>);

impl Seen {
    /// The object `name` of a kind.
    pub fn object(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    }

    /// Stage and step of whatever run is at work.
    fn progress(&self) -> Option<String> {
        let progress = self.0.iter().map(|object| &object["status"]["progress"]).find(|p| p.is_object())?;
        let stage = progress["stage"].as_str().unwrap_or("working");
        let (step, total) = (progress["step"].as_u64().unwrap_or(0), progress["total"].as_u64().unwrap_or(0));
        let steps = if total > 1 { format!(" {step}/{total}") } else { String::new() };
        let eta = progress["etaSeconds"].as_u64().map(|eta| format!(", {eta} s left"));
        Some(format!("{stage}{steps}{}", eta.unwrap_or_default()))
    }
}

/// A condition as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    type_: String,
    status: String,
    reason: String,
    message: String,
}

/// What was followed: when each condition came to its last status.
#[derive(Debug, Default)]
pub struct Followed {
    seen: BTreeMap<String, Condition>,
    since: BTreeMap<String, f64>,
}

impl Followed {
    /// Seconds since the demo's start at which the condition got its last status.
    pub fn since(&self, type_: &str) -> Option<f64> {
        self.since.get(type_).copied()
    }

    /// Notes the conditions of `object` and returns those whose status or reason has changed.
    fn note(&mut self, object: &Value, now: f64) -> Vec<Condition> {
        let mut changed = Vec::new();
        let mut found: Vec<Condition> = conditions(object).collect();
        found.sort_by_key(|condition| LIFE.iter().position(|type_| *type_ == condition.type_));
        for condition in found {
            let before = self.seen.get(&condition.type_);
            let same_status = before.is_some_and(|before| before.status == condition.status);
            if same_status && before.is_some_and(|before| before.reason == condition.reason) {
                continue;
            }
            if !same_status {
                self.since.insert(condition.type_.clone(), now);
            }
            self.seen.insert(condition.type_.clone(), condition.clone());
            changed.push(condition);
        }
        changed
    }
}

/// Shows how the object changes until `done` says so.
///
/// # Errors
/// Those of `done`; or if it does not come to an end, with the last thing that was seen.
pub fn follow(
    kubectl: &Kubectl<'_>,
    timeline: &Timeline,
    (kind, name): (&str, &str),
    mut done: impl FnMut(&Value) -> Result<bool>,
) -> Result<(Value, Followed)> {
    let deadline = Instant::now() + LIMIT;
    let mut followed = Followed::default();
    loop {
        interrupt::check()?;
        let seen = look(kubectl)?;
        if let Some(object) = seen.object(kind, name) {
            for condition in followed.note(object, timeline.now()) {
                show(timeline, &condition);
            }
            if done(object)? {
                return Ok((object.clone(), followed));
            }
            if Instant::now() > deadline {
                let minutes = LIMIT.as_secs() / 60;
                bail!("{kind} {name} does not come to an end within {minutes} min: {}", why(object));
            }
        }
        if let Some(progress) = seen.progress() {
            timeline.live(&progress);
        }
        sleep(POLL);
    }
}

/// All of Lethe's objects in the namespace.
///
/// # Errors
/// If the API server does not answer.
pub fn look(kubectl: &Kubectl<'_>) -> Result<Seen> {
    let list = kubectl.json(&["get", "diffusionmodels,unlearnrequests,unlearnruns"])?;
    Ok(Seen(list["items"].as_array().cloned().unwrap_or_default()))
}

/// Whether a condition is there and True.
pub fn is_true(object: &Value, type_: &str) -> bool {
    conditions(object).any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// What the object itself says about where it stands.
pub fn why(object: &Value) -> String {
    let phase = object["status"]["phase"].as_str().unwrap_or("no phase yet");
    let ready = conditions(object).find(|condition| condition.type_ == "Ready");
    match ready {
        Some(ready) => format!("{phase} ({}): {}", ready.reason, ready.message),
        None => phase.to_owned(),
    }
}

fn conditions(object: &Value) -> impl Iterator<Item = Condition> + '_ {
    let text = |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    object["status"]["conditions"].as_array().into_iter().flatten().map(move |condition| Condition {
        type_: text(condition, "type"),
        status: text(condition, "status"),
        reason: text(condition, "reason"),
        message: text(condition, "message"),
    })
}

fn show(timeline: &Timeline, condition: &Condition) {
    let Condition { type_, status, reason, message } = condition;
    // Ready repeats another condition until the end.
    if type_ == "Ready" && status == "Unknown" {
        return;
    }
    let type_ = timeline.bold(&format!("{type_:<12}"));
    let message = shortened(message);
    timeline.say(&format!("{type_} {status:<8} {reason:<16} {message}"));
}

fn shortened(message: &str) -> String {
    if message.chars().count() <= MESSAGE {
        return message.to_owned();
    }
    message.chars().take(MESSAGE - 1).chain(['\u{2026}']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(status: &str, reason: &str, message: &str) -> Value {
        let condition = json!({"type": "Trained", "status": status, "reason": reason, "message": message});
        json!({"kind": "UnlearnRun", "status": {"phase": "Training", "conditions": [condition]}})
    }

    #[test]
    fn a_condition_is_shown_when_status_or_reason_change_and_not_for_every_message() {
        let mut followed = Followed::default();
        assert_eq!(followed.note(&object("Unknown", "Training", "a"), 1.0).len(), 1);
        assert_eq!(followed.note(&object("Unknown", "Training", "b"), 2.0).len(), 0);
        assert_eq!(followed.note(&object("Unknown", "Waiting", "b"), 3.0).len(), 1);
        assert_eq!(followed.since("Trained"), Some(1.0), "the status is the same since then");
        assert_eq!(followed.note(&object("True", "Trained", "c"), 4.0).len(), 1);
        assert_eq!(followed.since("Trained"), Some(4.0));
        assert_eq!(followed.since("Evaluated"), None);
    }

    #[test]
    fn what_comes_at_once_is_shown_in_the_order_of_life() {
        let condition = |type_: &str| json!({"type": type_, "status": "True", "reason": "", "message": ""});
        let object = json!({"status": {"conditions": [condition("Ready"), condition("Evaluated"), condition("Trained")]}});
        let changed = Followed::default().note(&object, 1.0);
        let types: Vec<_> = changed.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["Trained", "Evaluated", "Ready"]);
    }

    #[test]
    fn a_long_message_is_cut_to_a_line() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"\u{e9}".repeat(200)).chars().count(), MESSAGE);
    }

    #[test]
    fn progress_is_read_from_whichever_object_has_it() {
        let progress = json!({"stage": "forget", "step": 20, "total": 500, "etaSeconds": 9});
        let seen = Seen(vec![object("Unknown", "", ""), json!({"status": {"progress": progress}})]);
        assert_eq!(seen.progress().as_deref(), Some("forget 20/500, 9 s left"));
        assert_eq!(Seen(vec![]).progress(), None);
    }
}
