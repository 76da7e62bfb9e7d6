//! One run: create the Job of each stage, read what it left, judge the measurements.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{self, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource, ResourceExt};
use lethe_api::{
    Digest,
    contract::{Device, Plan, Progress},
    printable::printable,
    v1alpha1::{
        ConditionType, LostJob, Reason, RunJob, RunPhase, RunProgress, RunType, Stage, UnlearnRequest,
        UnlearnRun, UnlearnRunStatus, annotations,
    },
};

use crate::{
    Decision, Effect, Event, Installation, POLL, accept, attempts,
    conditions::{Conditions, transitions},
    evidence, job,
    job_state::{self, JobState, Seen},
    kueue::{self, Queueing},
    names, plans, reuse,
};

/// A pod may say any number; a larger one would make the status unreadable.
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// What the controller saw.
#[derive(Clone, Debug)]
pub struct Observed {
    pub run: UnlearnRun,
    /// The Job of the stage that [`stage`] names, if it exists. Of a run that is over, one of [`past_jobs`] that
    /// [`works_for_nobody`].
    pub job: Option<Job>,
    /// The pods of that Job.
    pub pods: Vec<Pod>,
    /// The events about what [`crate::stall::find`] found, or [`kueue::to_ask_about`] names, if there is either.
    pub events: Vec<v1::Event>,
    /// What a queue says of that Job.
    pub queueing: Queueing,
    /// What the working pod answers at `/progress`, if it could be asked.
    pub progress: Option<Progress>,
    /// The record that [`wanted_record`] named.
    pub record: Option<Result<Vec<u8>, RecordProblem>>,
    /// The requests that this run works for, as far as they exist. Absence is confirmed.
    pub requests: Vec<UnlearnRequest>,
    /// The envelope in the store that has what [`evidence::wanted`] said, signed by a key that is trusted.
    pub evidence: Option<Result<Digest, evidence::Problem>>,
}

/// Why a record could not be read.
#[derive(Clone, Debug)]
pub struct RecordProblem {
    /// The store did not answer: try again later. Otherwise the record is missing or corrupt.
    pub transient: bool,
    pub message: String,
}

/// Whether the run has ended. What an ended run created may vanish: it is never created again.
pub fn is_over(run: &UnlearnRun) -> bool {
    run.status.as_ref().is_some_and(|status| ConditionType::Ready.is_decided(&status.conditions))
}

/// The stage that this run is at, whose Job is to be observed; none if the run is over.
pub fn stage(run: &UnlearnRun) -> Option<Stage> {
    if is_over(run) {
        return None;
    }
    Some(match (run.spec.type_, reuse::candidate(run)) {
        (RunType::Prepare, _) => Stage::Prepare,
        (RunType::Forget, None) => Stage::Forget,
        (RunType::Forget, Some(_)) => Stage::Evaluate,
        (RunType::Audit, _) => Stage::Audit,
    })
}

/// The names of the Jobs that a run which is over may have had; none if it is at work.
pub fn past_jobs(run: &UnlearnRun) -> impl Iterator<Item = String> {
    let stages: &[Stage] = match run.spec.type_ {
        _ if !is_over(run) => &[],
        RunType::Prepare => &[Stage::Prepare],
        RunType::Forget => &[Stage::Forget, Stage::Evaluate],
        RunType::Audit => &[Stage::Audit],
    };
    stages.iter().map(|stage| names::job(&run.name_any(), *stage))
}

/// Whether a Job of a run that is over is at work all the same: it was created late, by a call that was held up.
pub fn works_for_nobody(job: &Job) -> bool {
    !job_state::is_finished(job) && job.metadata.deletion_timestamp.is_none()
}

/// Why nobody knows what a Job found.
const IS_LOST: &str = "the Job completed and its pod is gone";

/// The record to read from the store before deciding, if the stage's Job has left one.
pub fn wanted_record(run: &UnlearnRun, job: Option<&Job>, pods: &[Pod], now: Timestamp) -> Option<Digest> {
    let stage = stage(run)?;
    if let Some(left) = left_record(run, stage) {
        return Some(left.clone());
    }
    let (_, plan) = stage_plan(run, stage)?;
    let seen = Seen { job, pods, events: &[], queueing: &Queueing::NotAsked };
    match job_state::state(seen, &plan, now) {
        JobState::Succeeded(outcome) => outcome.record,
        _ => None,
    }
}

pub fn decide(
    observed: &Observed,
    installation: &Installation,
    now: Timestamp,
) -> Decision<UnlearnRunStatus> {
    let run = &observed.run;
    let Some(stage) = stage(run) else { return ended(observed, installation, now) };
    let mut step = Step::new(run, stage, now);
    step.signs = installation.signs && run.spec.type_ == RunType::Forget;
    if let Some(withdrawn) = accept::withdrawn(run, &observed.requests) {
        step.withdraw(&withdrawn, observed.job.is_some());
        return step.done();
    }
    if let Some(given_up) = step.conditions.find(ConditionType::Promoted).filter(|c| c.status == "False") {
        let why = given_up.message.clone();
        step.withdraw(&why, observed.job.is_some());
        return step.done();
    }
    let Some((plan, plan_digest)) = stage_plan(run, stage) else {
        step.fail(Reason::BadPlan, "the run's spec holds no plan for this stage; delete the run".into());
        return step.done();
    };
    if let Some(left) = left_record(run, stage) {
        step.read(left.clone(), &plan_digest, observed.record.as_ref());
        return step.done();
    }
    let Observed { job, pods, events, queueing, .. } = observed;
    let seen = Seen { job: job.as_ref(), pods, events, queueing };
    step.note_times(seen);
    match job_state::state(seen, &plan_digest, now) {
        JobState::Absent if step.may_have_been_cleaned_up() => {
            step.fail(Reason::NoOutcome, step.was_cleaned_up());
        }
        JobState::Absent => step.start(&plan, installation),
        JobState::Waiting { reason, message } => step.wait(reason, message),
        JobState::Suspended { reason, message } => step.set_aside(reason, message),
        JobState::Running => step.work(observed.progress.as_ref()),
        // What was not heard did not pass: a live server gets no second chance.
        JobState::Lost { .. } if stage == Stage::Audit => {
            step.fail(Reason::NoOutcome, format!("{IS_LOST}: nobody can say what it found"));
        }
        JobState::Lost { uid } => step.make_again(uid, seen.job),
        JobState::Failed { reason, message } => {
            let message = message + &step.what_it_waited_for(reason);
            step.fail(reason, message);
        }
        JobState::Succeeded(outcome) => step.finish(&outcome, &plan_digest, observed.record.as_ref()),
    }
    step.done()
}

/// The record that a stage's Job is known to have left. The Job and its pod may be gone since.
fn left_record(run: &UnlearnRun, stage: Stage) -> Option<&Digest> {
    run.status.as_ref()?.job(stage)?.record.as_ref()
}

/// The plan of a stage, as text and digest. Forget's and Prepare's are frozen in the spec; Evaluate's follows
/// from the spec and the candidate.
fn stage_plan(run: &UnlearnRun, stage: Stage) -> Option<(String, Digest)> {
    if stage != Stage::Evaluate {
        let intact = Digest::of(&run.spec.plan) == run.spec.plan_digest
            && Plan::parse(run.spec.plan.as_bytes()).is_ok();
        return intact.then(|| (run.spec.plan.clone(), run.spec.plan_digest.clone()));
    }
    let plan = plans::evaluate(&run.name_any(), &run.spec, reuse::candidate(run)?)?;
    Some((plan.to_json(), plan.digest()))
}

/// What a run that is over says stands, but for its evidence. Nobody reads what a Job of it finds now.
fn ended(observed: &Observed, installation: &Installation, now: Timestamp) -> Decision<UnlearnRunStatus> {
    let run = &observed.run;
    let mut status = run.status.clone().unwrap_or_default();
    let late = observed.job.as_ref().filter(|job| works_for_nobody(job));
    let effects = late.map(|job| Effect::DeleteJob { name: job.name_any(), uid: None }).into_iter().collect();
    if let Some(found) = &observed.evidence {
        evidence::say(run, &mut status, found, now);
    }
    let before = run.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let events = transitions(before, &status.conditions);
    let recheck = evidence::wanted(run, installation).map(|_| evidence::LOOK_AGAIN);
    Decision { status, effects, events, recheck }
}

/// One decision under construction.
pub(crate) struct Step<'a> {
    pub(crate) run: &'a UnlearnRun,
    pub(crate) stage: Stage,
    pub(crate) now: Timestamp,
    /// When the trainer's last pod ended, if one did.
    ended: Option<Timestamp>,
    /// What that ran, as far as it was seen.
    image: Option<String>,
    pub(crate) status: UnlearnRunStatus,
    pub(crate) conditions: Conditions,
    effects: Vec<Effect>,
    pub(crate) events: Vec<Event>,
    pub(crate) recheck: Option<std::time::Duration>,
    /// What was measured is signed.
    pub(crate) signs: bool,
}

impl<'a> Step<'a> {
    fn new(run: &'a UnlearnRun, stage: Stage, now: Timestamp) -> Self {
        let mut status = run.status.clone().unwrap_or_default();
        status.observed_generation = run.meta().generation;
        status.attempts = attempts::of_run(run, None, now);
        let mut conditions = Conditions::new(&status.conditions, run.meta().generation, now);
        reuse::adopt(run, &mut status, &mut conditions);
        Step {
            run,
            stage,
            now,
            ended: None,
            image: None,
            status,
            conditions,
            effects: vec![],
            events: vec![],
            recheck: None,
            signs: false,
        }
    }

    fn done(mut self) -> Decision<UnlearnRunStatus> {
        let before = std::mem::take(&mut self.status.conditions);
        self.status.conditions = self.conditions.into_list();
        self.events.extend(transitions(&before, &self.status.conditions));
        Decision { status: self.status, effects: self.effects, events: self.events, recheck: self.recheck }
    }

    /// Phase, reason and condition that belong to the stage while it is at work.
    pub(crate) fn at_work(&self) -> (RunPhase, Reason, ConditionType) {
        match self.stage {
            Stage::Prepare => (RunPhase::Preparing, Reason::Preparing, ConditionType::Trained),
            Stage::Forget => (RunPhase::Training, Reason::Training, ConditionType::Trained),
            Stage::Evaluate => (RunPhase::Evaluating, Reason::Evaluating, ConditionType::Evaluated),
            Stage::Audit => (RunPhase::Auditing, Reason::Auditing, ConditionType::Evaluated),
        }
    }

    /// The entry of the stage's Job, made if need be.
    pub(crate) fn job(&mut self) -> &mut RunJob {
        let name = names::job(&self.run.name_any(), self.stage);
        let plan_digest = stage_plan(self.run, self.stage).map(|(_, digest)| digest);
        let index = self.status.jobs.iter().position(|job| job.stage == self.stage).unwrap_or_else(|| {
            self.status.jobs.push(RunJob {
                stage: self.stage,
                name,
                plan_digest: plan_digest.unwrap_or_else(|| self.run.spec.plan_digest.clone()),
                started_at: None,
                finished_at: None,
                preemptions: 0,
                earlier_seconds: 0,
                lost: None,
                device: None,
                image: None,
                record: None,
            });
            self.status.jobs.len() - 1
        });
        &mut self.status.jobs[index]
    }

    /// When the stage's pods began and ended: GPUs are counted by it, and the pods will be gone.
    fn note_times(&mut self, Seen { job, pods, .. }: Seen<'_>) {
        self.ended = job_state::finished_at(pods);
        self.image = job_state::image(pods);
        let lost = self.lost().map(|lost| lost.uid.as_str());
        // What a lost Job's pods worked is counted.
        let is_lost = job.is_some_and(|job| lost.is_some() && lost == job.metadata.uid.as_deref());
        if is_lost || job.is_some_and(job_state::is_suspended) {
            return;
        }
        // Pods from before a queue took the Job back may still be there; what they worked is counted.
        let was_taken_back = self.status.job(self.stage).is_some_and(|job| job.preemptions > 0);
        let since = job.filter(|_| was_taken_back).and_then(job_state::begun_at);
        if let Some(at) = job_state::started_at(pods, since) {
            self.job().started_at.get_or_insert(Time(at));
        }
    }

    /// A queue holds the Job. It may have been at work before.
    fn set_aside(&mut self, reason: Reason, message: String) {
        if self.count_as_earlier(self.now) {
            let job = self.job();
            job.preemptions = job.preemptions.saturating_add(1);
        }
        self.status.progress = None;
        self.wait(reason, message);
        self.recheck = kueue::PATIENCE.try_into().ok();
    }

    /// What the Job's pods have worked until now is no longer of its present ones. Returns whether any has worked.
    fn count_as_earlier(&mut self, now: Timestamp) -> bool {
        let job = self.job();
        let Some(started) = job.started_at.take() else { return false };
        let worked = now.duration_since(started.0).as_secs().try_into().unwrap_or_default();
        job.earlier_seconds = job.earlier_seconds.saturating_add(worked).min(MAX_NUMBER);
        true
    }

    /// The first Job of the stage, if it was lost.
    fn lost(&self) -> Option<&LostJob> {
        self.status.job(self.stage)?.lost.as_ref()
    }

    /// The Job completed, and its pod went before anybody had read what it found: a node that is drained, or lost, just then.
    fn make_again(&mut self, uid: String, job: Option<&Job>) {
        let message = format!("{IS_LOST}, so nobody can say what it found: the Job is made again, once");
        match self.lost() {
            Some(lost) if lost.uid != uid => {
                let again = "and so it was with the one before: nobody can say what they found";
                return self.fail(Reason::NoOutcome, format!("{IS_LOST}, {again}"));
            }
            Some(_) => {}
            None => {
                self.count_as_earlier(job.and_then(job_state::completed_at).unwrap_or(self.now));
                let at = Time(self.now);
                self.job().lost = Some(LostJob { uid: uid.clone(), at });
                let reason = Reason::NoOutcome.to_string();
                self.events.push(Event { warning: true, reason, note: message.clone() });
            }
        }
        // By its uid: what is seen may be old, and the next one be there already.
        let name = names::job(&self.run.name_any(), self.stage);
        self.effects.push(Effect::DeleteJob { name, uid: Some(uid) });
        self.status.progress = None;
        self.wait(Reason::NoOutcome, message);
    }

    /// Whether a Job that is not there may have been there, done its work, and outlived its time.
    fn may_have_been_cleaned_up(&self) -> bool {
        let (_, _, condition) = self.at_work();
        let announced = self.status.jobs.iter().any(|job| job.stage == self.stage);
        let since = self.conditions.find(condition).map(|condition| condition.last_transition_time.0);
        let since = since.max(self.lost().map(|lost| lost.at.0));
        let kept = SignedDuration::from_secs(self.run.spec.policy.trainer.ttl_seconds_after_finished.into());
        announced && since.is_some_and(|since| self.now.duration_since(since) > kept)
    }

    fn was_cleaned_up(&self) -> String {
        let is_gone = "its Job is not there: it may have ended and been cleaned up (ttlSecondsAfterFinished) while nobody looked, \
                       or could not be created for as long (see the run's events). It is not made again by itself";
        match self.run.spec.type_ {
            RunType::Forget => {
                format!("{is_gone}; annotate the request with {} to try again", annotations::RETRY)
            }
            // The model says what to do, or an audit is due again.
            RunType::Prepare | RunType::Audit => is_gone.into(),
        }
    }

    /// No Job yet: say that there will be one, then create it.
    fn start(&mut self, plan: &str, installation: &Installation) {
        self.job();
        self.wait(self.at_work().1, "the Job is being created".into());
        let config_map = job::config_map(self.run, self.stage, plan);
        self.effects.push(Effect::CreateConfigMap(Box::new(config_map)));
        self.effects.push(Effect::CreateJob(Box::new(job::job(self.run, self.stage, installation))));
    }

    pub(crate) fn wait(&mut self, reason: Reason, message: String) {
        let (phase, _, condition) = self.at_work();
        self.status.phase = Some(phase);
        self.conditions.unknown(condition, reason, message.clone());
        self.conditions.unknown(ConditionType::Ready, reason, message);
        self.recheck = Some(POLL);
    }

    fn work(&mut self, progress: Option<&Progress>) {
        self.job();
        if let Some(progress) = progress {
            self.status.progress = Some(RunProgress {
                stage: printable(&progress.stage).chars().take(32).collect(),
                step: progress.step.min(MAX_NUMBER),
                total: progress.total.min(MAX_NUMBER),
                eta_seconds: progress.eta_seconds.map(|eta| eta.min(MAX_NUMBER)),
            });
        }
        let (_, reason, _) = self.at_work();
        self.wait(reason, format!("the {} pod is at work", self.stage.as_str()));
    }

    pub(crate) fn fail(&mut self, reason: Reason, message: String) {
        let (_, _, condition) = self.at_work();
        self.status.phase = Some(RunPhase::Failed);
        self.status.progress = None;
        self.end_job(None, None);
        self.conditions.no(condition, reason, message.clone());
        self.conditions.no(ConditionType::Ready, reason, message);
    }

    /// Nobody asks for this run any more. Its Job goes first: a run that is over is not looked at again.
    fn withdraw(&mut self, why: &str, has_job: bool) {
        self.effects
            .push(Effect::DeleteJob { name: names::job(&self.run.name_any(), self.stage), uid: None });
        if has_job {
            return self.wait(Reason::Superseded, format!("withdrawn: {why}; stopping its Job"));
        }
        self.fail(Reason::Superseded, format!("withdrawn: {why} before anything was rolled out"));
    }

    /// The pods of a Job that ran out of time are gone. What kept them from starting was said before.
    fn what_it_waited_for(&self, failure: Reason) -> String {
        let (_, at_work, condition) = self.at_work();
        match self.conditions.find(condition) {
            Some(last) if failure == Reason::DeadlineExceeded && last.reason != at_work.to_string() => {
                format!("; it was waiting: {}", last.message)
            }
            _ => String::new(),
        }
    }

    pub(crate) fn end_job(&mut self, device: Option<Device>, record: Option<Digest>) {
        if self.status.jobs.iter().any(|job| job.stage == self.stage) {
            let end = Time(self.ended.unwrap_or(self.now));
            let image = self.image.clone();
            let job = self.job();
            job.image = image.or_else(|| job.image.take());
            job.finished_at.get_or_insert(end);
            job.device = device.or(job.device);
            job.record = record.or_else(|| job.record.take());
        }
    }
}
