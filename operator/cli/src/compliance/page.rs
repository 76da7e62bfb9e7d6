//! The page itself: one file that loads nothing and runs nothing.

use jiff::Timestamp;
use lethe_api::{
    Digest,
    contract::Count,
    v1alpha1::{RequestPhase, Verdict},
};
use lethe_report::{
    bars::{Bar, bars},
    gates::{tone as verdict_tone, verdict},
    number::{percent, percent_above, thousands},
    page::{Tile, Tone, missing, page, section, tiles},
    table::{Cell, Column, Row, table},
};
use maud::{Markup, html};

use super::figures::{Compliance, Cost, Duty, Leak, Term};
use crate::words;

/// Of the audits, so many are listed.
const MOST_AUDITS: usize = 20;
/// Of the requests, so many are told in words.
const MOST_TOLD: usize = 5;

/// The whole page.
pub fn html(said: &Compliance) -> String {
    let lead = html! {
        p.soft {
            "What the model " b { (said.model) } " in namespace " (said.namespace) " had to forget, by when, and what is known of \
             it on " (words::date(said.at)) "."
        }
        (tiles(&summary(said)))
    };
    let body = html! {
        @for what in &said.unread { (missing(what)) }
        (section("In plain words", &plain(said)))
        (section("What may miss its date", &at_risk(said)))
        (section("What had to be forgotten, and by when", &duties(said)))
        (section("How much is still shown", &leaks(said)))
        (section("Audits of what is served", &audits(said)))
        (section("What it cost", &costs(said)))
        (section("What this says, and what it does not", &claims()))
        (section("Evidence", &evidence(said)))
    };
    let footer = html! {
        "Written by " code { "kubectl lethe report --compliance" } " from the objects in the cluster"
        @if said.has_records { " and the records in the store" }
        ". A legal term is arithmetic, from receipt: what the model's policy says of the regulation, or else a calendar month (GDPR) \
         or 45 days (CCPA), and longer where it was extended. It is not legal advice."
    };
    page(&format!("Compliance of {}", said.model), &lead, &body, &footer)
}

fn summary(said: &Compliance) -> Vec<Tile> {
    let (value, tone) = match said.compliant.as_ref().map(|(status, _)| status.as_str()) {
        Some("True") => ("\u{2713}\u{a0}Yes", Tone::Good),
        Some("False") => ("\u{2717}\u{a0}No", Tone::Bad),
        _ => ("Not known", Tone::Plain),
    };
    let owed = said.duties.iter().filter(|duty| duty.phase != Some(RequestPhase::Denied)).count();
    let missed = said.duties.iter().filter(|duty| duty.term == Term::Missed).count();
    let at_risk = said.at_risk().len() - missed;
    let mut all = vec![
        Tile {
            value: value.into(),
            text: "compliant: what is served honours everything in the ledger".into(),
            tone,
        },
        Tile {
            value: format!("{} of {owed}", said.fulfilled()),
            text: "requests are fulfilled".into(),
            tone: Tone::Plain,
        },
        Tile {
            value: match (missed, at_risk) {
                (0, 0) => "None".into(),
                (0, n) => format!("{n} at risk"),
                (n, 0) => format!("{n} missed"),
                (n, m) => format!("{n} missed, {m} at risk"),
            },
            text: "of the legal terms are missed, or end within two weeks".into(),
            tone: if missed + at_risk == 0 { Tone::Good } else { Tone::Bad },
        },
    ];
    if let Some(leak) = said.worst() {
        all.push(Tile {
            value: format!("\u{2264}\u{a0}{}", percent_above(leak.bound.unwrap_or(1.0))),
            text: format!(
                "of images asked for as {} may still show it: the most of all that is fulfilled",
                quoted(&leak.label)
            ),
            tone: Tone::Plain,
        });
    }
    all
}

fn plain(said: &Compliance) -> Markup {
    let fulfilled = said.duties.iter().filter(|duty| duty.phase == Some(RequestPhase::Fulfilled));
    let told: Vec<&Duty> = fulfilled.rev().take(MOST_TOLD).collect();
    let left_out = said.fulfilled().saturating_sub(told.len());
    html! {
        p.plain-words {
            (standing(said)) " "
            @for leak in told.iter().flat_map(|duty| &duty.leaks) { (observed(leak)) " " }
            @if left_out > 0 { "The table below has the other " (left_out) ". " }
            "\u{201c}Not observed\u{201d} is a statement about these probes and this bound. It is not a statement that the model \
             holds no trace of what it was taught."
        }
    }
}

fn standing(said: &Compliance) -> String {
    let n = said.forgotten;
    let labels = if n == 1 { "label" } else { "labels" };
    let had = format!("This model had to forget {n} {labels} so far.");
    match said.compliant.as_ref().map(|(status, why)| (status.as_str(), why)) {
        Some(("True", _)) if n == 0 => "Nothing has been forgotten by this model yet.".into(),
        Some(("True", _)) => format!("{had} What is served today passed every gate for all of them."),
        Some(("False", why)) if said.exposed.is_empty() => {
            format!("{had} What is served today is NOT compliant: {why}.")
        }
        Some(("False", why)) => {
            format!("{had} {} may be shown again today: {why}.", said.exposed.join(", "))
        }
        _ => format!("{had} Whether what is served honours them is not known at the moment."),
    }
}

fn observed(leak: &Leak) -> String {
    let label = quoted(&leak.label);
    let Some(bound) = leak.bound else {
        return format!("For {label} no bound is known.");
    };
    let n = leak.after.map(|count| thousands(count.n)).unwrap_or_default();
    let most = percent_above(bound);
    let now = format!(
        "After the change, {label} was not observed in more than {most} of samples ({n} were drawn; upper bound)"
    );
    match (leak.before, leak.lower_before(), leak.ratio()) {
        (Some(before), Some(lower), Some(ratio)) if ratio > 1.0 => format!(
            "{now}; before, it was seen in {} of {} ({} at least): that is at least {} times more often.",
            thousands(before.hits),
            thousands(before.n),
            percent(lower),
            rounded_down(ratio),
        ),
        _ => format!("{now}."),
    }
}

/// A factor that never looks better than it is.
fn rounded_down(ratio: f64) -> String {
    match ratio {
        r if r >= 10.0 => thousands(r.floor() as u64),
        r => format!("{:.1}", (r * 10.0).floor() / 10.0),
    }
}

fn quoted(label: &str) -> String {
    format!("\u{201c}{label}\u{201d}")
}

fn at_risk(said: &Compliance) -> Markup {
    let at_risk = said.at_risk();
    if at_risk.is_empty() {
        return html! { p { "No legal term is missed, and none that is open ends within two weeks." } };
    }
    let rows = at_risk.iter().map(|duty| {
        let due = duty.due.map(words::day).unwrap_or_default();
        let left = duty.due.map(|due| words::left(said.at, due)).unwrap_or_default();
        let cells = [
            Cell::text(&duty.name),
            Cell::text(duty.labels.join(", ")),
            Cell::text(due),
            Cell::classed(left, if duty.term <= Term::Days7 { "bad" } else { "" }),
            Cell::text(duty.phase.map_or_else(|| "new".into(), |phase| format!("{phase:?}"))),
        ];
        Row { note: duty.why.clone(), ..Row::of(cells) }
    });
    let columns = ["request", "to forget", "due", "term", "stands at"].map(Column::Text);
    table("Requests that may miss their date", &columns, &rows.collect::<Vec<_>>())
}

fn duties(said: &Compliance) -> Markup {
    if said.duties.is_empty() {
        return html! { p { "Nobody has asked this model to forget anything." } };
    }
    let rows = said.duties.iter().map(|duty| {
        let (term, class) = term(duty, said.at);
        let cells = [
            Cell::text(&duty.name),
            Cell::text(duty.reference.as_deref().unwrap_or_default()),
            Cell::text(duty.labels.join(", ")),
            Cell::text(duty.received.map(words::day).unwrap_or_default()),
            Cell::text(duty.due.map(words::day).unwrap_or_default()),
            Cell::text(duty.phase.map_or_else(|| "new".into(), |phase| format!("{phase:?}"))),
            Cell::classed(term, class),
        ];
        let note = match (duty.is_there, duty.approved_by.as_slice()) {
            (false, _) => Some("The request is not there any more, or was not exported: this is what the model's ledger says. By when it was due is not known.".into()),
            (true, []) => None,
            (true, people) => Some(format!("Approved by {}.", people.join(", "))),
        };
        Row { note, ..Row::of(cells) }
    });
    let columns =
        ["request", "reference", "to forget", "received", "due", "stands at", "term"].map(Column::Text);
    html! {
        (table("Requests", &columns, &rows.collect::<Vec<_>>()))
        p.soft { "Pilots, which change nothing that is served, are left out. Deleting a request does not bring anything back." }
    }
}

fn term(duty: &Duty, now: Timestamp) -> (String, &'static str) {
    let done = duty.done.map(words::day).unwrap_or_default();
    let left = duty.due.map(|due| words::left(now, due)).unwrap_or_default();
    match duty.term {
        Term::Missed => (format!("\u{2717}\u{a0}missed, {left}"), "bad"),
        Term::Days3 | Term::Days7 => (format!("! {left}"), "bad"),
        Term::Days14 | Term::Runs => (left, ""),
        Term::Kept => (format!("\u{2713}\u{a0}kept, {done}"), "good"),
        Term::KeptLate => (format!("late, {done}"), "bad"),
        Term::Denied => ("refused".into(), ""),
        Term::None if duty.done.is_some() => (format!("done {done}"), ""),
        Term::None => ("no legal term".into(), ""),
    }
}

fn leaks(said: &Compliance) -> Markup {
    let all: Vec<(&Duty, &Leak)> =
        said.duties.iter().flat_map(|duty| duty.leaks.iter().map(move |leak| (duty, leak))).collect();
    if all.is_empty() {
        return html! { (missing("measurements. No request of this model has been measured yet.")) };
    }
    let rows = all.iter().map(|(duty, leak)| {
        let of = |count: Option<Count>| count.map(|c| words::of(c.hits, c.n)).unwrap_or_default();
        let cells = [
            Cell::text(&leak.label),
            Cell::text(&duty.name),
            Cell::text(of(leak.before)),
            Cell::text(
                leak.lower_before()
                    .map(|share| format!("\u{2265}\u{a0}{}", percent(share)))
                    .unwrap_or_default(),
            ),
            Cell::text(of(leak.after)),
            Cell::text(
                leak.bound.map(|share| format!("\u{2264}\u{a0}{}", percent_above(share))).unwrap_or_default(),
            ),
            Cell::text(
                leak.ratio().map(|ratio| format!("{}\u{d7}", rounded_down(ratio))).unwrap_or_default(),
            ),
            Cell::classed(verdict(leak.verdict), verdict_tone(leak.verdict).class()),
        ];
        let serves = [RequestPhase::Fulfilled, RequestPhase::Reexposed];
        let phase = duty.phase.filter(|phase| !serves.contains(phase));
        let note =
            phase.map(|phase| format!("The request is {phase:?}: this candidate is not what is served."));
        Row { note, ..Row::of(cells) }
    });
    let columns = [
        Column::Text("label"),
        Column::Text("request"),
        Column::Number("seen before"),
        Column::Number("at least"),
        Column::Number("seen after"),
        Column::Number("at most"),
        Column::Number("rarer by at least"),
        Column::Text("gate"),
    ];
    html! {
        p {
            "Samples were drawn by the forgotten label's name, of the model as it was before (which has to fail, or the judge \
             would be blind) and of the one that was made to forget. The bounds are one-sided, with 95 % confidence for what \
             was before and the policy's for what is after; the factor is the least before over the most after."
        }
        @if all.iter().all(|(_, leak)| leak.before.is_none()) {
            (missing("how often it was seen before. It is in the measurement records: give --store, where they are."))
        }
        (bars(&chart(&all)))
        (table("Leaks before and after", &columns, &rows.collect::<Vec<_>>()))
    }
}

/// What may be shown, before beside after, as shares of all samples.
fn chart(all: &[(&Duty, &Leak)]) -> Vec<Bar> {
    const MOST: usize = 12;
    let mut rows = Vec::new();
    for (_, leak) in all.iter().take(MOST) {
        if let Some(lower) = leak.lower_before() {
            rows.push(Bar {
                name: format!("{} before", quoted(&leak.label)),
                value: format!("\u{2265}\u{a0}{}", percent(lower)),
                length: lower,
                series: 1,
                ..Bar::default()
            });
        }
        if let Some(bound) = leak.bound {
            rows.push(Bar {
                name: format!("{} after", quoted(&leak.label)),
                value: format!("\u{2264}\u{a0}{}", percent_above(bound)),
                length: bound,
                limit: leak.threshold.as_ref().and_then(|limit| limit.parse().ok()),
                is_part: leak.lower_before().is_some(),
                ..Bar::default()
            });
        }
    }
    rows
}

fn audits(said: &Compliance) -> Markup {
    let next = said.next_audit.map(|at| format!("The next one is due on {}.", words::date(at)));
    if said.audits.is_empty() && said.last_audit.is_none() {
        return html! {
            p { "The live server has not been asked for what is forgotten. " (next.unwrap_or_default()) }
            p.soft { "An audit needs a gate served-leak in the policy, and comes after every roll-out and by spec.audit of the model." }
        };
    }
    let rows = said.audits.iter().take(MOST_AUDITS).map(|audit| {
        let found = audit.verdict.map_or_else(|| "under way".into(), |v| verdict(v).to_owned());
        let class = audit.verdict.map_or("", |v| verdict_tone(v).class());
        let worst = audit.worst.as_ref().and_then(|bound| bound.parse().ok());
        Row::of([
            Cell::text(audit.at.map(words::date).unwrap_or_default()),
            Cell::text(&audit.run),
            Cell::text(
                worst.map(|bound| format!("\u{2264}\u{a0}{}", percent_above(bound))).unwrap_or_default(),
            ),
            Cell::classed(found, class),
            digest(&audit.record),
        ])
    });
    let columns = [
        Column::Text("when"),
        Column::Text("run"),
        Column::Number("shown at most"),
        Column::Text("verdict"),
        Column::Text("record"),
    ];
    html! {
        @if let Some(last) = &said.last_audit {
            p {
                "The last one ended on " (words::date(last.at.0)) " with the verdict "
                span class=(verdict_tone(last.verdict).class()) { (verdict(last.verdict)) }
                @if last.verdict != Verdict::Pass { " (" (last.message.as_deref().unwrap_or("no reason given")) ")" }
                ". " (next.unwrap_or_default())
            }
        }
        (table("Audits", &columns, &rows.collect::<Vec<_>>()))
        @if let Some(oldest) = said.audits.last().and_then(|audit| audit.at) {
            p.soft {
                "Listed are the " (said.audits.len().min(MOST_AUDITS)) " newest of the " (said.audits.len())
                " whose runs are still there, the oldest of " (words::date(oldest))
                "; a policy keeps the last ones of them. Earlier ones are in the audit log, where one is kept."
            }
        }
    }
}

fn costs(said: &Compliance) -> Markup {
    if said.costs.is_empty() {
        return html! { (missing("what it cost: no run says when its pods began and ended.")) };
    }
    let (gpu, others) = said.cost();
    let rows = said.costs.iter().map(|cost| {
        Row::of([
            Cell::text(&cost.run),
            Cell::text(format!("{:?}", cost.stage)),
            Cell::text(device(cost)),
            Cell::text(thousands(u64::try_from(cost.seconds).unwrap_or_default())),
            Cell::text(cost.gpu_seconds().map(thousands).unwrap_or_default()),
        ])
    });
    let columns = [
        Column::Text("run"),
        Column::Text("stage"),
        Column::Text("ran on"),
        Column::Number("seconds"),
        Column::Number("GPU-seconds"),
    ];
    html! {
        p {
            "Together " b { (thousands(gpu)) " GPU-seconds" }
            @if others > 0 {
                ", and " b { (thousands(u64::try_from(others).unwrap_or_default())) " seconds" }
                " of pods that used no GPU, by the clock"
            }
            ". A GPU that a pod held and did not use is not counted. Counted are the runs that are still there; a policy keeps the last ones, and those that the ledger names."
        }
        (table("Cost of each stage", &columns, &rows.collect::<Vec<_>>()))
    }
}

fn device(cost: &Cost) -> String {
    use lethe_api::contract::Device;
    match cost.device {
        Some(Device::Cuda) if cost.gpus == 1 => "1 GPU".into(),
        Some(Device::Cuda) => format!("{} GPUs", cost.gpus),
        Some(Device::Cpu | Device::Auto) => "CPU".into(),
        None => "not known".into(),
    }
}

fn claims() -> Markup {
    html! {
        div.claims {
            div {
                h3 { "It says" }
                ul {
                    li { "how often a forgotten label was observed in samples, with the bound that follows from the counts" }
                    li { "which candidates passed every gate of their policy, for everything in the ledger of their time; the operator rolls out no other" }
                    li { "what is served, by digest, and since when" }
                }
            }
            div {
                h3 { "It does not say" }
                ul {
                    li { "that the model holds no trace of a label, or that no other method could bring it back" }
                    li { "that the judge, which is a model as well, sees everything" }
                    li { "anything about copies of earlier models that somebody took elsewhere, or about the base model, which is kept and not served" }
                }
            }
        }
    }
}

fn digest(digest: &Option<Digest>) -> Cell {
    Cell {
        content: html! { @if let Some(digest) = digest { code { (digest.hex()) } } },
        class: "",
        is_empty: digest.is_none(),
    }
}

fn evidence(said: &Compliance) -> Markup {
    let rows = said.duties.iter().filter(|duty| duty.run.is_some()).map(|duty| {
        Row::of([
            Cell::text(&duty.name),
            Cell::text(duty.run.as_deref().unwrap_or_default()),
            digest(&duty.plan),
            digest(&duty.candidate),
            digest(&duty.record),
            digest(&duty.evidence),
        ])
    });
    let rows: Vec<Row> = rows.collect();
    let columns =
        ["request", "run", "plan", "candidate", "measurement record", "signed evidence"].map(Column::Text);
    html! {
        @if let Some((digest, since)) = &said.served {
            p { "Served since " (words::date(*since)) ": " code { "sha256:" (digest.hex()) } }
        }
        @if rows.is_empty() { p { "No run has worked for a request." } } @else {
            p { "All names are sha256 digests of what they name, in the store:" }
            (table("Digests", &columns, &rows))
        }
        p {
            "To check all of it without a cluster, from an export and the store: "
            code {
                "kubectl get diffusionmodels,unlearnrequests,unlearnruns -n " (said.namespace)
                " -o yaml | kubectl lethe verify --store file:///artifacts -"
            }
        }
        @if let Some(head) = &said.log {
            p {
                "The audit log " code { (head.checkpoint.origin) } " had " (thousands(head.checkpoint.size)) " entries, with the root hash "
                code { (head.checkpoint.root) } ", " (head.vouched()) ". Whoever keeps this line can see later that nothing was taken out."
            }
        }
        p.soft {
            @if said.duties.iter().any(|duty| duty.evidence.is_some()) {
                "Who signed the evidence is checked by the same command with --trusted-keys and the public keys of those whom you trust."
            } @else {
                "Nothing of it is signed: whoever can write to the store and to the API server can forge both. Keep a copy of what you \
                 rely on."
            }
        }
    }
}
