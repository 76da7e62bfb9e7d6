//! Precision and recall: the other half of retain-quality, for policies that ask for it.

use lethe_api::{
    contract::{Count, EvaluateRecord, EvaluateTask, FidelityMeasurement, Override},
    gate::{Gate, GateResult, Verdict},
};

use crate::{plausible, probes, share, short, threshold};

/// Fewer samples say little about a share that may fall by a few hundredths.
const LEAST_COMPARED: u64 = 100;

/// The worse of what the distance says and what precision and recall say.
pub(crate) fn also(
    gate: &Gate,
    task: &EvaluateTask,
    record: &EvaluateRecord,
    distance: GateResult,
) -> GateResult {
    if gate.max_fidelity_drop.is_none() {
        return distance;
    }
    match judge(gate, task, record) {
        Err((verdict, why)) if verdict > distance.verdict => {
            GateResult { verdict, message: Some(short(why)), ..distance }
        }
        _ => distance,
    }
}

fn judge(gate: &Gate, task: &EvaluateTask, record: &EvaluateRecord) -> Result<(), (Verdict, String)> {
    let wrong = |why: String| (Verdict::Error, why);
    let most = threshold(&gate.max_fidelity_drop)
        .ok_or_else(|| wrong("the policy's maxFidelityDrop is not a decimal number".into()))?;
    let found = probes::sound(gate.name, task, record).map_err(wrong)?;
    let fixed = |target: &&str| {
        let is_it = |t: &&lethe_api::contract::PlannedTarget| t.label == **target;
        task.targets.iter().find(is_it).is_some_and(|t| matches!(t.replacement, Override::Fixed { .. }))
    };
    if let Some(odd) = found.fidelity.iter().filter_map(|m| m.target.as_deref()).find(|t| !fixed(t)) {
        return Err(wrong(format!("precision was measured at {odd:?}, where nobody asked for it")));
    }
    let labels = task.targets.iter().map(|target| target.label.as_str()).filter(|label| fixed(label));
    let mut worst = Ok(());
    for target in std::iter::once(None).chain(labels.map(Some)) {
        if let Err(found) = compare(&found.fidelity, target, most)
            && worst.as_ref().err().is_none_or(|(verdict, _)| *verdict < found.0)
        {
            worst = Err(found);
        }
    }
    worst
}

/// Over the kept labels both; at a target precision only: its samples are of another label, of which there are more.
fn compare(all: &[FidelityMeasurement], target: Option<&str>, most: f64) -> Result<(), (Verdict, String)> {
    let place = target.map_or("over the kept labels".to_owned(), |target| format!("at {target:?}"));
    let [measured] = all.iter().filter(|m| m.target.as_deref() == target).collect::<Vec<_>>()[..] else {
        return Err((Verdict::Error, format!("precision and recall {place} were not measured once")));
    };
    let precision = ("precision", measured.candidate.precision, measured.baseline.precision);
    let recall = ("recall", measured.candidate.recall, measured.baseline.recall);
    let read = if target.is_none() { vec![precision, recall] } else { vec![precision] };
    for (what, candidate, baseline) in read {
        lost(candidate, baseline, most)
            .map_err(|(verdict, why)| (verdict, format!("{what} {place}: {why}")))?;
    }
    Ok(())
}

fn lost(candidate: Count, baseline: Count, most: f64) -> Result<(), (Verdict, String)> {
    plausible(candidate).and(plausible(baseline)).map_err(|why| (Verdict::Error, why))?;
    let (Some(after), Some(before)) = (share(candidate), share(baseline)) else {
        return Err((Verdict::Error, "there are no samples".into()));
    };
    let n = candidate.n.min(baseline.n);
    if n < LEAST_COMPARED {
        return Err((Verdict::Inconclusive, format!("{n} samples are too few: {LEAST_COMPARED} are needed")));
    }
    if before <= most {
        return Err((Verdict::Error, format!("the baseline's is {before:.4}: it has nothing to lose")));
    }
    if before - after > most {
        let why = format!("{after:.4}, the baseline's {before:.4}; at most {most} may be lost");
        return Err((Verdict::Fail, why));
    }
    Ok(())
}
