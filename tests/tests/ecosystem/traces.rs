//! Traces as people get them: by a real OpenTelemetry Collector.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lethe_api::v1alpha1::RequestPhase;
use lethe_tests::{
    World,
    operator::free_port,
    rights,
    traces::{Collector, Span},
    wait,
};
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpListener;

/// A collector that takes nothing may cost so much when the operator ends.
const GOOD_BYE: Duration = Duration::from_secs(10);

pub async fn a_look_is_traced_with_what_was_asked_of_others_meanwhile(world: &World) -> Result<()> {
    let collector = Collector::start().await?;
    world.keep_log().await?;
    world.add_flag(format!("--trace-endpoint={}", collector.url())).await;
    world.begin_ready().await?;
    world.request("someone", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("someone", RequestPhase::Fulfilled).await?;

    let is_whole = |spans: &[Span]| {
        has(spans, "look at UnlearnRequest", "PATCH unlearnrequests/status")
            && has(spans, "look at UnlearnRun", "POST jobs")
            && has(spans, "look at UnlearnRun", "ask the store")
            && has(spans, "look at UnlearnRun", "wait for the audit log")
            && has(spans, "look at DiffusionModel", "PATCH deployments")
            && has(spans, "look at DiffusionModel", "ask a pod")
    };
    let spans = collector.spans_until("looks were traced", is_whole).await?;
    for span in &spans {
        let begins = span.parent_span_id.is_empty();
        ensure!(begins == span.name.starts_with("look at "), "a look is a trace, and nothing else: {span:?}");
        ensure!(!span.name.contains("someone"), "a name of a person's: {}", span.name);
        let of = |key: &str| span.resource.get(key).map(String::as_str);
        ensure!(of("service.name") == Some("lethe-operator"), "{:?}", span.resource);
        ensure!(of("service.instance.id") == Some("operator-0"), "{:?}", span.resource);
    }
    let look = spans.iter().find(|span| span.attribute("lethe.name").as_deref() == Some("someone"));
    let look = look.context("no look at the request")?;
    ensure!(look.attribute("lethe.namespace").as_ref() == Some(&world.namespace), "{look:?}");
    let has_written = |span: &&Span| {
        span.name == "PATCH unlearnrequests/status"
            && span.typed("http.response.status_code") == Some(&json!({"intValue": "200"}))
    };
    ensure!(spans.iter().any(|span| has_written(&span)), "no write that was taken: {spans:?}");

    // What cannot be read is marked, with the look that it ends.
    rights::take_away(&world.server, &world.home, ("get", "apps", "deployments")).await?;
    world.request("another", "4", "8").await?;
    let refused = |span: &Span| {
        let kind = span.attribute("error.type");
        span.has_failed() && ["403", "forbidden"].map(Some).contains(&kind.as_deref())
    };
    let both = |spans: &[Span]| {
        let marked: Vec<_> = spans.iter().filter(|span| refused(span)).collect();
        marked.iter().any(|call| marked.iter().any(|look| call.parent_span_id == look.span_id))
    };
    collector.spans_until("what was refused is marked", both).await?;

    let status = world.take_operator().await?.stop().await?;
    ensure!(status.success(), "{status}");
    let log = std::fs::read_to_string(world.operator_log())?;
    ensure!(!log.contains("look at "), "spans are in no log: {log}");
    Ok(())
}

pub async fn a_collector_that_is_away_or_silent_keeps_nobody_waiting(world: &World) -> Result<()> {
    let away = format!("--trace-endpoint=http://127.0.0.1:{}", free_port()?);
    world.set_flags(vec![away]).await;
    world.begin_ready().await?;
    world.request("someone", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("someone", RequestPhase::Fulfilled).await?;

    let log = || std::fs::read_to_string(world.operator_log());
    let says_so =
        |log: &String| log.lines().any(|line| line.contains("opentelemetry") && line.contains("xport"));
    wait::until_answer("its log says that nothing is sent", async || Ok(log()?), says_so).await?;

    // It takes connections, and says nothing to whoever made them.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await?;
    world.set_flags(vec![format!("--trace-endpoint=http://{}", silent.local_addr()?)]).await;
    world.crash_operator().await?;
    world.request("another", "4", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("another", RequestPhase::Fulfilled).await?;
    let mut operator = world.take_operator().await?;
    operator.signal(Signal::TERM)?;
    let asked = Instant::now();
    let status = operator.ended().await?;
    ensure!(status.success(), "{status}");
    ensure!(asked.elapsed() < GOOD_BYE, "it took {:?} to end", asked.elapsed());
    ensure!(log()?.contains("the last spans could not be sent"), "nobody is told: {}", log()?);
    Ok(())
}

/// Whether there is a trace of this kind with a span of this name in it.
fn has(spans: &[Span], look: &str, within: &str) -> bool {
    let looks = spans.iter().filter(|span| span.name == look);
    looks.into_iter().any(|look| {
        let of_it = |span: &&Span| span.trace_id == look.trace_id && span.parent_span_id == look.span_id;
        spans.iter().filter(of_it).any(|span| span.name == within)
    })
}
