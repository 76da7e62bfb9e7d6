//! What a record means for the run that asked for it. Whatever does not fit the plan is refused.

use std::collections::BTreeSet;

use lethe_api::{
    Digest,
    contract::{
        AuditRecord, Count, EvaluateRecord, ForgetRecord, Plan, PrepareRecord, Quality, Task, check_labels,
    },
    v1alpha1::{
        Baseline, BaselineQuality, GateResult, KnownLabel, Prepared, UnlearnRunSpec, UnlearnRunStatus,
        Verdict,
    },
};

use crate::plans;

/// Below this the judge cannot be trusted to tell anything (share of held-out teacher samples).
const LEAST_JUDGE_ACCURACY: f64 = 0.95;
/// Fewer samples of a label say nothing about it. (The gates have counts of their own.)
const LEAST_PER_LABEL: u64 = 20;
/// A label to which the judge gives more than this for another label's samples passes for it.
const MOST_ALIKE: f64 = 0.005;
/// Any Frechet distance of a baseline. Written as a decimal number, these fit into a status.
const DISTANCES: std::ops::Range<f64> = 1e-9..1e9;
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
    check_labels(&record.labels).map_err(|problem| format!("the base artifact: {problem}"))?;
    let count = record.labels.len();
    let square = record.confusion.len() == count && record.confusion.iter().all(|row| row.len() == count);
    if !square {
        return Err("the judge's confusion matrix does not have a row and a column per label".into());
    }
    distinct_artifacts(&record)?;
    enough_was_measured(&record)?;
    let judge = record.judge_accuracy;
    if (judge.hits as f64) < LEAST_JUDGE_ACCURACY * judge.n as f64 {
        return Err(format!(
            "the judge recognises {} of {} held-out teacher samples; it needs at least {LEAST_JUDGE_ACCURACY}",
            judge.hits, judge.n
        ));
    }
    let labels = record.labels.iter().enumerate().map(|(index, name)| KnownLabel {
        name: name.clone(),
        nearest: nearest(index, &record.confusion, &record.labels),
    });
    Ok(Prepared {
        labels: labels.collect(),
        baseline: Baseline {
            teacher: record.teacher,
            bundle: record.baseline,
            distillation: record.distillation,
            judge: record.judge,
            reference: record.reference,
            quality: BaselineQuality {
                distance: record.quality.baseline.to_string(),
                samples: record.quality.n,
            },
            record: digest,
        },
    })
}

/// What a Prepare stage leaves is five different things; one that stands for another is missing.
fn distinct_artifacts(record: &PrepareRecord) -> Result<(), String> {
    let left = [&record.teacher, &record.baseline, &record.distillation, &record.judge, &record.reference];
    match BTreeSet::from(left).len() == left.len() {
        true => Ok(()),
        false => {
            Err("teacher, baseline, distillation, judge and reference are not five different artifacts"
                .into())
        }
    }
}

/// A judge that was tried on a handful of samples, or on some of the labels, is not known to be one.
fn enough_was_measured(record: &PrepareRecord) -> Result<(), String> {
    let count = record.labels.len();
    let judge = record.judge_accuracy;
    let least = LEAST_PER_LABEL * count as u64;
    if judge.hits > judge.n || judge.n < least {
        let Count { hits, n } = judge;
        return Err(format!(
            "the judge was tried on {n} teacher samples ({hits} recognised); at least {least} are needed"
        ));
    }
    if record.baseline_accuracy.len() != count {
        let measured = record.baseline_accuracy.len();
        return Err(format!(
            "the baseline was measured for {measured} labels; the base artifact has {count}"
        ));
    }
    for (label, drawn) in record.labels.iter().zip(&record.baseline_accuracy) {
        let Count { hits, n } = *drawn;
        // The gates would find the same, label by label, after a training that was for nothing.
        if hits > n || n < LEAST_PER_LABEL || (hits as f64) < lethe_gates::LEAST_RECOGNISED * n as f64 {
            return Err(format!(
                "the judge recognises {hits} of {n} baseline samples of label {label:?}; at least {LEAST_PER_LABEL} \
                 samples, and a share of {} of them, are needed",
                lethe_gates::LEAST_RECOGNISED
            ));
        }
    }
    // Means of single precision may be a hair above 1.
    let is_share = |share: &f64| (0.0..=1.001).contains(share);
    if !record.confusion.iter().flatten().all(is_share) {
        return Err("the judge's confusion matrix holds something other than shares from 0 to 1".into());
    }
    let Quality { baseline: distance, n, .. } = record.quality;
    if !(2..=lethe_gates::MOST_SAMPLES).contains(&n) || !DISTANCES.contains(&distance) {
        return Err(format!(
            "the baseline's distance to the reference, {distance:e} over {n} samples, was not measured"
        ));
    }
    Ok(())
}

/// The labels that the judge confuses most with label `index`, nearest first. One whose own samples pass for
/// the label comes after all others: as an override it would go on looking like what it replaces.
fn nearest(index: usize, confusion: &[Vec<f64>], labels: &[String]) -> Vec<String> {
    let passes_for_it = |other: usize| confusion[other][index] > MOST_ALIKE;
    let mut others: Vec<usize> = (0..labels.len()).filter(|&other| other != index).collect();
    // Stable: labels that are confused equally often stay in the order of the condition table.
    others.sort_by(|&a, &b| {
        let nearer = confusion[index][b].total_cmp(&confusion[index][a]);
        passes_for_it(a).cmp(&passes_for_it(b)).then(nearer)
    });
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
    let prepared =
        spec.baseline_quality.as_ref().ok_or("the run's spec does not say how good the baseline is")?;
    match plans::evaluate(run, spec, candidate).map(|plan| plan.task) {
        Some(Task::Evaluate(task)) => Ok(lethe_gates::judge(&spec.policy.gates, &task, prepared, record)),
        _ => Err("the run's spec holds no plan for the evaluation".into()),
    }
}

/// The gate on what an audit measured.
pub fn audit_results(spec: &UnlearnRunSpec, record: &AuditRecord) -> Result<Vec<GateResult>, String> {
    match Plan::parse(spec.plan.as_bytes()).map(|plan| plan.task) {
        Ok(Task::Audit(task)) => Ok(lethe_gates::judge_served(&spec.policy.gates, &task, record)),
        _ => Err("the run's plan is not an Audit plan".into()),
    }
}

/// A status takes so many results: the five gates that everybody has, on a thousand labels, and some more.
const MOST_RESULTS: usize = 2_560;

/// What a status shows of the results, in the same order. Where there are too many, passes are left out first; how many
/// there were, the condition's message says.
pub fn shown(results: Vec<GateResult>) -> Vec<GateResult> {
    let is_pass = |result: &GateResult| result.verdict == Verdict::Pass;
    let mut others = results.iter().filter(|result| !is_pass(result)).count().min(MOST_RESULTS);
    let mut passes = MOST_RESULTS - others;
    let mut is_shown = |result: &GateResult| {
        let left = if is_pass(result) { &mut passes } else { &mut others };
        let has_room = *left > 0;
        *left = left.saturating_sub(1);
        has_room
    };
    results.into_iter().filter(|result| is_shown(result)).collect()
}

/// One line for a condition's message: each gate that did not pass, how many did, and of which candidate. An audit is of what is
/// served.
pub fn describe(candidate: Option<&Digest>, results: &[GateResult]) -> String {
    let passed = results.iter().filter(|result| result.verdict == Verdict::Pass).count();
    let mut line = format!("{passed} of {} gate results passed", results.len());
    if let Some(candidate) = candidate {
        line += &format!(" for the candidate {}", candidate.short());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_results_than_a_status_takes_those_that_did_not_pass_stay() {
        let result = |index: usize, verdict| GateResult {
            name: lethe_api::v1alpha1::GateName::SeedSearch,
            target: Some(index.to_string()),
            value: None,
            bound: None,
            threshold: None,
            hits: None,
            n: None,
            base_rate: None,
            verdict,
            message: None,
        };
        let of = |failed: std::ops::Range<usize>| {
            let verdict = |index| if failed.contains(&index) { Verdict::Fail } else { Verdict::Pass };
            shown((0..10_000).map(|index| result(index, verdict(index))).collect())
        };
        let some = of(9_000..9_100);
        assert_eq!(some.len(), MOST_RESULTS);
        assert_eq!(some.iter().filter(|result| result.verdict == Verdict::Fail).count(), 100);
        assert_eq!(
            some[MOST_RESULTS - 101].target.as_deref(),
            Some("2459"),
            "the first passes, in their order"
        );
        let all = of(0..10_000);
        assert!(all.len() == MOST_RESULTS && all.iter().all(|result| result.verdict == Verdict::Fail));
        let few = vec![result(1, Verdict::Pass), result(2, Verdict::Fail)];
        assert_eq!(shown(few.clone()), few);
    }

    #[test]
    fn what_was_found_is_said_of_a_candidate_by_its_name() {
        let candidate = Digest::of("candidate");
        let said = format!("0 of 0 gate results passed for the candidate {}", candidate.short());
        assert_eq!(describe(Some(&candidate), &[]), said);
        assert_eq!(describe(None, &[]), "0 of 0 gate results passed");
    }

    #[test]
    fn the_nearest_label_is_one_that_does_not_pass_for_the_target_itself() {
        let labels = ["0", "1", "2", "3"].map(String::from);
        // Samples of 0 look like 1 and a little like 2; samples of 1 often look like 0.
        let confusion = vec![
            vec![0.95, 0.03, 0.015, 0.005],
            vec![0.02, 0.98, 0.0, 0.0],
            vec![0.001, 0.0, 0.999, 0.0],
            vec![0.0, 0.0, 0.0, 1.0],
        ];
        assert_eq!(nearest(0, &confusion, &labels), ["2", "3", "1"]);
        assert_eq!(nearest(3, &confusion, &labels), ["0", "1", "2"]);
    }
}
