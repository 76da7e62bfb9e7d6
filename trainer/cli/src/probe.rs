//! `probe`: asks a live server for samples of some labels and lets the judge look at them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lethe_api::contract::{Failure, exit};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::Tensor;

use crate::{
    artifacts::Artifacts,
    cli::ProbeArgs,
    failure::{Failed, Result, caught},
    model, runtime,
};

/// Images in one request.
const BATCH: u64 = 500;
const TIMEOUT: Duration = Duration::from_secs(60);
/// A longer answer is not read.
const MAX_ANSWER: u64 = 256 << 20;

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

/// Pixel values of some images, and how many images they are.
type Batch = (Vec<f32>, u64);

#[derive(Debug, Deserialize)]
struct Metadata {
    digest: String,
}

#[derive(Debug, Deserialize)]
struct Answer {
    model_version: String,
    outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    name: String,
    data: Vec<f32>,
}

pub(crate) fn main(args: &ProbeArgs) -> i32 {
    match caught(|| probe(args)).and_then(|reports| tell(args, &reports)) {
        Ok(()) => exit::DONE,
        Err(failed) => {
            tracing::error!(failure = ?failed.failure, "{failed}");
            args.termination.write(&failed.message);
            failed.failure.exit_code()
        }
    }
}

/// One report per label that was asked for.
fn probe(args: &ProbeArgs) -> Result<Vec<Report>> {
    let device = runtime::init(args.threads.unwrap_or_else(runtime::all_threads), DEVICE)?;
    let (config, judge) = model::judge(&Artifacts::open(&args.store)?, &args.judge, device)?;
    let server = Server::new(args);
    let digest = server.digest()?;
    let look = |pixels: &[f32], n: u64| {
        let images = Tensor::from_slice(pixels).view([n as i64, config.image.pixels()]);
        judge.look(&images.to_device(device)).1.argmax(1, false)
    };
    let report = |label: &String| {
        let index = model::label(&config, label)?;
        let (drawn, drawing) = server.draw(args, label, &digest, config.image.pixels())?;
        let counts: Vec<u64> = drawn
            .iter()
            .map(|(pixels, n)| look(pixels, *n))
            .fold(vec![0; config.labels.len()], |counts, predicted| tally(counts, &predicted));
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

/// Adds up how often each label was predicted.
fn tally(mut counts: Vec<u64>, predicted: &Tensor) -> Vec<u64> {
    for (label, count) in counts.iter_mut().enumerate() {
        *count += predicted.eq(label as i64).sum(tch::Kind::Int64).int64_value(&[]) as u64;
    }
    counts
}

/// The judge is small: a GPU is not worth asking for.
const DEVICE: lethe_api::contract::Device = lethe_api::contract::Device::Cpu;

/// A live server, seen from a client.
struct Server<'a> {
    agent: ureq::Agent,
    endpoint: &'a str,
    name: &'a str,
}

impl<'a> Server<'a> {
    fn new(args: &'a ProbeArgs) -> Self {
        let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
        Self { agent, endpoint: args.endpoint.trim_end_matches('/'), name: &args.name }
    }

    /// The samples of one label, batch by batch, and how long the server took for them.
    fn draw(
        &self,
        args: &ProbeArgs,
        label: &str,
        digest: &str,
        pixels: i64,
    ) -> Result<(Vec<Batch>, Duration)> {
        let (mut drawn, mut drawing) = (Vec::new(), Duration::ZERO);
        for first in (0..args.samples).step_by(BATCH as usize) {
            let n = BATCH.min(args.samples - first);
            let began = Instant::now();
            let images = self.infer(label, digest, args.seed.saturating_add(first), n)?;
            drawing += began.elapsed();
            if images.len() as i64 != n as i64 * pixels {
                let got = images.len();
                return Err(self.failed(format!("it sent {got} pixels for {n} images of {pixels}")));
            }
            drawn.push((images, n));
        }
        Ok((drawn, drawing))
    }

    /// What is served now.
    fn digest(&self) -> Result<String> {
        let answer = self.agent.get(self.path("")).call().map_err(|error| self.failed(error.to_string()))?;
        let metadata: Metadata = self.read(answer)?;
        Ok(metadata.digest)
    }

    /// Pixel values of `n` images of `label` with the seeds from `first` on.
    fn infer(&self, label: &str, digest: &str, first: u64, n: u64) -> Result<Vec<f32>> {
        let seeds: Vec<u64> = (first..first.saturating_add(n)).collect();
        let request = json!({"inputs": [
            {"name": "label", "shape": [n], "datatype": "BYTES", "data": vec![label; seeds.len()]},
            {"name": "seed", "shape": [n], "datatype": "INT64", "data": seeds},
        ]});
        let answer = self.agent.post(self.path("/infer")).send_json(request);
        let answer: Answer = self.read(answer.map_err(|error| self.failed(error.to_string()))?)?;
        if answer.model_version != digest {
            // A roll-out is under way: samples of two models say nothing about either.
            return Err(self.failed(format!("it changed from {digest} to {}", answer.model_version)));
        }
        let image = answer.outputs.into_iter().find(|output| output.name == "image");
        image.map(|image| image.data).ok_or_else(|| self.failed("it sent no output \"image\"".into()))
    }

    fn read<T: serde::de::DeserializeOwned>(&self, answer: ureq::http::Response<ureq::Body>) -> Result<T> {
        let mut body = answer.into_body();
        let read = body.with_config().limit(MAX_ANSWER).read_json();
        read.map_err(|error| self.failed(format!("its answer is not the protocol's: {error}")))
    }

    fn path(&self, suffix: &str) -> String {
        format!("{}/v2/models/{}{suffix}", self.endpoint, self.name)
    }

    /// Whatever is wrong with a live server may be better in a moment.
    fn failed(&self, problem: String) -> Failed {
        Failed::new(
            Failure::StoreUnavailable,
            format!("model {:?} at {}: {problem}", self.name, self.endpoint),
        )
    }
}

/// A line of JSON per label, to stdout and as the pod's last words.
fn tell(args: &ProbeArgs, reports: &[Report]) -> Result<()> {
    let lines: Result<Vec<String>, _> = reports.iter().map(serde_json::to_string).collect();
    let lines = lines.map_err(|e| Failed::internal(format!("the report: {e}")))?.join("\n");
    println!("{lines}");
    args.termination.write(&lines);
    Ok(())
}
