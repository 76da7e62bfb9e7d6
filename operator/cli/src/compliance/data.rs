//! What a compliance page says, for programs: the names of its fields stay as they are.

use serde_json::{Value, json};

use super::figures::{Audited, Compliance, Cost, Duty, Leak, Term};

/// One model. Times are of RFC 3339, shares from 0 to 1.
pub fn data(said: &Compliance) -> Value {
    let (gpu_seconds, other_seconds) = said.cost();
    let at_risk: Vec<_> = said.at_risk().into_iter().map(|duty| &duty.name).collect();
    json!({
        "namespace": said.namespace,
        "model": said.model,
        "at": said.at,
        "compliant": said.compliant.as_ref().map(|(status, message)| json!({"status": status, "message": message})),
        "forgottenLabels": said.forgotten,
        "exposedLabels": said.exposed,
        "served": said.served.as_ref().map(|(digest, since)| json!({"digest": digest, "since": since})),
        "fulfilled": said.fulfilled(),
        "atRisk": at_risk,
        "requests": said.duties.iter().map(duty).collect::<Vec<_>>(),
        "audits": said.audits.iter().map(audit).collect::<Vec<_>>(),
        "lastAudit": said.last_audit,
        "nextAudit": said.next_audit,
        "gpuSeconds": gpu_seconds,
        "otherSeconds": other_seconds,
        "stages": said.costs.iter().map(cost).collect::<Vec<_>>(),
        "auditLog": said.log.as_ref().map(|head| head.about()),
        "recordsRead": said.has_records,
        "unread": said.unread,
    })
}

fn duty(duty: &Duty) -> Value {
    json!({
        "name": duty.name,
        "requestFound": duty.is_there,
        "reference": duty.reference,
        "regulation": duty.regulation,
        "labels": duty.labels,
        "receivedAt": duty.received,
        "dueAt": duty.due,
        "phase": duty.phase,
        "fulfilledAt": duty.done,
        "term": duty.is_there.then(|| term(duty.term)),
        "why": duty.why,
        "approvedBy": duty.approved_by,
        "leaks": duty.leaks.iter().map(leak).collect::<Vec<_>>(),
        "gates": duty.gates,
        "run": duty.run,
        "record": duty.record,
        "evidence": duty.evidence,
        "candidate": duty.candidate,
        "planDigest": duty.plan,
    })
}

fn term(term: Term) -> &'static str {
    match term {
        Term::Missed => "Missed",
        Term::Days3 => "EndsWithin3Days",
        Term::Days7 => "EndsWithin7Days",
        Term::Days14 => "EndsWithin14Days",
        Term::Runs => "Runs",
        Term::KeptLate => "KeptLate",
        Term::Kept => "Kept",
        Term::Denied => "Denied",
        Term::None => "None",
    }
}

fn leak(leak: &Leak) -> Value {
    json!({
        "label": leak.label,
        "before": leak.before,
        "lowerBoundBefore": leak.lower_before(),
        "after": leak.after,
        "upperBoundAfter": leak.bound,
        "factor": leak.ratio(),
        "threshold": leak.threshold.as_deref().and_then(share),
        "verdict": leak.verdict,
    })
}

/// In statuses shares are texts.
fn share(text: &str) -> Option<f64> {
    text.parse().ok()
}

fn audit(audit: &Audited) -> Value {
    json!({
        "run": audit.run,
        "at": audit.at,
        "verdict": audit.verdict,
        "worstUpperBound": audit.worst.as_deref().and_then(share),
        "record": audit.record,
    })
}

fn cost(cost: &Cost) -> Value {
    json!({
        "run": cost.run,
        "stage": cost.stage,
        "seconds": cost.seconds,
        "device": cost.device,
        "gpus": cost.gpus,
        "gpuSeconds": cost.gpu_seconds(),
    })
}
