//! Whether anything that was ever forgotten can be served, and what of it.

use std::collections::BTreeSet;

use lethe_api::v1alpha1::{ConditionType, LedgerEntry, Reason, Rollout, RolloutState};

use crate::{
    archive, audit, base,
    model::{Lineage, holder},
    rollout, serving,
};

/// Sets the condition Compliant, and names the labels that may be shown.
pub(crate) fn judge(lineage: &mut Lineage<'_>, forgotten: usize) {
    let mut found = by_ledger(lineage, forgotten);
    if let Some((reason, why)) = lineage.doubt.clone() {
        // Whatever is served, nobody knows what it was made to forget.
        let lost = archive::lost(lineage).into_iter().map(|(_, label)| label);
        found =
            Judged { exposed: found.exposed.into_iter().chain(lost).collect(), ..Judged::no(reason, why) };
    }
    lineage.status.exposed = found.exposed.into_iter().collect();
    match found.is_compliant {
        true => lineage.conditions.yes(ConditionType::Compliant, found.reason, found.message),
        false => lineage.conditions.no(ConditionType::Compliant, found.reason, found.message),
    }
}

/// What is known of what is served.
struct Judged {
    is_compliant: bool,
    reason: Reason,
    message: String,
    /// Labels that may be shown.
    exposed: BTreeSet<String>,
}

impl Judged {
    fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self { is_compliant: true, reason, message: message.into(), exposed: BTreeSet::new() }
    }

    fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self { is_compliant: false, ..Self::yes(reason, message) }
    }
}

fn by_ledger(lineage: &Lineage<'_>, forgotten: usize) -> Judged {
    if let Some(leak) = audit::leak(lineage) {
        let why = leak.message.as_deref().unwrap_or_default();
        let message = format!("an audit of {} did not pass: {why}", leak.digest.short());
        let all = lineage.status.ledger.iter().flat_map(|entry| &entry.targets);
        let is_shown = |label: &&String| leak.shows.is_empty() || leak.shows.contains(label);
        let exposed = all.filter(is_shown).cloned().collect();
        return Judged { exposed, ..Judged::no(audit::reason(leak.verdict), message) };
    }
    let Some(compliant) = base::compliant(lineage) else {
        let message = "nothing had to be forgotten yet";
        return Judged::yes(Reason::NothingForgotten, message);
    };
    if holder(&lineage.observed.model, &lineage.observed.rivals).is_some() {
        let message = "nothing of this lineage is served: another model has its target";
        return Judged::yes(Reason::NotServed, message);
    }
    let named = lineage.observed.deployment.as_ref().and_then(rollout::annotation);
    let passed = |named: &str| {
        // A candidate under way, or just taken back, has passed the gates for the whole ledger as well; but for one that
        // the live server has shown to be no better.
        let candidate = lineage.status.rollout.as_ref();
        let candidate = candidate.filter(|rollout| is_honourable(lineage, rollout));
        named == compliant.digest.as_str() || candidate.is_some_and(|rollout| rollout.to.as_str() == named)
    };
    let canary = lineage.status.rollout.as_ref().and_then(|rollout| rollout.canary.as_ref());
    let is_seen = canary.is_some_and(|canary| canary.weight.is_some());
    let beside = lineage.observed.canary.reports.iter().filter(|_| is_seen);
    let reports: Vec<_> = lineage.observed.reports.iter().chain(beside).cloned().collect();
    let other = rollout::other_than(&reports, |digest| passed(digest.as_str()));
    let told = reports.iter().filter_map(|report| report.digest.as_ref().ok()).map(|digest| digest.as_str());
    let wrong = told.chain(named).filter(|digest| !passed(digest));
    let exposed = wrong.flat_map(|digest| not_honoured(&lineage.status.ledger, digest)).collect();
    let is_named_rightly = named.is_none_or(passed);
    let judged = match named {
        _ if other.is_some() => {
            let message = format!("{}, which does not honour the ledger", other.unwrap_or_default());
            Judged::no(Reason::DigestMismatch, message)
        }
        None => Judged::yes(Reason::NotServed, "nothing is served"),
        Some(_) if is_named_rightly => {
            let message = format!("{forgotten} labels are forgotten by what is served");
            Judged::yes(Reason::LedgerHonoured, message)
        }
        Some(named) => {
            let named: String = named.chars().take(80).collect();
            let message = format!("the serving target names {named:?}, which does not honour the ledger");
            Judged::no(Reason::Drifted, message)
        }
    };
    Judged { exposed, ..judged }
}

/// Whether a candidate may be seen: under way or just taken back, made for the whole ledger of today, and not shown to be no
/// better. One whose run was deleted is on its way back.
fn is_honourable(lineage: &Lineage<'_>, rollout: &Rollout) -> bool {
    let run = lineage.run_of(rollout);
    rollout.run.is_some()
        && (rollout.state.is_under_way() || rollout.state == RolloutState::RolledBack)
        && !audit::is_refuted(rollout)
        && run.is_none_or(|run| serving::is_planned_for_all(lineage, run))
}

/// What a bundle may show: everything that was forgotten after it was made. Of one that the ledger does not know, nothing is
/// known.
fn not_honoured(ledger: &[LedgerEntry], bundle: &str) -> Vec<String> {
    let known = ledger.iter().rposition(|entry| entry.digest.as_str() == bundle);
    let (honoured, later) = ledger.split_at(known.map_or(0, |index| index + 1));
    let is_honoured = |label: &&String| honoured.iter().any(|entry| entry.targets.contains(label));
    later.iter().flat_map(|entry| &entry.targets).filter(|label| !is_honoured(label)).cloned().collect()
}
