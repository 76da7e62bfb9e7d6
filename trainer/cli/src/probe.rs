//! `probe`: asks a live server for samples of some labels and lets the judge look at them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lethe_api::contract::exit;
use serde::Serialize;

use crate::{
    artifacts::Artifacts,
    cli::ProbeArgs,
    failure::{Failed, Result, caught},
    live::{self, Order, Server},
    model, runtime,
};

/// What the judge saw of one label: a line of the output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Samples that the judge takes for `label`.
    hits: u64,
    n: u64,
    label: String,
    /// What the judge takes the samples for, where it is not zero.
    judged: BTreeMap<String, u64>,
    /// What the server says that it serves.
    digest: String,
    images_per_second: f64,
}

pub(crate) fn main(args: &ProbeArgs) -> i32 {
    match caught(|| probe(args)).and_then(|reports| tell(args, &reports)) {
        Ok(()) => exit::DONE,
        Err(failed) => {
            args.termination.write(&failed.message);
            failed.tell()
        }
    }
}

/// One report per label that was asked for.
fn probe(args: &ProbeArgs) -> Result<Vec<Report>> {
    let device = runtime::init(args.threads.unwrap_or_else(runtime::all_threads), DEVICE)?;
    let (config, judge) = model::judge(&Artifacts::open(&args.store)?, &args.judge, device)?;
    let server = Server::new(&args.endpoint, &args.name);
    let digest = server.metadata()?.digest;
    let pixels = config.image.pixels();
    let report = |label: &String| {
        let index = model::label(&config, label)?;
        let (mut counts, mut drawing) = (vec![0; config.labels.len()], Duration::ZERO);
        let order = Order { label: Some(label), first: args.seed, n: args.samples };
        for part in order.batches() {
            let began = Instant::now();
            let images = server.draw(part, &digest, pixels)?;
            drawing += began.elapsed();
            counts = live::tally(counts, &judge, device, &images, pixels);
        }
        let judged = config.labels.iter().cloned().zip(counts.iter().copied());
        Ok(Report {
            hits: counts[index as usize],
            n: args.samples,
            label: label.clone(),
            judged: judged.filter(|(_, count)| *count > 0).collect(),
            digest: digest.clone(),
            images_per_second: args.samples as f64 / drawing.as_secs_f64().max(f64::MIN_POSITIVE),
        })
    };
    args.labels.iter().map(report).collect()
}

/// The judge is small: a GPU is not worth asking for.
const DEVICE: lethe_api::contract::Device = lethe_api::contract::Device::Cpu;

/// A line of JSON per label, to stdout and as the pod's last words.
fn tell(args: &ProbeArgs, reports: &[Report]) -> Result<()> {
    let lines: Result<Vec<String>, _> = reports.iter().map(serde_json::to_string).collect();
    let lines = lines.map_err(|e| Failed::internal(format!("the report: {e}")))?.join("\n");
    println!("{lines}");
    args.termination.write(&lines);
    Ok(())
}
