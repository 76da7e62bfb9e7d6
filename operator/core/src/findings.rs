//! What a record means for the run that asked for it. Whatever does not fit the plan is refused.

use std::collections::BTreeSet;

use lethe_api::{
    Digest,
    contract::{EvaluateRecord, ForgetRecord, Plan, PrepareRecord, Task},
    v1alpha1::{Baseline, GateResult, KnownLabel, Prepared, UnlearnRunSpec, UnlearnRunStatus, Verdict},
};

use crate::{gates, plans};

/// Below this the judge cannot be trusted to tell anything (share of held-out teacher samples).
const LEAST_JUDGE_ACCURACY: f64 = 0.95;
/// How many neighbours of a label are kept in a status.
const NEIGHBOURS: usize = 8;

/// The result of a Prepare run.
pub fn prepared(spec: &UnlearnRunSpec, record: PrepareRecord, digest: Digest) -> Result<Prepared, String> {
    let Ok(Plan { task: Task::Prepare(task), .. }) = Plan::parse(spec.plan.as_bytes()) else {
        return Err("the run's plan is not a Prepare plan".into());
    };
    if record.teacher != task.base.digest {
        return Err(format!(
            "the record is of teacher {}, not {}",
            record.teacher.short(),
            task.base.digest.short()
        ));
    }
    if record.baseline == record.teacher {
        return Err("the baseline is the teacher, which is never served".into());
    }
    let unique: BTreeSet<&String> = record.labels.iter().collect();
    let count = record.labels.len();
    if unique.len() != count || !(2..=1024).contains(&count) {
        return Err(format!("the base artifact has {count} labels; 2 to 1024 different ones are needed"));
    }
    if record.labels.iter().any(|label| label.is_empty() || label.len() > 128) {
        return Err("a label of the base artifact is empty or longer than 128 bytes".into());
    }
    let square = record.confusion.len() == count && record.confusion.iter().all(|row| row.len() == count);
    if !square {
        return Err("the judge's confusion matrix does not have a row and a column per label".into());
    }
    let judge = record.judge_accuracy;
    if judge.n == 0 || judge.hits > judge.n || (judge.hits as f64) < LEAST_JUDGE_ACCURACY * judge.n as f64 {
        return Err(format!(
            "the judge recognises {} of {} held-out teacher samples; it needs at least {LEAST_JUDGE_ACCURACY}",
            judge.hits, judge.n
        ));
    }
    let labels = record.labels.iter().enumerate().map(|(index, name)| KnownLabel {
        name: name.clone(),
        nearest: nearest(index, &record.confusion[index], &record.labels),
    });
    Ok(Prepared {
        labels: labels.collect(),
        baseline: Baseline {
            teacher: record.teacher,
            bundle: record.baseline,
            distillation: record.distillation,
            judge: record.judge,
            reference: record.reference,
            record: digest,
        },
    })
}

/// The labels that the judge confuses most with label `index`, nearest first.
fn nearest(index: usize, row: &[f64], labels: &[String]) -> Vec<String> {
    let mut others: Vec<usize> = (0..labels.len()).filter(|&other| other != index).collect();
    // Stable: labels that are confused equally often stay in the order of the condition table.
    others.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    others.into_iter().take(NEIGHBOURS).map(|other| labels[other].clone()).collect()
}

/// The candidate of a Forget stage, if it forgot what the plan says.
pub fn candidate(spec: &UnlearnRunSpec, record: ForgetRecord) -> Result<Digest, String> {
    let Ok(Plan { task: Task::Forget(task), .. }) = Plan::parse(spec.plan.as_bytes()) else {
        return Err("the run's plan is not a Forget plan".into());
    };
    if record.targets != task.targets {
        return Err("the trainer forgot other targets, or with other overrides, than the plan says".into());
    }
    let inputs = [
        ("baseline", &task.baseline),
        ("teacher", &task.teacher),
        ("distillation", &task.distillation),
        ("judge", &task.judge),
    ];
    if let Some((input, _)) = inputs.iter().find(|(_, input)| **input == record.candidate) {
        return Err(format!("the candidate is the {input}, which has forgotten nothing"));
    }
    Ok(record.candidate)
}

/// The gates on what an Evaluate stage measured.
pub fn gate_results(
    run: &str,
    spec: &UnlearnRunSpec,
    status: &UnlearnRunStatus,
    record: &EvaluateRecord,
) -> Result<Vec<GateResult>, String> {
    let candidate = status.candidate.as_ref().ok_or("the run has no candidate")?;
    match plans::evaluate(run, spec, candidate).map(|plan| plan.task) {
        Some(Task::Evaluate(task)) => Ok(gates::judge(&spec.policy.gates, &task, record)),
        _ => Err("the run's spec holds no plan for the evaluation".into()),
    }
}

/// One line for a condition's message: each gate that did not pass, and how many did.
pub fn describe(results: &[GateResult]) -> String {
    let passed = results.iter().filter(|result| result.verdict == Verdict::Pass).count();
    let mut line = format!("{passed} of {} gate results passed", results.len());
    for result in results.iter().filter(|result| result.verdict != Verdict::Pass).take(16) {
        let target = result.target.as_ref().map(|target| format!(" {target:?}")).unwrap_or_default();
        let value = result.bound.as_ref().or(result.value.as_ref());
        let value = value.map(|value| format!(" {value}")).unwrap_or_default();
        let threshold = result.threshold.as_ref().map(|t| format!(" against {t}")).unwrap_or_default();
        let why = result.message.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        line += &format!("; {}{target} {:?}{value}{threshold}{why}", result.name, result.verdict);
    }
    line
}
