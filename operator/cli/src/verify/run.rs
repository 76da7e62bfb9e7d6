//! A run: its plan, what each pod left, the bundles that it was about, and the verdict from the raw counts.

use std::collections::BTreeSet;

use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{BundleKind, Manifest, Plan, Record, RecordBody, Task},
    v1alpha1::{GateResult, RunJob, RunType, Stage, UnlearnRun, UnlearnRunStatus, Verdict},
};
use lethe_core::{findings, names, plans, reuse};
use lethe_store::Store;

use super::Notes;

/// A picture or a curve is no larger.
const MAX_BLOB: usize = 64 << 20;
/// Most differences that are told.
const MOST_TOLD: usize = 4;

/// Everything that a run claims.
pub(super) async fn check(run: &UnlearnRun, store: &Store, notes: &mut Notes<'_>) {
    let status = run.status.clone().unwrap_or_default();
    let Some(plan) = plan(run, notes) else { return };
    let mut blobs = BTreeSet::new();
    let mut bundles = bundles_of(&plan);
    for stage in stages(run.spec.type_) {
        match status.job(*stage) {
            Some(job) => {
                if let Some(body) = job_record(run, &status, job, store, notes).await {
                    blobs.extend(named_blobs(&body));
                    bundles.extend(named_bundles(&body));
                    found(run, &status, job, body, notes);
                }
            }
            None if status.verdict.is_some() || status.prepared.is_some() => {
                notes.that(
                    format!("stage {stage:?} was carried out"),
                    Err("the status has no Job of it".into()),
                );
            }
            None => notes.not_checked(format!("stage {stage:?}"), "it was not carried out"),
        }
    }
    if let Some(made) = &run.spec.made_before {
        let text = |digest: Option<&Digest>| digest.map_or("none", Digest::as_str).to_owned();
        let record = status.job(Stage::Forget).and_then(|job| job.record.as_ref());
        let candidate = text(status.candidate.as_ref());
        notes.same("the candidate is the one that was made before", &text(Some(&made.candidate)), &candidate);
        notes.same("its record is the one that was left then", &text(Some(&made.record)), &text(record));
    }
    let candidate = status.candidate.clone().map(|digest| (digest, BundleKind::Generator, "candidate"));
    bundles.extend(candidate);
    bundles.extend(run.spec.reference.clone().map(|digest| (digest, BundleKind::Reference, "reference")));
    bundles.extend(
        run.spec.never_saw.clone().map(|digest| (digest, BundleKind::Generator, "model that never saw it")),
    );
    let mut seen = BTreeSet::new();
    for (digest, kind, what) in bundles {
        if seen.insert(digest.clone()) {
            bundle(store, &digest, kind, what, notes).await;
        }
    }
    for blob in blobs {
        let read = store.get_blob(&blob, MAX_BLOB).await;
        let what = format!("blob {}: its bytes have its digest", blob.short());
        notes.that(what, read.map(|_| ()).map_err(|error| error.to_string()));
    }
    if run.spec.type_ != RunType::Prepare {
        overall(&status, notes);
    }
}

/// The plan that is frozen in the spec, if it is one.
fn plan(run: &UnlearnRun, notes: &mut Notes<'_>) -> Option<Plan> {
    let text = &run.spec.plan;
    notes.same("the plan's text has the digest that names it", &run.spec.plan_digest, &Digest::of(text));
    let plan = Plan::parse(text.as_bytes());
    let readable = plan.as_ref().map(|_| ()).map_err(ToString::to_string);
    notes.that("the plan keeps the contract", readable);
    let plan = plan.ok()?;
    // What was made before has the plan of the run that made it.
    let of = reuse::trained_by(run);
    notes.same("the plan is this run's, or that of the run that trained its candidate", &of, &plan.run);
    let name = names::run(&run.spec.model, &plan);
    let follows = match names::is_numbered(&of, &name) {
        true => Ok(()),
        false => Err(format!("{of:?}, not {name:?}")),
    };
    notes.that("the run's name follows from its plan", follows);
    Some(plan)
}

fn stages(type_: RunType) -> &'static [Stage] {
    match type_ {
        RunType::Prepare => &[Stage::Prepare],
        RunType::Forget => &[Stage::Forget, Stage::Evaluate],
        RunType::Audit => &[Stage::Audit],
    }
}

/// The plan of a stage. That of an evaluation follows from the run's spec and its candidate.
fn plan_digest(run: &UnlearnRun, status: &UnlearnRunStatus, stage: Stage) -> Option<Digest> {
    match stage {
        Stage::Evaluate => {
            let plan = plans::evaluate(&run.name_any(), &run.spec, status.candidate.as_ref()?)?;
            Some(plan.digest())
        }
        Stage::Prepare | Stage::Forget | Stage::Audit => Some(run.spec.plan_digest.clone()),
    }
}

/// What a Job left, verified to be that, and about this plan.
async fn job_record(
    run: &UnlearnRun,
    status: &UnlearnRunStatus,
    job: &RunJob,
    store: &Store,
    notes: &mut Notes<'_>,
) -> Option<RecordBody> {
    let stage = job.stage;
    let Some(plan) = plan_digest(run, status, stage) else {
        notes.that(
            format!("{stage:?}: its plan follows from the run"),
            Err("the run has no candidate, or no plan".into()),
        );
        return None;
    };
    notes.same(format!("{stage:?}: the Job's plan follows from the run"), &job.plan_digest, &plan);
    let Some(digest) = &job.record else {
        notes.not_checked(format!("{stage:?}: record"), "the Job left none");
        return None;
    };
    let read = store.get_record(digest, Record::MAX_BYTES).await;
    let what = format!("{stage:?}: the bytes of record {} have its digest", digest.short());
    let bytes = read.map_err(|error| error.to_string());
    notes.that(what, bytes.as_ref().map(|_| ()).map_err(Clone::clone));
    let record = Record::parse(&bytes.ok()?, &plan);
    let is_it = record.as_ref().map(|_| ()).map_err(ToString::to_string);
    notes.that(format!("{stage:?}: the record is about this plan"), is_it);
    let record = record.ok()?;
    let of = if stage == Stage::Forget { reuse::trained_by(run) } else { run.name_any() };
    notes.same(format!("{stage:?}: the record is this run's"), &of, &record.run);
    Some(record.body)
}

/// What a record means for the run, computed anew and held against the status.
fn found(run: &UnlearnRun, status: &UnlearnRunStatus, job: &RunJob, body: RecordBody, notes: &mut Notes<'_>) {
    let name = run.name_any();
    match (job.stage, body) {
        (Stage::Prepare, RecordBody::Prepare(record)) => {
            let digest = job.record.clone().unwrap_or_else(|| Digest::of(""));
            let prepared = findings::prepared(&run.spec, record, digest);
            let same = prepared.and_then(|prepared| match status.prepared.as_ref() == Some(&prepared) {
                true => Ok(()),
                false => Err("the status says something else than the record".into()),
            });
            notes.that("what was prepared is what the record says", same);
        }
        (Stage::Forget, RecordBody::Forget(record)) => {
            let candidate = findings::candidate(&run.spec, record);
            let same = candidate.and_then(|candidate| match status.candidate.as_ref() == Some(&candidate) {
                true => Ok(()),
                false => Err(format!("the record is of candidate {}", candidate.short())),
            });
            notes.that("the candidate is what the record says, and forgets what the plan says", same);
        }
        (Stage::Evaluate, RecordBody::Evaluate(record)) => {
            verdicts(findings::gate_results(&name, &run.spec, status, &record), status, notes);
        }
        (Stage::Audit, RecordBody::Audit(record)) => {
            verdicts(findings::audit_results(&run.spec, &record), status, notes);
        }
        (stage, body) => {
            let why = format!("it is of {:?}", body.kind());
            notes.that(format!("{stage:?}: the record is of this stage"), Err(why));
        }
    }
}

/// The gates, judged anew from the record's raw counts by the policy that the run froze.
fn verdicts(computed: Result<Vec<GateResult>, String>, status: &UnlearnRunStatus, notes: &mut Notes<'_>) {
    let what =
        "the gates, judged anew from the raw counts by the run's frozen policy, are those of the status";
    let computed = match computed {
        Ok(computed) => computed,
        Err(why) => {
            notes.that(what, Err(why));
            return;
        }
    };
    let verdict = lethe_gates::overall(&computed);
    let shown = findings::shown(computed);
    let differences = differences(&shown, &status.gates);
    notes.that(
        format!("{what} ({} results)", shown.len()),
        if differences.is_empty() { Ok(()) } else { Err(differences.join("; ")) },
    );
    let claimed = status.verdict.map_or_else(|| "none".into(), |verdict| format!("{verdict:?}"));
    notes.same("the verdict follows from the gates", &claimed, &format!("{verdict:?}"));
}

fn differences(computed: &[GateResult], claimed: &[GateResult]) -> Vec<String> {
    let name = |gate: &GateResult| {
        let target = gate.target.as_ref().map(|target| format!(" {target:?}")).unwrap_or_default();
        format!("{}{target}", gate.name)
    };
    let mut told = Vec::new();
    if computed.len() != claimed.len() {
        told.push(format!("the status has {} results, and {} follow", claimed.len(), computed.len()));
    }
    for (ours, theirs) in computed.iter().zip(claimed).filter(|(ours, theirs)| ours != theirs) {
        let show = |gate: &GateResult| {
            let figure =
                gate.bound.as_ref().or(gate.value.as_ref()).map(|f| format!(" {f}")).unwrap_or_default();
            format!("{:?}{figure}", gate.verdict)
        };
        told.push(format!("{}: claimed {}, follows {}", name(theirs), show(theirs), show(ours)));
    }
    told.truncate(MOST_TOLD);
    told
}

/// A verdict that nothing follows from is none.
fn overall(status: &UnlearnRunStatus, notes: &mut Notes<'_>) {
    let has_record = status
        .jobs
        .iter()
        .any(|job| matches!(job.stage, Stage::Evaluate | Stage::Audit) && job.record.is_some());
    match status.verdict {
        None => notes.not_checked("verdict", "the run has none yet"),
        Some(verdict) if !has_record => {
            let why = format!("the status says {verdict:?}, and names no record that it follows from");
            notes.that("the verdict rests on a record", Err(why));
        }
        Some(Verdict::Pass | Verdict::Inconclusive | Verdict::Fail | Verdict::Error) => {}
    }
}

type Named = (Digest, BundleKind, &'static str);

/// The bundles that a plan names.
fn bundles_of(plan: &Plan) -> Vec<Named> {
    use BundleKind::{Distillation, Generator, Judge, Reference, Teacher};
    match &plan.task {
        Task::Prepare(_) => vec![],
        Task::Forget(task) => {
            let mut named = vec![
                (task.teacher.clone(), Teacher, "teacher"),
                (task.baseline.clone(), Generator, "baseline"),
                (task.distillation.clone(), Distillation, "distillation"),
                (task.judge.clone(), Judge, "judge"),
            ];
            named.extend(task.reference.clone().map(|digest| (digest, Reference, "reference")));
            named
        }
        Task::Evaluate(task) => vec![
            (task.candidate.clone(), Generator, "candidate"),
            (task.baseline.clone(), Generator, "baseline"),
            (task.judge.clone(), Judge, "judge"),
            (task.reference.clone(), Reference, "reference"),
        ],
        Task::Audit(task) => vec![
            (task.served.clone(), Generator, "what was served"),
            (task.baseline.clone(), Generator, "baseline"),
            (task.judge.clone(), Judge, "judge"),
        ],
    }
}

/// The bundles that a record names, and a plan does not.
fn named_bundles(body: &RecordBody) -> Vec<Named> {
    use BundleKind::{Distillation, Generator, Judge, Reference, Teacher};
    match body {
        RecordBody::Prepare(record) => vec![
            (record.teacher.clone(), Teacher, "teacher"),
            (record.baseline.clone(), Generator, "baseline"),
            (record.distillation.clone(), Distillation, "distillation"),
            (record.judge.clone(), Judge, "judge"),
            (record.reference.clone(), Reference, "reference"),
        ],
        RecordBody::Forget(_) | RecordBody::Evaluate(_) | RecordBody::Audit(_) => vec![],
    }
}

/// The pictures and curves that a record names.
fn named_blobs(body: &RecordBody) -> Vec<Digest> {
    match body {
        RecordBody::Prepare(record) => record.curves.iter().cloned().collect(),
        RecordBody::Forget(record) => record.curves.iter().cloned().collect(),
        RecordBody::Evaluate(record) => vec![record.before.clone(), record.after.clone()],
        RecordBody::Audit(_) => vec![],
    }
}

/// A bundle: its manifest, both files, and nothing beside them.
pub(super) async fn bundle(
    store: &Store,
    digest: &Digest,
    kind: BundleKind,
    what: &str,
    notes: &mut Notes<'_>,
) {
    let name = format!("{what} {}", digest.short());
    let read = store.get_bundle(digest, kind).await;
    let size = read.as_ref().map(|bundle| bundle.weights().len()).unwrap_or_default();
    let is_whole = read.map(|_| ()).map_err(|error| error.to_string());
    let is_there = notes.that(
        format!("{name}: manifest, weights ({size} bytes) and description have their digests, and it is a {kind:?}"),
        is_whole,
    );
    if !is_there {
        return;
    }
    let known = [Manifest::FILE, Manifest::WEIGHTS, Manifest::MODEL];
    let files = store.bundle_folder(digest).list().await;
    let clean = files.map_err(|error| error.to_string()).and_then(|files| {
        match files.into_iter().find(|file| !known.contains(&file.as_str())) {
            None => Ok(()),
            Some(other) => Err(format!("it also holds {other:?}")),
        }
    });
    notes.that(format!("{name}: the folder holds nothing that the manifest does not name"), clean);
}
