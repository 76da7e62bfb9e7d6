//! What the live server serves: its digest, what the judge sees in its samples, and what a person sees.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::kubectl::Kubectl;
use super::timeline::Timeline;
use super::{DIGEST_TO_FILL, MODEL, example, jobs};
use crate::progress;

/// Samples in a row of the report.
const ROW: u64 = 12;
/// The least share of a label's samples that the judge must take for that label, to say that it is there.
const PRESENT: f64 = 0.9;

/// What was seen of the live server at one time.
#[derive(Debug)]
pub struct Sampled {
    /// What the server says that it serves.
    pub digest: String,
    pub labels: Vec<Judged>,
    /// A PNG with a row of samples for each label, in the same order.
    pub rows: Vec<Vec<u8>>,
}

/// What the judge said about the samples of one label: a line of `lethe-trainer probe`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    pub label: String,
    /// Samples that the judge takes for the label that was asked for.
    pub hits: u64,
    pub n: u64,
    /// What the judge takes the samples for.
    pub judged: BTreeMap<String, u64>,
    pub digest: String,
    pub images_per_second: f64,
}

impl Judged {
    pub fn share(&self) -> f64 {
        self.hits as f64 / self.n.max(1) as f64
    }

    /// How many samples the judge takes for `label`.
    pub fn taken_for(&self, label: &str) -> u64 {
        self.judged.get(label).copied().unwrap_or(0)
    }
}

impl Sampled {
    pub fn label(&self, label: &str) -> Result<&Judged> {
        let found = self.labels.iter().find(|judged| judged.label == label);
        found.with_context(|| format!("no samples of label {label} were judged"))
    }

    /// Over all labels: images of a served request per second, as the client sees it.
    pub fn images_per_second(&self) -> f64 {
        let images: f64 = self.labels.iter().map(|judged| judged.n as f64).sum();
        let seconds: f64 = self.labels.iter().map(|judged| judged.n as f64 / judged.images_per_second).sum();
        images / seconds
    }

    /// # Errors
    /// If the judge does not recognise one of the labels but `except`.
    pub fn all_there(&self, except: Option<&str>) -> Result<()> {
        let missing = |judged: &&Judged| Some(judged.label.as_str()) != except && judged.share() < PRESENT;
        if let Some(judged) = self.labels.iter().find(missing) {
            let Judged { label, hits, n, .. } = judged;
            bail!("of {n} samples of label {label} the judge takes only {hits} for it");
        }
        Ok(())
    }
}

/// Asks the live server for samples of every label, as often as in `examples/probe-job.yaml`.
///
/// # Errors
/// If the server or the judge cannot be asked, or the server changes meanwhile.
pub fn sample(kubectl: &Kubectl<'_>, timeline: &Timeline, model: &Value) -> Result<Sampled> {
    let digest = served_digest(kubectl)?;
    timeline.say(&format!("the server says that it serves {digest}"));
    let judge = text(model, "/status/baseline/judge")?;
    let manifest = example("probe-job.yaml")?.replace(DIGEST_TO_FILL, judge);
    timeline.more(&format!("examples/probe-job.yaml with the digest {judge}:"));
    let created = kubectl.feed(&["create", "-o", "name", "-f", "-"], &manifest)?;
    let job = created.rsplit('/').next().unwrap_or(&created);
    let lines = jobs::finish(kubectl, timeline, job)?;
    let labels: Vec<Judged> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("Job {job} said something else than expected: {lines}"))?;
    for judged in &labels {
        ensure!(judged.digest == digest, "the server changed to {} while it was sampled", judged.digest);
    }
    let rows = progress::step("fetch a row of samples per label through the API server", || {
        let path = |label: &str| format!("/samples/{label}.png?seed=0&n={ROW}");
        labels.iter().map(|judged| kubectl.service(MODEL, &path(&judged.label))).collect()
    })?;
    Ok(Sampled { digest, labels, rows })
}

/// What the server says that it serves.
///
/// # Errors
/// If it does not answer.
pub fn served_digest(kubectl: &Kubectl<'_>) -> Result<String> {
    let answer = kubectl.service(MODEL, &format!("/v2/models/{MODEL}"))?;
    let metadata: Value = serde_json::from_slice(&answer).context("the server's metadata is no JSON")?;
    Ok(text(&metadata, "/digest")?.to_owned())
}

/// A text that must be there.
///
/// # Errors
/// If it is not.
pub fn text<'a>(object: &'a Value, pointer: &str) -> Result<&'a str> {
    object.pointer(pointer).and_then(Value::as_str).with_context(|| format!("there is no {pointer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled() -> Sampled {
        let line = |label: &str, hits: u64, speed: f64| {
            let line = format!(
                r#"{{"hits":{hits},"n":3000,"label":"{label}","judged":{{"3":{hits},"8":{}}},"digest":"sha256:a","imagesPerSecond":{speed}}}"#,
                3000 - hits
            );
            serde_json::from_str(&line).unwrap()
        };
        Sampled {
            digest: "sha256:a".into(),
            labels: vec![line("3", 2, 1000.0), line("4", 2990, 3000.0)],
            rows: vec![],
        }
    }

    #[test]
    fn a_label_that_is_gone_is_missed_unless_it_had_to_go() {
        let sampled = sampled();
        assert!(sampled.all_there(None).unwrap_err().to_string().contains("label 3"));
        assert!(sampled.all_there(Some("3")).is_ok());
        assert_eq!(sampled.label("3").unwrap().taken_for("8"), 2998);
        assert_eq!(sampled.label("3").unwrap().taken_for("5"), 0);
        assert!(sampled.label("9").is_err());
    }

    #[test]
    fn speed_is_images_over_the_time_of_all_labels() {
        assert!((sampled().images_per_second() - 1500.0).abs() < 1e-9);
    }
}
