//! A candidate that passed every gate, and was kept from service by something else, is measured again and not trained again.

use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::Plan,
    v1alpha1::{
        ConditionType, MadeBefore, Mode, Reason, RunJob, RunType, Stage, UnlearnPolicySpec, UnlearnRun,
        UnlearnRunStatus, Verdict,
    },
};

use crate::{
    audit,
    conditions::Conditions,
    model::{Lineage, NextRun},
    run::is_over,
};

/// The latest run that made with this very plan, but for its seed, what passed and was never served: a pilot, or one whose roll-out
/// was given up for nothing that the candidate can be blamed for.
pub(crate) fn find<'a>(
    lineage: &Lineage<'a>,
    next: &NextRun,
    policy: &UnlearnPolicySpec,
) -> Option<&'a UnlearnRun> {
    // A pilot tries what is trained.
    if next.type_ != RunType::Forget || next.mode != Mode::Enforce {
        return None;
    }
    let is_alike = |run: &&UnlearnRun| {
        let trainer = (&run.spec.policy.trainer.image, &run.spec.policy.training);
        trainer == (&policy.trainer.image, &policy.training)
            && Plan::parse(run.spec.plan.as_bytes()).is_ok_and(|plan| is_same_work(&plan, &next.plan))
    };
    let is_blameless =
        |run: &&UnlearnRun| made_by(run).is_some_and(|made| !has_failed(lineage, &made.candidate));
    lineage
        .own_runs()
        .filter(|run| passed_and_is_not_served(run))
        .filter(is_blameless)
        .filter(is_alike)
        .max_by_key(|run| (run.creation_timestamp().map(|at| at.0), run.name_any()))
}

/// What the next run is told of it.
pub(crate) fn made_by(run: &UnlearnRun) -> Option<MadeBefore> {
    let forget = run.status.as_ref()?.job(Stage::Forget)?;
    Some(MadeBefore {
        run: trained_by(run),
        candidate: candidate(run)?.clone(),
        job: forget.name.clone(),
        record: forget.record.clone()?,
        device: forget.device,
        image: forget.image.clone(),
    })
}

/// The run that trained the candidate of a run: itself, if it was not made before.
pub fn trained_by(run: &UnlearnRun) -> String {
    run.spec.made_before.as_ref().map_or_else(|| run.name_any(), |made| made.run.clone())
}

/// The candidate of a run, be it trained by it or before.
pub fn candidate(run: &UnlearnRun) -> Option<&Digest> {
    let made = run.spec.made_before.as_ref().map(|made| &made.candidate);
    run.status.as_ref().and_then(|status| status.candidate.as_ref()).or(made)
}

/// Says in the status of a run that has just begun what was made before. How long that took is said by the run that took it.
pub(crate) fn adopt(run: &UnlearnRun, status: &mut UnlearnRunStatus, conditions: &mut Conditions) {
    let Some(made) = run.spec.made_before.as_ref().filter(|_| status.candidate.is_none()) else { return };
    status.candidate = Some(made.candidate.clone());
    status.jobs.push(RunJob {
        stage: Stage::Forget,
        name: made.job.clone(),
        plan_digest: run.spec.plan_digest.clone(),
        started_at: None,
        finished_at: None,
        preemptions: 0,
        earlier_seconds: 0,
        lost: None,
        device: made.device,
        image: made.image.clone(),
        record: Some(made.record.clone()),
    });
    let message = format!(
        "run {} trained the candidate {}, which passed and was not served: it is measured again, and not trained again",
        made.run,
        made.candidate.short()
    );
    conditions.yes(ConditionType::Trained, Reason::Trained, message);
}

fn is_same_work(one: &Plan, other: &Plan) -> bool {
    let bare = |plan: &Plan| Plan { run: String::new(), seed: 0, ..plan.clone() };
    bare(one) == bare(other)
}

fn passed_and_is_not_served(run: &UnlearnRun) -> bool {
    let is_it = |status: &UnlearnRunStatus| {
        status.verdict == Some(Verdict::Pass) && ConditionType::Promoted.is_false(&status.conditions)
    };
    run.spec.type_ == RunType::Forget && run.status.as_ref().is_some_and(is_it)
}

/// Whether anything spoke against a candidate since: the live server, people, or another measurement of it.
fn has_failed(lineage: &Lineage<'_>, digest: &Digest) -> bool {
    audit::known_of(lineage, digest).is_some()
        || lineage.own_runs().any(|run| speaks_against(run, digest) || audit::did_not_pass(run, digest))
}

fn speaks_against(run: &UnlearnRun, digest: &Digest) -> bool {
    let Some(status) = run.status.as_ref().filter(|_| candidate(run) == Some(digest) && is_over(run)) else {
        return false;
    };
    let says = |type_: ConditionType, reasons: &[Reason]| {
        let found = type_.find(&status.conditions);
        found.is_some_and(|it| reasons.iter().any(|reason| reason.to_string() == it.reason))
    };
    use Reason::{ApprovalDenied, BadArtifact, BadRecord, GateFailed, GateInconclusive, RecordUnavailable};
    match status.verdict {
        Some(Verdict::Pass) => says(ConditionType::Promoted, &[GateFailed, GateInconclusive, ApprovalDenied]),
        Some(_) => true,
        // It may not even be in the store any more. A node that was lost says nothing of it.
        None => says(ConditionType::Ready, &[BadArtifact, BadRecord, RecordUnavailable]),
    }
}
