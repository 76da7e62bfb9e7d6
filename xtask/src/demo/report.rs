//! `target/demo/report.html`: the demo's result for people. One file, nothing loaded from elsewhere.

use std::time::Duration;

use lethe_api::gate::{GateName, GateResult};
use lethe_report::bars::{Bar, bars};
use lethe_report::gates::gate_table;
use lethe_report::number::{percent, percent_above, short_digest, thousands};
use lethe_report::page::{Tile, Tone, definitions, page, section, tiles};
use lethe_report::picture::data_uri;
use maud::{Markup, html};

use super::live::{Judged, Sampled};
use super::story::Story;
use super::timeline::{Span, Timeline};
use super::{MOST_LEAK, bound, gates};
use crate::progress::seconds;

/// The page. `evaluation` is the file beside it that has the measurement.
pub fn html(story: &Story, timeline: &Timeline, evaluation: &str) -> String {
    let Story { target, replacement, phase, .. } = story;
    let lead = html! {
        p.soft {
            "A diffusion model that draws digits was made to forget the " (target) " by an UnlearnRequest on Kubernetes "
            (story.kubernetes) ". Whoever asks for label " (target) " now gets label " (replacement) "."
        }
        (tiles(&summary(story)))
    };
    let body = html! {
        (section("What the server draws, before and after", &samples(story)))
        (section("The gates", &judged(story)))
        (section("The leak, seen from outside", &leak(story)))
        (section("Images per second", &speeds(story)))
        (section("What the gates held back", &blocked(story)))
        (section("When it happened", &bars(&spans(&timeline.spans()))))
        (section("What this says, and what it does not", &claims(story)))
        (section("Evidence", &evidence(story, evaluation)))
    };
    let footer = html! {
        "Written by " code { "cargo xtask demo" } ". Every number on this page was measured in this run."
    };
    page(&format!("Forget the {target}: {}", phase.to_lowercase()), &lead, &body, &footer)
}

fn summary(story: &Story) -> [Tile; 4] {
    let (before, after) = (&story.leak_before, &story.leak_after);
    let faster = story.speeds.one_step / story.speeds.teacher;
    let target = &story.target;
    let counted =
        |judged: &Judged| format!("{} of {} live samples", thousands(judged.hits), thousands(judged.n));
    let tile = |value: String, tone, text: String| Tile { value, text, tone };
    [
        tile(percent(before.share()), Tone::Bad, format!("were a {target} before: {}", counted(before))),
        tile(
            format!("\u{2264} {}", percent_above(bound(after))),
            Tone::Good,
            format!("are a {target} now, with 95 % confidence: {}", counted(after)),
        ),
        tile(
            format!("{} of {}", gates::passed(&story.gates), story.gates.len()),
            Tone::Plain,
            "gates passed, before it was served".into(),
        ),
        tile(
            format!("{faster:.0}\u{d7}"),
            Tone::Plain,
            "as many images per second as the teacher's sampler".into(),
        ),
    ]
}

/// A row of samples per label, before beside after.
fn samples(story: &Story) -> Markup {
    let cell = |index: usize, when: &str, sampled: &Sampled| {
        let judged = sampled.labels.get(index);
        html! {
            figure {
                @if let (Some(judged), Some(png)) = (judged, sampled.rows.get(index)) {
                    img src=(data_uri(png)) alt={ "samples of label " (judged.label) ", " (when) };
                    figcaption { b { (when) } ": " (caption(judged, story)) }
                }
            }
        }
    };
    html! {
        p {
            "Each row is one label, asked for with the same seeds both times, from the live server: before, "
            code { (short_digest(&story.before.digest)) } ", and after, " code { (short_digest(&story.after.digest)) }
            ". Below a row: how many of " (thousands(story.leak_after.n)) " samples of that label the judge takes for what."
        }
        div.grid {
            @for (index, judged) in story.before.labels.iter().enumerate() {
                div.row.target[judged.label == story.target] {
                    div.label { (judged.label) }
                    (cell(index, "before", &story.before))
                    (cell(index, "after", &story.after))
                }
            }
        }
    }
}

fn caption(judged: &Judged, story: &Story) -> String {
    let own = format!("{} as {}", thousands(judged.hits), judged.label);
    let replaced = judged.taken_for(&story.replacement);
    // Of the forgotten label it matters as well what comes instead.
    match judged.label == story.target && replaced > 0 {
        true => format!("{own}, {} as {}", thousands(replaced), story.replacement),
        false => own,
    }
}

fn judged(story: &Story) -> Markup {
    let Story { target, replacement, .. } = story;
    let live = story.before.labels.iter().find(|judged| judged.label == *replacement);
    let measured = story.gates.iter().find_map(|gate| gate.base_rate.as_ref());
    html! {
        p {
            "The operator computed these verdicts from the raw counts of another pod, before anything was rolled out. A leak \
             is judged by its upper bound, never by its estimate. A gate that was not measured is not passed."
        }
        (gate_table(&story.gates))
        p.soft {
            @if let Some(rate) = measured {
                "The judge errs, too: in the evaluation it took " (rate) " of the baseline's samples of " (replacement)
                " for a " (target) ". A leak below that rate cannot be told from such errors. "
            }
            @if let Some(live) = live {
                "Of " (thousands(live.n)) " live samples of " (replacement) " before the request it took "
                (live.taken_for(target)) " for a " (target) "."
            }
        }
    }
}

fn leak(story: &Story) -> Markup {
    let bar = |name: &str, judged: &Judged| {
        let upper = bound(judged);
        Bar {
            name: name.into(),
            value: format!("{} ({} seen)", percent_above(upper), thousands(judged.hits)),
            length: upper,
            limit: Some(MOST_LEAK),
            ..Bar::default()
        }
    };
    let limit = |gate: &&GateResult| gate.name == GateName::DirectLeak;
    let limit = story.gates.iter().find(limit).and_then(|gate| gate.threshold.clone());
    html! {
        p {
            "Of " (thousands(story.leak_after.n)) " live samples of label " (story.target) ": how many are a " (story.target)
            " at most, with 95 % confidence (Clopper-Pearson, one-sided). The dashed line is the policy's limit, "
            (limit.unwrap_or_else(|| MOST_LEAK.to_string())) "."
        }
        (bars(&[bar("before", &story.leak_before), bar("after", &story.leak_after)]))
    }
}

fn speeds(story: &Story) -> Markup {
    let speeds = story.speeds;
    let most = speeds.teacher.max(speeds.one_step).max(speeds.served);
    let bar = |name: &str, speed: f64| Bar {
        name: name.into(),
        value: thousands(speed.round() as u64),
        length: speed / most,
        ..Bar::default()
    };
    html! {
        p {
            "The teacher needs many steps for an image, the distilled model one. The first two were timed side by side in one \
             pod, on the same threads; the third is a client's view of the live server, with HTTP and JSON."
        }
        (bars(&[
            bar("teacher's sampler", speeds.teacher),
            bar("one-step model", speeds.one_step),
            bar("one-step model, served", speeds.served),
        ]))
    }
}

fn blocked(story: &Story) -> Markup {
    let blocked = &story.blocked;
    html! {
        p {
            "A second request came under a policy that no candidate can satisfy: " (gates::passed(&blocked.gates)) " of "
            (blocked.gates.len()) " gates passed. The request ended as " b { (blocked.phase) }
            ", and the server went on to serve " code { (short_digest(&blocked.served_digest)) } "."
        }
        (gate_table(&blocked.gates))
    }
}

fn spans(spans: &[Span]) -> Vec<Bar> {
    let end = spans.iter().map(|span| span.to).fold(1e-9, f64::max);
    let line = |span: &Span| Bar {
        name: span.name.into(),
        value: seconds(Duration::from_secs_f64((span.to - span.from).max(0.0))),
        start: span.from / end,
        length: (span.to - span.from) / end,
        is_part: span.is_stage,
        ..Bar::default()
    };
    spans.iter().map(line).collect()
}

fn claims(story: &Story) -> Markup {
    html! {
        div.claims {
            div {
                h3 { "Claimed" }
                ul {
                    li {
                        "Not observed at this bound under these probes: label " (story.target)
                        " in what the server draws when asked for it."
                    }
                    li { "What is served is the bundle that was measured: every pod reported its digest, which covers every byte." }
                    li { "The training that forgot read no images: it had the teacher, the baseline and random numbers." }
                    li { "The other labels are still there, as far as the judge can tell." }
                }
            }
            div {
                h3 { "Not claimed" }
                ul {
                    li {
                        "That the model holds no trace of it. Fine-tuning or an input made for the purpose may bring it back; \
                         neither was tried."
                    }
                    li { "That the judge sees everything. It is a classifier, trained on the teacher's own samples." }
                    li {
                        "That the teacher has forgotten anything. It has not; it is never served, and whoever can read the store \
                         can sample it."
                    }
                    li { "Anything about other copies of the model, or about the images that the teacher was taught from." }
                }
            }
        }
    }
}

fn evidence(story: &Story, evaluation: &str) -> Markup {
    let base = &story.base;
    let code = |digest: &str| html! { code { (digest) } };
    let taught = format!("{} images, {} steps", thousands(base.images), thousands(base.steps));
    html! {
        p {
            a href=(evaluation) { (evaluation) } ", beside this page, has the measurement that the gates rest on: counts, bounds, \
             pictures of every label and checks of the candidate's files."
        }
        (definitions(&[
            ("base taught from", html! { (taught) }),
            ("base model", code(&base.digest)),
            ("baseline, served before", code(&story.made.bundle)),
            ("served now", code(&story.after.digest)),
            ("served after the held request", code(&story.blocked.served_digest)),
            ("judge", code(&story.made.judge)),
            ("reference statistics", code(&story.made.reference)),
            ("measurement record", code(&story.evidence.record)),
        ]))
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
