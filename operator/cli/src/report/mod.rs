//! `report`: a support bundle, or with `--compliance` pages for people who decide.

mod bundle;
mod log;
mod redact;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kube::ResourceExt;
use lethe_api::contract::{Record, RecordBody};
use lethe_store::Store;
use serde_json::{Value, json};

pub use log::Head;

use crate::{
    args::{ClusterArgs, Format, Report},
    cluster::Place,
    compliance::{self, Compliance, Records},
    exit::{Exit, Result, Trouble},
    files, term,
    tree::Seen,
    verify, write_data,
};

/// # Errors
/// If nothing can be read, or the result cannot be written.
pub async fn run(cluster: &ClusterArgs, report: &Report) -> Result<Exit> {
    if !report.from.is_empty() {
        let verify::Exported { runs, requests, models } = verify::read(&files::read(&report.from, false)?)?;
        return pages(Seen { models, requests, runs, ..Seen::default() }, report).await;
    }
    let place = Place::open(cluster, report.all_namespaces).await?;
    let seen = place.see().await?;
    match report.compliance {
        true => pages(seen, report).await,
        false => {
            let out = report.out.clone().unwrap_or_else(|| default_bundle(Timestamp::now()));
            bundle::write(&place, &of_model(seen, report)?, report, &out).await
        }
    }
}

/// Of one model, if one is named.
fn of_model(mut seen: Seen, report: &Report) -> Result<Seen> {
    if let Some(name) = &report.model {
        let name = name.strip_prefix("dm/").unwrap_or(name);
        seen.models.retain(|model| model.name_any() == name);
        if seen.models.is_empty() {
            return Err(Trouble::unreachable(format!("there is no model {name:?}")));
        }
        seen.requests.retain(|request| request.spec.model_ref.name == name);
        seen.runs.retain(|run| run.spec.model == name);
    }
    Ok(seen)
}

fn default_bundle(now: Timestamp) -> PathBuf {
    format!("lethe-report-{}.tar.gz", now.strftime("%Y%m%d-%H%M%S")).into()
}

async fn pages(seen: Seen, report: &Report) -> Result<Exit> {
    let seen = of_model(seen, report)?;
    if seen.models.is_empty() {
        return Err(Trouble::unreachable("there is no model to write about"));
    }
    let records = match &report.store {
        Some(uri) => records(&seen, uri).await?,
        None => Records::new(),
    };
    let (head, unread) = match log::head(report).await {
        Ok(head) => (head, None),
        Err(why) => (None, Some(why)),
    };
    let folder = report.out.clone().unwrap_or_else(|| ".".into());
    std::fs::create_dir_all(&folder)?;
    let mut written = Vec::new();
    for model in &seen.models {
        let mut said = Compliance::of(model, &seen, &records, Timestamp::now());
        said.log.clone_from(&head);
        said.unread.extend(unread.clone());
        let page = compliance::html(&said);
        let file = folder.join(format!("compliance-{}-{}.html", said.namespace, said.model));
        write(&file, page.as_bytes())?;
        written.push((file, said));
    }
    match report.output.output {
        Format::Text => {
            term::write(&written.iter().map(|(file, _)| format!("{}\n", file.display())).collect::<String>())?
        }
        other => {
            let about = |(file, said): &(PathBuf, Compliance)| -> Value {
                json!({"page": file.display().to_string(), "model": compliance::data(said)})
            };
            write_data(&json!({"pages": written.iter().map(about).collect::<Vec<_>>()}), other)?;
        }
    }
    Ok(Exit::Fine)
}

/// What was counted, of those records that can be read.
async fn records(seen: &Seen, uri: &str) -> Result<Records> {
    let store = Store::open(uri).map_err(|error| Trouble::unreachable(error.to_string()))?;
    let mut records = Records::new();
    for digest in compliance::figures::wanted(seen) {
        let bytes = match store.get_record(&digest, Record::MAX_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => {
                eprintln!("warning: {error}");
                continue;
            }
        };
        match Record::read(&bytes).map(|record| record.body) {
            Ok(RecordBody::Evaluate(measured)) => drop(records.insert(digest, measured)),
            Ok(_) => eprintln!("warning: record {} is not of an evaluation", digest.short()),
            Err(error) => eprintln!("warning: record {}: {error}", digest.short()),
        }
    }
    Ok(records)
}

/// Writes a file whole, or not at all.
fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    let failed =
        |error: std::io::Error| Trouble::unreachable(format!("cannot write {}: {error}", file.display()));
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, bytes).map_err(failed)?;
    std::fs::rename(&partial, file).map_err(failed)
}
