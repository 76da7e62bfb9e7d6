//! The view as lines.

use lethe_api::v1alpha1::{GateResult, RequestPhase, RunProgress, Verdict};
use lethe_report::number::{short, short_digest};

use super::view::{ModelView, RequestView, RunView, View};
use crate::{
    term::{Line, Tone},
    words,
};

/// Width of a progress bar.
const BAR: u64 = 24;
/// A term that ends within so many days is at risk: as the alerts see it.
const AT_RISK: i64 = 7 * 86_400;
/// Of the gates that passed, so many are shown; all that did not.
const MOST_PASSED: usize = 20;

/// The whole tree.
pub fn draw(view: &View) -> Vec<Line> {
    let mut lines = Vec::new();
    for model in &view.models {
        lines.extend(model_lines(model));
    }
    if !view.orphans.is_empty() {
        lines.push(Line::of(Tone::Bad, "requests whose model does not exist"));
        lines.extend(branches(&view.orphans));
    }
    if lines.is_empty() {
        lines.push(Line::of(Tone::Soft, "no models and no requests"));
    }
    lines.extend(view.unread.iter().map(|what| Line::of(Tone::Soft, format!("({what})"))));
    lines
}

fn model_lines(model: &ModelView) -> Vec<Line> {
    let mut head = Line::of(Tone::Strong, format!("{}/{}", model.namespace, model.name))
        .and(Tone::Plain, "  ")
        .and(ready_tone(model.ready.as_deref()), model.phase.clone().unwrap_or_else(|| "new".into()));
    head = match (model.compliant.as_deref(), model.forgotten) {
        (Some("True"), 0) => head.and(Tone::Soft, "  nothing to forget yet"),
        (Some("True"), n) => head.and(Tone::Good, format!("  compliant, {n} forgotten")),
        (Some(_), n) => head.and(Tone::Bad, format!("  NOT compliant, {n} forgotten")),
        (None, _) => head,
    };
    if let Some(served) = &model.served {
        let since = model.served_for_seconds.map(|s| format!(" for {}", words::span(s))).unwrap_or_default();
        head = head.and(Tone::Soft, format!("  serves {}{since}", short_digest(served)));
    }
    let mut lines = vec![head.and(Tone::Soft, format!("  policy {}", model.policy))];
    let rail = if model.requests.is_empty() { "   " } else { "\u{2502}  " };
    let mut below = Vec::new();
    if !model.exposed.is_empty() {
        below.push(detail("shows", Tone::Bad, format!("{} may be shown again", model.exposed.join(", "))));
    }
    below.extend(model.why.as_ref().map(|why| detail("why", Tone::Plain, why.clone())));
    below.extend(model.rollout.as_ref().map(|what| detail("serving", Tone::Busy, what.clone())));
    below.extend(model.audit.as_ref().map(|what| detail("audit", Tone::Plain, what.clone())));
    below.extend(model.next.iter().map(|what| detail("next", Tone::Strong, what.clone())));
    below.extend(model.run.iter().flat_map(run_lines));
    lines.extend(below.into_iter().map(|line| indent(rail, line)));
    lines.extend(branches(&model.requests));
    lines
}

fn branches(requests: &[RequestView]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let is_last = index + 1 == requests.len();
        let (fork, rail) =
            if is_last { ("\u{2514}\u{2500} ", "   ") } else { ("\u{251c}\u{2500} ", "\u{2502}  ") };
        for (row, line) in request_lines(request).into_iter().enumerate() {
            lines.push(beside(if row == 0 { fork } else { rail }, rail, line));
        }
    }
    lines
}

fn indent(rail: &str, line: Line) -> Line {
    beside(rail, rail, line)
}

/// A line to the right of the tree, whose further rows stand beside `rail`.
fn beside(before: &str, rail: &str, line: Line) -> Line {
    let hang = format!("{rail}{}", line.hang);
    let mut parts = vec![(Tone::Soft, before.to_owned())];
    parts.extend(line.parts);
    Line { parts, hang }
}

fn detail(name: &str, tone: Tone, text: String) -> Line {
    Line::of(Tone::Soft, format!("{name:<10}")).and(tone, text).hanging(" ".repeat(10))
}

fn request_lines(request: &RequestView) -> Vec<Line> {
    let mut head = Line::of(Tone::Strong, request.name.clone())
        .and(Tone::Plain, format!("  {} \u{2192} {}", request.targets.join(", "), request.instead));
    if request.is_pilot {
        head = head.and(Tone::Soft, "  pilot");
    }
    let phase = request.phase.map_or_else(|| "new".into(), |phase| format!("{phase:?}"));
    head = head.and(Tone::Plain, "  ").and(phase_tone(request.phase), phase);
    if request.suspended {
        head = head.and(Tone::Busy, "  suspended");
    }
    head = head
        .and(Tone::Plain, request.gate_summary.as_ref().map(|s| format!("  {s} gates")).unwrap_or_default());
    if let (Some(due), Some(left)) = (&request.due_at, request.left_seconds) {
        head = term(head, due, left, request.clock_runs);
    }
    let mut lines = vec![head];
    let wants_why = !matches!(request.phase, Some(RequestPhase::Fulfilled));
    lines.extend(
        request.why.as_ref().filter(|_| wants_why).map(|why| detail("why", Tone::Plain, why.clone())),
    );
    lines.extend(request.approvals.as_ref().map(|asked| {
        let by = if asked.by.is_empty() { "nobody yet".into() } else { asked.by.join(", ") };
        let who = asked.not_by.as_ref().filter(|_| asked.by.len() < asked.required);
        let not = who.map(|who| format!("; anybody with the right but {who} may")).unwrap_or_default();
        detail("approvals", Tone::Plain, format!("{} of {}: {by}{not}", asked.by.len(), asked.required))
    }));
    lines.extend(request.attempts.as_ref().filter(|a| a.allowed > 1 || a.used > 1).map(|attempts| {
        let next = match request.next_attempt_in_seconds {
            Some(wait) if wait > 0 => format!("; the next may begin in {}", words::span(wait)),
            Some(_) => "; the next may begin".into(),
            None => String::new(),
        };
        detail("attempts", Tone::Plain, format!("{} of {}{next}", attempts.used, attempts.allowed))
    }));
    lines.extend(request.next.iter().map(|what| detail("next", Tone::Strong, what.clone())));
    lines.extend(request.run.iter().flat_map(run_lines));
    lines
}

fn term(head: Line, due: &str, left: i64, clock_runs: bool) -> Line {
    let day = due.get(..10).unwrap_or(due);
    if !clock_runs {
        return head.and(Tone::Soft, format!("  due {day}"));
    }
    let tone = if left <= AT_RISK { Tone::Bad } else { Tone::Plain };
    let words = if left > 0 {
        format!("  due {day}, {} left", words::span(left))
    } else {
        format!("  due {day}, OVERDUE by {}", words::span(left))
    };
    head.and(tone, words)
}

fn run_lines(run: &RunView) -> Vec<Line> {
    let mut head = Line::of(Tone::Soft, format!("{:<10}", "run")).and(Tone::Plain, run.name.clone());
    if let Some(type_) = run.type_ {
        head = head.and(Tone::Soft, format!("  {type_:?}"));
    }
    if let Some(phase) = &run.phase {
        head = head.and(Tone::Plain, format!("  {phase}"));
    }
    if let Some(verdict) = run.verdict {
        head = head.and(verdict_tone(verdict), format!("  {verdict:?}"));
    }
    let mut lines = vec![head];
    lines.extend(run.progress.as_ref().map(bar));
    lines.extend(gate_lines(&run.gates));
    lines
}

/// Where the stage at work is, and how long it may still take.
fn bar(progress: &RunProgress) -> Line {
    let total = progress.total.max(1);
    let done = progress.step.min(total);
    let full = usize::try_from(done * BAR / total).unwrap_or_default();
    let rest = usize::try_from(BAR).unwrap_or_default() - full;
    let eta = progress.eta_seconds.and_then(|eta| i64::try_from(eta).ok());
    let eta = eta.map(|eta| format!(", about {} left", words::span(eta))).unwrap_or_default();
    let bar = "\u{2588}".repeat(full) + &"\u{2591}".repeat(rest);
    detail("", Tone::Busy, bar).and(
        Tone::Plain,
        format!(
            " {:>3} %  {} {}/{}{eta}",
            100 * done / total,
            lethe_api::printable::printable(&progress.stage),
            progress.step,
            progress.total
        ),
    )
}

/// Every gate that did not pass, and those that did up to a number.
fn gate_lines(gates: &[GateResult]) -> Vec<Line> {
    let mut passed = 0;
    let mut left_out = 0;
    let mut lines = Vec::new();
    let name = |gate: &GateResult| {
        let target =
            gate.target.as_ref().map(|target| format!(" {}", lethe_api::printable::printable(target)));
        format!("{}{}", gate.name, target.unwrap_or_default())
    };
    let width = gates.iter().map(|gate| name(gate).chars().count()).max().unwrap_or_default().min(40);
    for gate in gates {
        if gate.verdict == Verdict::Pass {
            passed += 1;
            if passed > MOST_PASSED {
                left_out += 1;
                continue;
            }
        }
        lines.push(gate_line(&format!("{:<width$}", name(gate)), gate));
    }
    if left_out > 0 {
        lines.push(detail("", Tone::Soft, format!("and {left_out} more that passed")));
    }
    lines
}

fn gate_line(name: &str, gate: &GateResult) -> Line {
    let sign = match gate.verdict {
        Verdict::Pass => "\u{2713}",
        Verdict::Fail => "\u{2717}",
        Verdict::Inconclusive => "?",
        Verdict::Error => "!",
    };
    let figure = |text: &String| text.parse::<f64>().map_or_else(|_| text.clone(), short);
    let mut text = format!("  {name}");
    match (&gate.bound, &gate.value) {
        (Some(bound), _) => text += &format!("  bound {}", figure(bound)),
        (None, Some(value)) => text += &format!("  {}", figure(value)),
        (None, None) => {}
    }
    if let Some(threshold) = &gate.threshold {
        text += &format!("  limit {}", figure(threshold));
    }
    if let (Some(hits), Some(n)) = (gate.hits, gate.n) {
        text += &format!("  ({})", words::of(hits, n));
    }
    let line = Line::of(Tone::Soft, format!("{:<10}", ""))
        .and(verdict_tone(gate.verdict), sign)
        .hanging(" ".repeat(13));
    let line = line.and(Tone::Plain, text);
    match (&gate.message, gate.verdict) {
        (Some(message), verdict) if verdict != Verdict::Pass => {
            line.and(Tone::Soft, format!("  {}", lethe_api::printable::printable(message)))
        }
        _ => line,
    }
}

fn verdict_tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Pass => Tone::Good,
        Verdict::Inconclusive => Tone::Busy,
        Verdict::Fail | Verdict::Error => Tone::Bad,
    }
}

fn ready_tone(ready: Option<&str>) -> Tone {
    match ready {
        Some("True") => Tone::Good,
        Some("False") => Tone::Bad,
        _ => Tone::Busy,
    }
}

fn phase_tone(phase: Option<RequestPhase>) -> Tone {
    use RequestPhase::{
        Aborted, AwaitingApproval, Denied, Evaluating, Failed, Fulfilled, Held, Pending, Queued, Reexposed,
        RollingOut, Training, Tried,
    };
    match phase {
        Some(Fulfilled | Tried) => Tone::Good,
        Some(Held | Failed | Denied | Reexposed | Aborted) => Tone::Bad,
        Some(Training | Evaluating | RollingOut) => Tone::Busy,
        None | Some(Pending | Queued | AwaitingApproval) => Tone::Plain,
    }
}
