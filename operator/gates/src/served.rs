//! served-leak: what the live server shows.

use lethe_api::{
    contract::{AuditMeasurement, AuditRecord, AuditTask, Count},
    gate::{Gate, GateName, GateResult, Verdict},
};

use crate::{
    DEFAULT_CONFIDENCE, LEAST_RECOGNISED, binomial, counted, decimal, error, lower_bound, plausible, short,
    the_gate, threshold, too_few,
};

const NAME: GateName = GateName::ServedLeak;

/// One result per forgotten label.
///
/// `task` is what the pod was asked to ask: a record of anything else is an Error.
pub fn judge_served(gates: &[Gate], task: &AuditTask, record: &AuditRecord) -> Vec<GateResult> {
    let gate = match the_gate(gates, NAME) {
        Ok(gate) => gate,
        Err(why) => return vec![error(NAME, None, why)],
    };
    if let Err(why) = same_subject(task, record).and_then(|()| kept_are_seen(record.kept)) {
        return vec![error(NAME, None, why)];
    }
    let one = |label: &String| match record.targets.iter().filter(|m| m.label == *label).collect::<Vec<_>>()[..]
    {
        [measured] => leak(gate, measured),
        [] => error(NAME, Some(label.clone()), "the live server was not asked for this label".into()),
        _ => error(NAME, Some(label.clone()), "this label was measured more than once".into()),
    };
    task.targets.iter().map(|target| one(&target.label)).collect()
}

fn same_subject(task: &AuditTask, record: &AuditRecord) -> Result<(), String> {
    let pairs = [
        ("bundle", &task.served, &record.served),
        ("baseline", &task.baseline, &record.baseline),
        ("judge", &task.judge, &record.judge),
    ];
    if let Some((what, asked, found)) = pairs.into_iter().find(|(_, asked, found)| asked != found) {
        return Err(format!("the measurement is of {what} {}, not {}", found.short(), asked.short()));
    }
    match record.targets.iter().find(|m| task.targets.iter().all(|target| target.label != m.label)) {
        Some(m) => Err(format!("the measurement has a target {:?} that nobody asked for", m.label)),
        None => Ok(()),
    }
}

/// A server that sends something that is no image, or in another form than the judge knows, shows nothing forgotten. It
/// shows nothing that was kept, either.
fn kept_are_seen(kept: Count) -> Result<(), String> {
    plausible(kept)?;
    if lower_bound(kept, DEFAULT_CONFIDENCE) >= LEAST_RECOGNISED {
        return Ok(());
    }
    let Count { hits, n } = kept;
    Err(format!(
        "of {n} live samples of kept labels the judge recognised {hits}; it must recognise {LEAST_RECOGNISED} of them, \
         surely, for what it does not see to be believed"
    ))
}

/// The worse of two bounds: with the forgotten label asked for, and without any.
fn leak(gate: &Gate, measured: &AuditMeasurement) -> GateResult {
    let target = Some(measured.label.clone());
    let confidence = gate.confidence.as_deref().map_or(Some(DEFAULT_CONFIDENCE), decimal::parse);
    let (Some(limit), Some(confidence)) = (threshold(&gate.max_bound), confidence) else {
        return error(NAME, target, "the policy's maxBound or confidence is not a decimal number".into());
    };
    let live: Vec<Count> = [Some(measured.leak), measured.unlabelled].into_iter().flatten().collect();
    if let Some(why) = live.iter().chain([&measured.control]).find_map(|count| plausible(*count).err()) {
        return error(NAME, target, why);
    }
    let bound = |count: &Count| binomial::upper_bound(count.hits, count.n, confidence);
    let worst = live.iter().max_by(|a, b| bound(a).total_cmp(&bound(b))).copied().unwrap_or_default();
    let upper = bound(&worst);
    let result = GateResult {
        target: target.clone(),
        bound: Some(decimal::show_upper(upper)),
        threshold: gate.max_bound.clone(),
        ..counted(NAME, worst)
    };
    let control = lower_bound(measured.control, confidence);
    if control < LEAST_RECOGNISED || control <= limit {
        let Count { hits, n } = measured.control;
        let message = format!(
            "the positive control did not fail clearly: of {n} samples of the baseline, which has forgotten nothing, the \
             judge recognised {hits}; it must recognise {LEAST_RECOGNISED} of them to be believed"
        );
        return GateResult { verdict: Verdict::Error, message: Some(short(message)), ..result };
    }
    if let Some(message) = live.iter().find_map(|count| too_few(gate, count.n)) {
        return GateResult { verdict: Verdict::Inconclusive, message: Some(message), ..result };
    }
    if upper <= limit {
        return GateResult { verdict: Verdict::Pass, ..result };
    }
    let message = format!(
        "{} of {} samples of the live server were judged as the forgotten label; the bound {} is above {}",
        worst.hits,
        worst.n,
        decimal::show_upper(upper),
        gate.max_bound.as_deref().unwrap_or_default()
    );
    GateResult { verdict: Verdict::Fail, message: Some(short(message)), ..result }
}

#[cfg(test)]
mod tests {
    use lethe_api::{
        Digest,
        contract::{Override, PlannedTarget},
    };
    use proptest::prelude::*;

    use super::*;

    fn gate() -> Gate {
        Gate { name: NAME, max_bound: Some("0.005".into()), min_samples: Some(3000), ..Gate::named(NAME) }
    }

    fn task() -> AuditTask {
        let replacement = Override::Fixed { label: "8".into() };
        AuditTask {
            endpoint: "http://digits:8080".into(),
            model: "digits".into(),
            served: Digest::of("served"),
            baseline: Digest::of("baseline"),
            judge: Digest::of("judge"),
            targets: vec![PlannedTarget { label: "3".into(), replacement }],
            kept: vec!["8".into(), "1".into()],
            samples: 3000,
        }
    }

    fn record() -> AuditRecord {
        AuditRecord {
            served: Digest::of("served"),
            baseline: Digest::of("baseline"),
            judge: Digest::of("judge"),
            targets: vec![AuditMeasurement {
                label: "3".into(),
                leak: Count { hits: 2, n: 3000 },
                unlabelled: None,
                control: Count { hits: 298, n: 300 },
            }],
            kept: Count { hits: 595, n: 600 },
        }
    }

    fn judged(change: impl FnOnce(&mut AuditRecord)) -> GateResult {
        let mut record = record();
        change(&mut record);
        let mut results = judge_served(&[gate()], &task(), &record);
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    #[test]
    fn a_live_server_that_shows_none_of_it_passes_and_one_that_does_fails() {
        let passed = judged(|_| {});
        assert_eq!(passed.verdict, Verdict::Pass, "{passed:?}");
        assert_eq!((passed.hits, passed.n, passed.target.as_deref()), (Some(2), Some(3000), Some("3")));
        let failed = judged(|record| record.targets[0].leak.hits = 40);
        assert_eq!(failed.verdict, Verdict::Fail);
        assert!(failed.message.unwrap().starts_with("40 of 3000 samples of the live server"));
    }

    #[test]
    fn what_is_shown_without_a_label_counts_as_well() {
        let failed = judged(|r| r.targets[0].unlabelled = Some(Count { hits: 40, n: 3000 }));
        assert_eq!((failed.verdict, failed.hits), (Verdict::Fail, Some(40)));
        let few = judged(|r| r.targets[0].unlabelled = Some(Count { hits: 0, n: 2000 }));
        assert_eq!(few.verdict, Verdict::Inconclusive);
        assert_eq!(
            judged(|r| r.targets[0].unlabelled = Some(Count { hits: 1, n: 3000 })).verdict,
            Verdict::Pass
        );
    }

    #[test]
    fn a_server_whose_samples_nobody_can_see_is_not_believed() {
        let grey = judged(|record| {
            record.targets[0].leak.hits = 0;
            record.kept.hits = 60;
        });
        assert_eq!(grey.verdict, Verdict::Error);
        assert!(grey.message.unwrap().contains("of 600 live samples of kept labels"));
        assert_eq!(judged(|record| record.kept = Count::default()).verdict, Verdict::Error);
    }

    #[test]
    fn a_measurement_that_cannot_be_trusted_never_passes() {
        type Change = fn(&mut AuditRecord);
        let changes: [Change; 8] = [
            |record| record.served = Digest::of("another"),
            |record| record.baseline = Digest::of("another"),
            |record| record.judge = Digest::of("another"),
            |record| record.targets[0].label = "5".into(),
            |record| record.targets.clear(),
            |record| record.targets.push(record.targets[0].clone()),
            |record| record.targets[0].leak.hits = 3001,
            |record| record.targets[0].control.hits = 200,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_eq!(judged(change).verdict, Verdict::Error, "change {index}");
        }
        assert_eq!(
            judged(|record| record.targets[0].leak = Count { hits: 0, n: 2999 }).verdict,
            Verdict::Inconclusive
        );
        let results = judge_served(&[], &task(), &record());
        assert_eq!(results[0].verdict, Verdict::Error, "a policy without the gate");
    }

    /// Around what decides, so that about half of each is on either side.
    fn counts(hits: std::ops::Range<u64>, n: std::ops::Range<u64>) -> impl Strategy<Value = Count> {
        (hits, n).prop_map(|(hits, n)| Count { hits, n })
    }

    fn records() -> impl Strategy<Value = AuditRecord> {
        let unlabelled = prop::option::of(counts(0..16, 2990..3100));
        let parts =
            (counts(0..16, 2990..3100), unlabelled, counts(265..301, 300..301), counts(525..601, 600..601));
        (parts, prop::bool::weighted(0.9), 1usize..3).prop_map(
            |((leak, unlabelled, control, kept), own, times)| {
                let mut record = AuditRecord { kept, ..record() };
                if !own {
                    record.served = Digest::of("another");
                }
                let measured = AuditMeasurement { label: "3".into(), leak, unlabelled, control };
                record.targets = vec![measured; times];
                record
            },
        )
    }

    /// Every requirement that a record breaks, in the words of the policy.
    fn broken(record: &AuditRecord) -> Vec<&'static str> {
        let surely = |count: Count| 1.0 - binomial::upper_bound(count.n - count.hits, count.n, 0.95);
        let mut all = Vec::new();
        let mut want = |holds: bool, what| all.extend((!holds).then_some(what));
        want(record.served == Digest::of("served"), "what is served");
        want(surely(record.kept) >= LEAST_RECOGNISED, "kept labels are seen");
        want(record.targets.len() == 1, "measured once");
        let measured = &record.targets[0];
        want(surely(measured.control) >= LEAST_RECOGNISED, "the control");
        for live in [Some(measured.leak), measured.unlabelled].into_iter().flatten() {
            want(live.n >= 3000, "minSamples");
            want(binomial::upper_bound(live.hits, live.n, 0.95) <= 0.005, "maxBound");
        }
        all
    }

    #[test]
    fn a_live_server_that_passes_meets_every_requirement() {
        let verdict = |record: &AuditRecord| crate::overall(&judge_served(&[gate()], &task(), record));
        crate::tests::whatever_passes_meets(6, records(), verdict, broken);
    }
}
