//! What a compliance page says, from listed objects, records and the time.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{Count, Device, EvaluateRecord},
    v1alpha1::{
        Audit, ConditionType, DiffusionModel, GateName, GateResult, LedgerEntry, Mode, RequestPhase, RunType,
        Stage, UnlearnRequest, UnlearnRun, Verdict,
    },
};
use lethe_gates::binomial;

use crate::{report::Head, tree::Seen, words};

/// Confidence of the bounds that are computed here. Those of gates are the policy's.
pub const CONFIDENCE: f64 = 0.95;
/// What a pod asks for if it is to have a GPU.
const GPU: &str = "nvidia.com/gpu";
const DAY: i64 = 86_400;

/// Measurement records by their digest: what was counted of the model as it was before is only in there.
pub type Records = BTreeMap<Digest, EvaluateRecord>;

/// Everything that is said about one model.
#[derive(Clone, Debug)]
pub struct Compliance {
    pub namespace: String,
    pub model: String,
    pub at: Timestamp,
    /// `True`, `False` or `Unknown`, and the operator's words.
    pub compliant: Option<(String, String)>,
    pub forgotten: u32,
    pub exposed: Vec<String>,
    pub served: Option<(Digest, Timestamp)>,
    /// By the time when the term began.
    pub duties: Vec<Duty>,
    pub audits: Vec<Audited>,
    pub last_audit: Option<Audit>,
    pub next_audit: Option<Timestamp>,
    pub costs: Vec<Cost>,
    /// Whether any record could be read.
    pub has_records: bool,
    /// The head of the audit log, where it was to be looked at.
    pub log: Option<Head>,
    /// What could not be read, in sentences.
    pub unread: Vec<String>,
}

/// What one request obliges to.
#[derive(Clone, Debug)]
pub struct Duty {
    pub name: String,
    /// Whether the request is still there. If not, the ledger says what it asked for.
    pub is_there: bool,
    pub reference: Option<String>,
    pub regulation: Option<String>,
    pub labels: Vec<String>,
    pub received: Option<Timestamp>,
    pub due: Option<Timestamp>,
    pub phase: Option<RequestPhase>,
    /// When it was Fulfilled.
    pub done: Option<Timestamp>,
    pub term: Term,
    /// Why it has no answer, in the operator's words.
    pub why: Option<String>,
    pub approved_by: Vec<String>,
    pub leaks: Vec<Leak>,
    pub gates: Vec<GateResult>,
    pub run: Option<String>,
    pub record: Option<Digest>,
    /// The signed envelope about its candidate, if there is one.
    pub evidence: Option<Digest>,
    pub candidate: Option<Digest>,
    pub plan: Option<Digest>,
}

/// Where a request stands with its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Term {
    /// The term is over and it is not fulfilled.
    Missed,
    /// It ends within three days, a week, two weeks: as the alerts see it.
    Days3,
    Days7,
    Days14,
    /// It ends later.
    Runs,
    KeptLate,
    Kept,
    /// Refused, with a reason: nothing is owed.
    Denied,
    /// No legal term.
    None,
}

impl Term {
    pub fn is_at_risk(self) -> bool {
        matches!(self, Self::Missed | Self::Days3 | Self::Days7 | Self::Days14)
    }
}

/// How often one label was shown before, and is now.
#[derive(Clone, Debug)]
pub struct Leak {
    pub label: String,
    /// The positive control: the model that has forgotten nothing.
    pub before: Option<Count>,
    pub after: Option<Count>,
    /// The upper bound that the gate rests on.
    pub bound: Option<f64>,
    pub threshold: Option<String>,
    pub verdict: Verdict,
}

impl Leak {
    /// Of the share before, what it is surely not below.
    pub fn lower_before(&self) -> Option<f64> {
        let Count { hits, n } = self.before.filter(|count| count.n > 0 && count.hits <= count.n)?;
        Some(1.0 - binomial::upper_bound(n - hits, n, CONFIDENCE))
    }

    /// It is at least so many times rarer: the least that it was before, over the most that it may be now.
    pub fn ratio(&self) -> Option<f64> {
        let (before, after) = (self.lower_before()?, self.bound.filter(|bound| *bound > 0.0)?);
        Some(before / after)
    }
}

#[derive(Clone, Debug)]
pub struct Audited {
    pub run: String,
    pub at: Option<Timestamp>,
    pub verdict: Option<Verdict>,
    /// The upper bound of the worst label.
    pub worst: Option<String>,
    pub record: Option<Digest>,
}

/// What a stage of a run took, also before a queue took it back.
#[derive(Clone, Debug)]
pub struct Cost {
    pub run: String,
    pub stage: Stage,
    pub seconds: i64,
    pub device: Option<Device>,
    pub gpus: u64,
}

impl Cost {
    /// Seconds in which GPUs were held and used; none where the pod ran on a CPU.
    pub fn gpu_seconds(&self) -> Option<u64> {
        let used = self.device == Some(Device::Cuda);
        used.then(|| u64::try_from(self.seconds).unwrap_or_default() * self.gpus)
    }
}

impl Compliance {
    /// What is said about a model.
    pub fn of(model: &DiffusionModel, seen: &Seen, records: &Records, now: Timestamp) -> Self {
        let status = model.status.clone().unwrap_or_default();
        let is_its = |namespace: Option<String>, name: &str| {
            namespace == model.namespace() && name == model.name_any()
        };
        let runs: Vec<&UnlearnRun> =
            seen.runs.iter().filter(|run| is_its(run.namespace(), &run.spec.model)).collect();
        let requests = seen.requests.iter().filter(|request| {
            is_its(request.namespace(), &request.spec.model_ref.name) && request.spec.mode == Mode::Enforce
        });
        let asked = requests.map(|request| duty(request, &runs, records, now));
        let is_there = |entry: &LedgerEntry| {
            seen.requests.iter().any(|request| request.uid().as_ref() == Some(&entry.request.uid))
        };
        let gone = status.ledger.iter().filter(|entry| !is_there(entry));
        let recorded = gone.map(|entry| recorded(entry, &status.exposed, &runs, records));
        let mut duties: Vec<Duty> = asked.chain(recorded).collect();
        duties.sort_by_key(|duty| (duty.received.or(duty.done), duty.name.clone()));
        let compliant = ConditionType::Compliant.find(&status.conditions);
        let mut audits: Vec<Audited> =
            runs.iter().filter(|run| run.spec.type_ == RunType::Audit).map(|run| audited(run)).collect();
        audits.sort_by_key(|audit| std::cmp::Reverse(audit.at));
        let mut costs: Vec<Cost> = runs.iter().flat_map(|run| costs(run)).collect();
        costs.sort_by_key(|cost| (cost.run.clone(), cost.stage));
        Self {
            namespace: model.namespace().unwrap_or_default(),
            model: model.name_any(),
            at: now,
            compliant: compliant.map(|c| (c.status.clone(), c.message.clone())),
            forgotten: status.forgotten.unwrap_or_default(),
            exposed: status.exposed.clone(),
            served: status.served.as_ref().map(|served| (served.digest.clone(), served.since.0)),
            duties,
            audits,
            last_audit: status.audit.clone(),
            next_audit: status.next_audit.as_ref().map(|at| at.0),
            costs,
            has_records: !records.is_empty(),
            log: None,
            unread: seen.unread.clone(),
        }
    }

    /// Those that may miss their date, the most pressing first.
    pub fn at_risk(&self) -> Vec<&Duty> {
        let mut at_risk: Vec<_> = self.duties.iter().filter(|duty| duty.term.is_at_risk()).collect();
        at_risk.sort_by_key(|duty| (duty.term, duty.due));
        at_risk
    }

    pub fn fulfilled(&self) -> usize {
        self.duties.iter().filter(|duty| duty.phase == Some(RequestPhase::Fulfilled)).count()
    }

    /// Of what is fulfilled, the label that may be shown most.
    pub fn worst(&self) -> Option<&Leak> {
        let fulfilled = self.duties.iter().filter(|duty| duty.phase == Some(RequestPhase::Fulfilled));
        let known = fulfilled.flat_map(|duty| &duty.leaks).filter(|leak| leak.bound.is_some());
        known.max_by(|a, b| a.bound.unwrap_or(1.0).total_cmp(&b.bound.unwrap_or(1.0)))
    }

    /// GPU-seconds of all stages that used one, and wall-clock seconds of all others.
    pub fn cost(&self) -> (u64, i64) {
        let gpu = self.costs.iter().filter_map(Cost::gpu_seconds).sum();
        let others = self.costs.iter().filter(|cost| cost.gpu_seconds().is_none()).map(|cost| cost.seconds);
        (gpu, others.sum())
    }
}

/// The records that a page about a model reads.
pub fn wanted(seen: &Seen) -> BTreeSet<Digest> {
    let of_requests = seen.requests.iter().filter_map(|request| request.status.as_ref()?.record.clone());
    let ledgers =
        seen.models.iter().filter_map(|model| model.status.as_ref()).flat_map(|status| &status.ledger);
    let named: BTreeSet<_> = ledgers.map(|entry| &entry.run).collect();
    let runs = seen.runs.iter().filter(|run| named.contains(&run.name_any()));
    let of_runs = runs.filter_map(|run| run.status.as_ref()?.job(Stage::Evaluate)?.record.clone());
    of_requests.chain(of_runs).collect()
}

fn duty(request: &UnlearnRequest, runs: &[&UnlearnRun], records: &Records, now: Timestamp) -> Duty {
    let status = request.status.clone().unwrap_or_default();
    let subject = request.spec.data_subject_request.as_ref();
    let created = request.creation_timestamp().map(|at| at.0);
    // What the operator said by the policy; of one that it has not seen, what is known of the regulation.
    let due = status.due_at.as_ref().map(|due| due.0).or_else(|| {
        let subject = subject?;
        let known = lethe_core::deadline::Terms::of(&subject.regulation, &[]).ok()?;
        lethe_core::deadline::due_at(subject, created, &known)
    });
    let fulfilled = ConditionType::Fulfilled.find(&status.conditions).filter(|c| c.status == "True");
    let done = fulfilled.map(|condition| condition.last_transition_time.0);
    let ready = ConditionType::Ready.find(&status.conditions).filter(|c| c.status != "True");
    let run = status.run.as_ref().and_then(|named| runs.iter().find(|run| run.name_any() == named.name));
    let record = status.record.as_ref().and_then(|digest| records.get(digest));
    let targets: Vec<String> = request.spec.targets.iter().map(|target| target.label.clone()).collect();
    let leaks = targets.iter().filter_map(|label| leak(label, &status.gates, record));
    Duty {
        name: request.name_any(),
        is_there: true,
        reference: subject.map(|subject| subject.reference.clone()),
        regulation: subject.map(|subject| subject.regulation.clone()),
        received: subject.map(|subject| lethe_core::deadline::begins_at(subject, created)).or(created),
        due,
        phase: status.phase,
        done,
        term: term(due, status.phase, done, now),
        why: ready.map(|condition| condition.message.clone()),
        approved_by: status.approved_by.clone(),
        leaks: leaks.collect(),
        gates: status.gates.clone(),
        run: status.run.as_ref().map(|run| run.name.clone()),
        record: status.record.clone(),
        evidence: run.and_then(|run| run.status.as_ref()?.evidence.clone()),
        candidate: run.and_then(|run| run.status.as_ref()?.candidate.clone()),
        plan: run.map(|run| run.spec.plan_digest.clone()),
        labels: targets,
    }
}

/// Of a request that is not there any more, or was not exported: what the ledger and its run know.
fn recorded(entry: &LedgerEntry, exposed: &[String], runs: &[&UnlearnRun], records: &Records) -> Duty {
    let run = runs.iter().find(|run| run.name_any() == entry.run);
    let status = run.and_then(|run| run.status.clone()).unwrap_or_default();
    let record = status.job(Stage::Evaluate).and_then(|job| job.record.clone());
    let measured = record.as_ref().and_then(|digest| records.get(digest));
    let is_exposed = entry.targets.iter().any(|label| exposed.contains(label));
    let is_its = |gate: &&GateResult| gate.target.as_ref().is_none_or(|label| entry.targets.contains(label));
    Duty {
        name: entry.request.name.clone(),
        is_there: false,
        reference: None,
        regulation: None,
        received: None,
        due: None,
        phase: Some(if is_exposed { RequestPhase::Reexposed } else { RequestPhase::Fulfilled }),
        done: Some(entry.at.0),
        term: Term::None,
        why: None,
        approved_by: Vec::new(),
        leaks: entry.targets.iter().filter_map(|label| leak(label, &status.gates, measured)).collect(),
        gates: status.gates.iter().filter(is_its).cloned().collect(),
        run: Some(entry.run.clone()),
        record,
        evidence: status.evidence,
        candidate: Some(entry.digest.clone()),
        plan: run.map(|run| run.spec.plan_digest.clone()),
        labels: entry.targets.clone(),
    }
}

fn term(
    due: Option<Timestamp>,
    phase: Option<RequestPhase>,
    done: Option<Timestamp>,
    now: Timestamp,
) -> Term {
    let Some(due) = due else { return Term::None };
    match (phase, done) {
        (Some(RequestPhase::Denied), _) => Term::Denied,
        (Some(RequestPhase::Fulfilled), Some(done)) if done > due => Term::KeptLate,
        (Some(RequestPhase::Fulfilled), _) => Term::Kept,
        _ => match words::seconds(now, due) {
            left if left <= 0 => Term::Missed,
            left if left <= 3 * DAY => Term::Days3,
            left if left <= 7 * DAY => Term::Days7,
            left if left <= 14 * DAY => Term::Days14,
            _ => Term::Runs,
        },
    }
}

fn leak(label: &str, gates: &[GateResult], record: Option<&EvaluateRecord>) -> Option<Leak> {
    let is_it =
        |gate: &&GateResult| gate.name == GateName::DirectLeak && gate.target.as_deref() == Some(label);
    let gate = gates.iter().find(is_it)?;
    let measured = record.and_then(|record| record.targets.iter().find(|target| target.label == label));
    let counted = gate.hits.zip(gate.n).map(|(hits, n)| Count { hits, n });
    Some(Leak {
        label: label.to_owned(),
        before: measured.map(|measured| measured.control),
        after: counted,
        bound: gate.bound.as_ref().and_then(|bound| bound.parse().ok()),
        threshold: gate.threshold.clone(),
        verdict: gate.verdict,
    })
}

fn audited(run: &UnlearnRun) -> Audited {
    let status = run.status.clone().unwrap_or_default();
    let job = status.job(Stage::Audit);
    let bound = |gate: &&GateResult| gate.bound.as_ref().and_then(|bound| bound.parse::<f64>().ok());
    let worst = status
        .gates
        .iter()
        .filter(|gate| bound(gate).is_some())
        .max_by(|a, b| bound(a).unwrap_or_default().total_cmp(&bound(b).unwrap_or_default()));
    Audited {
        run: run.name_any(),
        at: job
            .and_then(|job| job.finished_at.as_ref())
            .map(|at| at.0)
            .or_else(|| run.creation_timestamp().map(|at| at.0)),
        verdict: status.verdict,
        worst: worst.and_then(|gate| gate.bound.clone()),
        record: job.and_then(|job| job.record.clone()),
    }
}

fn costs(run: &UnlearnRun) -> Vec<Cost> {
    let limits = run.spec.policy.trainer.resources.limits.as_ref();
    let gpus = limits.and_then(|limits| limits.get(GPU)).and_then(|quantity| quantity.0.parse().ok());
    let jobs = run.status.iter().flat_map(|status| &status.jobs);
    let cost = jobs.filter_map(|job| {
        let times = job.started_at.as_ref().zip(job.finished_at.as_ref());
        let last = times.map(|(from, to)| words::seconds(from.0, to.0).max(0));
        let earlier =
            (job.earlier_seconds > 0).then(|| i64::try_from(job.earlier_seconds).unwrap_or(i64::MAX));
        let seconds = [earlier, last].into_iter().flatten().reduce(i64::saturating_add)?;
        Some(Cost {
            run: run.name_any(),
            stage: job.stage,
            seconds,
            device: job.device,
            gpus: gpus.unwrap_or(1),
        })
    });
    cost.collect()
}
