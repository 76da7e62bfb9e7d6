//! Building and comparing conditions.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use lethe_api::{
    printable::printable,
    v1alpha1::{ConditionType, Reason},
};

use crate::{Event, kueue::is_in_a_queue};

/// Longest message that the schema allows.
const MAX_MESSAGE: usize = 4096;

/// Conditions under construction. Starts from the observed ones, so that a condition which keeps its
/// status keeps its transition time, and nothing is written when nothing changed.
#[derive(Clone, Debug)]
pub struct Conditions {
    list: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions {
    pub fn new(observed: &[Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { list: observed.to_vec(), generation, now }
    }

    pub fn yes(&mut self, type_: ConditionType, reason: Reason, message: impl Into<String>) {
        self.set(type_, "True", reason, message.into());
    }

    pub fn no(&mut self, type_: ConditionType, reason: Reason, message: impl Into<String>) {
        self.set(type_, "False", reason, message.into());
    }

    /// Not known yet: it may still become either.
    pub fn unknown(&mut self, type_: ConditionType, reason: Reason, message: impl Into<String>) {
        self.set(type_, "Unknown", reason, message.into());
    }

    fn set(&mut self, type_: ConditionType, status: &str, reason: Reason, message: String) {
        self.put(type_.as_str(), status, reason.to_string(), message);
    }

    /// Whoever wrote a part of the message, an image or a person: it is one line, and steers nobody's terminal.
    fn put(&mut self, type_: &str, status: &str, reason: String, message: String) {
        let mut message = printable(&message);
        if message.len() > MAX_MESSAGE {
            let cut = (0..=MAX_MESSAGE).rev().find(|&i| message.is_char_boundary(i)).unwrap_or(0);
            message.truncate(cut);
        }
        let observed = self.list.iter().find(|c| c.type_ == type_);
        let last_transition_time = match observed {
            Some(found) if found.status == status => found.last_transition_time.clone(),
            _ => Time(self.now),
        };
        let condition = Condition {
            type_: type_.into(),
            status: status.into(),
            reason,
            message,
            observed_generation: self.generation,
            last_transition_time,
        };
        match self.list.iter_mut().find(|c| c.type_ == condition.type_) {
            Some(found) => *found = condition,
            None => self.list.push(condition),
        }
    }

    /// Repeats a condition of another object.
    pub fn copy(&mut self, from: &Condition) {
        self.put(&from.type_, &from.status, from.reason.clone(), from.message.clone());
    }

    pub fn remove(&mut self, type_: ConditionType) {
        self.list.retain(|c| c.type_ != type_.as_str());
    }

    pub fn find(&self, type_: ConditionType) -> Option<&Condition> {
        type_.find(&self.list)
    }

    pub fn list(&self) -> &[Condition] {
        &self.list
    }

    /// Says in the words of kstatus what Ready says.
    fn sum_up(&mut self) {
        let ready = self.find(ConditionType::Ready).cloned();
        for (status, word) in [("Unknown", ConditionType::Reconciling), ("False", ConditionType::Stalled)] {
            match ready.clone().filter(|ready| ready.status == status) {
                Some(ready) => self.put(word.as_str(), "True", ready.reason, ready.message),
                None => self.remove(word),
            }
        }
    }

    pub fn into_list(mut self) -> Vec<Condition> {
        self.sum_up();
        self.list.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.list
    }
}

/// Conditions that only repeat what another one says.
const SUMMARIES: [ConditionType; 3] =
    [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled];

/// Of a Job in a queue, what somebody has to put right.
const IN_VAIN: [Reason; 2] = [Reason::Inadmissible, Reason::NotQueued];

/// One event for every condition whose status or reason changed, but for those that only say "not yet". Of a Job that waits in a
/// queue, which may take days, people are told, and when that ends.
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    let changed = |c: &&Condition| {
        let old = before.iter().find(|old| old.type_ == c.type_);
        let is_told = c.status != "Unknown" || is_in_a_queue(c) || old.is_some_and(is_in_a_queue);
        is_told && old.is_none_or(|old| old.status != c.status || old.reason != c.reason)
    };
    // That a pilot is not rolled out is what was asked for.
    let is_trouble = |c: &Condition| match &*c.status {
        "False" => c.reason != Reason::Pilot.to_string(),
        "Unknown" => IN_VAIN.iter().any(|reason| c.reason == reason.to_string()),
        _ => false,
    };
    after
        .iter()
        .filter(|c| SUMMARIES.iter().all(|summary| c.type_ != summary.as_str()))
        .filter(changed)
        .map(|c| Event { warning: is_trouble(c), reason: c.reason.clone(), note: c.message.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_transition_time_moves_only_with_the_status() {
        let mut first = Conditions::new(&[], Some(1), at(10));
        first.no(ConditionType::Ready, Reason::Training, "step 1");
        let mut second = Conditions::new(&first.into_list(), Some(1), at(20));
        second.no(ConditionType::Ready, Reason::Evaluating, "step 2");
        let second = second.into_list();
        assert_eq!(second[0].last_transition_time.0, at(10));
        let mut third = Conditions::new(&second, Some(1), at(30));
        third.yes(ConditionType::Ready, Reason::Ready, "");
        assert_eq!(third.into_list()[0].last_transition_time.0, at(30));
    }

    #[test]
    fn an_event_is_published_once_per_change_and_warns_of_trouble_only() {
        let mut conditions = Conditions::new(&[], None, at(0));
        conditions.no(ConditionType::GatesPassed, Reason::GateFailed, "leak");
        conditions.yes(ConditionType::Evaluated, Reason::Evaluated, "");
        conditions.no(ConditionType::Promoted, Reason::Pilot, "as asked");
        conditions.unknown(ConditionType::Serving, Reason::RollingOut, "");
        let list = conditions.into_list();
        let events = transitions(&[], &list);
        assert_eq!(events.iter().map(|e| e.warning).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(transitions(&list, &list), []);
    }

    #[test]
    fn what_waits_in_a_queue_and_that_it_waits_no_longer_is_an_event() {
        let mut said = vec![];
        let mut before = vec![];
        for (reason, note) in [
            (Reason::Training, "the Job is being created"),
            (Reason::WaitingForQuota, "1 more needed"),
            (Reason::WaitingForQuota, "2 more needed"),
            (Reason::Training, "at work"),
            (Reason::Training, "still"),
            (Reason::Preempted, "for another one"),
            (Reason::Inadmissible, "no such queue"),
        ] {
            let mut conditions = Conditions::new(&before, None, at(0));
            conditions.unknown(ConditionType::Trained, reason, note);
            let after = conditions.into_list();
            said.extend(transitions(&before, &after).into_iter().map(|event| (event.warning, event.note)));
            before = after;
        }
        let expected = [
            (false, "1 more needed"),
            (false, "at work"),
            (false, "for another one"),
            (true, "no such queue"),
        ];
        assert_eq!(said, expected.map(|(warning, note)| (warning, note.to_owned())));
    }

    #[test]
    fn a_message_and_its_event_are_one_line_that_steers_nothing() {
        let mut conditions = Conditions::new(&[], None, at(0));
        conditions.no(ConditionType::Trained, Reason::BadRecord, "bad\u{1b}[2J\nReady: True");
        let list = conditions.into_list();
        assert_eq!(list[0].message, "bad [2J Ready: True");
        assert_eq!(transitions(&[], &list)[0].note, list[0].message);
    }

    #[test]
    fn what_is_under_way_is_reconciling_and_what_will_not_be_ready_by_itself_is_stalled() {
        let words = [ConditionType::Reconciling, ConditionType::Stalled];
        let mut before = vec![];
        for (second, ready, said) in [
            (0, "Unknown", Some(ConditionType::Reconciling)),
            (10, "False", Some(ConditionType::Stalled)),
            (20, "Unknown", Some(ConditionType::Reconciling)),
            (30, "True", None),
        ] {
            let mut conditions = Conditions::new(&before, Some(1), at(second));
            conditions.set(ConditionType::Ready, ready, Reason::GateFailed, "leak".into());
            let list = conditions.into_list();
            for word in words {
                let found = word.find(&list).map(|c| (&*c.status, &*c.reason, &*c.message));
                let expected = (said == Some(word)).then_some(("True", "GateFailed", "leak"));
                assert_eq!(found, expected, "{word:?} where Ready is {ready}");
            }
            assert_eq!(transitions(&before, &list), [], "it is no event of its own");
            before = list;
        }
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let mut conditions = Conditions::new(&[], None, at(0));
        conditions.no(ConditionType::Ready, Reason::BadRecord, "\u{e9}".repeat(4096));
        assert!(conditions.into_list()[0].message.len() <= MAX_MESSAGE);
    }
}
