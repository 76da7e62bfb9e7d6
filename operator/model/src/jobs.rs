//! What becomes of Jobs: honest pods, and all the others.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{Count, Plan, RecordBody, Task},
    v1alpha1::labels,
};

use crate::{
    cluster::{Waits, Work},
    decisions::Mind,
    shared::{Shared, hash_of},
    state::{State, find, written},
    trainer::{Fate, digest, honest, honest_body, outcome, reports},
};

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    Honest,
    /// Exit code 64.
    Fails,
    /// The Job's deadline passes, and its pods are deleted.
    TimesOut,
    /// Success, without a word of the contract.
    Babbles,
    /// Success, with the outcome and the record of another plan.
    Stale,
    /// Success, with a record of this plan that is about another candidate or server, or about other targets.
    Foreign,
    /// Success, with a record that is not in the store.
    NoRecord,
    /// The candidate, or the live server, shows what it should have forgotten.
    Leaks,
    /// Too few samples were drawn.
    Scant,
    /// The judge does not recognise what has forgotten nothing.
    Blind,
    /// A candidate that is the baseline.
    Unchanged,
}

const ANY: [End; 5] = [End::Fails, End::TimesOut, End::Babbles, End::Stale, End::NoRecord];

impl State {
    /// A pod of the Job begins to work. If a queue held the Job, it lets it go on.
    pub fn start(&mut self, index: usize) {
        let work = &mut self.objects.jobs[index];
        *work = work.with(|work| {
            work.suspend(None);
            work.advance(|_| Fate::Hangs, written());
            work.advance(|_| Fate::Hangs, written());
        });
    }

    /// A quota keeps the Job from having a pod.
    pub fn hold_back(&mut self, index: usize) {
        let work = &mut self.objects.jobs[index];
        *work = work.with(|work| {
            work.advance(|_| Fate::Waits(Waits::Quota), written());
        });
    }

    /// A queue suspends the Job, and its pods are deleted.
    pub fn take_back(&mut self, index: usize) {
        let work = &mut self.objects.jobs[index];
        *work = work.with(|work| {
            work.suspend(Some(true));
            work.advance(|_| Fate::Hangs, written());
        });
    }

    pub fn end(&mut self, mind: &Mind, index: usize, end: End) {
        let work = self.objects.jobs[index].clone();
        let Some(map) = find(&self.objects.plans, &work.job.name_any()) else { return };
        let (ended, plan) = mind.ends.get(hash_of(&(&work, map, end)), || {
            let plan = plan_of(map).expect("the operator writes plans that a trainer can read");
            let ended = work.with(|work| finish(mind, work, &plan, end));
            (ended, plan.into())
        });
        self.objects.jobs[index] = ended;
        if end == End::Honest {
            self.audit.measured(&plan);
        }
    }

    /// The pods of a finished Job are deleted by somebody. The operator may make one that succeeded again.
    pub fn lose_pods(&mut self, index: usize) {
        let work = &mut self.objects.jobs[index];
        if work.has_succeeded() {
            self.audit.lost_outcome(&work.job);
            self.births.add(&work.job.name_any());
        }
        *work = work.with(|work| work.pods.clear());
    }

    pub fn lose_job(&mut self, index: usize) {
        let work: Shared<Work> = self.objects.jobs.remove(index);
        self.audit.lost_job(&work.job);
        // Nor is its creation still on its way: no API server holds one back for that long.
        self.in_flight.take_if(|sent| sent.creates(&work.job.name_any()));
    }
}

/// The plan that a Job's pods read.
fn plan_of(map: &ConfigMap) -> Option<Plan> {
    Plan::parse(map.data.as_ref()?.values().next()?.as_bytes()).ok()
}

fn finish(mind: &Mind, work: &mut Work, plan: &Plan, end: End) {
    if end == End::TimesOut {
        work.pods.clear();
        return work.end("Failed", "DeadlineExceeded", "Job was active longer than its deadline", written());
    }
    let fate = fate(plan, end);
    if let Fate::Succeeds { record, .. } = &fate
        && end != End::NoRecord
    {
        let named = Digest::of(record);
        mind.records.get(hash_of(named.as_str()), || record.clone());
    }
    work.advance(|_| fate, written());
}

/// The ways in which a pod of this Job can end badly.
pub fn bad_ends(work: &Work) -> impl Iterator<Item = End> + use<> {
    let stage = work.job.labels().get(labels::STAGE).map(String::as_str).unwrap_or_default();
    let particular: &[End] = match stage {
        "forget" => &[End::Foreign, End::Unchanged],
        "evaluate" | "audit" => &[End::Foreign, End::Leaks, End::Scant, End::Blind],
        _ => &[],
    };
    ANY.into_iter().chain(particular.iter().copied())
}

fn fate(plan: &Plan, end: End) -> Fate {
    match end {
        End::Honest => honest(plan),
        End::Fails | End::TimesOut => Fate::Exits { code: 64, message: String::new() },
        End::Babbles => Fate::Succeeds { message: "done!".into(), record: vec![] },
        End::Stale => honest(&Plan { seed: plan.seed ^ 1, ..plan.clone() }),
        End::NoRecord => {
            let record = b"nowhere";
            Fate::Succeeds { message: outcome(plan, record).to_message(), record: record.to_vec() }
        }
        End::Leaks => counts(plan, |leak, _| leak.hits = 100),
        End::Scant => counts(plan, |leak, _| leak.n = 10),
        End::Blind => counts(plan, |_, control| control.hits = 10),
        End::Foreign => {
            let mut body = honest_body(plan);
            match &mut body {
                RecordBody::Evaluate(record) => record.candidate = digest("another"),
                RecordBody::Forget(record) => record.targets[0].label = "0".into(),
                RecordBody::Audit(record) => record.served = digest("another"),
                RecordBody::Prepare(_) => {}
            }
            reports(plan, body)
        }
        End::Unchanged => {
            let mut body = honest_body(plan);
            if let (RecordBody::Forget(record), Task::Forget(task)) = (&mut body, &plan.task) {
                record.candidate = task.baseline.clone();
            }
            reports(plan, body)
        }
    }
}

/// Other counts of the first target than an honest pod's: how often it was seen, and how often in what forgot nothing.
fn counts(plan: &Plan, change: impl FnOnce(&mut Count, &mut Count)) -> Fate {
    let mut body = honest_body(plan);
    match &mut body {
        RecordBody::Evaluate(record) => {
            let first = &mut record.targets[0];
            change(&mut first.leak, &mut first.control);
        }
        RecordBody::Audit(record) => {
            let first = &mut record.targets[0];
            change(&mut first.leak, &mut first.control);
        }
        RecordBody::Prepare(_) | RecordBody::Forget(_) => {}
    }
    reports(plan, body)
}
