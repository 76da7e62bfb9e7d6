//! The pages for people, opened in a real Chromium: as a phone and as a desktop open them, by day and by night.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use axum::{Router, http::header, response::Html, routing::get};
use lethe_api::{
    Digest,
    contract::{EvaluateRecord, Override, PlannedTarget},
    v1alpha1::{GateName, RequestPhase, Stage, UnlearnRequest},
};
use lethe_report::gallery::{self, Model, SAMPLES};
use lethe_tests::{
    World,
    browser::Browser,
    loopback::Loopback,
    place::{MODEL, request},
    world::policy,
};
use serde_json::{Value, json};

use crate::drawn::{self, LONG, UNBROKEN};

pub async fn a_page_that_cannot_be_read_is_found_out(_world: &World) -> Result<()> {
    const BAD: &str = r#"<!doctype html><meta name="viewport" content="width=device-width"><body style="background: #fff; color: #000">
        <p style="font-size: 9px">tiny</p><p style="color: #999">pale</p><p style="opacity: .5">faint</p>
        <style>td::before { content: attr(title) }</style><table><td title="name"></table>
        <p style="color: #999; font-size: 24px">large</p><p style="width: 2000px">wide</p><img src="gone.png" alt="">
        <img src="http://127.0.0.1:9/elsewhere.png" alt="">
        <script>console.error("oh"); nothing();</script>"#;
    const GOOD: &str = r#"<!doctype html><meta name="viewport" content="width=device-width">
        <style>:root { color-scheme: light dark }</style><p>It can be read.</p>"#;
    let folder = tempfile::tempdir()?;
    let mut browser = Browser::start().await?;
    let faults = browser.faults("bad", &page(folder.path(), "bad", BAD)?).await?;
    let every = [
        "\"tiny\" is 9.0 px",
        "\"pale\" has a contrast of 2.8",
        "\"faint\" has a contrast of 3.9",
        "\"large\" has a contrast of 2.8",
        "\"name\" stands beside nothing",
        "has to be scrolled sideways",
        "a picture is not shown",
        "gone.png",
        "it asks others: http://127.0.0.1:9/elsewhere.png",
        "the page logs",
        "a script fails",
    ];
    for view in ["phone-light", "phone-dark", "desktop-light", "desktop-dark"] {
        let said: Vec<_> = faults.iter().filter(|fault| fault.starts_with(view)).collect();
        for fault in every {
            ensure!(said.iter().any(|one| one.contains(fault)), "{view} says nothing of {fault}: {said:#?}");
        }
        let is_dark = said.iter().any(|one| one.contains("the page is not dark"));
        ensure!(is_dark == view.ends_with("dark"), "{said:#?}");
    }
    let faults =
        browser.faults("unfit", &page(folder.path(), "unfit", "<!doctype html><p>No viewport.")?).await?;
    ensure!(
        faults.iter().any(|fault| fault.contains("phone-light: it is laid out for 980 px")),
        "{faults:#?}"
    );
    browser.reads_well("good", &page(folder.path(), "good", GOOD)?).await
}

pub async fn the_gallery_can_be_read_on_a_phone_and_in_the_dark(_world: &World) -> Result<()> {
    let labels = ["3", "4", "8", LONG, UNBROKEN].map(str::to_owned);
    let target = |label: &str, replacement| PlannedTarget { label: label.into(), replacement };
    let forgotten = [
        target("3", Override::Fixed { label: "8".into() }),
        target("4", Override::Random),
        target(UNBROKEN, Override::Fixed { label: LONG.into() }),
    ];
    let digest = Digest::of("a model");
    let model = Model { digest: &digest, labels: &labels, forgotten: &forgotten };
    let waiting = gallery::waiting(MODEL, "the bundle is being loaded");
    let fresh = gallery::html(MODEL, &Model { forgotten: &[], ..model }, 0);
    let server = serve(gallery::html(MODEL, &model, 24), fresh, waiting).await?;
    let mut browser = Browser::start().await?;
    browser.reads_well("gallery", &format!("{}/", server.url)).await?;
    browser.reads_well("gallery-fresh", &format!("{}/fresh", server.url)).await?;
    browser.reads_well("gallery-waiting", &format!("{}/waiting", server.url)).await?;
    drop(server);
    Ok(())
}

/// Three pages, and the pictures that they ask for.
async fn serve(all: String, fresh: String, waiting: String) -> Result<Loopback> {
    let row = drawn::rows(1, SAMPLES as usize)?;
    let samples = async || ([(header::CONTENT_TYPE, "image/png")], row);
    let router = Router::new()
        .route("/", get(async || Html(all)))
        .route("/fresh", get(async || Html(fresh)))
        .route("/waiting", get(async || Html(waiting)))
        .route("/samples/{file}", get(samples));
    Loopback::start(router).await
}

pub async fn every_report_can_be_read_on_a_phone_and_in_the_dark(world: &World) -> Result<()> {
    let (done, held) = two_requests(world).await?;
    let folder = tempfile::tempdir()?;
    let mut browser = Browser::start().await?;
    for (name, request) in [("done", &done), ("held", &held)] {
        let html = drawn::evaluation(world, request).await?;
        browser.reads_well(&format!("evaluation-{name}"), &page(folder.path(), name, &html)?).await?;
    }
    let demo = drawn::demo(&done, &held)?;
    browser.reads_well("demo", &page(folder.path(), "report", &demo)?).await?;
    let person = world.person("erin", &["view"]).await?;
    let (store, out) = (world.store.uri(), folder.path().display().to_string());
    let arguments = ["report", MODEL, "--compliance", "--store", store, "--out", &out];
    person.says_that(&arguments, 0, "compliance-").await?;
    let compliance = folder.path().join(format!("compliance-{}-{MODEL}.html", world.namespace));
    browser.reads_well("compliance", &format!("file://{}", compliance.display())).await
}

/// One that was fulfilled and audited, and one whose candidate shows what it should not, past its date; a third waits. All that
/// can be signed and logged is.
async fn two_requests(world: &World) -> Result<(UnlearnRequest, UnlearnRequest)> {
    world.keep_log().await?;
    world.begin_with(thorough()?, world.model()?).await?;
    world.prepare().await?;
    world.apply(&asked("forget-three", "3", "2026-11-20T09:00:00Z")).await?;
    world.forget(|measured| measured.pictured = drawn::labels()).await?;
    world.audit(|_| {}).await?;
    let done = world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.apply(&asked("forget-seven", "7", "2026-01-20T09:00:00Z")).await?;
    let leaks = |measured: &mut EvaluateRecord| {
        measured.pictured = drawn::labels();
        measured.targets.iter_mut().filter(|one| one.label == "7").for_each(|one| one.leak.hits = 41);
    };
    world.forget(leaks).await?;
    let held = world.request_until("forget-seven", RequestPhase::Held).await?;
    world.apply(&asked("forget-five", "5", "2026-11-21T09:00:00Z")).await?;
    world.task(Stage::Forget).await?;
    Ok((done, held))
}

fn asked(name: &str, label: &str, received: &str) -> Value {
    let mut asked = request(name, &[label], "8");
    asked["spec"]["dataSubjectRequest"] =
        json!({"reference": format!("DSR-{name}"), "receivedAt": received, "regulation": "GDPR"});
    asked
}

/// The policy of `examples/`, with a gate on what is served, so that there are audits.
fn thorough() -> Result<Value> {
    let mut policy = policy()?;
    let gates = policy["spec"]["gates"].as_array_mut().context("no gates")?;
    gates.push(json!({"name": GateName::ServedLeak.as_str(), "maxBound": "0.005", "minSamples": 3000}));
    Ok(policy)
}

/// Writes a page, and says its address.
fn page(folder: &Path, name: &str, html: &str) -> Result<String> {
    let path = folder.join(format!("{name}.html"));
    fs::write(&path, html)?;
    Ok(format!("file://{}", path.display()))
}
