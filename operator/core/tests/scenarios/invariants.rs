//! What must hold after every single step of every scenario.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Resource, ResourceExt};
use lethe_api::{
    Digest,
    contract::{AuditTask, EvaluateTask, Plan, Record, RecordBody, Task},
    v1alpha1::{
        GateName, LedgerEntry, NoCompliantDigest, RolloutState, RunType, UnlearnPolicy, UnlearnPolicySpec,
        UnlearnRun, Verdict,
    },
};
use lethe_core::{
    canary, model, rollout, run,
    targets::{self, ledger_targets},
};

use crate::{cluster::replicas, world::World};

/// What really happened, kept beside what the operator says.
#[derive(Clone, Default)]
pub struct Audit {
    /// Each with the uid of the run that it is of.
    pub jobs_created: Vec<String>,
    pub runs_created: Vec<String>,
    /// Runs whose creation was still on its way when another one was planned.
    pub arrived_late: Vec<String>,
    /// What the serving target was changed to, in order.
    pub served: Vec<Option<Digest>>,
    /// Evaluations that pods really made: of which candidate, for which labels, with which record.
    evaluations: Vec<(EvaluateTask, Record)>,
    /// What the live server really showed when it was audited.
    audits: Vec<(AuditTask, Record)>,
    /// Versions of runs whose Pass was checked.
    verdicts: BTreeSet<(Option<String>, Option<String>)>,
    /// Candidates that really passed, and what they were measured for.
    passed: BTreeMap<Digest, BTreeSet<String>>,
    /// The longest ledger that each model, by name, ever had.
    pub ledgers: BTreeMap<String, Vec<LedgerEntry>>,
}

impl Audit {
    /// A pod succeeded with this plan and left this record.
    pub fn measured(&mut self, plan: &Plan, record: &[u8]) {
        match (&plan.task, Record::parse(record, &plan.digest())) {
            (Task::Evaluate(task), Ok(record)) => self.evaluations.push((task.clone(), record)),
            (Task::Audit(task), Ok(record)) => self.audits.push((task.clone(), record)),
            _ => {}
        }
    }

    /// Whether the live server was found to show nothing of these labels while it served this.
    fn showed_none(&self, policy: &UnlearnPolicySpec, served: &Digest, labels: &BTreeSet<String>) -> bool {
        self.audits.iter().any(|(task, record)| {
            let RecordBody::Audit(body) = &record.body else { return false };
            let asked: BTreeSet<_> = task.targets.iter().map(|target| target.label.clone()).collect();
            let results = lethe_gates::judge_served(&policy.gates, task, body);
            task.served == *served
                && asked.is_superset(labels)
                && lethe_gates::overall(&results) == Verdict::Pass
        })
    }
}

fn has_served_leak(policy: &UnlearnPolicySpec) -> bool {
    policy.gates.iter().any(|gate| gate.name == GateName::ServedLeak)
}

/// Panics if anything is not as it must be.
pub fn check(world: &mut World) {
    for run in world.cluster.runs.values() {
        no_pass_without_a_measurement(&mut world.audit, run);
    }
    the_ledger_only_grows(world);
    one_active_run_per_model(world);
    messages_fit(world);
}

/// Asked before serving is patched: is `bundle` one that may be served now?
pub fn may_serve(world: &World, bundle: Option<&Digest>) {
    let Some(bundle) = bundle else { return };
    let forgotten: BTreeSet<String> =
        world.audit.ledgers.values().flat_map(|ledger| ledger_targets(ledger).into_keys()).collect();
    let is_baseline = world.cluster.models.values().any(|model| {
        let known = model.status.iter().flat_map(|status| {
            status.baseline.iter().chain(status.new_base.as_ref().map(|prepared| &prepared.baseline))
        });
        known.into_iter().any(|baseline| baseline.bundle == *bundle)
    });
    if is_baseline && forgotten.is_empty() {
        return;
    }
    let measured = world.audit.passed.get(bundle);
    let measured = measured.unwrap_or_else(|| panic!("{bundle} is served and never passed its gates"));
    assert!(measured.is_superset(&forgotten), "{bundle} is served and was not measured for the whole ledger");
    let is_proven =
        world.evidence.get(bundle).is_some_and(|all| all.iter().any(|it| it.verdict == Verdict::Pass));
    assert!(
        !world.installation.signs || is_proven,
        "{bundle} is served and nothing signed says that it passed"
    );
}

/// Asked before serving is patched: what the live server was last seen to leak gets no pods back, but where the policy leaves
/// them, or as a candidate that is asked anew.
pub fn may_have_pods(world: &World, bundle: Option<&Digest>) {
    let Some(bundle) = bundle else { return };
    let is_tried = world.cluster.models.values().any(|model| {
        let rollout = model.status.as_ref().and_then(|status| status.rollout.as_ref());
        rollout
            .is_some_and(|it| it.run.is_some() && it.to == *bundle && it.state != RolloutState::RollingBack)
    });
    let is_withheld = |policy: &&UnlearnPolicy| {
        has_served_leak(&policy.spec)
            && policy.spec.rollout.no_compliant_digest == NoCompliantDigest::ScaleToZero
    };
    let Some(policy) = world.cluster.policies.values().find(is_withheld).filter(|_| !is_tried) else {
        return;
    };
    let is_live = |task: &AuditTask| task.served == *bundle && !task.endpoint.contains("-canary");
    let last = world.audit.audits.iter().rev().find(|(task, _)| is_live(task));
    let leaks = last.is_some_and(|(task, record)| {
        let RecordBody::Audit(body) = &record.body else { return false };
        let results = lethe_gates::judge_served(&policy.spec.gates, task, body);
        lethe_gates::overall(&results) == Verdict::Fail
    });
    let pods = world.cluster.deployment.as_ref().map_or(0, replicas);
    assert!(!leaks || pods == 0, "{bundle} was seen to leak, and is put into service again");
}

/// Asked when pods are put beside the target: is what they serve measured for everything, and was it asked before users get it?
pub fn may_be_beside(world: &World) {
    let Some(canary) = &world.cluster.canary else { return };
    let bundle = rollout::reference(&canary.deployment).expect("a canary serves a candidate");
    may_serve(world, Some(&bundle));
    let target = world.cluster.deployment.as_ref();
    if target.is_none_or(|target| !canary::gets_traffic(&canary.deployment, target)) {
        return;
    }
    let of = |run: &&UnlearnRun| run.status.as_ref().is_some_and(|s| s.candidate.as_ref() == Some(&bundle));
    let run = world.cluster.runs.values().find(of).expect("a candidate is of a run");
    if has_served_leak(&run.spec.policy) {
        let labels = &world.audit.passed[&bundle];
        let was_asked = world.audit.showed_none(&run.spec.policy, &bundle, labels);
        assert!(was_asked, "users get {bundle}, and nobody has asked it before");
    }
}

/// At rest: there is nothing beside the target but what waits for people.
pub fn nothing_is_left_beside(world: &World) {
    let waits = world.cluster.models.values().any(|model| {
        let rollout = model.status.as_ref().and_then(|status| status.rollout.as_ref());
        rollout.is_some_and(|rollout| rollout.state == RolloutState::Canary)
    });
    let is_left = world.cluster.canary.is_some() || world.cluster.service.is_some();
    assert!(waits || !is_left, "something is left beside the target\n{}", world.summary());
}

/// Asked before the operator deletes a run: is there nothing that refers to it?
pub fn may_be_deleted(world: &World, run: &str) {
    let recorded = world.audit.ledgers.values().flatten().any(|entry| entry.run == run);
    let found = &world.cluster.runs[run];
    let is_open = |uid: &String| {
        let mut requests = world.cluster.requests.values();
        requests.any(|request| request.uid().as_ref() == Some(uid) && !lethe_core::request::is_over(request))
    };
    let named = world.cluster.models.values().filter_map(|model| model.status.as_ref()).any(|status| {
        let audit = status.audit.as_ref().map(|audit| &audit.run);
        let compliant = status.compliant.as_ref().map(|compliant| &compliant.run);
        model::named_runs(status).chain(audit).chain(compliant).any(|named| named == run)
    });
    let open = found.spec.requests.iter().any(|request| is_open(&request.uid));
    assert!(
        run::is_over(found) && !recorded && !named && !open,
        "run {run} is deleted, and something refers to it"
    );
}

fn no_pass_without_a_measurement(audit: &mut Audit, run: &UnlearnRun) {
    let Some(status) = run.status.as_ref().filter(|s| s.verdict == Some(Verdict::Pass)) else { return };
    if !audit.verdicts.insert((run.uid(), run.resource_version())) {
        return;
    }
    if let Ok(Task::Audit(task)) = Plan::parse(run.spec.plan.as_bytes()).map(|plan| plan.task) {
        let labels = task.targets.into_iter().map(|target| target.label).collect();
        let really = audit.showed_none(&run.spec.policy, &task.served, &labels);
        return assert!(really, "{} passed without an audit", run.name_any());
    }
    let candidate = status.candidate.as_ref().expect("a verdict is about a candidate");
    let Ok(Task::Forget(planned)) = Plan::parse(run.spec.plan.as_bytes()).map(|plan| plan.task) else {
        panic!("only a Forget run has a verdict")
    };
    let really_passed = |(task, record): &(EvaluateTask, Record)| {
        let RecordBody::Evaluate(body) = &record.body else { return false };
        let Some(prepared) = &run.spec.baseline_quality else { return false };
        let results = lethe_gates::judge(&run.spec.policy.gates, task, prepared, body);
        task.candidate == *candidate
            && task.targets == planned.targets
            && lethe_gates::overall(&results) == Verdict::Pass
    };
    assert!(audit.evaluations.iter().any(really_passed), "{} passed without a measurement", run.name_any());
    let labels = planned.targets.into_iter().map(|target| target.label);
    audit.passed.entry(candidate.clone()).or_default().extend(labels);
}

fn the_ledger_only_grows(world: &mut World) {
    for (name, model) in &world.cluster.models {
        let Some(status) = model.seen() else { continue };
        let known = world.audit.ledgers.entry(name.clone()).or_default();
        assert!(status.ledger.starts_with(known), "the ledger of {name} lost something");
        known.clone_from(&status.ledger);
        let unique: BTreeSet<_> =
            status.ledger.iter().map(|e| (&e.run, &e.request.uid, &e.targets)).collect();
        assert_eq!(unique.len(), status.ledger.len(), "an entry is in the ledger twice");
        let all: BTreeSet<_> = targets::ledger_targets(&status.ledger).into_keys().collect();
        if let Some(compliant) = &status.compliant {
            let passed = world.audit.passed.get(&compliant.digest).is_some_and(|it| it.is_superset(&all));
            assert!(passed, "what should be served did not pass for the whole ledger");
            let baseline = status.baseline.as_ref().map(|baseline| &baseline.teacher);
            assert!(baseline.is_none_or(|of| *of == compliant.base), "the baseline is of another base");
        }
        if let Some(last) = status.ledger.last() {
            assert!(world.audit.passed[&last.digest].is_superset(&all), "the ledger names a bad digest");
            let run = world.cluster.runs.get(&last.run).filter(|run| has_served_leak(&run.spec.policy));
            let shows_it =
                run.is_some_and(|run| !world.audit.showed_none(&run.spec.policy, &last.digest, &all));
            assert!(!shows_it, "the ledger names a digest that was not audited");
        }
    }
}

fn one_active_run_per_model(world: &World) {
    for model in world.cluster.models.values() {
        let is_own = |run: &&UnlearnRun| {
            run.meta().owner_references.iter().flatten().any(|owner| Some(&owner.uid) == model.uid().as_ref())
        };
        let active: Vec<_> = world
            .cluster
            .runs
            .values()
            .filter(is_own)
            .filter(|run| !run::is_over(run) && !world.audit.arrived_late.contains(&run.name_any()))
            .map(|run| run.name_any())
            .collect();
        assert!(active.len() <= 1, "{} has two runs at work: {active:?}", model.name_any());
    }
    for run in world.cluster.runs.values() {
        let works_for_requests = run.spec.type_ == RunType::Forget && run.spec.new_base.is_none();
        assert_eq!(run.spec.requests.is_empty(), !works_for_requests);
    }
}

/// What the schema of every condition allows.
fn messages_fit(world: &World) {
    let models = world.cluster.models.values().filter_map(|o| o.status.as_ref()).map(|s| &s.conditions);
    let requests = world.cluster.requests.values().filter_map(|o| o.status.as_ref()).map(|s| &s.conditions);
    let runs = world.cluster.runs.values().filter_map(|o| o.status.as_ref()).map(|s| &s.conditions);
    for condition in models.chain(requests).chain(runs).flatten() {
        assert!(condition.message.chars().count() <= 4096 && !condition.message.is_empty(), "{condition:?}");
        assert!(condition.reason.chars().all(|c| c.is_ascii_alphanumeric()) && !condition.reason.is_empty());
    }
}
