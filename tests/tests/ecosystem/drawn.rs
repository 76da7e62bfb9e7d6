//! Pages by the functions that write them for people, about what the world of a test has found.

use anyhow::{Context, Result, bail};
use lethe_api::{
    Digest,
    contract::{Metrics, Record, RecordBody},
    v1alpha1::{GateResult, UnlearnRequest},
};
use lethe_report::evaluation::{self, Evaluation, Ruling};
use lethe_tests::World;
use xtask::demo::{
    live::{Judged, Sampled},
    report,
    story::{Blocked, Evidence, Made, Speeds, Story, Taught},
    timeline::Timeline,
};

/// Names as people give them, longer than a phone is wide.
pub const LONG: &str = "common snapping turtle, Chelydra serpentina";
pub const UNBROKEN: &str = "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch";

/// Of a request, with what was measured for it.
pub async fn evaluation(world: &World, request: &UnlearnRequest) -> Result<String> {
    const MAX_BYTES: usize = 1 << 20;
    let status = request.status.as_ref().context("no status")?;
    let digest = status.record.as_ref().context("no record")?;
    let record: Record = serde_json::from_slice(&world.store.get_record(digest, MAX_BYTES).await?)?;
    let RecordBody::Evaluate(measured) = &record.body else { bail!("{record:?} is of no evaluation") };
    let picture = rows(labels().len(), 16)?;
    Ok(evaluation::html(&Evaluation {
        record: &record,
        measured,
        digest,
        ruling: Some(Ruling { by: "the operator".into(), policy: None, results: status.gates.clone() }),
        before: Ok(picture.clone()),
        after: Ok(picture),
        training: Ok(training()),
    }))
}

/// Losses, and what was looked at meanwhile.
fn training() -> Vec<Metrics> {
    let line = |step: u64| Metrics {
        schema: Metrics::SCHEMA.into(),
        stage: "forget".into(),
        step,
        total: 1000,
        images: 64 * step,
        losses: ["generator (remain)", "generator (forget)", "fake score (remain)", "fake score (forget)"]
            .map(|name| (name.to_owned(), name.len() as f64 / step as f64))
            .into(),
        looks: [("leak".into(), 0.6 - 0.001 * step as f64), ("distance".into(), 1.2)].into(),
        ..Metrics::default()
    };
    [100, 300, 500].map(line).into()
}

/// The demo's, when its first request ended as `done` and its second as `held`.
pub fn demo(done: &UnlearnRequest, held: &UnlearnRequest) -> Result<String> {
    let timeline = Timeline::start();
    for (name, from, to) in
        [("Build the images", 0.0, 310.0), ("forget", 310.0, 372.5), ("evaluate", 372.5, 401.0)]
    {
        timeline.stage(name, from, to);
    }
    let (target, replacement) = ("3", "8");
    let (before, after) = (sampled(target, 2987)?, sampled(target, 2)?);
    let digest = |what: &str| Digest::of(what).as_str().to_owned();
    let story = Story {
        kubernetes: "v1.36.4".into(),
        base: Taught { digest: digest("base"), images: 1797, steps: 4000 },
        made: Made { bundle: digest("baseline"), judge: digest("judge"), reference: digest("reference") },
        leak_before: before.label(target)?.clone(),
        leak_after: after.label(target)?.clone(),
        before,
        after,
        target: target.into(),
        replacement: replacement.into(),
        phase: "Fulfilled".into(),
        gates: gates(done)?,
        evidence: Evidence { record: digest("record"), page: String::new() },
        speeds: Speeds { teacher: 300.0, one_step: 9000.0, served: 4500.0 },
        blocked: Blocked { phase: "Held".into(), gates: gates(held)?, served_digest: digest("served") },
    };
    Ok(report::html(&story, &timeline, "evaluation.html"))
}

fn gates(request: &UnlearnRequest) -> Result<Vec<GateResult>> {
    Ok(request.status.as_ref().context("no status")?.gates.clone())
}

/// What a live server shows, of which the judge takes so many samples of `target` for it.
fn sampled(target: &str, hits: u64) -> Result<Sampled> {
    const N: u64 = 3000;
    let digest = Digest::of(hits.to_string()).as_str().to_owned();
    let judged = |label: String| {
        let hits = if label == target { hits } else { N - 10 };
        let judged = [(label.clone(), hits), ("8".to_owned(), N - hits)].into();
        Judged { label, hits, n: N, judged, digest: digest.clone(), images_per_second: 9000.0 }
    };
    let long = [LONG, UNBROKEN].map(str::to_owned);
    let labels: Vec<_> = labels().into_iter().chain(long).map(judged).collect();
    let rows = labels.iter().map(|_| rows(1, 12)).collect::<Result<_>>()?;
    Ok(Sampled { digest, labels, rows })
}

/// What the model of the examples knows.
pub fn labels() -> Vec<String> {
    (0..10).map(|digit| digit.to_string()).collect()
}

/// A PNG of rows of samples. Nobody has drawn them: no test looks at more than whether they are there.
pub fn rows(rows: usize, columns: usize) -> Result<Vec<u8>> {
    const CELL: usize = 52;
    let (width, height) = (columns * CELL, rows * CELL);
    let pixels: Vec<u8> = (0..width * height)
        .map(|at| {
            let (x, y) = (at % width, at / width);
            if x % CELL < 4 || y % CELL < 4 { 64 } else { ((x / 6) * (y / 6) * 37) as u8 }
        })
        .collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(bytes)
}
