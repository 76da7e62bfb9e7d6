//! What really happened, kept beside what the operator says, and what must hold after every single call.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{Plan, Task},
    v1alpha1::{
        ConditionType, DiffusionModel, GateName, LedgerEntry, RequestPhase, RunType, UnlearnPolicy,
        UnlearnRequest, UnlearnRun, Verdict,
    },
};
use lethe_core::{canary, model, names, request, rollout, run, targets::ledger_targets};
use serde::Serialize;

use crate::{
    cluster::replicas,
    consent,
    decisions::is_owned_by,
    objects::BASES,
    shared::Shared,
    state::{Objects, State},
    trainer::{digest, made_of},
};

/// The invariants of the design, as far as decisions can break them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// No digest is served that did not pass every required gate for the whole ledger of its time.
    Served,
    /// A run that saw no measurement, or someone else's, never passes.
    Measured,
    /// The ledger only grows.
    Ledger,
    /// Whoever dies anywhere: no second Job, no lost record, no answer taken back, the same end.
    Crash,
    /// An operator at rest writes nothing, and comes to rest.
    Idle,
    /// Whoever acts, one run works for a lineage.
    One,
    /// Every request is answered once everybody does what they should.
    Answered,
    /// Nothing is begun, served or recorded without what people have to say, or against it.
    People,
}

impl Invariant {
    /// With its number in the list of invariants; 7 is that everything ends.
    pub fn text(self) -> &'static str {
        match self {
            Invariant::Served => "1 what is served passed every gate for the whole ledger of its time",
            Invariant::Measured => "2 what saw no measurement of its own does not pass",
            Invariant::Ledger => "3 the ledger only grows",
            Invariant::Crash => {
                "4 whoever dies anywhere, it ends the same, with no second Job and no lost record"
            }
            Invariant::Idle => "5 the operator comes to rest, and then writes nothing",
            Invariant::One => "6 whoever acts, one run works for a lineage",
            Invariant::Answered => "7 every request is answered",
            Invariant::People => "8 nothing is done without the people who have to agree, or against them",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broken {
    pub invariant: Invariant,
    pub how: String,
}

/// A candidate that an honest pod measured, and found good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passed {
    pub candidate: Digest,
    pub labels: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Audit {
    passed: Vec<Shared<Passed>>,
    /// Runs whose honest pods asked the live server, each with the digest that it served and showed nothing by.
    heard: Vec<(Arc<str>, Digest)>,
    /// The policy wants the live server asked before the ledger is written.
    asks: bool,
    /// Nothing is served without signed evidence.
    signs: bool,
    /// Somebody else changes the serving target, and the operator must not.
    pub publishes: bool,
    /// Signed evidence in the store: bundles, each with its envelope, which the status of a run has named.
    signed: Vec<(Digest, Digest)>,
    /// The longest ledger that there ever was.
    pub ledger: Shared<Vec<LedgerEntry>>,
    /// Jobs that were created, each with the uid of its run, but for those that somebody else took away, with what they found.
    jobs: Vec<Arc<str>>,
    /// Jobs whose pods were taken away after they had succeeded.
    lost: Vec<Arc<str>>,
    /// A run came to be that an operator had planned before it died. Its successor gives up one of two.
    pub stray: bool,
    pub broken: Option<Box<Broken>>,
}

impl Audit {
    pub fn new(policy: &UnlearnPolicy, signs: bool, publishes: bool) -> Self {
        Audit {
            passed: vec![],
            signs,
            publishes,
            signed: vec![],
            heard: vec![],
            asks: policy.spec.gates.iter().any(|gate| gate.name == GateName::ServedLeak),
            ledger: Shared::new(vec![]),
            jobs: vec![],
            lost: vec![],
            stray: false,
            broken: None,
        }
    }

    pub fn breaks(&mut self, invariant: Invariant, how: impl Into<String>) {
        self.broken.get_or_insert_with(|| Box::new(Broken { invariant, how: how.into() }));
    }

    fn demand(&mut self, is_so: bool, invariant: Invariant, how: &str) {
        if !is_so {
            self.breaks(invariant, how);
        }
    }

    /// An honest pod measured the candidate of this plan, or asked the live server.
    pub fn measured(&mut self, plan: &Plan) {
        match &plan.task {
            Task::Evaluate(task) => {
                let labels = task.targets.iter().map(|target| target.label.clone()).collect();
                let passed = Shared::new(Passed { candidate: task.candidate.clone(), labels });
                if let Err(at) = self.passed.binary_search(&passed) {
                    self.passed.insert(at, passed);
                }
            }
            Task::Audit(task) => {
                let heard = (plan.run.as_str().into(), task.served.clone());
                if let Err(at) = self.heard.binary_search(&heard) {
                    self.heard.insert(at, heard);
                }
            }
            Task::Prepare(_) | Task::Forget(_) => {}
        }
    }

    fn has_passed(&self, candidate: &Digest, labels: &BTreeSet<String>) -> bool {
        self.passed.iter().any(|passed| passed.candidate == *candidate && passed.labels.is_superset(labels))
    }

    /// Asked before serving is changed.
    pub fn serves(&mut self, bundle: Option<&Digest>) {
        let Some(bundle) = bundle else { return };
        let forgotten: BTreeSet<String> = ledger_targets(&self.ledger).into_keys().collect();
        let is_baseline = BASES.map(|base| made_of(&digest(base), "baseline")).contains(bundle);
        let may = match is_baseline {
            true => forgotten.is_empty(),
            false => self.has_passed(bundle, &forgotten),
        };
        self.demand(may, Invariant::Served, "a digest is served that did not pass for the whole ledger");
        let is_signed = is_baseline || !self.signs || self.signed(bundle).next().is_some();
        self.demand(
            is_signed,
            Invariant::Served,
            "a digest is served of which nothing signed says that it passed",
        );
    }

    /// The envelopes about a bundle.
    pub fn signed<'a, 'b>(&'a self, bundle: &'b Digest) -> impl Iterator<Item = &'a Digest> + use<'a, 'b> {
        self.signed.iter().filter(move |(about, _)| about == bundle).map(|(_, envelope)| envelope)
    }

    /// Asked whenever pods are put beside the target.
    pub fn is_beside(&mut self, objects: &Objects) {
        let Some(canary) = objects.canary.as_ref().map(|canary| &canary.deployment) else { return };
        if replicas(canary) == 0 {
            return;
        }
        let bundle = rollout::reference(canary);
        self.serves(bundle.as_ref());
        let was_asked = self.heard.iter().any(|(_, heard)| Some(heard) == bundle.as_ref());
        let may = !self.asks || was_asked || !canary::gets_traffic(canary, &objects.deployment);
        let how = "users get a canary that no honest pod has asked before";
        self.demand(may, Invariant::Served, how);
    }

    pub fn wrote_model(&mut self, model: &DiffusionModel) {
        let Some(status) = &model.status else { return };
        self.demand(status.ledger.starts_with(&self.ledger), Invariant::Ledger, "the ledger lost something");
        if let Some(compliant) = &status.compliant {
            let all: BTreeSet<String> = ledger_targets(&status.ledger).into_keys().collect();
            let how = "what should be served did not pass for the whole ledger";
            self.demand(self.has_passed(&compliant.digest, &all), Invariant::Served, how);
            let base = status.baseline.as_ref().map(|baseline| &baseline.teacher);
            let of_it = base.is_none_or(|base| *base == compliant.base);
            self.demand(of_it, Invariant::Served, "runs work with another base than that in service");
        }
        if status.ledger.len() > self.ledger.len() {
            let all: BTreeSet<String> = ledger_targets(&status.ledger).into_keys().collect();
            let last = status.ledger.last().is_some_and(|last| self.has_passed(&last.digest, &all));
            self.demand(last, Invariant::Served, "the ledger names a digest that did not pass for all of it");
            let is_heard = |digest: &Digest| self.heard.iter().any(|(_, heard)| heard == digest);
            let heard = !self.asks || status.ledger.last().is_some_and(|last| is_heard(&last.digest));
            let how = "the ledger names a digest that no honest pod heard from the live server";
            self.demand(heard, Invariant::Served, how);
            let unique: BTreeSet<_> =
                status.ledger.iter().map(|e| (&e.run, &e.request.uid, &e.targets)).collect();
            let once = unique.len() == status.ledger.len();
            self.demand(once, Invariant::Ledger, "an entry is in the ledger twice");
            self.ledger = Shared::new(status.ledger.clone());
        }
    }

    pub fn wrote_run(&mut self, run: &UnlearnRun) {
        let Some(status) = run.status.as_ref().filter(|s| s.verdict == Some(Verdict::Pass)) else { return };
        if let (Some(bundle), Some(envelope)) = (&status.candidate, &status.evidence) {
            let signed = (bundle.clone(), envelope.clone());
            if let Err(at) = self.signed.binary_search(&signed) {
                self.signed.insert(at, signed);
            }
        }
        let measured = match Plan::parse(run.spec.plan.as_bytes()).map(|plan| plan.task) {
            Ok(Task::Forget(planned)) => {
                let labels = planned.targets.into_iter().map(|target| target.label).collect();
                status.candidate.as_ref().is_some_and(|it| self.has_passed(it, &labels))
            }
            Ok(Task::Audit(_)) => self.heard.iter().any(|(heard, _)| **heard == *run.name_any()),
            _ => return self.breaks(Invariant::Measured, "a run that neither forgets nor asks passed"),
        };
        self.demand(measured, Invariant::Measured, "a run passed that nobody measured");
    }

    pub fn wrote_request(&mut self, before: &UnlearnRequest, after: &UnlearnRequest) {
        let phase = |request: &UnlearnRequest| request.status.as_ref().and_then(|status| status.phase);
        // That it is shown again, and then not, is no other answer.
        let answer = |request| {
            phase(request).map(|phase| match phase {
                RequestPhase::Reexposed => RequestPhase::Fulfilled,
                other => other,
            })
        };
        // Nor is what failed and is tried again, because somebody asked for that.
        let retry =
            |request: &UnlearnRequest| request.status.as_ref().and_then(|status| status.retry.clone());
        let failed = [RequestPhase::Held, RequestPhase::Failed, RequestPhase::Aborted].map(Some);
        let is_retried = failed.contains(&phase(before)) && retry(before) != retry(after);
        let stands = !request::is_over(before) || answer(before) == answer(after) || is_retried;
        self.demand(stands, Invariant::Crash, "an answer was taken back");
        let conditions = after.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        if ConditionType::Fulfilled.is_true(conditions) {
            let forgotten = ledger_targets(&self.ledger);
            let recorded = after.spec.targets.iter().all(|target| forgotten.contains_key(&target.label));
            self.demand(recorded, Invariant::Crash, "a request is fulfilled and not in the ledger");
        }
    }

    pub fn created_run(&mut self, objects: &Objects) {
        let Some(model) = &objects.model else { return };
        let is_own = |run: &&Shared<UnlearnRun>| {
            run.owner_references().iter().any(|owner| Some(&owner.uid) == model.metadata.uid.as_ref())
        };
        let forgets = |run: &&Shared<UnlearnRun>| run.spec.type_ == RunType::Forget && !run::is_over(run);
        let at_work = objects.runs.iter().filter(is_own).filter(forgets).count();
        self.demand(at_work <= 1 || self.stray, Invariant::One, "two runs work for one lineage");
    }

    pub fn created_job(&mut self, objects: &Objects, job: &Job) {
        let entry = entry(job);
        let owner = objects.runs.iter().find(|run| is_owned_by(job, &***run));
        // The garbage collector takes it at once.
        let Some(owner) = owner else { return };
        let recorded = owner.status.as_ref().is_some_and(|status| {
            status.jobs.iter().any(|known| known.name == job.name_any() && known.record.is_some())
        });
        self.demand(!recorded, Invariant::Crash, "a Job was made again whose record is known");
        let lost = self.lost.iter().filter(|lost| **lost == entry).count();
        self.demand(lost <= 1, Invariant::Crash, "a Job that was lost twice was made again");
        match self.jobs.binary_search(&entry) {
            Ok(_) => self.breaks(Invariant::Crash, "a Job was made twice"),
            Err(at) => self.jobs.insert(at, entry),
        }
    }

    pub fn has_made(&self, job: &Job) -> bool {
        self.jobs.binary_search(&entry(job)).is_ok()
    }

    /// Somebody else deletes the pods of a Job that has succeeded. If nobody knows what it found, it may be made again, once.
    pub fn lost_outcome(&mut self, job: &Job) {
        self.lost_job(job);
        self.lost.push(entry(job));
    }

    /// Somebody else deletes a Job. The operator may make it again.
    pub fn lost_job(&mut self, job: &Job) {
        let entry = entry(job);
        self.jobs.retain(|known| *known != entry);
    }
}

fn entry(job: &Job) -> Arc<str> {
    let owner = job.owner_references().first().map(|owner| owner.uid.as_str()).unwrap_or_default();
    format!("{} of {owner}", job.name_any()).into()
}

/// What is right when nothing moves any more and everybody has done what they should.
pub fn at_the_end(state: &State) -> Result<(), Broken> {
    let broken = |invariant, how: String| Err(Broken { invariant, how });
    for request in &state.objects.requests {
        if !request::is_over(request) {
            return broken(Invariant::Answered, format!("{} is never answered", request.name_any()));
        }
    }
    if let Some(how) = consent::at_the_end(&state.objects) {
        return broken(Invariant::People, how.into());
    }
    let phase = |request: &UnlearnRequest| request.status.as_ref().and_then(|status| status.phase);
    let exposed = |request: &&Shared<UnlearnRequest>| phase(request) == Some(RequestPhase::Reexposed);
    if let Some(request) = state.objects.requests.iter().find(exposed) {
        return broken(Invariant::Served, format!("{} is Reexposed for ever", request.name_any()));
    }
    if let Some(run) = state.objects.runs.iter().find(|run| !run::is_over(run)) {
        return broken(Invariant::One, format!("run {} never ends", run.name_any()));
    }
    let Some(model) = &state.objects.model else {
        return broken(Invariant::Answered, "the model is gone".into());
    };
    let status = model.status.clone().unwrap_or_default();
    if status.ledger[..] != state.audit.ledger[..] {
        return broken(Invariant::Ledger, "the ledger is not what it was".into());
    }
    let archived = state.objects.archive.as_ref().map(|map| model::read_archive(map));
    let kept = archived.transpose().ok().flatten().map(|archive| archive.entries).unwrap_or_default();
    if kept != status.ledger {
        let archive = names::ledger_archive(&model.name_any());
        return broken(Invariant::Ledger, format!("{archive} does not keep the ledger"));
    }
    if state.objects.canary.is_some() || state.objects.service.is_some() {
        return broken(Invariant::Served, "something is left beside the serving target".into());
    }
    let of_ledger = status.ledger.last().map(|last| last.digest.clone());
    let of_baseline = || status.baseline.as_ref().map(|baseline| baseline.bundle.clone());
    let wanted = status.compliant.map(|it| it.digest).or(of_ledger).or_else(of_baseline);
    if state.objects.serving.as_deref() != wanted.as_ref() {
        return broken(Invariant::Served, "what is served in the end is not what should be".into());
    }
    let base = status.baseline.as_ref().map(|baseline| &baseline.teacher);
    let is_refused = ConditionType::BaseInService.is_false(&status.conditions);
    if base != Some(&model.spec.base.digest) && !is_refused {
        return broken(Invariant::Answered, "the base is not in service, and nobody says why".into());
    }
    Ok(())
}
