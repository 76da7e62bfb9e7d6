//! What requests and models say of their runs.

use kube::ResourceExt;
use lethe_api::{
    contract::{BundleKind, Plan, Task},
    v1alpha1::{
        ConditionType, DiffusionModel, LedgerEntry, RequestPhase, Stage, UnlearnRequest, UnlearnRun, Verdict,
    },
};
use lethe_store::Store;

use super::{Exported, Notes, run};

fn find<'a>(exported: &'a Exported, name: &str, beside: &impl ResourceExt) -> Option<&'a UnlearnRun> {
    exported.runs.iter().find(|run| run.name_any() == name && run.namespace() == beside.namespace())
}

/// A request mirrors the run that worked for it.
pub(super) fn request(request: &UnlearnRequest, exported: &Exported, notes: &mut Notes<'_>) {
    let status = request.status.clone().unwrap_or_default();
    let is_fulfilled = matches!(status.phase, Some(RequestPhase::Fulfilled | RequestPhase::Tried));
    let Some(named) = &status.run else {
        match is_fulfilled {
            true => in_ledger(request, exported, notes),
            false => notes.not_checked("answer", "no run has worked for it"),
        }
        return;
    };
    let Some(run) = find(exported, &named.name, request) else {
        notes.not_checked("answer", format!("run {} is not in these files: export it as well", named.name));
        return;
    };
    let uid = request.uid().unwrap_or_default();
    let own = run.spec.requests.iter().find(|own| own.uid == uid && own.name == request.name_any());
    let works = own.ok_or_else(|| format!("run {} works for other requests", named.name));
    let mut targets: Vec<_> = request.spec.targets.iter().map(|target| target.label.clone()).collect();
    targets.sort();
    let works = works.and_then(|own| {
        let mut worked = own.targets.clone();
        worked.sort();
        if worked == targets {
            Ok(())
        } else {
            Err(format!("the run worked for {worked:?}, not for {targets:?}"))
        }
    });
    notes.that(format!("run {} worked for this very request and its targets", named.name), works);
    let found = run.status.clone().unwrap_or_default();
    let foreign = status.gates.iter().find(|gate| !found.gates.contains(gate));
    let same = foreign.map_or(Ok(()), |gate| Err(format!("the run has no such result of {}", gate.name)));
    notes.that("its gates are the run's", same);
    if let Some(record) = &status.record {
        let evaluated = found.job(Stage::Evaluate).and_then(|job| job.record.as_ref());
        let same = evaluated == Some(record);
        notes.that(
            "its record is that of the run's evaluation",
            if same { Ok(()) } else { Err(format!("it names {}", record.short())) },
        );
    }
    if is_fulfilled {
        let passed = found.verdict == Some(Verdict::Pass);
        let why = || format!("the run's verdict is {:?}", found.verdict);
        notes.that("the run passed every gate", if passed { Ok(()) } else { Err(why()) });
    }
    if status.phase == Some(RequestPhase::Fulfilled) {
        let promoted = ConditionType::Promoted.is_true(&found.conditions);
        let why = "the run does not say so".to_owned();
        notes.that("the candidate was promoted", if promoted { Ok(()) } else { Err(why) });
    }
}

/// What was forgotten by earlier requests has no run of its own.
fn in_ledger(request: &UnlearnRequest, exported: &Exported, notes: &mut Notes<'_>) {
    let what = "every target is in the ledger of its model";
    let model = exported.models.iter().find(|model| {
        model.name_any() == request.spec.model_ref.name && model.namespace() == request.namespace()
    });
    let Some(model) = model else {
        notes.not_checked(what, "the model is not in these files: export it as well");
        return;
    };
    let ledger = model.status.as_ref().map(|status| &status.ledger[..]).unwrap_or_default();
    let missing = request
        .spec
        .targets
        .iter()
        .find(|target| !ledger.iter().any(|entry| entry.targets.contains(&target.label)));
    notes.that(what, missing.map_or(Ok(()), |target| Err(format!("{:?} is not", target.label))));
}

/// A model's ledger names runs, and what is served is a bundle.
pub(super) async fn model(model: &DiffusionModel, exported: &Exported, store: &Store, notes: &mut Notes<'_>) {
    let status = model.status.clone().unwrap_or_default();
    for entry in &status.ledger {
        let what = format!("ledger: {} by run {}", entry.targets.join(", "), entry.run);
        match find(exported, &entry.run, model) {
            None => notes.not_checked(what, "the run is not in these files"),
            Some(run) => {
                notes.that(what, entry_of(entry, run));
            }
        }
    }
    if let Some(compliant) = &status.compliant {
        run::bundle(store, &compliant.digest, BundleKind::Generator, "what honours the ledger", notes).await;
    }
    if let Some(served) = &status.served {
        run::bundle(store, &served.digest, BundleKind::Generator, "what is served", notes).await;
        if ConditionType::Compliant.is_true(&status.conditions) && !status.ledger.is_empty() {
            let last = status.ledger.last().map(|entry| entry.digest.clone());
            let honours = status.compliant.as_ref().map(|compliant| compliant.digest.clone()).or(last);
            let same = honours.as_ref() == Some(&served.digest);
            notes.that(
                "what is served is what honours the ledger",
                if same { Ok(()) } else { Err(format!("{} is served", served.digest.short())) },
            );
        }
    }
    if let Some(audit) = &status.audit {
        match find(exported, &audit.run, model) {
            None => notes.not_checked("last audit", format!("run {} is not in these files", audit.run)),
            Some(run) => {
                // One that ended without a verdict is an Error.
                let found = run.status.as_ref().and_then(|status| status.verdict).unwrap_or(Verdict::Error);
                notes.same(
                    "the last audit's verdict is its run's",
                    &format!("{:?}", audit.verdict),
                    &format!("{found:?}"),
                );
            }
        }
    }
}

/// An entry of the ledger is what a run forgot, measured, and passed.
fn entry_of(entry: &LedgerEntry, run: &UnlearnRun) -> Result<(), String> {
    let status = run.status.clone().unwrap_or_default();
    if status.candidate.as_ref() != Some(&entry.digest) {
        return Err(format!("the run's candidate is not {}", entry.digest.short()));
    }
    if status.verdict != Some(Verdict::Pass) {
        return Err(format!("the run's verdict is {:?}", status.verdict));
    }
    if !run.spec.requests.iter().any(|request| request.uid == entry.request.uid) {
        return Err(format!("the run did not work for request {}", entry.request.name));
    }
    let Ok(Plan { task: Task::Forget(task), .. }) = Plan::parse(run.spec.plan.as_bytes()) else {
        return Err("the run's plan is not one to forget".into());
    };
    let missing =
        entry.targets.iter().find(|label| !task.targets.iter().any(|target| target.label == **label));
    missing.map_or(Ok(()), |label| Err(format!("the run's plan does not forget {label:?}")))
}
