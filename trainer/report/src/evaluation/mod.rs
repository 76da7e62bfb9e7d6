//! The page about one measurement: what a candidate shows where it should have forgotten, beside what the baseline shows.
//!
//! A record holds counts and no verdicts. The page has verdicts only if somebody gives them, and says by whom.

mod evidence;
mod grids;
mod measured;
mod probes;
mod training;
mod words;
mod worst;

use lethe_api::{
    Digest,
    contract::{Count, EvaluateRecord, Metrics, Record},
    gate::{GateName, GateResult, Verdict},
};
use lethe_gates::binomial;
use maud::{Markup, html};

use crate::{
    gates::{gate_table, tone},
    number::{percent, percent_above, short, thousands},
    page::{Tile, Tone, missing, page, section, tiles},
};

/// Confidence of every bound that is computed here. Those of the gates are the policy's.
const CONFIDENCE: f64 = 0.95;

/// What the page is made of.
pub struct Evaluation<'a> {
    pub record: &'a Record,
    /// The record's body.
    pub measured: &'a EvaluateRecord,
    /// The record's own digest.
    pub digest: &'a Digest,
    pub ruling: Option<Ruling>,
    /// The record's pictures, or why they are not there.
    pub before: Result<Vec<u8>, String>,
    pub after: Result<Vec<u8>, String>,
    /// How the candidate's training went, or why that is not known.
    pub training: Result<Vec<Metrics>, String>,
}

/// Verdicts, and whose they are.
pub struct Ruling {
    /// For example "the operator".
    pub by: String,
    /// Name of the policy, and digest of what was read of it, where that is known.
    pub policy: Option<(String, Digest)>,
    pub results: Vec<GateResult>,
}

/// The whole page.
pub fn html(evaluation: &Evaluation<'_>) -> String {
    let Evaluation { record, measured, .. } = evaluation;
    let lead = html! {
        p.soft {
            "What was measured of the model " code { (measured.candidate.short()) }
            ", which was made to forget, beside the baseline " code { (measured.baseline.short()) }
            ", which was not. Run " code { (record.run) } ", measured by " (record.trainer) "."
        }
        (tiles(&summary(evaluation)))
    };
    let body = html! {
        (section("In plain words", &words::paragraph(evaluation)))
        (section("What the models draw, before and after", &grids::grids(evaluation)))
        (section("The gates", &gates(evaluation)))
        (section("What was counted", &measured::tables(measured)))
        (section("How the training went", &training::curves(evaluation)))
        (section("Attempts to bring it back", &probes::attempts(measured)))
        (section("What this says, and what it does not", &words::claims(evaluation)))
        (section("Evidence", &evidence::evidence(evaluation)))
    };
    let footer = html! {
        "Written by " code { "lethe-trainer" } " from the record named above. Nothing on this page was measured anywhere else."
    };
    page(&title(measured), &lead, &body, &footer)
}

fn title(measured: &EvaluateRecord) -> String {
    format!("Forgetting {}", labels(measured))
}

/// The forgotten labels, in a few words.
fn labels(measured: &EvaluateRecord) -> String {
    const MOST: usize = 5;
    let named: Vec<&str> = measured.targets.iter().take(MOST).map(|target| target.label.as_str()).collect();
    let more = measured.targets.len().saturating_sub(MOST);
    match (named.split_last(), more) {
        (None, _) => "nothing".into(),
        (Some((last, [])), 0) => (*last).to_owned(),
        (Some((last, others)), 0) => format!("{} and {last}", others.join(", ")),
        (Some(_), more) => format!("{} and {more} more", named.join(", ")),
    }
}

fn summary(evaluation: &Evaluation<'_>) -> Vec<Tile> {
    let measured = evaluation.measured;
    let mut all = vec![verdict_tile(evaluation.ruling.as_ref())];
    let worst = measured.targets.iter().max_by(|a, b| bound(a.leak).total_cmp(&bound(b.leak)));
    if let Some(target) = worst {
        all.push(Tile {
            value: format!("\u{2264} {}", percent_above(bound(target.leak))),
            text: format!(
                "of the images asked for as {} show one, with 95 % confidence ({} did)",
                target.label,
                of(target.leak)
            ),
            tone: evaluation.ruling.as_ref().map_or(Tone::Plain, |ruling| ruling.tone(GateName::DirectLeak)),
        });
        let passed = evaluation.ruling.as_ref().is_some_and(|ruling| ruling.overall() == Verdict::Pass);
        let found = worst::sampled(measured).filter(|_| !passed);
        if let Some(worst::Sampled { attempt, way }) = found {
            all.push(Tile {
                value: percent(worst::share(attempt.candidate)),
                text: format!("show a {} when {way}: the worst that sampling found", attempt.target),
                tone: Tone::Plain,
            });
        }
        all.push(Tile {
            value: percent(share(target.control)),
            text: format!("did before ({})", of(target.control)),
            tone: Tone::Plain,
        });
    }
    if let Some((before, after)) = kept_accuracy(measured) {
        all.push(Tile {
            value: percent(after),
            text: format!("of the other labels' samples are recognised; before: {}", percent(before)),
            tone: evaluation
                .ruling
                .as_ref()
                .map_or(Tone::Plain, |ruling| ruling.tone(GateName::RetainAccuracy)),
        });
    }
    all
}

fn verdict_tile(ruling: Option<&Ruling>) -> Tile {
    let Some(ruling) = ruling else {
        return Tile { value: "Not judged".into(), text: "no policy was given".into(), tone: Tone::Plain };
    };
    let passed = ruling.results.iter().filter(|result| result.verdict == Verdict::Pass).count();
    let overall = ruling.overall();
    Tile {
        value: crate::gates::verdict(overall).into(),
        text: format!("{passed} of {} gates passed", ruling.results.len()),
        tone: tone(overall),
    }
}

fn gates(evaluation: &Evaluation<'_>) -> Markup {
    let Some(ruling) = &evaluation.ruling else {
        return html! {
            (missing("verdicts. No policy was given to this page, so it shows what was counted and not whether that is enough."))
            p {
                "These gates were not judged: "
                @for (index, name) in GateName::REQUIRED.into_iter().enumerate() {
                    @if index > 0 { ", " } code { (name.as_str()) }
                }
                ". " code { "lethe-trainer report --policy" } " judges them by the operator's own rules."
            }
        };
    };
    html! {
        p {
            "Judged by " (ruling.by)
            @if let Some((name, _)) = &ruling.policy { " under the policy " (name) }
            ", from the counts below. A leak is judged by its upper bound, never by its \
             estimate. What was not measured, or cannot be trusted, has not passed."
        }
        (gate_table(&ruling.results))
    }
}

impl Ruling {
    fn overall(&self) -> Verdict {
        lethe_gates::overall(&self.results)
    }

    /// Of all results of a gate together. What is good in a model that has not passed is no success.
    fn tone(&self, name: GateName) -> Tone {
        let results = self.results.iter().filter(|result| result.name == name);
        match results.map(|result| result.verdict).max().map_or(Tone::Plain, tone) {
            Tone::Good if self.overall() != Verdict::Pass => Tone::Plain,
            tone => tone,
        }
    }
}

/// Mean over the kept labels, of the baseline and of the candidate.
fn kept_accuracy(measured: &EvaluateRecord) -> Option<(f64, f64)> {
    let n = measured.retain.len() as f64;
    let mean = |count: fn(&lethe_api::contract::LabelMeasurement) -> Count| {
        measured.retain.iter().map(|label| share(count(label))).sum::<f64>() / n
    };
    (n > 0.0).then(|| (mean(|label| label.baseline), mean(|label| label.candidate)))
}

fn bound(count: Count) -> f64 {
    binomial::upper_bound(count.hits, count.n, CONFIDENCE)
}

/// 0 where there is nothing to share.
fn share(count: Count) -> f64 {
    if count.n == 0 { 0.0 } else { count.hits as f64 / count.n as f64 }
}

/// `2 of 3,000`.
fn of(count: Count) -> String {
    format!("{} of {}", thousands(count.hits), thousands(count.n))
}

/// A Frechet distance as a multiple of the baseline's.
fn ratio(measured: &EvaluateRecord) -> String {
    format!("{}\u{d7}", short(measured.quality.candidate / measured.quality.baseline))
}

#[cfg(test)]
mod tests;
