//! What a stage's pod left: where it ran, its record, and what that means for the run.

use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{Device, Outcome, Record, RecordBody},
    v1alpha1::{ConditionType, Reason, RunPhase, Stage, Verdict},
};

use crate::{
    Event, attempts, findings,
    run::{RecordProblem, Step},
};

impl Step<'_> {
    /// The Job succeeded. That is remembered even if the record cannot be read yet: the Job may be gone by then.
    pub(crate) fn finish(
        &mut self,
        outcome: &Outcome,
        plan: &Digest,
        record: Option<&Result<Vec<u8>, RecordProblem>>,
    ) {
        self.job();
        self.end_job(outcome.device, outcome.record.clone());
        self.say_where_it_ran(outcome);
        self.status.progress = None;
        match outcome.record.clone() {
            Some(left) => self.read(left, plan, record),
            None => self.fail(Reason::BadOutcome, "the outcome names no record".into()),
        }
    }

    /// The record is what counts.
    pub(crate) fn read(
        &mut self,
        left: Digest,
        plan: &Digest,
        record: Option<&Result<Vec<u8>, RecordProblem>>,
    ) {
        let bytes = match record {
            None => return self.wait(self.at_work().1, "the record is being read".into()),
            Some(Err(problem)) if problem.transient => {
                return self.wait(Reason::RecordUnavailable, format!("the store: {}", problem.message));
            }
            Some(Err(problem)) => return self.fail(Reason::RecordUnavailable, problem.message.clone()),
            Some(Ok(bytes)) => bytes,
        };
        let record = match Record::parse(bytes, plan) {
            Ok(record) => record,
            Err(error) => return self.fail(Reason::BadRecord, error.to_string()),
        };
        match (self.stage, record.body) {
            (Stage::Prepare, RecordBody::Prepare(body)) => {
                match findings::prepared(&self.run.spec, body, left) {
                    Ok(prepared) => self.complete_prepare(prepared),
                    Err(why) => self.fail(Reason::BadRecord, why),
                }
            }
            (Stage::Forget, RecordBody::Forget(body)) => match findings::candidate(&self.run.spec, body) {
                Ok(candidate) => self.trained(candidate),
                Err(why) => self.fail(Reason::BadRecord, why),
            },
            (Stage::Evaluate, RecordBody::Evaluate(body)) => {
                let gates = findings::gate_results(&self.run.name_any(), &self.run.spec, &self.status, &body);
                match gates {
                    Ok(results) => self.judged(results),
                    Err(why) => self.fail(Reason::BadRecord, why),
                }
            }
            (Stage::Audit, RecordBody::Audit(body)) => match findings::audit_results(&self.run.spec, &body) {
                Ok(results) => self.judged(results),
                Err(why) => self.fail(Reason::BadRecord, why),
            },
            (stage, body) => {
                let message = format!("the {} pod left a record of {:?}", stage.as_str(), body.kind());
                self.fail(Reason::BadRecord, message);
            }
        }
    }

    fn say_where_it_ran(&mut self, outcome: &Outcome) {
        // An audit asks for none.
        let may_be_slow = self.stage != Stage::Audit && self.run.spec.policy.trainer.device == Device::Auto;
        if may_be_slow && outcome.device == Some(Device::Cpu) {
            self.events.push(Event {
                warning: false,
                reason: "RanOnCpu".into(),
                note: format!("the {} pod saw no CUDA device and ran on the CPU", self.stage.as_str()),
            });
        }
    }

    fn complete_prepare(&mut self, prepared: lethe_api::v1alpha1::Prepared) {
        self.status.phase = Some(RunPhase::Complete);
        let message = format!("the baseline {} was distilled", prepared.baseline.bundle.short());
        self.status.prepared = Some(prepared);
        self.conditions.yes(ConditionType::Trained, Reason::Prepared, message.clone());
        self.conditions.yes(ConditionType::Ready, Reason::Prepared, message);
    }

    fn trained(&mut self, candidate: Digest) {
        let message = format!("the candidate {} was trained", candidate.short());
        self.conditions.yes(ConditionType::Trained, Reason::Trained, message);
        self.status.candidate = Some(candidate);
        self.status.phase = Some(RunPhase::Evaluating);
        let message = "the candidate waits for its evaluation";
        self.conditions.unknown(ConditionType::Evaluated, Reason::Evaluating, message);
        self.conditions.unknown(ConditionType::Ready, Reason::Evaluating, message);
        self.recheck = Some(std::time::Duration::ZERO);
    }

    fn judged(&mut self, results: Vec<lethe_api::v1alpha1::GateResult>) {
        let verdict = lethe_gates::overall(&results);
        let measured = match self.stage {
            Stage::Audit => "what the live server shows was measured",
            _ => "the candidate was measured",
        };
        self.conditions.yes(ConditionType::Evaluated, Reason::Evaluated, measured);
        let message = findings::describe(self.status.candidate.as_ref(), &results);
        match verdict {
            Verdict::Pass => {
                self.conditions.yes(ConditionType::GatesPassed, Reason::GatesPassed, message.clone())
            }
            Verdict::Fail => {
                self.conditions.no(ConditionType::GatesPassed, Reason::GateFailed, message.clone())
            }
            Verdict::Inconclusive => {
                self.conditions.no(ConditionType::GatesPassed, Reason::GateInconclusive, message.clone());
            }
            Verdict::Error => {
                self.conditions.no(ConditionType::GatesPassed, Reason::GateError, message.clone())
            }
        }
        self.conditions.yes(ConditionType::Ready, Reason::Evaluated, message);
        self.status.phase = Some(RunPhase::Complete);
        self.status.verdict = Some(verdict);
        self.status.attempts = attempts::of_run(self.run, Some(verdict), self.now);
        self.status.gates = findings::shown(results);
        if self.signs {
            let message = "what was measured is about to be signed";
            self.conditions.unknown(ConditionType::Signed, Reason::Signing, message);
            self.recheck = Some(std::time::Duration::ZERO);
        }
    }
}
