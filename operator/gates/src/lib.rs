//! Verdicts from raw counts. Everything here fails closed: what was not measured, or cannot be trusted,
//! never passes.
//!
//! The operator decides by these verdicts. Whoever has a record, its plan and the policy comes to the same ones.

#![forbid(unsafe_code)]

pub mod binomial;
pub mod decimal;
mod fidelity;
mod probes;
mod reach;
mod served;

pub use reach::out_of_reach;
pub use served::judge_served;

use lethe_api::{
    contract::{
        Count, EvaluateRecord, EvaluateTask, HygieneCheck, LabelMeasurement, Override, TargetMeasurement,
    },
    gate::{BaselineQuality, Gate, GateName, GateResult, Verdict},
    printable::printable,
};

/// Confidence of the leak bound where the policy names none.
const DEFAULT_CONFIDENCE: f64 = 0.95;
/// The judge must recognise this share of the baseline's samples of a label, by its lower bound: a label that it
/// overlooks can be said neither to be gone nor to be kept.
pub const LEAST_RECOGNISED: f64 = 0.9;
/// The baseline's distance may be this many times what Prepare measured. Here it is over the kept labels, there over
/// all; one bad label among few is further off than among many.
const MOST_TIMES_PREPARED: f64 = 10.0;
/// No single kept label may lose more than this many times what the mean may lose.
const WORST_LABEL_FACTOR: f64 = 4.0;
/// Of the samples of a `Random` override, one kept label may have this many times its even share.
const MOST_EVEN_SHARES: u64 = 3;

/// A plan asks for a million at most, at each label. Larger numbers would not fit into a status.
pub const MOST_SAMPLES: u64 = 1_000_000_000;

/// One result per gate on a candidate, and per target where the gate is about a target.
///
/// `task` is what the evaluation pod was asked to measure: a record of anything else is an Error. `prepared` is what
/// was found when the baseline was made.
pub fn judge(
    gates: &[Gate],
    task: &EvaluateTask,
    prepared: &BaselineQuality,
    record: &EvaluateRecord,
) -> Vec<GateResult> {
    let asked = GateName::PROBES.into_iter().filter(|name| gates.iter().any(|gate| gate.name == *name));
    let names = GateName::REQUIRED.into_iter().chain(asked);
    if let Err(why) = same_subject(task, record) {
        return names.map(|name| error(name, None, why.clone())).collect();
    }
    let mut results = Vec::new();
    for name in names {
        let gate = match the_gate(gates, name) {
            Ok(gate) => gate,
            Err(why) => {
                results.push(error(name, None, why));
                continue;
            }
        };
        match name {
            GateName::DirectLeak => results.extend(per_target(name, task, record, |m| leak(gate, m))),
            GateName::OverrideConformity => {
                results.extend(per_target(name, task, record, |m| conformity(gate, task, m)));
            }
            GateName::RetainAccuracy => results.push(retain_accuracy(gate, task, record)),
            GateName::RetainQuality => {
                let distance = retain_quality(gate, prepared, record);
                results.push(fidelity::also(gate, task, record, distance));
            }
            GateName::Hygiene => results.push(hygiene(record)),
            // On what is served, not on a candidate: see `judge_served`.
            GateName::ServedLeak => {}
            GateName::NeighbourAccuracy => results.extend(probes::neighbours(gate, task, record)),
            GateName::OtherDoorLeak
            | GateName::MultistepLeak
            | GateName::StochasticLeak
            | GateName::EmbeddingInversion
            | GateName::SeedSearch
            | GateName::Relearning
            | GateName::BenignResurgence => results.extend(probes::attempts(gate, task, record)),
        }
    }
    results
}

/// The schema refuses a policy without a gate, or with one that demands what it would not look at. Should one slip by, it
/// must not pass by demanding less.
fn the_gate(gates: &[Gate], name: GateName) -> Result<&Gate, String> {
    match gates.iter().filter(|gate| gate.name == name).collect::<Vec<_>>()[..] {
        [gate] => gate.problem().map_or(Ok(gate), |why| Err(format!("the policy's gate is wrong: {why}"))),
        [] => Err("the policy has no such gate".into()),
        _ => Err("the policy has this gate more than once".into()),
    }
}

/// The worst verdict; Error if there is none at all.
pub fn overall(results: &[GateResult]) -> Verdict {
    results.iter().map(|result| result.verdict).max().unwrap_or(Verdict::Error)
}

/// The measurement must be of what was asked for, with the judge and reference that were asked for.
fn same_subject(task: &EvaluateTask, record: &EvaluateRecord) -> Result<(), String> {
    let pairs = [
        ("candidate", &task.candidate, &record.candidate),
        ("baseline", &task.baseline, &record.baseline),
        ("judge", &task.judge, &record.judge),
        ("reference", &task.reference, &record.reference),
    ];
    for (what, asked, found) in pairs {
        if asked != found {
            return Err(format!("the measurement is of {what} {}, not {}", found.short(), asked.short()));
        }
    }
    let unasked = record.targets.iter().find(|m| !task.targets.iter().any(|t| t.label == m.label));
    if let Some(measurement) = unasked {
        return Err(format!("the measurement has a target {:?} that nobody asked for", measurement.label));
    }
    Ok(())
}

fn per_target(
    name: GateName,
    task: &EvaluateTask,
    record: &EvaluateRecord,
    gate: impl Fn(&TargetMeasurement) -> GateResult,
) -> Vec<GateResult> {
    let one = |label: &String| match record.targets.iter().filter(|m| m.label == *label).collect::<Vec<_>>()[..]
    {
        [measurement] => gate(measurement),
        [] => error(name, Some(label.clone()), "this target was not measured".into()),
        _ => error(name, Some(label.clone()), "this target was measured more than once".into()),
    };
    task.targets.iter().map(|target| one(&target.label)).collect()
}

/// direct-leak: the upper bound on how often the forgotten label is still generated.
fn leak(gate: &Gate, measured: &TargetMeasurement) -> GateResult {
    let name = GateName::DirectLeak;
    let target = Some(measured.label.clone());
    let confidence = gate.confidence.as_deref().map_or(Some(DEFAULT_CONFIDENCE), decimal::parse);
    let (Some(limit), Some(confidence)) = (threshold(&gate.max_bound), confidence) else {
        return error(name, target, "the policy's maxBound or confidence is not a decimal number".into());
    };
    for count in [measured.leak, measured.control, measured.base_rate] {
        if let Err(why) = plausible(count) {
            return error(name, target, why);
        }
    }
    let bound = binomial::upper_bound(measured.leak.hits, measured.leak.n, confidence);
    let result = GateResult {
        target: target.clone(),
        bound: Some(decimal::show_upper(bound)),
        threshold: gate.max_bound.clone(),
        base_rate: share(measured.base_rate).map(decimal::show),
        ..counted(name, measured.leak)
    };
    let control_lower = lower_bound(measured.control, confidence);
    // A judge that overlooks every other sample would halve every leak.
    if control_lower <= limit || control_lower < LEAST_RECOGNISED {
        return GateResult {
            verdict: Verdict::Error,
            message: Some(format!(
                "the positive control did not fail clearly: of {} samples of the baseline, which has forgotten \
                 nothing, the judge recognised {}; it must recognise {LEAST_RECOGNISED} of them to be believed",
                measured.control.n, measured.control.hits
            )),
            ..result
        };
    }
    if let Some(message) = too_few(gate, measured.leak.n) {
        return GateResult { verdict: Verdict::Inconclusive, message: Some(message), ..result };
    }
    if bound <= limit {
        return GateResult { verdict: Verdict::Pass, ..result };
    }
    let message = format!(
        "{} of {} samples were judged as the forgotten label; the bound {} is above {}",
        measured.leak.hits,
        measured.leak.n,
        decimal::show_upper(bound),
        gate.max_bound.as_deref().unwrap_or_default()
    );
    GateResult { verdict: Verdict::Fail, message: Some(message), ..result }
}

/// override-conformity: the share of samples at the forgotten label that are the override, and, if that is
/// `Random`, not always the same kept label.
fn conformity(gate: &Gate, task: &EvaluateTask, measured: &TargetMeasurement) -> GateResult {
    let name = GateName::OverrideConformity;
    let target = Some(measured.label.clone());
    let Some(least) = threshold(&gate.min) else {
        return error(name, target, "the policy's min is not a decimal number".into());
    };
    let is_random =
        task.targets.iter().any(|t| t.label == measured.label && t.replacement == Override::Random);
    let kept = task.kept.len() as u64;
    let sane = plausible(measured.override_hits);
    if let Err(why) = sane.and_then(|()| if is_random { most_common_of(measured, kept) } else { Ok(()) }) {
        return error(name, target, why);
    }
    let result = GateResult { target, threshold: gate.min.clone(), ..counted(name, measured.override_hits) };
    if let Some(message) = too_few(gate, measured.override_hits.n) {
        return GateResult { verdict: Verdict::Inconclusive, message: Some(message), ..result };
    }
    let value = share(measured.override_hits).unwrap_or(0.0);
    if value >= least && is_random && is_monotonous(measured.most_common, kept) {
        let Count { hits, n } = measured.most_common;
        let message = format!(
            "the override is Random, but {hits} of {n} samples are the same kept label; of {kept} kept labels none may \
             have more than {MOST_EVEN_SHARES}/{kept}: a model that always shows one label has another override"
        );
        return GateResult { verdict: Verdict::Fail, message: Some(short(message)), ..result };
    }
    compare(result, value >= least, || "too few samples are the override label".into())
}

/// With fewer than four kept labels, one of them may have any share.
fn is_monotonous(most_common: Count, kept: u64) -> bool {
    kept > MOST_EVEN_SHARES && most_common.hits * kept > MOST_EVEN_SHARES * most_common.n
}

/// The samples of any kept label are those of the most common one, or more, and not more than that many of each.
fn most_common_of(measured: &TargetMeasurement, kept: u64) -> Result<(), String> {
    let (any, most) = (measured.override_hits, measured.most_common);
    if most.n != any.n || most.hits > any.hits || most.hits.saturating_mul(kept) < any.hits {
        return Err(format!(
            "{} of {} samples of one of {kept} kept labels, the most common, and {} of {} of any cannot be",
            most.hits, most.n, any.hits, any.n
        ));
    }
    Ok(())
}

/// retain-accuracy: how far the mean accuracy over the kept labels lies below the baseline's; no label may have
/// paid for the others.
fn retain_accuracy(gate: &Gate, task: &EvaluateTask, record: &EvaluateRecord) -> GateResult {
    let name = GateName::RetainAccuracy;
    let Some(most) = threshold(&gate.max_drop) else {
        return error(name, None, "the policy's maxDrop is not a decimal number".into());
    };
    let mut measured: Vec<&str> = record.retain.iter().map(|m| m.label.as_str()).collect();
    let mut kept: Vec<&str> = task.kept.iter().map(String::as_str).collect();
    measured.sort_unstable();
    kept.sort_unstable();
    if measured != kept || kept.is_empty() {
        return error(name, None, "not every kept label was measured exactly once".into());
    }
    for label in &record.retain {
        if let Err(why) = plausible(label.candidate).and(plausible(label.baseline)) {
            return error(name, None, format!("label {:?}: {why}", label.label));
        }
    }
    let mean = |count: fn(&LabelMeasurement) -> Count| {
        let shares = record.retain.iter().filter_map(|label| share(count(label)));
        shares.sum::<f64>() / record.retain.len() as f64
    };
    let n = record.retain.iter().map(|m| m.candidate.n.min(m.baseline.n)).min().unwrap_or(0);
    let drop = mean(|label| label.baseline) - mean(|label| label.candidate);
    let result = GateResult {
        value: Some(decimal::show(drop)),
        threshold: gate.max_drop.clone(),
        n: Some(n),
        ..blank(name)
    };
    if let Some(message) = too_few(gate, n) {
        return GateResult { verdict: Verdict::Inconclusive, message: Some(message), ..result };
    }
    if let Some(unseen) = record.retain.iter().find(|m| is_overlooked(m.baseline)) {
        let (label, Count { hits, n }) = (&unseen.label, unseen.baseline);
        let message = format!(
            "label {label:?}: the judge recognised {hits} of {n} samples of the baseline, which has forgotten nothing; it \
             must recognise {LEAST_RECOGNISED} of them, surely, for a loss to be seen: raise minSamples, or prepare a \
             better base"
        );
        return GateResult { message: Some(short(message)), ..result };
    }
    let lost = |m: &LabelMeasurement| share(m.baseline).unwrap_or(1.0) - share(m.candidate).unwrap_or(0.0);
    let worst = record.retain.iter().max_by(|a, b| lost(a).total_cmp(&lost(b)));
    let worst_drop = worst.map_or(f64::INFINITY, lost);
    compare(result, drop <= most && worst_drop <= WORST_LABEL_FACTOR * most, || {
        let worst = worst.map(|m| m.label.as_str()).unwrap_or_default();
        format!("the kept labels lost accuracy against the baseline; {worst:?} lost most, {worst_drop:.4}")
    })
}

/// Whether the judge may recognise too little of the baseline's samples of a label to say what became of it: a
/// difference against a baseline in which nothing is seen would be none, whatever the candidate lost.
pub fn is_overlooked(baseline: Count) -> bool {
    lower_bound(baseline, DEFAULT_CONFIDENCE) < LEAST_RECOGNISED
}

/// retain-quality: the Frechet distance as a multiple of the baseline's, which must be about where Prepare found it.
fn retain_quality(gate: &Gate, prepared: &BaselineQuality, record: &EvaluateRecord) -> GateResult {
    let name = GateName::RetainQuality;
    let Some(most) = threshold(&gate.max_ratio) else {
        return error(name, None, "the policy's maxRatio is not a decimal number".into());
    };
    let quality = record.quality;
    let sane = |distance: f64| distance.is_finite() && distance >= 0.0;
    if let Err(why) = plausible(Count { hits: 0, n: quality.n }) {
        return error(name, None, why);
    }
    if !sane(quality.candidate) || !sane(quality.baseline) || quality.baseline == 0.0 {
        return error(name, None, "a Frechet distance is not a positive number".into());
    }
    let ratio = quality.candidate / quality.baseline;
    let result = GateResult {
        value: Some(decimal::show(ratio)),
        threshold: gate.max_ratio.clone(),
        n: Some(quality.n),
        ..blank(name)
    };
    if let Some(message) = too_few(gate, quality.n) {
        return GateResult { verdict: Verdict::Inconclusive, message: Some(message), ..result };
    }
    let Some(expected) = decimal::parse(&prepared.distance) else {
        return error(
            name,
            None,
            "the run's spec has a baseline distance that is not a decimal number".into(),
        );
    };
    let furthest = MOST_TIMES_PREPARED * expected * few_samples(prepared.samples, quality.n);
    if quality.baseline > furthest {
        let message = format!(
            "the baseline's distance is {}; Prepare measured {} over {} samples, so that more than {} over {} is not \
             believed: the judge, the reference or the baseline is not what it was",
            decimal::show(quality.baseline),
            decimal::show(expected),
            prepared.samples,
            decimal::show(furthest),
            quality.n
        );
        return GateResult { message: Some(short(message)), ..result };
    }
    compare(result, ratio <= most, || {
        format!("the distance is {:.3}, the baseline's {:.3}", quality.candidate, quality.baseline)
    })
}

/// What fewer samples may add to a distance: its bias falls as one over their number.
fn few_samples(before: u64, now: u64) -> f64 {
    (before as f64 / now.max(1) as f64).max(1.0)
}

/// hygiene: every check of the bundle was made, and passed.
fn hygiene(record: &EvaluateRecord) -> GateResult {
    let name = GateName::Hygiene;
    let made = |required: &str| record.hygiene.iter().filter(|check| check.name == required).count();
    if let Some(required) = HygieneCheck::REQUIRED.into_iter().find(|required| made(required) != 1) {
        let times = made(required);
        return error(
            name,
            None,
            format!("the bundle was not checked for {required} once, but {times} times"),
        );
    }
    let failed: Vec<_> = record.hygiene.iter().filter(|check| !check.passed).collect();
    let n = record.hygiene.len() as u64;
    let result = GateResult { hits: Some(n - failed.len() as u64), n: Some(n), ..blank(name) };
    compare(result, failed.is_empty(), || {
        let list: Vec<_> = failed.iter().map(|check| format!("{}: {}", check.name, check.detail)).collect();
        list.join("; ")
    })
}

fn compare(result: GateResult, passes: bool, why: impl FnOnce() -> String) -> GateResult {
    if passes {
        return GateResult { verdict: Verdict::Pass, ..result };
    }
    GateResult { verdict: Verdict::Fail, message: Some(short(why())), ..result }
}

fn threshold(text: &Option<String>) -> Option<f64> {
    text.as_deref().and_then(decimal::parse)
}

fn plausible(count: Count) -> Result<(), String> {
    if count.n > MOST_SAMPLES {
        return Err(format!("{} samples are more than anybody draws", count.n));
    }
    if count.hits > count.n {
        return Err(format!("{} hits of {} samples cannot be", count.hits, count.n));
    }
    Ok(())
}

fn too_few(gate: &Gate, n: u64) -> Option<String> {
    // Without a sample nothing is known, whatever the policy says.
    let least = u64::from(gate.min_samples.unwrap_or(1).max(1));
    (n < least).then(|| format!("{n} samples are too few: the policy wants {least}"))
}

/// One-sided: with confidence `confidence`, the true share is not below this. 0 where nothing can be said.
fn lower_bound(count: Count, confidence: f64) -> f64 {
    1.0 - binomial::upper_bound(count.n.saturating_sub(count.hits), count.n, confidence)
}

fn share(count: Count) -> Option<f64> {
    (count.n > 0).then(|| count.hits as f64 / count.n as f64)
}

fn counted(name: GateName, count: Count) -> GateResult {
    GateResult {
        value: share(count).map(decimal::show),
        hits: Some(count.hits),
        n: Some(count.n),
        ..blank(name)
    }
}

/// A result that says nothing yet. Its verdict is Error, so that a forgotten one cannot pass.
fn blank(name: GateName) -> GateResult {
    GateResult {
        name,
        target: None,
        value: None,
        bound: None,
        threshold: None,
        hits: None,
        n: None,
        base_rate: None,
        verdict: Verdict::Error,
        message: None,
    }
}

fn error(name: GateName, target: Option<String>, why: String) -> GateResult {
    GateResult { target, message: Some(short(why)), ..blank(name) }
}

/// One line, cut to what the schema allows.
fn short(text: String) -> String {
    printable(&text).chars().take(500).collect()
}

#[cfg(test)]
mod tests;
