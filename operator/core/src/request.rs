//! Where a request stands: acceptance, then a mirror of the run that works for it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{Resource, ResourceExt};
use lethe_api::v1alpha1::{
    ConditionType, DiffusionModelStatus, GateResult, Mode, Reason, RequestPhase, RequestRun, Stage,
    UnlearnApproval, UnlearnRequest, UnlearnRequestStatus, UnlearnRun, UnlearnRunStatus, Verdict,
};

use crate::{
    Decision, Event,
    accept::{self, Acceptance},
    approval::{self, Standing},
    asked, attempts, canary,
    conditions::{Conditions, transitions},
    deadline, duplicates,
    model::own_runs,
    policy::{NoPolicy, Policy},
    queue::Queue,
    reference, remedy,
    serving::planned_targets,
    targets::{self, Forgotten},
    term,
    told::Told,
    unlogged,
};

/// What the controller saw.
#[derive(Clone, Debug)]
pub struct Observed {
    pub request: UnlearnRequest,
    /// The model that it names. Not from a cache while the request is to be aborted ([`asked::abort`]): whether it is
    /// too late is in the model's status.
    pub model: Option<Told>,
    /// The policy that the model names.
    pub policy: Result<Policy, NoPolicy>,
    /// Every run of that model that works for the request, or has. While the request is to be aborted, the active one must
    /// not be missing or old.
    pub runs: Vec<UnlearnRun>,
    /// The other requests for that model of which [`duplicates::may_cover`] says that it may be one of theirs.
    pub others: Vec<UnlearnRequest>,
    /// What people said to it; none if nothing checks who they are.
    pub approvals: Option<Vec<UnlearnApproval>>,
}

/// Whether a request has got its answer. It keeps it, unless people ask for another attempt: a finished run's objects may
/// vanish.
pub fn is_over(request: &UnlearnRequest) -> bool {
    request.status.as_ref().is_some_and(|status| ConditionType::Ready.is_decided(&status.conditions))
}

pub fn decide(observed: &Observed, now: Timestamp) -> Decision<UnlearnRequestStatus> {
    let request = &observed.request;
    let before = request.status.clone().unwrap_or_default();
    let generation = request.meta().generation;
    let mut answer = Answer {
        request,
        now,
        conditions: Conditions::new(&before.conditions, generation, now),
        status: UnlearnRequestStatus { observed_generation: generation, ..before.clone() },
        overruled: String::new(),
        beside: None,
        unlogged: None,
        events: vec![],
        recheck: None,
    };
    answer.answer(observed);
    let mut status = answer.status;
    status.conditions = answer.conditions.into_list();
    let mut events = answer.events;
    events.extend(transitions(&before.conditions, &status.conditions));
    Decision { status, effects: vec![], events, recheck: answer.recheck }
}

/// A status under construction.
pub(crate) struct Answer<'a> {
    pub(crate) request: &'a UnlearnRequest,
    pub(crate) now: Timestamp,
    pub(crate) conditions: Conditions,
    pub(crate) status: UnlearnRequestStatus,
    /// Appended to the answer where other requests decide what is yielded.
    overruled: String,
    /// Where its candidate stands that the serving target does not name yet.
    beside: Option<(Reason, String)>,
    /// Why its candidate may not be put into service, although it passed.
    unlogged: Option<String>,
    pub(crate) events: Vec<Event>,
    pub(crate) recheck: Option<Duration>,
}

impl Answer<'_> {
    fn answer(&mut self, observed: &Observed) {
        let is_over = is_over(self.request);
        if term::is_running(self.request) {
            self.term(&observed.policy);
        }
        let (abort, retry) = (asked::abort(self.request), asked::retry(self.request));
        match (abort, retry) {
            // Both were asked for: first the one, then, with the next look, the other.
            (Some(token), _) if is_over => return self.abort_after_the_end(token),
            (Some(token), _) if self.abort(&token, observed.model.as_deref(), &observed.runs) => return,
            (None, Some(token)) => return self.retry(token, is_over),
            _ if is_over => return self.keep(observed.model.as_deref()),
            _ => {}
        }
        self.status.targets = targets::summary(self.request);
        self.find(observed);
    }

    fn find(&mut self, observed: &Observed) {
        let name = &self.request.spec.model_ref.name;
        let Some(model) = &observed.model else {
            let message = format!("DiffusionModel {name:?} does not exist in this namespace; create it");
            return self.not_yet_accepted(Reason::ModelNotFound, message);
        };
        let run = accept::run_of(self.request, own_runs(model, &observed.runs));
        if let Some(known) = &model.status {
            let planned = run.map(planned_targets).unwrap_or_default();
            self.status.at_risk = targets::at_risk(&self.request.spec, known, &planned);
        }
        if let Some(run) = run {
            self.beside = canary::stands(model, &run.name_any());
            self.unlogged = unlogged::said_by(model);
            self.mirror(run);
            return self.hear(observed);
        }
        let known = model.status.as_ref().filter(|status| status.baseline.is_some());
        let Some(known) = known else {
            let message = format!("DiffusionModel {name:?} is not prepared yet: see its conditions");
            return self.not_yet_accepted(Reason::WaitingForModel, message);
        };
        let policy = match &observed.policy {
            Ok(policy) => policy,
            Err(none) => {
                let (reason, message) = none.say(name, &model.spec.policy_ref);
                return self.not_yet_accepted(reason, message);
            }
        };
        if let Some(subject) = &self.request.spec.data_subject_request
            && let Err(why) = deadline::Terms::of(&subject.regulation, &policy.spec.legal_terms)
        {
            return self.not_yet_accepted(Reason::LegalTermUnknown, why);
        }
        match accept::check(self.request, known) {
            Acceptance::Denied(reason, message) => self.deny(reason, message),
            Acceptance::AlreadyForgotten => {
                self.already_forgotten(known);
                self.status.duplicate_of = duplicates::of(self.request, known, &[]).unwrap_or_default();
            }
            Acceptance::Accepted => {
                let approvals = observed.approvals.as_deref();
                let is_kept_back = |other: &&UnlearnRequest| {
                    reference::keeps_back(other, known, &model.spec.never_saw, &policy.spec).is_some()
                };
                let others = observed.others.iter().filter(|other| !is_kept_back(other));
                let duplicate_of = duplicates::of(self.request, known, others);
                let queue = Queue {
                    duplicate_of: duplicate_of.unwrap_or_default(),
                    ..self.queue_of(model, known, policy, own_runs(model, &observed.runs))
                };
                self.ask(&queue, approval::standing(self.request, &policy.spec, approvals));
            }
        }
    }

    /// No run works for the request, or none any more: what an earlier one found says nothing now.
    pub(crate) fn forget_run(&mut self) {
        use ConditionType::{Evaluated, GatesPassed, Promoted, Signed, Trained};
        for type_ in [Trained, Evaluated, GatesPassed, Signed, Promoted] {
            self.conditions.remove(type_);
        }
        let status = &mut self.status;
        (status.run, status.progress, status.gate_summary, status.record) = (None, None, None, None);
        status.attempts = None;
        status.gates.clear();
        status.duplicate_of.clear();
    }

    /// It does not wait for a run either.
    pub(crate) fn leave_queue(&mut self) {
        self.forget_run();
        self.conditions.remove(ConditionType::Scheduled);
    }

    /// What other people say decides nothing here.
    fn ask_nobody(&mut self) {
        self.conditions.remove(ConditionType::Approved);
        self.status.approved_by.clear();
    }

    fn not_yet_accepted(&mut self, reason: Reason, message: String) {
        self.ask_nobody();
        self.leave_queue();
        self.status.phase = Some(RequestPhase::Pending);
        self.conditions.unknown(ConditionType::Accepted, reason, message.clone());
        self.conditions.unknown(ConditionType::Ready, reason, message);
    }

    /// The request makes sense. That another override than its own holds for a label must not pass in silence.
    pub(crate) fn accept(&mut self, held: &Forgotten) {
        let mut message = "the request makes sense for its model".to_owned();
        if !self.status.at_risk.is_empty() {
            message +=
                &format!("; kept labels most like what it forgets: {}", self.status.at_risk.join(", "));
        }
        if let Some(overruled) = targets::overruled(&self.request.spec, held) {
            self.overruled = format!("; other than it asks, {overruled}: so another request decided");
            message += &self.overruled;
            let accepted = self.conditions.find(ConditionType::Accepted);
            let said = accepted.is_some_and(|c| c.message.ends_with(&self.overruled));
            if !said {
                self.events.push(Event {
                    warning: true,
                    reason: "OverrideKept".into(),
                    note: message.clone(),
                });
            }
        }
        self.conditions.yes(ConditionType::Accepted, Reason::Accepted, message);
    }

    fn deny(&mut self, reason: Reason, message: String) {
        self.ask_nobody();
        self.leave_queue();
        self.status.phase = Some(RequestPhase::Denied);
        self.conditions.no(ConditionType::Accepted, reason, message.clone());
        self.conditions.no(ConditionType::Ready, reason, message);
    }

    /// It makes sense. Whether it may begin is for other people to say, if the policy asks them.
    fn ask(&mut self, queue: &Queue<'_>, said: Standing) {
        use ConditionType::{Approved, Ready};
        self.status.approved_by.clear();
        let (reason, message) = match said {
            Standing::NotAsked => {
                self.ask_nobody();
                return self.queue(queue);
            }
            Standing::Approved(by) => {
                self.conditions.yes(Approved, Reason::Approved, format!("by {}", by.join(", ")));
                self.status.approved_by = by;
                return self.queue(queue);
            }
            Standing::Denied { by, reason } => {
                let message = format!("{by} said no: {reason}");
                self.conditions.no(Approved, Reason::ApprovalDenied, message.clone());
                self.conditions.no(Ready, Reason::ApprovalDenied, message);
                self.status.phase = Some(RequestPhase::Denied);
                return self.wait_outside(queue.model);
            }
            Standing::Waits { by, required } => {
                let message = format!(
                    "{} of {required} approvals: somebody other than the requester has to create an UnlearnApproval \
                     for uid {}",
                    by.len(),
                    self.request.uid().unwrap_or_default()
                );
                self.status.approved_by = by;
                (Reason::WaitingForApproval, message)
            }
            Standing::RequesterUnknown => (
                Reason::RequesterUnknown,
                "the policy asks for approvals, and this request does not say who asks: create it anew with \
                 spec.requestedBy"
                    .into(),
            ),
            Standing::NotProtected => (
                Reason::ApprovalsNotProtected,
                "the policy asks for approvals, and nothing here checks who creates them: install the chart with \
                 admission.enabled"
                    .into(),
            ),
        };
        self.conditions.unknown(Approved, reason, message.clone());
        self.conditions.unknown(Ready, reason, message);
        self.status.phase = Some(RequestPhase::AwaitingApproval);
        self.wait_outside(queue.model);
    }

    /// Accepted, and in no queue.
    fn wait_outside(&mut self, model: &DiffusionModelStatus) {
        self.leave_queue();
        self.accept(&targets::ledger_targets(&model.ledger));
    }

    /// Nothing to do: what is served has forgotten all of it, if what is served is compliant.
    fn already_forgotten(&mut self, model: &DiffusionModelStatus) {
        self.ask_nobody();
        self.leave_queue();
        self.accept(&targets::ledger_targets(&model.ledger));
        if !ConditionType::Compliant.is_true(&model.conditions) {
            let message = "its targets are in the ledger; waiting for the model to be Compliant again";
            self.status.phase = Some(RequestPhase::Queued);
            return self.conditions.unknown(ConditionType::Ready, Reason::WaitingForModel, message);
        }
        let message = "every target was forgotten by earlier requests, and what is served honours them";
        match self.request.spec.mode {
            Mode::Enforce => self.fulfil(Reason::AlreadyForgotten, message),
            Mode::Pilot => self.tried(Reason::AlreadyForgotten, message),
        }
    }

    fn mirror(&mut self, run: &UnlearnRun) {
        let name = run.name_any();
        self.accept(&planned_targets(run).into_iter().map(|t| (t.label, t.replacement)).collect());
        self.conditions.yes(ConditionType::Scheduled, Reason::Scheduled, format!("run {name} works for it"));
        self.status.duplicate_of = duplicates::within(run, &self.request.uid().unwrap_or_default());
        self.show(run);
        self.stand(&name, &run.status.clone().unwrap_or_default());
    }

    /// What a run found.
    pub(crate) fn show(&mut self, run: &UnlearnRun) {
        self.status.run = Some(RequestRun { name: run.name_any() });
        self.status.attempts = attempts::of_request(run, &self.request.uid().unwrap_or_default());
        let found = run.status.clone().unwrap_or_default();
        use ConditionType::{Evaluated, GatesPassed, Promoted, Signed, Trained};
        for type_ in [Trained, Evaluated, GatesPassed, Signed, Promoted] {
            if let Some(condition) = type_.find(&found.conditions) {
                self.conditions.copy(condition);
            }
        }
        self.status.progress = found.progress.clone();
        let judged = found.job(Stage::Evaluate).filter(|_| found.verdict.is_some());
        self.status.record = judged.and_then(|job| job.record.clone());
        if !found.gates.is_empty() {
            let passed = found.gates.iter().filter(|gate| gate.verdict == Verdict::Pass).count();
            self.status.gate_summary = Some(format!("{passed}/{}", found.gates.len()));
            self.status.gates = found.gates.iter().filter(|gate| self.concerns(gate)).cloned().collect();
        }
    }

    /// Every run measures anew what was forgotten before: of that, a request shows what did not pass. All of it is in the
    /// run, and a hundred requests that each repeated it would be most of what an operator has to remember.
    fn concerns(&self, gate: &GateResult) -> bool {
        let is_own = |target: &String| self.request.spec.targets.iter().any(|own| own.label == *target);
        gate.verdict != Verdict::Pass || gate.target.as_ref().is_none_or(is_own)
    }

    /// Phase and Ready, from how far the run has come.
    fn stand(&mut self, name: &str, run: &UnlearnRunStatus) {
        let ready = ConditionType::Ready.find(&run.conditions);
        let say = |c: Option<&Condition>| {
            c.map(|c| c.message.clone()).unwrap_or_else(|| "the run was created".into())
        };
        if ConditionType::Ready.is_false(&run.conditions) {
            let message = format!(
                "run {name} failed: {}. Nothing was rolled out. Remedy it, {}",
                say(ready),
                remedy::TRY_AGAIN
            );
            return self.end(RequestPhase::Failed, ready, message);
        }
        match run.verdict {
            None => {
                let (phase, reason) = match run.candidate {
                    None => (RequestPhase::Training, Reason::Training),
                    Some(_) => (RequestPhase::Evaluating, Reason::Evaluating),
                };
                self.status.phase = Some(phase);
                // A run that waits says for what.
                match ready {
                    Some(ready) => self.conditions.copy(ready),
                    None => self.conditions.unknown(ConditionType::Ready, reason, say(ready)),
                }
            }
            Some(Verdict::Pass) => self.stand_promotion(run),
            Some(_) => {
                let gates = ConditionType::GatesPassed.find(&run.conditions);
                let (todo, again) = (remedy::of(&run.gates), remedy::TRY_AGAIN);
                let message =
                    format!("held: {}. What is served did not change. To do: {todo}; {again}", say(gates));
                self.end(RequestPhase::Held, gates, message);
            }
        }
    }

    fn stand_promotion(&mut self, run: &UnlearnRunStatus) {
        let promoted = ConditionType::Promoted.find(&run.conditions);
        match promoted.map(|condition| condition.status.as_str()) {
            Some("True") => {
                let message = "not observed any more at the stated bounds under these probes, and served";
                self.fulfil(Reason::Fulfilled, message);
            }
            Some("False") if promoted.is_some_and(|c| c.reason == Reason::Pilot.to_string()) => {
                let message =
                    "every gate passed. A pilot is not rolled out; the same request with mode Enforce is";
                self.tried(Reason::Pilot, message);
            }
            Some("False") => {
                let why = promoted.map(|c| c.message.clone()).unwrap_or_default();
                self.end(RequestPhase::Failed, promoted, format!("not promoted: {why}"));
            }
            _ if self.request.spec.mode == Mode::Pilot => {
                self.status.phase = Some(RequestPhase::Evaluating);
                let message = "every gate passed; the pilot is about to end";
                self.conditions.unknown(ConditionType::Ready, Reason::Evaluating, message);
            }
            _ => {
                self.status.phase = Some(RequestPhase::RollingOut);
                if let Some(why) = &self.unlogged {
                    return unlogged::wait(&mut self.conditions, why);
                }
                // What is beside the target already was proven.
                let unsigned = ConditionType::Signed.find(&run.conditions).filter(|it| it.status == "False");
                if let (Some(unsigned), None) = (unsigned, &self.beside) {
                    return self.wait_for_evidence(unsigned);
                }
                let (reason, message) = match (&self.beside, self.request.spec.suspend) {
                    (Some((reason, beside)), _) => (*reason, format!("every gate passed; {beside}")),
                    (None, true) => {
                        (Reason::RollingOut, "every gate passed; spec.suspend holds the roll-out".into())
                    }
                    (None, false) => {
                        (Reason::RollingOut, "every gate passed; the candidate is being rolled out".into())
                    }
                };
                self.conditions.unknown(ConditionType::Promoted, reason, message.clone());
                self.conditions.unknown(ConditionType::Ready, reason, message);
            }
        }
    }

    /// Every gate passed, and nothing that is signed says so.
    fn wait_for_evidence(&mut self, unsigned: &Condition) {
        let message = format!("every gate passed; not rolled out: {}", unsigned.message);
        for type_ in [ConditionType::Promoted, ConditionType::Ready] {
            self.conditions.copy(&Condition {
                type_: type_.as_str().into(),
                status: "Unknown".into(),
                message: message.clone(),
                ..unsigned.clone()
            });
        }
    }

    fn fulfil(&mut self, reason: Reason, message: &str) {
        self.status.phase = Some(RequestPhase::Fulfilled);
        self.status.progress = None;
        let message = format!("{message}{}", self.overruled);
        self.conditions.yes(ConditionType::Fulfilled, reason, message.clone());
        self.conditions.yes(ConditionType::Ready, reason, message);
    }

    /// The end of a pilot. Nothing is fulfilled by it.
    fn tried(&mut self, reason: Reason, message: &str) {
        self.status.phase = Some(RequestPhase::Tried);
        self.status.progress = None;
        self.conditions.yes(ConditionType::Ready, reason, format!("{message}{}", self.overruled));
    }

    /// Ends a request without success, for the reason that a condition of its run gives.
    fn end(&mut self, phase: RequestPhase, because: Option<&Condition>, message: String) {
        self.status.phase = Some(phase);
        self.status.progress = None;
        let mut ready = because.cloned().unwrap_or_else(|| unexplained(&message));
        ready.type_ = ConditionType::Ready.as_str().into();
        ready.status = "False".into();
        ready.message = message;
        self.conditions.copy(&ready);
    }
}

fn unexplained(message: &str) -> Condition {
    Condition {
        type_: ConditionType::Ready.as_str().into(),
        status: "False".into(),
        reason: Reason::TrainerFailed.to_string(),
        message: message.into(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}
