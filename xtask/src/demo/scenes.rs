//! What happens in the cluster, in order.

use anyhow::{Context, Result, bail, ensure};
use lethe_api::contract::{Digest, Metrics, Record, RecordBody};
use lethe_api::gate::GateResult;
use lethe_gates::decimal;
use lethe_report::evaluation::{self, Evaluation, Ruling};
use serde_json::Value;

use super::follow::{self, follow, is_true, why};
use super::gates;
use super::kubectl::Kubectl;
use super::live::{self, Sampled, text};
use super::story::{Blocked, Evidence, Made, Speeds, Story, Taught};
use super::timeline::Timeline;
use super::{
    BASELINE, BLOCKED, DIGEST_TO_FILL, EVALUATE, FORGET, FORGETTING, MODEL, PREPARE, PREPARING, ROLLOUT,
    SAMPLE_AFTER, SAMPLE_BEFORE, TEACH, bound, example, jobs,
};
use crate::progress;

const MODELS: &str = "DiffusionModel";
const REQUESTS: &str = "UnlearnRequest";
/// The phases in which a request stays.
const FINAL: [&str; 5] = ["Fulfilled", "Tried", "Held", "Failed", "Denied"];

/// Everything from the base model to the roll-out that is blocked.
///
/// # Errors
/// If anything does not come out as it has to.
pub fn play(kubectl: &Kubectl<'_>, timeline: &Timeline, kubernetes: String) -> Result<Story> {
    let base = timeline.chapter(TEACH, || teach(kubectl, timeline))?;
    let (model, drawing) = timeline.chapter(PREPARING, || prepare(kubectl, timeline, &base.digest))?;
    let made: Made = serde_json::from_value(model["status"]["baseline"].clone())?;
    let before = timeline.chapter(SAMPLE_BEFORE, || {
        let before = sample(kubectl, timeline, &model, None)?;
        ensure!(before.digest == made.bundle, "what is served is not the baseline {}", made.bundle);
        Ok(before)
    })?;
    let request = timeline.chapter(FORGETTING, || forget(kubectl, timeline))?;
    let target = text(&request, "/spec/targets/0/label")?.to_owned();
    let gates = gates::all_of(&request)?;
    let (after, evidence) = timeline.chapter(SAMPLE_AFTER, || {
        let after = sample(kubectl, timeline, &model, Some(&target))?;
        ensure!(after.digest != before.digest, "the served digest did not change");
        compare(timeline, &target, &before, &after, &gates)?;
        let evidence = progress::step("fetch the measurement record and its pictures", || {
            evidence(kubectl, &request, &gates)
        })?;
        Ok((after, evidence))
    })?;
    let Drawing { teacher, one_step } = drawing;
    let speeds = Speeds { teacher, one_step, served: after.images_per_second() };
    let blocked = timeline.chapter(BLOCKED, || block(kubectl, timeline, &after.digest))?;
    Ok(Story {
        kubernetes,
        base,
        made,
        leak_before: before.label(&target)?.clone(),
        leak_after: after.label(&target)?.clone(),
        before,
        after,
        replacement: text(&request, "/spec/override/label")?.to_owned(),
        target,
        phase: text(&request, "/status/phase")?.to_owned(),
        gates,
        evidence,
        speeds,
        blocked,
    })
}

/// The model that one already has: taught in a Job, from images.
fn teach(kubectl: &Kubectl<'_>, timeline: &Timeline) -> Result<Taught> {
    let images = "--from-file=trainer/data/optical-digits.csv.gz";
    kubectl.show(&["create", "configmap", "digits-images", images])?;
    kubectl.show(&["apply", "-f", "examples/teach-job.yaml"])?;
    let said = jobs::finish(kubectl, timeline, "teach-digits")?;
    let taught: Taught =
        serde_json::from_str(&said).with_context(|| format!("the Job says something else: {said}"))?;
    let Taught { images, steps, digest } = &taught;
    timeline.say(&format!("taught from {images} handwritten digits in {steps} steps: {digest}"));
    Ok(taught)
}

/// The model's baseline, served. Also: how fast the teacher and the baseline draw.
fn prepare(kubectl: &Kubectl<'_>, timeline: &Timeline, base: &str) -> Result<(Value, Drawing)> {
    kubectl.show(&["apply", "-f", "examples/policy.yaml", "-f", "examples/serving.yaml"])?;
    timeline.more(&format!("examples/model.yaml with the digest {base}:"));
    kubectl.feed(&["apply", "-f", "-"], &example("model.yaml")?.replace(DIGEST_TO_FILL, base))?;
    let from = timeline.now();
    let (model, followed) = follow(kubectl, timeline, (MODELS, MODEL), |model| {
        if model["status"]["conditions"].as_array().into_iter().flatten().any(is_prepare_failure) {
            bail!("the model cannot be prepared: {}", why(model));
        }
        Ok(is_true(model, "Ready"))
    })?;
    let prepared = followed.since("Prepared").unwrap_or(from);
    timeline.stage(PREPARE, from, prepared);
    timeline.stage(BASELINE, prepared, timeline.now());
    let drawing = drawing(kubectl)?;
    let Drawing { teacher, one_step } = drawing;
    timeline.say(&format!("images per second: teacher {teacher:.0}, one-step baseline {one_step:.0}"));
    Ok((model, drawing))
}

fn is_prepare_failure(condition: &Value) -> bool {
    condition["type"] == "Prepared" && condition["status"] == "False"
}

/// Images per second in the prepare pod.
#[derive(Debug, Clone, Copy)]
struct Drawing {
    teacher: f64,
    one_step: f64,
}

/// The figures that the prepare pod left in its termination message.
fn drawing(kubectl: &Kubectl<'_>) -> Result<Drawing> {
    let runs = kubectl.json(&["get", "unlearnruns"])?;
    let runs = runs["items"].as_array().into_iter().flatten();
    let jobs = runs.flat_map(|run| run["status"]["jobs"].as_array().into_iter().flatten());
    let job = jobs.into_iter().find(|job| job["stage"] == "Prepare").context("no run has a prepare Job")?;
    let outcome: Value = serde_json::from_str(&jobs::message(kubectl, text(job, "/name")?)?)?;
    let figure = |name: &str| {
        let found = outcome["figures"][name].as_f64();
        found.with_context(|| format!("the prepare pod's outcome has no figure {name}"))
    };
    Ok(Drawing { teacher: figure("teacherImagesPerSecond")?, one_step: figure("oneStepImagesPerSecond")? })
}

/// The live server, sampled and judged. All labels have to be there, but the forgotten one.
fn sample(
    kubectl: &Kubectl<'_>,
    timeline: &Timeline,
    model: &Value,
    forgotten: Option<&str>,
) -> Result<Sampled> {
    let sampled = live::sample(kubectl, timeline, model)?;
    let shares =
        sampled.labels.iter().map(|judged| format!("{} {:.1} %", judged.label, 100.0 * judged.share()));
    timeline.say(&format!(
        "{} samples of each label; judged as what was asked for: {}",
        sampled.labels.first().map_or(0, |judged| judged.n),
        shares.collect::<Vec<_>>().join(", ")
    ));
    sampled.all_there(forgotten)?;
    Ok(sampled)
}

/// Seconds between the last transitions of two conditions, across midnight if need be.
fn seconds_between(object: &Value, from: &str, to: &str) -> Option<f64> {
    let second_of_day = |type_: &str| {
        let conditions = object["status"]["conditions"].as_array()?;
        let time = conditions.iter().find(|c| c["type"] == type_)?["lastTransitionTime"].as_str()?;
        // 2026-11-24T21:00:00Z
        let mut parts = time.get(11..19)?.split(':').map(str::parse::<f64>);
        let mut next = || parts.next()?.ok();
        Some(next()? * 3600.0 + next()? * 60.0 + next()?)
    };
    Some((second_of_day(to)? - second_of_day(from)?).rem_euclid(86_400.0))
}

/// The request, to its end.
fn forget(kubectl: &Kubectl<'_>, timeline: &Timeline) -> Result<Value> {
    kubectl.show(&["apply", "-f", "examples/forget-three.yaml"])?;
    let from = timeline.now();
    let (request, followed) = to_the_end(kubectl, timeline, "forget-three")?;
    if let Ok(gates) = gates::all_of(&request) {
        gates::print(timeline, &gates);
    }
    ensure!(request["status"]["phase"] == "Fulfilled", "forget-three is not fulfilled: {}", why(&request));
    let trained = followed.since("Trained").unwrap_or(from);
    let evaluated = followed.since("Evaluated").unwrap_or(trained);
    let fulfilled = followed.since("Fulfilled").unwrap_or(evaluated);
    timeline.stage(FORGET, from, trained);
    // Roll-outs can be quicker than the looks at the request: its own times say how long this one took.
    let passed =
        fulfilled - seconds_between(&request, "GatesPassed", "Fulfilled").unwrap_or(fulfilled - evaluated);
    timeline.stage(EVALUATE, trained, passed.max(trained));
    timeline.stage(ROLLOUT, passed, fulfilled);
    Ok(request)
}

fn to_the_end(
    kubectl: &Kubectl<'_>,
    timeline: &Timeline,
    request: &str,
) -> Result<(Value, follow::Followed)> {
    follow(kubectl, timeline, (REQUESTS, request), |request| {
        let phase = request["status"]["phase"].as_str().unwrap_or_default();
        Ok(FINAL.contains(&phase))
    })
}

/// The forgotten label, before and after.
fn compare(
    timeline: &Timeline,
    target: &str,
    before: &Sampled,
    after: &Sampled,
    gates: &[GateResult],
) -> Result<()> {
    timeline.say(&format!("served: {} -> {}", before.digest, after.digest));
    for (when, judged) in [("before", before.label(target)?), ("after", after.label(target)?)] {
        let (hits, n) = (judged.hits, judged.n);
        let bound = decimal::show_upper(bound(judged));
        timeline.say(&format!("{when:<6} {hits} of {n} live samples are a {target}; 95 % bound {bound}"));
    }
    let rate = gates.iter().find_map(|gate| gate.base_rate.as_ref());
    if let Some(rate) = rate {
        timeline.more(&format!(
            "the judge sees a {target} in {rate} of true samples of the override: its base rate"
        ));
    }
    Ok(())
}

/// The record of the evaluation and its pictures, out of the store, as a page with the operator's verdicts.
fn evidence(kubectl: &Kubectl<'_>, request: &Value, gates: &[GateResult]) -> Result<Evidence> {
    let digest: Digest = text(request, "/status/record")?.parse()?;
    let record = Record::read(&show(kubectl, &digest)?)?;
    let RecordBody::Evaluate(measured) = &record.body else { bail!("record {digest} is of no evaluation") };
    let page = evaluation::html(&Evaluation {
        record: &record,
        measured,
        digest: &digest,
        ruling: Some(Ruling { by: "the operator".into(), policy: None, results: gates.to_vec() }),
        before: Ok(show(kubectl, &measured.before)?),
        after: Ok(show(kubectl, &measured.after)?),
        training: curves(kubectl, &digest).map_err(|error| format!("{error:#}")),
    });
    Ok(Evidence { record: digest.to_string(), page })
}

/// Something out of the store.
fn show(kubectl: &Kubectl<'_>, digest: &Digest) -> Result<Vec<u8>> {
    let pod = format!("deploy/{MODEL}");
    kubectl.bytes(&["exec", &pod, "--", "/usr/bin/lethe-trainer", "show", digest.as_str()])
}

/// How the training went whose candidate the evaluation with this record measured.
fn curves(kubectl: &Kubectl<'_>, evaluated: &Digest) -> Result<Vec<Metrics>> {
    let runs = kubectl.json(&["get", "unlearnruns"])?;
    let jobs_of = |run: &Value| run["status"]["jobs"].as_array().cloned().unwrap_or_default();
    let runs = runs["items"].as_array().into_iter().flatten().map(jobs_of);
    let is_record = |job: &Value| job["record"] == evaluated.as_str();
    let jobs = runs.into_iter().find(|jobs| jobs.iter().any(is_record)).context("no run has this record")?;
    let forget = jobs.iter().find(|job| job["stage"] == "Forget").context("the run has no forget Job")?;
    let record = Record::read(&show(kubectl, &text(forget, "/record")?.parse()?)?)?;
    let RecordBody::Forget(forgotten) = record.body else {
        bail!("the record of the forget Job is of something else")
    };
    let curves = show(kubectl, &forgotten.curves.context("the trainer kept none")?)?;
    Metrics::parse_lines(&String::from_utf8_lossy(&curves)).map_err(anyhow::Error::msg)
}

/// A request under a policy that no candidate can satisfy: what is served must not change.
fn block(kubectl: &Kubectl<'_>, timeline: &Timeline, served: &str) -> Result<Blocked> {
    kubectl.show(&["apply", "-f", "examples/policy-impossible.yaml"])?;
    let patch = "--patch-file=examples/model-impossible.yaml";
    kubectl.show(&["patch", "diffusionmodel", MODEL, "--type=merge", patch])?;
    kubectl.show(&["apply", "-f", "examples/forget-seven.yaml"])?;
    let (request, _) = to_the_end(kubectl, timeline, "forget-seven")?;
    let gates = gates::all_of(&request).unwrap_or_default();
    gates::print(timeline, &gates);
    let phase = text(&request, "/status/phase")?.to_owned();
    ensure!(phase == "Held", "forget-seven should be Held, but is {}", why(&request));
    let served_digest = live::served_digest(kubectl)?;
    ensure!(served_digest == served, "what is served changed from {served} to {served_digest}");
    timeline.say(&format!("served: still {served_digest}"));
    Ok(Blocked { phase, gates, served_digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_conditions_crosses_midnight() {
        let at = |type_: &str, time: &str| serde_json::json!({"type": type_, "lastTransitionTime": time});
        let conditions = [at("GatesPassed", "2026-11-24T23:59:58Z"), at("Fulfilled", "2026-11-25T00:00:01Z")];
        let request = serde_json::json!({"status": {"conditions": conditions}});
        assert_eq!(seconds_between(&request, "GatesPassed", "Fulfilled"), Some(3.0));
        assert_eq!(seconds_between(&request, "GatesPassed", "Ready"), None);
    }
}
