//! Signed evidence: what is in it, and what waits for it.
//!
//! Where the installation has a key, nothing that had to forget something is rolled out, be it beside the target or in it, for
//! the first time or to go back, before signed evidence in the store says that it passed every gate. The baseline, of which
//! nothing was measured and which is served only while nothing is forgotten, needs none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Resource, ResourceExt};
use lethe_api::{
    Digest,
    contract::{
        Evidence, EvidenceGate, EvidencePolicy, EvidenceRecords, EvidenceRequest, EvidenceRun,
        EvidenceTrainer, Forgotten, Materials, Plan, Statement, Task,
    },
    v1alpha1::{
        ConditionType, DataSubjectRequest, DiffusionModel, DiffusionModelStatus, GateResult, Promotion,
        Reason, RequestRef, Rollout, RolloutState, RunType, Stage, UnlearnRequestSpec, UnlearnRun,
        UnlearnRunStatus, Verdict,
    },
};
use serde::Serialize;

use crate::{
    Installation,
    archive::DOUBTS,
    audit, canary,
    conditions::Conditions,
    model::{self, Lineage},
    plans,
    rollout::{self, Next},
    serving, targets,
};

/// Evidence that trusted keys have signed about one bundle, and what is wrong with what lies beside it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub good: Vec<Evidence>,
    /// One line each.
    pub bad: Vec<String>,
}

/// Why it is not known, or cannot be had.
#[derive(Clone, Debug)]
pub struct Problem {
    pub reason: Reason,
    pub message: String,
}

/// By bundle.
pub type Seen = BTreeMap<Digest, Result<Found, Problem>>;

/// How soon to look again at what cannot be signed, or may be changed before it is rolled out.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What is to be signed about the candidate of a run, if it was measured.
///
/// It follows from the run alone, so that an operator that starts anew signs the same bytes.
pub fn of_run(run: &UnlearnRun) -> Option<Statement> {
    let (spec, status) = (&run.spec, run.status.as_ref()?);
    let candidate = status.candidate.as_ref()?;
    let plan = Plan::parse(spec.plan.as_bytes()).ok()?;
    let Task::Forget(task) = plan.task else { return None };
    let evaluation = plans::evaluate(&run.name_any(), spec, candidate)?.digest();
    let record = |stage| status.job(stage)?.record.clone();
    let evidence = Evidence {
        model: spec.model.clone(),
        run: EvidenceRun {
            name: run.name_any(),
            plan: spec.plan_digest.clone(),
            evaluation,
            seed: plan.seed,
        },
        materials: Materials {
            teacher: task.teacher,
            baseline: task.baseline,
            distillation: task.distillation,
            judge: task.judge,
            reference: spec.reference.clone(),
            never_saw: spec.never_saw.clone(),
        },
        requests: spec.requests.iter().map(request).collect(),
        forgets: task
            .targets
            .into_iter()
            .map(|target| Forgotten { label: target.label, replacement: target.replacement })
            .collect(),
        trainers: [Stage::Forget, Stage::Evaluate]
            .into_iter()
            .filter_map(|stage| trainer(status, stage))
            .collect(),
        records: EvidenceRecords {
            prepare: spec.baseline_record.clone(),
            forget: record(Stage::Forget)?,
            evaluate: record(Stage::Evaluate)?,
        },
        policy: policy(run),
        gates: status.gates.iter().map(gate).collect(),
        verdict: status.verdict?,
    };
    Some(Statement::of(candidate, evidence))
}

fn request(request: &RequestRef) -> EvidenceRequest {
    EvidenceRequest {
        name: request.name.clone(),
        uid: request.uid.clone(),
        spec: request.spec_digest.clone(),
        targets: request.targets.clone(),
        attempt: request.attempt,
        approvals: u32::try_from(request.approved_by.len()).unwrap_or(u32::MAX),
    }
}

fn trainer(status: &UnlearnRunStatus, stage: Stage) -> Option<EvidenceTrainer> {
    Some(EvidenceTrainer { stage: stage.as_str().into(), image: status.job(stage)?.image.clone() })
}

fn policy(run: &UnlearnRun) -> EvidencePolicy {
    let source = run.spec.policy_source.as_ref();
    EvidencePolicy {
        source: source.map(|source| format!("{:?}/{}", source.kind, source.name)),
        generation: source.and_then(|source| source.generation).and_then(|it| u64::try_from(it).ok()),
        digest: canonical(&run.spec.policy),
    }
}

fn gate(gate: &GateResult) -> EvidenceGate {
    EvidenceGate {
        name: gate.name,
        target: gate.target.clone(),
        hits: gate.hits,
        n: gate.n,
        value: gate.value.clone(),
        bound: gate.bound.clone(),
        threshold: gate.threshold.clone(),
        verdict: gate.verdict,
    }
}

/// The digest of what a request asks for: of all of its spec but what may be changed later.
pub fn of_request(spec: &UnlearnRequestSpec) -> Digest {
    let subject = spec.data_subject_request.clone();
    let subject = subject.map(|subject| DataSubjectRequest { extension: None, ..subject });
    canonical(&UnlearnRequestSpec { suspend: false, data_subject_request: subject, ..spec.clone() })
}

/// Of an object as JSON without spaces, its fields in the order of their names. There are no floats in it.
fn canonical(object: &impl Serialize) -> Digest {
    // Made of strings, integers and lists: there is nothing in it that JSON cannot say.
    let mut json = serde_json::to_value(object).unwrap_or_default();
    json.sort_all_objects();
    Digest::of(json.to_string())
}

/// What is to be signed before a run is decided about, or looked at if it is signed: until it is decided what becomes of its
/// candidate.
pub fn wanted(run: &UnlearnRun, installation: &Installation) -> Option<Statement> {
    let status = run.status.as_ref().filter(|_| installation.signs && run.spec.type_ == RunType::Forget)?;
    let is_decided =
        status.verdict != Some(Verdict::Pass) || ConditionType::Promoted.is_decided(&status.conditions);
    let is_missing = status.verdict.is_some() && status.evidence.is_none();
    (is_missing || !is_decided).then(|| of_run(run)).flatten()
}

/// Whether evidence is about this run, and not about another one that made the same bundle.
pub fn is_of(evidence: &Evidence, run: &UnlearnRun) -> bool {
    evidence.run.name == run.name_any()
        && evidence.run.plan == run.spec.plan_digest
        && evidence.model == run.spec.model
        && run.status.as_ref().is_some_and(|status| status.verdict == Some(evidence.verdict))
}

/// Says in a run's status what became of its evidence.
pub(crate) fn say(
    run: &UnlearnRun,
    status: &mut UnlearnRunStatus,
    found: &Result<Digest, Problem>,
    now: Timestamp,
) {
    let mut conditions = Conditions::new(&status.conditions, run.meta().generation, now);
    match found {
        Ok(envelope) => {
            let message = format!("what was measured is signed: evidence {}", envelope.short());
            conditions.yes(ConditionType::Signed, Reason::Signed, message);
            status.evidence = Some(envelope.clone());
        }
        Err(problem) => conditions.no(ConditionType::Signed, problem.reason, problem.message.clone()),
    }
    status.conditions = conditions.into_list();
}

/// Why what was not looked at yet is waited for.
pub(crate) const UNSEEN: &str = "its evidence is being looked at";

/// What is known of a bundle that is to be served.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// It passed, or it needs no evidence.
    Proven,
    /// It was not looked at yet.
    Unseen,
    /// It cannot be found out now.
    Unknown(Reason, String),
    /// Nothing that is signed says so.
    Refused(String),
}

/// What is known of a bundle; `run` is the run whose candidate it is to be rolled out as, if it is.
pub(crate) fn standing(lineage: &Lineage<'_>, bundle: &Digest, run: Option<&UnlearnRun>) -> Standing {
    if !lineage.installation.signs || is_baseline(&lineage.status, bundle) {
        return Standing::Proven;
    }
    let is_named = |run: &UnlearnRun| run.status.as_ref().is_some_and(|status| status.evidence.is_some());
    if run.is_some_and(|run| !is_named(run)) {
        return Standing::Unknown(Reason::Signing, "its run names no signed evidence yet".into());
    }
    let found = match lineage.observed.evidence.get(bundle) {
        None => return Standing::Unseen,
        Some(Err(problem)) => return Standing::Unknown(problem.reason, problem.message.clone()),
        Some(Ok(found)) => found,
    };
    if found.good.iter().any(|evidence| passed(lineage, evidence, run)) {
        return Standing::Proven;
    }
    let why = match (found.bad.first(), found.good.is_empty()) {
        (Some(bad), _) => bad.clone(),
        (None, true) => "there is none in the store".into(),
        (None, false) => "what is signed is about another run, or says that it did not pass".into(),
    };
    Standing::Refused(format!("no signed evidence says that {} passed: {why}", bundle.short()))
}

/// Whether evidence says that its bundle passed for everything that is in the ledger.
fn passed(lineage: &Lineage<'_>, evidence: &Evidence, run: Option<&UnlearnRun>) -> bool {
    let forgets = |label: &String| evidence.forgets.iter().any(|forgotten| forgotten.label == *label);
    evidence.verdict == Verdict::Pass
        && evidence.model == lineage.observed.model.name_any()
        && run.is_none_or(|run| is_of(evidence, run))
        && targets::ledger_targets(&lineage.status.ledger).keys().all(forgets)
}

/// Nothing was forgotten by it, and nothing measured of it.
fn is_baseline(status: &DiffusionModelStatus, bundle: &Digest) -> bool {
    let next = status.new_base.as_ref().map(|next| &next.baseline);
    status.baseline.iter().chain(next).any(|baseline| baseline.bundle == *bundle)
}

/// The bundles of which it has to be known before anything is decided: those that the decision may put into service.
pub fn to_look_for(
    model: &DiffusionModel,
    runs: &[UnlearnRun],
    target: Option<&Deployment>,
    beside: &canary::Seen,
    installation: &Installation,
) -> BTreeSet<Digest> {
    let Some(status) = model.status.as_ref().filter(|_| installation.signs) else { return BTreeSet::new() };
    let rollout = status.rollout.as_ref();
    let under_way = rollout.filter(|rollout| rollout.state.is_under_way());
    let active = model::own_runs(model, runs).find(|run| Some(run.name_any()) == status.active_run);
    let candidate = active.filter(|run| model::may_roll_out(model, run));
    let candidate = candidate.and_then(|run| run.status.as_ref()?.candidate.clone());
    let last = status.ledger.last().map(|last| &last.digest);
    let compliant = last.map(|last| status.compliant.as_ref().map_or(last, |compliant| &compliant.digest));
    let (from, to) = match under_way {
        Some(rollout) => (rollout.from.as_ref(), Some(&rollout.to)),
        None => (compliant, None),
    };
    let to = to.filter(|_| {
        under_way.is_none_or(|it| it.state != RolloutState::Canary || beside.deployment.is_none())
    });
    let named = target.and_then(rollout::reference);
    // What the target names already is not rolled out, unless that is not known to be so.
    let publishes = model.spec.serving.promotion == Promotion::Publish;
    let published = status.published.as_ref().and_then(|published| published.bundle.as_ref());
    let is_news = |bundle: &&Digest| {
        named.as_ref() != Some(*bundle)
            || status.served.is_none()
            || (publishes && published != Some(*bundle))
    };
    let found = from.into_iter().chain(to).filter(is_news).cloned().chain(candidate);
    found.filter(|bundle| !is_baseline(status, bundle)).collect()
}

/// What becomes of a step of a roll-out that would have the target name a bundle, if that is not known to have passed.
pub(crate) fn guard(lineage: &Lineage<'_>, rollout: &Rollout, run: Option<&UnlearnRun>, next: Next) -> Next {
    let Next::Patch(Some(bundle)) = &next else { return next };
    let goes_back = rollout.state == RolloutState::RollingBack;
    match standing(lineage, bundle, run.filter(|_| !goes_back)) {
        Standing::Proven => next,
        // It was proven when it was rolled out, and what has to go does not wait for a store.
        Standing::Unknown(..) if goes_back => next,
        Standing::Unseen => Next::Wait(Reason::RollingOut, UNSEEN.into()),
        Standing::Unknown(reason, why) => Next::Wait(reason, why),
        Standing::Refused(why) if goes_back || run.is_none() => Next::Wait(Reason::EvidenceRefused, why),
        Standing::Refused(why) => Next::TurnBack(Reason::EvidenceRefused, why),
    }
}

/// Whether what is rolled out is known to have passed.
///
/// # Errors
/// What it waits for.
pub(crate) fn is_proven(lineage: &Lineage<'_>, rollout: &Rollout) -> Result<(), (Reason, String)> {
    let run = lineage.run_of(rollout);
    match standing(lineage, &rollout.to, run) {
        Standing::Proven => Ok(()),
        Standing::Unseen => Err((Reason::RollingOut, UNSEEN.into())),
        Standing::Unknown(reason, why) => Err((reason, why)),
        Standing::Refused(why) => Err((Reason::EvidenceRefused, why)),
    }
}

/// Why what a target should go back to may not be put into service, if that is so.
pub(crate) fn refusal(lineage: &Lineage<'_>, bundle: &Digest) -> Option<(Reason, String)> {
    match standing(lineage, bundle, None) {
        Standing::Refused(why) => Some((Reason::EvidenceRefused, why)),
        Standing::Unseen => Some((Reason::RollingOut, UNSEEN.into())),
        Standing::Proven | Standing::Unknown(..) => None,
    }
}

/// Whether a roll-out goes back since more is forgotten, or may be, than its candidate was made for.
fn is_outgrown(rollout: &Rollout) -> bool {
    rollout.reason.is_some_and(|reason| reason == Reason::LedgerMoved || DOUBTS.contains(&reason))
}

/// Whether the target names what may not stay, and nothing signed says that what it should name has passed.
pub(crate) fn keeps_from_going_back(lineage: &Lineage<'_>) -> bool {
    let named = lineage.observed.deployment.as_ref().and_then(rollout::reference);
    let goal = match &lineage.status.rollout {
        Some(rollout) if rollout.state.is_under_way() => {
            // The candidate passed every gate: it may stay, unless it was shown to be no better, or the ledger has outgrown it.
            let may_stay = rollout.state != RolloutState::RollingBack
                || !(audit::is_refuted(rollout) || is_outgrown(rollout));
            let is_candidate = named.as_ref() == Some(&rollout.to);
            rollout.from.clone().filter(|_| !(is_candidate && may_stay))
        }
        _ => serving::wanted(lineage),
    };
    let is_refused = |goal: &Digest| matches!(standing(lineage, goal, None), Standing::Refused(_));
    named.is_some() && goal.is_some_and(|goal| named.as_ref() != Some(&goal) && is_refused(&goal))
}
