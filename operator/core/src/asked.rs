//! What people ask for once, by an annotation: another attempt, or none at all. The status says which word was acted upon,
//! and what was done, so that the same word never acts twice.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use lethe_api::{
    printable::printable,
    v1alpha1::{
        Acknowledged, ConditionType, DiffusionModel, Reason, RequestPhase, Rollout, UnlearnRequest,
        UnlearnRequestStatus, UnlearnRun, Verdict, annotations,
    },
};

use crate::{Event, accept, request::Answer, run};

/// The word of `lethe.dev/retry`, if it was not acted upon yet.
pub fn retry(request: &UnlearnRequest) -> Option<String> {
    let known = request.status.as_ref().and_then(|status| status.retry.as_ref());
    unanswered(request, annotations::RETRY, known)
}

/// The word of `lethe.dev/abort`, if it was not acted upon yet.
pub fn abort(request: &UnlearnRequest) -> Option<String> {
    let known = request.status.as_ref().and_then(|status| status.abort.as_ref());
    unanswered(request, annotations::ABORT, known)
}

/// The word of an annotation, as it is acted upon and repeated; none if there is none.
pub fn word(request: &UnlearnRequest, annotation: &str) -> Option<String> {
    let word = printable(request.annotations().get(annotation)?);
    let word: String = word.trim().chars().take(annotations::LENGTH).collect();
    (!word.is_empty()).then_some(word)
}

fn unanswered(request: &UnlearnRequest, annotation: &str, known: Option<&Acknowledged>) -> Option<String> {
    word(request, annotation).filter(|word| known.is_none_or(|known| known.token != *word))
}

/// Whether a request was given up because somebody asked for that.
pub fn is_aborted(request: &UnlearnRequest) -> bool {
    let conditions = request.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let ready = ConditionType::Ready.find(conditions);
    ready.is_some_and(|c| c.status == "False" && c.reason == Reason::Aborted.to_string())
}

/// Whether somebody said no to a request, and it has its answer by that. A run may have been planned for it before.
pub fn is_denied(request: &UnlearnRequest) -> bool {
    request.status.as_ref().is_some_and(|status| ConditionType::Approved.is_false(&status.conditions))
}

/// Whether nobody wants a request to be worked for any more: it is about to go, was denied or aborted, or somebody asked
/// for that.
pub fn is_withdrawn(request: &UnlearnRequest) -> bool {
    request.meta().deletion_timestamp.is_some()
        || is_denied(request)
        || is_aborted(request)
        || abort(request).is_some()
}

/// Whether a request that has its answer may be tried again. What is Reexposed was forgotten: another candidate would not
/// put right what is served.
fn may_be_reopened(status: &UnlearnRequestStatus) -> bool {
    use ConditionType::{Accepted, Approved, Ready};
    let is_no = |type_: ConditionType| type_.is_false(&status.conditions);
    is_no(Ready) && !is_no(Accepted) && !is_no(Approved) && !is_exposed(status)
}

fn is_exposed(status: &UnlearnRequestStatus) -> bool {
    status.phase == Some(RequestPhase::Reexposed)
}

/// How an abort stands with the run that works for the request.
enum Abort {
    /// Nothing works for it, or not any more.
    Done,
    /// The run has to stop first.
    Waits,
    TooLate(String),
    /// The run has its end, and with it the request.
    Ended,
}

fn abort_of(model: Option<&DiffusionModel>, run: Option<&UnlearnRun>) -> Abort {
    let Some(run) = run else { return Abort::Done };
    if !run::is_over(run) {
        return Abort::Waits;
    }
    let (status, name) = (run.status.clone().unwrap_or_default(), run.name_any());
    if status.verdict != Some(Verdict::Pass) || ConditionType::Promoted.is_decided(&status.conditions) {
        return Abort::Ended;
    }
    let known = model.and_then(|model| model.status.as_ref());
    let rolls_out = known.is_some_and(|known| {
        // A canary is taken away, and what is published is not any more, as long as the target was not touched.
        let touches = |rollout: &&Rollout| {
            !rollout.state.leaves_target_alone() && rollout.reason != Some(Reason::Superseded)
        };
        let rollout = known.rollout.as_ref().filter(touches).and_then(|rollout| rollout.run.as_ref());
        rollout == Some(&name) || known.ledger.iter().any(|entry| entry.run == name)
    });
    if rolls_out { Abort::TooLate(name) } else { Abort::Waits }
}

impl Answer<'_> {
    /// Another attempt is asked for. What had its answer and failed has none any more; the next look goes on from there.
    pub(crate) fn retry(&mut self, token: String, is_over: bool) {
        let used = self.status.attempts.as_ref().map_or(0, |attempts| attempts.used);
        let aside = self.status.retry.as_ref().and_then(|retry| retry.after_attempt).unwrap_or_default();
        let waits = self.status.attempts.as_ref().is_some_and(|attempts| attempts.next_at.is_some());
        let next = used.max(aside) + 1;
        let (acts, message) = match is_over {
            true if may_be_reopened(&self.status) => (true, format!("attempt {next} is planned")),
            false if waits => (true, format!("attempt {next} does not wait any longer")),
            true if is_exposed(&self.status) => {
                (false, "nothing was done: it is Fulfilled again once what is served is put right".into())
            }
            true => (false, "nothing was done: the request has its answer, and keeps it".into()),
            false => (false, "nothing was done: the request has not failed".into()),
        };
        if acts && is_over {
            self.leave_queue();
            self.status.phase = Some(RequestPhase::Queued);
            let message = format!("somebody asked to try it again ({token}): {message}");
            self.conditions.unknown(ConditionType::Ready, Reason::WaitingForRun, message);
        }
        let after_attempt = Some(if acts { next - 1 } else { aside }).filter(|after| *after > 0);
        self.say(acts, "Retried", "RetryIgnored", &message);
        self.status.retry = Some(Acknowledged { token, at: Time(self.now), message, after_attempt });
    }

    /// Nobody can abort what has its answer.
    pub(crate) fn abort_after_the_end(&mut self, token: String) {
        let message = "nothing was done: the request had its answer already".to_owned();
        self.acknowledge_abort(&token, false, message);
    }

    /// The request is to be given up. False if it has its end, and only does not say so yet.
    pub(crate) fn abort(&mut self, token: &str, model: Option<&DiffusionModel>, runs: &[UnlearnRun]) -> bool {
        let own = model.map(|model| crate::model::own_runs(model, runs));
        let run = own.and_then(|own| accept::run_of(self.request, own));
        match abort_of(model, run) {
            Abort::Ended => return false,
            Abort::TooLate(run) => {
                let message =
                    format!("nothing was done: it was too late, the roll-out of run {run} had begun");
                self.acknowledge_abort(token, false, message);
            }
            Abort::Waits => {
                let name = run.map(ResourceExt::name_any).unwrap_or_default();
                let message = format!("somebody asked to abort it ({token}): run {name} is being stopped");
                self.conditions.unknown(ConditionType::Ready, Reason::Aborting, message);
            }
            Abort::Done => {
                let was = match &self.status.run {
                    Some(run) => format!("run {} does not work for it any more", run.name),
                    None => "no run worked for it".into(),
                };
                let message = format!("aborted, as somebody asked ({token}): {was}. Nothing was rolled out");
                self.acknowledge_abort(token, true, message.clone());
                self.leave_queue();
                self.status.phase = Some(RequestPhase::Aborted);
                self.conditions.no(ConditionType::Ready, Reason::Aborted, message);
            }
        }
        true
    }

    fn acknowledge_abort(&mut self, token: &str, acts: bool, message: String) {
        self.say(acts, "Aborted", "AbortIgnored", &message);
        let at = Time(self.now);
        self.status.abort = Some(Acknowledged { token: token.into(), at, message, after_attempt: None });
    }

    fn say(&mut self, acts: bool, done: &str, ignored: &str, message: &str) {
        let reason = if acts { done } else { ignored };
        self.events.push(Event { warning: !acts, reason: reason.into(), note: message.into() });
    }
}
