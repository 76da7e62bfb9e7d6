//! `probe`: asks a live server for samples of one label and lets the judge look at them.

use std::time::{Duration, Instant};

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

/// What the judge saw.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Samples that the judge takes for `label`.
    hits: u64,
    n: u64,
    label: String,
    /// What the server says that it serves.
    digest: String,
    images_per_second: f64,
}

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
    match caught(|| probe(args)).and_then(|report| tell(args, &report)) {
        Ok(()) => exit::DONE,
        Err(failed) => {
            tracing::error!(failure = ?failed.failure, "{failed}");
            args.termination.write(&failed.message);
            failed.failure.exit_code()
        }
    }
}

fn probe(args: &ProbeArgs) -> Result<Report> {
    let device = runtime::init(args.threads.unwrap_or_else(runtime::all_threads), DEVICE)?;
    let (config, judge) = model::judge(&Artifacts::open(&args.store)?, &args.judge, device)?;
    let label = model::label(&config, &args.label)?;
    let server = Server::new(args);
    let digest = server.digest()?;
    let (mut hits, mut drawing) = (0, Duration::ZERO);
    for first in (0..args.samples).step_by(BATCH as usize) {
        let n = BATCH.min(args.samples - first);
        let began = Instant::now();
        let pixels = server.infer(&digest, args.seed.saturating_add(first), n)?;
        drawing += began.elapsed();
        if pixels.len() as i64 != n as i64 * config.image.pixels() {
            let (got, each) = (pixels.len(), config.image.pixels());
            return Err(server.failed(format!("it sent {got} pixels for {n} images of {each}")));
        }
        let images = Tensor::from_slice(&pixels).view([n as i64, config.image.pixels()]);
        let predicted = judge.look(&images.to_device(device)).1.argmax(1, false);
        hits += predicted.eq(label).sum(tch::Kind::Int64).int64_value(&[]) as u64;
    }
    let images_per_second = args.samples as f64 / drawing.as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(Report { hits, n: args.samples, label: args.label.clone(), digest, images_per_second })
}

/// The judge is small: a GPU is not worth asking for.
const DEVICE: lethe_api::contract::Device = lethe_api::contract::Device::Cpu;

/// A live server, seen from a client.
struct Server<'a> {
    agent: ureq::Agent,
    endpoint: &'a str,
    name: &'a str,
    label: &'a str,
}

impl<'a> Server<'a> {
    fn new(args: &'a ProbeArgs) -> Self {
        let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
        Self { agent, endpoint: args.endpoint.trim_end_matches('/'), name: &args.name, label: &args.label }
    }

    /// What is served now.
    fn digest(&self) -> Result<String> {
        let answer = self.agent.get(self.path("")).call().map_err(|error| self.failed(error.to_string()))?;
        let metadata: Metadata = self.read(answer)?;
        Ok(metadata.digest)
    }

    /// Pixel values of `n` images with the seeds from `first` on.
    fn infer(&self, digest: &str, first: u64, n: u64) -> Result<Vec<f32>> {
        let seeds: Vec<u64> = (first..first.saturating_add(n)).collect();
        let request = json!({"inputs": [
            {"name": "label", "shape": [n], "datatype": "BYTES", "data": vec![self.label; seeds.len()]},
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

fn tell(args: &ProbeArgs, report: &Report) -> Result<()> {
    let json = serde_json::to_string(report).map_err(|e| Failed::internal(format!("the report: {e}")))?;
    println!("{json}");
    args.termination.write(&json);
    Ok(())
}
