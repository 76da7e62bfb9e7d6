//! Requests that make sense and that no run works for: what keeps each of them, and until when.

use jiff::Timestamp;
use kube::ResourceExt;
use lethe_api::v1alpha1::{
    ConditionType, DiffusionModel, DiffusionModelStatus, Reason, RequestPhase, UnlearnRun, annotations,
};

use crate::{
    accept, archive::DOUBTS, attempts, look_at, policy::Policy, reference, request::Answer, targets, window,
};

/// What a request in the queue may wait for.
pub(crate) struct Queue<'a> {
    pub(crate) model: &'a DiffusionModelStatus,
    pub(crate) policy: &'a Policy,
    /// Why its candidate could not pass, whatever it were.
    pub(crate) kept_back: Option<(Reason, String)>,
    /// Requests that ask for all of it already.
    pub(crate) duplicate_of: Vec<String>,
    /// An attempt that failed, and when the next may begin.
    pub(crate) failed: Option<(&'a UnlearnRun, Timestamp)>,
    /// A run that failed for other requests only.
    pub(crate) split_from: Option<&'a UnlearnRun>,
}

impl Answer<'_> {
    pub(crate) fn queue_of<'a>(
        &self,
        model: &DiffusionModel,
        known: &'a DiffusionModelStatus,
        policy: &'a Policy,
        runs: impl Iterator<Item = &'a UnlearnRun> + Clone,
    ) -> Queue<'a> {
        let uid = self.request.uid().unwrap_or_default();
        let split_off =
            |run: &&UnlearnRun| attempts::number(run, &uid).is_some() && accept::is_blameless(run, &uid);
        Queue {
            model: known,
            policy,
            kept_back: reference::keeps_back(self.request, known, &model.spec.never_saw, &policy.spec),
            duplicate_of: Vec::new(),
            failed: attempts::failed(self.request, runs.clone()),
            split_from: runs.filter(split_off).max_by_key(|run| run.creation_timestamp().map(|at| at.0)),
        }
    }

    pub(crate) fn queue(&mut self, queue: &Queue<'_>) {
        self.accept(&targets::ledger_targets(&queue.model.ledger));
        match queue.failed {
            // Shown as long as the next attempt has not begun.
            Some((run, _)) => self.show(run),
            None => self.forget_run(),
        }
        self.status.duplicate_of.clone_from(&queue.duplicate_of);
        self.status.phase = Some(RequestPhase::Queued);
        let (reason, message) = self.waits_for(queue);
        self.conditions.unknown(ConditionType::Scheduled, reason, message.clone());
        self.conditions.unknown(ConditionType::Ready, reason, message);
    }

    /// What keeps a request in the queue.
    fn waits_for(&mut self, queue: &Queue<'_>) -> (Reason, String) {
        let Queue { model, policy, kept_back, duplicate_of, failed, split_from } = queue;
        if self.request.spec.suspend {
            return (Reason::Suspended, "spec.suspend is true; set it to false to go on".into());
        }
        if let Some(taken) = without_target(model) {
            return (Reason::WaitingForModel, format!("the model cannot serve: {taken}"));
        }
        if let Some(why) = in_doubt(model) {
            return (Reason::WaitingForModel, format!("nothing is begun for the model: {why}"));
        }
        if let Some((run, next_at)) = failed.filter(|(_, next_at)| *next_at > self.now) {
            self.look_again_at(next_at);
            return (Reason::WaitingForAttempt, self.waits_for_attempt(run, next_at));
        }
        if !duplicate_of.is_empty() {
            let message = format!(
                "everything that it asks for was asked for earlier, by {}: it shares the run of that, or is fulfilled with \
                 it. Should that fail or be withdrawn without it, it is worked for itself",
                duplicate_of.join(", ")
            );
            return (Reason::Duplicate, message);
        }
        if let Some(wanting) = kept_back {
            return wanting.clone();
        }
        let ends_at = window::ends_at(self.conditions.list(), &policy.spec);
        if let Some(ends_at) = ends_at.filter(|ends_at| model.active_run.is_none() && *ends_at > self.now) {
            self.look_again_at(ends_at);
            let message = format!(
                "waits until {ends_at} for other requests to share its run (coalesce.windowSeconds of the policy), or until \
                 one that came earlier has waited as long"
            );
            return (Reason::WaitingForOthers, message);
        }
        // Not which run: all that wait would be written anew with each.
        let again = split_from.map_or(String::new(), |run| {
            format!("; it is worked for again: run {} failed for another request only", run.name_any())
        });
        let name = &self.request.spec.model_ref.name;
        let message = format!(
            "it is its turn once {name} is free, of which status.activeRun names the run at work{again}"
        );
        (Reason::WaitingForRun, message)
    }

    /// The last attempt failed, and another one follows.
    fn waits_for_attempt(&self, run: &UnlearnRun, next_at: Timestamp) -> String {
        let attempts = attempts::of_request(run, &self.request.uid().unwrap_or_default());
        let (used, allowed) = attempts.map(|attempts| (attempts.used, attempts.allowed)).unwrap_or_default();
        let conditions = run.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        let gates = ConditionType::GatesPassed.find(conditions).map(|gates| gates.message.as_str());
        format!(
            "attempt {used} of {allowed} failed: {}. The next, with another seed, begins after {next_at}; annotate it with \
             {} to wait no longer, or with {} to give up",
            gates.unwrap_or("see the run"),
            annotations::RETRY,
            annotations::ABORT
        )
    }

    fn look_again_at(&mut self, then: Timestamp) {
        self.recheck = Some(look_at(then, self.now, self.recheck));
    }
}

/// Why it is not known what the model has forgotten.
fn in_doubt(model: &DiffusionModelStatus) -> Option<&str> {
    let prepared = ConditionType::Prepared.find(&model.conditions)?;
    DOUBTS.iter().any(|doubt| prepared.reason == doubt.to_string()).then_some(&prepared.message)
}

/// Why nothing is begun for a model whose serving target is another model's.
fn without_target(model: &DiffusionModelStatus) -> Option<&str> {
    let serving = ConditionType::Serving.find(&model.conditions)?;
    (serving.reason == Reason::TargetTaken.to_string()).then_some(&serving.message)
}
