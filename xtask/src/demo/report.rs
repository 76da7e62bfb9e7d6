//! `target/demo/report.html`: the demo's result for people. One file, nothing loaded from elsewhere.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::gates::{self, Gate};
use super::live::{Judged, Sampled};
use super::story::Story;
use super::timeline::{Span, Timeline};
use super::{MOST_LEAK, bound};
use crate::progress::seconds;

const PAGE: &str = include_str!("report.html");
/// The columns of a gate on the page: the verdict early, where a phone shows it.
const ORDER: [usize; 7] = [0, 1, 6, 2, 3, 4, 5];

pub fn html(story: &Story, timeline: &Timeline) -> String {
    let Story { target, replacement, phase, .. } = story;
    let title = format!("Forget the {target}: {}", phase.to_lowercase());
    let lead = format!(
        "A diffusion model that draws digits was made to forget the {target} by an UnlearnRequest on Kubernetes {}. \
         Whoever asks for label {target} now gets label {replacement}.",
        story.kubernetes
    );
    let limit =
        story.gates.iter().find(|gate| gate.name == "direct-leak").and_then(|gate| gate.threshold.clone());
    fill(&[
        ("title", &escape(&title)),
        ("lead", &escape(&lead)),
        ("tiles", &tiles(story)),
        ("samples", &thousands(story.leak_after.n as f64)),
        ("target", &escape(target)),
        ("limit", &escape(&limit.unwrap_or_else(|| MOST_LEAK.to_string()))),
        ("short_before", short(&story.before.digest)),
        ("short_after", short(&story.after.digest)),
        ("rows", &rows(story)),
        ("gates", &gate_table(&story.gates)),
        ("base_rate", &base_rate(story)),
        ("leaks", &leaks(story)),
        ("speeds", &speeds(story)),
        ("blocked", &blocked(story)),
        ("blocked_gates", &gate_table(&story.blocked.gates)),
        ("timeline", &spans(&timeline.spans())),
        ("digests", &digests(story)),
        ("evidence", &evidence(story)),
    ])
}

fn tiles(story: &Story) -> String {
    let (before, after) = (&story.leak_before, &story.leak_after);
    let passed = story.gates.iter().filter(|gate| gate.passed()).count();
    let faster = story.speeds.one_step / story.speeds.teacher;
    let target = &story.target;
    let tile = |value: String, class: &str, text: String| {
        let (value, text) = (escape(&value), escape(&text));
        format!("<div class=\"tile\"><b class=\"{class}\">{value}</b><small>{text}</small></div>")
    };
    let counted = |judged: &Judged| {
        format!("{} of {} live samples", thousands(judged.hits as f64), thousands(judged.n as f64))
    };
    [
        tile(percent(before.share()), "bad", format!("were a {target} before: {}", counted(before))),
        tile(
            format!("\u{2264} {}", percent_above(bound::upper(after.hits, after.n))),
            "good",
            format!("are a {target} now, with 95 % confidence: {}", counted(after)),
        ),
        tile(format!("{passed} of {}", story.gates.len()), "", "gates passed, before it was served".into()),
        tile(format!("{faster:.0}\u{00d7}"), "", "as many images per second as the teacher's sampler".into()),
    ]
    .concat()
}

/// A row of samples per label, before beside after.
fn rows(story: &Story) -> String {
    let row = |index: usize, judged: &Judged| {
        let label = escape(&judged.label);
        let is_target = judged.label == story.target;
        let cell = |when: &str, sampled: &Sampled| {
            let caption = sampled.labels.get(index).map(|judged| caption(judged, story)).unwrap_or_default();
            let picture = sampled.rows.get(index).map(|png| data_uri(png)).unwrap_or_default();
            format!(
                "<figure><img src=\"{picture}\" alt=\"samples of label {label}, {when}\">\
                 <figcaption data-when=\"{when}\">{caption}</figcaption></figure>"
            )
        };
        let class = if is_target { "row target" } else { "row" };
        let (before, after) = (cell("before", &story.before), cell("after", &story.after));
        format!("    <div class=\"{class}\"><div class=\"label\">{label}</div>{before}{after}</div>\n")
    };
    story.before.labels.iter().enumerate().map(|(index, judged)| row(index, judged)).collect()
}

fn caption(judged: &Judged, story: &Story) -> String {
    let own = format!("{} as {}", thousands(judged.hits as f64), judged.label);
    let replaced = judged.taken_for(&story.replacement);
    // Of the forgotten label it matters as well what comes instead.
    let text = match judged.label == story.target && replaced > 0 {
        true => format!("{own}, {} as {}", thousands(replaced as f64), story.replacement),
        false => own,
    };
    escape(&text)
}

fn gate_table(gates: &[Gate]) -> String {
    let heads: String = ORDER.map(|i| cell("th", gates::COLUMNS[i], is_number(gates::COLUMNS[i]))).concat();
    let rows: String = gates.iter().map(gate_rows).collect();
    format!("<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>")
}

/// A row, and below it why the gate did not pass.
fn gate_rows(gate: &Gate) -> String {
    let cells = gates::cells(gate);
    let cells = ORDER.map(|i| match gates::COLUMNS[i] {
        "verdict" => format!("<td class=\"{}\">{}</td>", verdict_class(gate), escape(&cells[i])),
        head => cell("td", &cells[i], is_number(head)),
    });
    let cells = cells.concat();
    match &gate.message {
        None => format!("<tr>{cells}</tr>"),
        Some(why) => {
            let (columns, why) = (gates::COLUMNS.len(), escape(why));
            format!(
                "<tr class=\"told\">{cells}</tr><tr><td class=\"why\" colspan=\"{columns}\">{why}</td></tr>"
            )
        }
    }
}

fn is_number(head: &str) -> bool {
    ["value", "bound", "threshold", "n"].contains(&head)
}

fn cell(tag: &str, text: &str, is_number: bool) -> String {
    let class = if is_number { " class=\"num\"" } else { "" };
    format!("<{tag}{class}>{}</{tag}>", escape(text))
}

fn verdict_class(gate: &Gate) -> &'static str {
    if gate.passed() { "good" } else { "bad" }
}

fn base_rate(story: &Story) -> String {
    let Story { target, replacement, .. } = story;
    let live = story.before.labels.iter().find(|judged| judged.label == *replacement);
    let measured = story.gates.iter().find_map(|gate| gate.base_rate.as_ref());
    let mut text = String::new();
    if let Some(rate) = measured {
        text += &format!(
            "The judge errs, too: in the evaluation it took {rate} of the baseline's samples of {replacement} for a \
             {target}. A leak below that rate cannot be told from such errors."
        );
    }
    if let Some(live) = live {
        let (taken, n) = (live.taken_for(target), thousands(live.n as f64));
        text += &format!(
            " Of {n} live samples of {replacement} before the request it took {taken} for a {target}."
        );
    }
    escape(&text)
}

fn leaks(story: &Story) -> String {
    let bar = |name: &str, judged: &Judged| {
        let upper = bound::upper(judged.hits, judged.n);
        let text = format!("\u{2264} {} ({} hits)", percent_above(upper), thousands(judged.hits as f64));
        let limit = format!("<u style=\"left:{:.2}%\"></u>", 100.0 * MOST_LEAK);
        bar(name, "", (0.0, upper), &limit, &text)
    };
    bar("before", &story.leak_before) + &bar("after", &story.leak_after)
}

fn speeds(story: &Story) -> String {
    let speeds = story.speeds;
    let most = speeds.teacher.max(speeds.one_step).max(speeds.served);
    let bar = |name: &str, speed: f64| bar(name, "", (0.0, speed / most), "", &thousands(speed));
    bar("teacher's sampler", speeds.teacher)
        + &bar("one-step model", speeds.one_step)
        + &bar("one-step model, served", speeds.served)
}

fn blocked(story: &Story) -> String {
    let blocked = &story.blocked;
    let passed = blocked.gates.iter().filter(|gate| gate.passed()).count();
    format!(
        "A second request came under a policy that no candidate can satisfy: {passed} of {} gates passed. The request ended as \
         <b>{}</b>, and the server went on to serve <code>{}</code>.",
        blocked.gates.len(),
        escape(&blocked.phase),
        escape(short(&blocked.served_digest)),
    )
}

fn spans(spans: &[Span]) -> String {
    let end = spans.iter().map(|span| span.to).fold(1e-9, f64::max);
    let line = |span: &Span| {
        let class = if span.is_stage { "stage" } else { "" };
        let took = seconds(std::time::Duration::from_secs_f64((span.to - span.from).max(0.0)));
        bar(span.name, class, (span.from / end, (span.to - span.from) / end), "", &took)
    };
    spans.iter().map(line).collect()
}

/// A line of a bar chart: `start` and `length` are shares of the width.
fn bar(name: &str, class: &str, (start, length): (f64, f64), more: &str, text: &str) -> String {
    let (name, text) = (escape(name), escape(text));
    let indent = if class == "stage" { "name stage-name" } else { "name" };
    format!(
        "<div class=\"{indent}\">{name}</div><div class=\"num\">{text}</div><div class=\"track\"><i class=\"{class}\" \
         style=\"left:{:.2}%;width:{:.2}%\"></i>{more}</div>",
        100.0 * start,
        100.0 * length
    )
}

fn digests(story: &Story) -> String {
    let base = &story.base;
    let pairs = [
        ("base model", &base.digest),
        ("baseline, served before", &story.made.bundle),
        ("served now", &story.after.digest),
        ("served after the held request", &story.blocked.served_digest),
        ("judge", &story.made.judge),
        ("reference statistics", &story.made.reference),
        ("measurement record", &story.evidence.record),
    ];
    let pair = |(name, digest): &(&str, &String)| {
        format!("<dt>{}</dt><dd><code>{}</code></dd>", escape(name), escape(digest))
    };
    let taught = format!("{} images, {} steps", thousands(base.images as f64), thousands(base.steps as f64));
    format!(
        "<dt>base taught from</dt><dd>{}</dd>{}",
        escape(&taught),
        pairs.iter().map(pair).collect::<String>()
    )
}

/// The grids that the evaluate pod drew itself.
fn evidence(story: &Story) -> String {
    let figure = |name: &str, (digest, png): &(String, Vec<u8>)| {
        format!(
            "<figure><img src=\"{}\" alt=\"{name}\"><figcaption>{name}, as the evaluation drew it<br><code>{}</code></figcaption></figure>",
            data_uri(png),
            escape(digest)
        )
    };
    figure("baseline", &story.evidence.before) + &figure("candidate", &story.evidence.after)
}

fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// The first digits of a digest.
fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// An upper bound must not be rounded down.
fn percent_above(share: f64) -> String {
    format!("{:.2} %", (share * 1e4 - 1e-9).ceil() / 100.0)
}

/// `12,345`.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One pass over the template: what is filled in is not searched for placeholders.
fn fill(values: &[(&str, &str)]) -> String {
    let value = |key: &str| values.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value);
    let part = |part: &str| match part.split_once("}}") {
        None => part.to_owned(),
        Some((key, rest)) => format!("{}{rest}", value(key)),
    };
    PAGE.split("{{").map(part).collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
