//! A live server as its users see it: the Open Inference Protocol, over HTTP.

use std::time::Duration;

use lethe_api::contract::Failure;
use lethe_sfd::Judge;
use serde::Deserialize;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::failure::{Failed, Result};

/// Images in one request.
pub(crate) const BATCH: u64 = 500;
const TIMEOUT: Duration = Duration::from_secs(60);
/// A longer answer is not read.
const MAX_ANSWER: u64 = 256 << 20;

/// A live server, seen from a client.
pub(crate) struct Server<'a> {
    agent: ureq::Agent,
    endpoint: &'a str,
    name: &'a str,
}

/// What a server says about its model, as far as it is of interest.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) digest: String,
    #[serde(default)]
    inputs: Vec<Input>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    #[serde(default)]
    optional: bool,
}

impl Metadata {
    /// Whether samples can be asked for without a label.
    pub(crate) fn takes_no_label(&self) -> bool {
        self.inputs.iter().any(|input| input.name == "label" && input.optional)
    }
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

/// Samples to ask for: `n` images of `label`, or of none, with the seeds from `first` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) label: Option<&'a str>,
    pub(crate) first: u64,
    pub(crate) n: u64,
}

impl<'a> Order<'a> {
    /// In requests of a size that a server takes.
    pub(crate) fn batches(self) -> impl Iterator<Item = Order<'a>> {
        let starts = (0..self.n).step_by(BATCH as usize);
        starts.map(move |begun| Order {
            first: self.first.saturating_add(begun),
            n: BATCH.min(self.n - begun),
            ..self
        })
    }
}

impl<'a> Server<'a> {
    pub(crate) fn new(endpoint: &'a str, name: &'a str) -> Self {
        let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
        Self { agent, endpoint: endpoint.trim_end_matches('/'), name }
    }

    /// What is served now.
    pub(crate) fn metadata(&self) -> Result<Metadata> {
        let answer = self.agent.get(self.path("")).call().map_err(|error| self.failed(error.to_string()))?;
        self.read(answer)
    }

    /// Pixel values of the images of an order, each of `pixels`, if it is `digest` that draws them.
    pub(crate) fn draw(&self, order: Order<'_>, digest: &str, pixels: i64) -> Result<Vec<f32>> {
        let Order { label, first, n } = order;
        let seeds: Vec<u64> = (first..first.saturating_add(n)).collect();
        let label = label.map(|label| {
            json!({"name": "label", "shape": [n], "datatype": "BYTES", "data": vec![label; seeds.len()]})
        });
        let seed = json!({"name": "seed", "shape": [n], "datatype": "INT64", "data": seeds});
        let inputs: Vec<_> = label.into_iter().chain([seed]).collect();
        let answer = self.agent.post(self.path("/infer")).send_json(json!({"inputs": inputs}));
        let answer: Answer = self.read(answer.map_err(|error| self.failed(error.to_string()))?)?;
        if answer.model_version != digest {
            // A roll-out is under way: samples of two models say nothing about either.
            let served: String = answer.model_version.chars().take(80).collect();
            return Err(self.failed(format!("it serves {served:?}, not {digest}")));
        }
        let image = answer.outputs.into_iter().find(|output| output.name == "image");
        let image = image.ok_or_else(|| self.failed("it sent no output \"image\"".into()))?.data;
        if image.len() as i64 != n as i64 * pixels {
            let got = image.len();
            return Err(self.failed(format!("it sent {got} pixels for {n} images of {pixels}")));
        }
        Ok(image)
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
    pub(crate) fn failed(&self, problem: String) -> Failed {
        Failed::new(
            Failure::StoreUnavailable,
            format!("model {:?} at {}: {problem}", self.name, self.endpoint),
        )
    }
}

/// Adds up what the judge takes images for, label by label.
///
/// # Shapes
/// images: n times `pixels` values
pub(crate) fn tally(
    mut counts: Vec<u64>,
    judge: &Judge,
    device: Device,
    images: &[f32],
    pixels: i64,
) -> Vec<u64> {
    let images = Tensor::from_slice(images).view([-1, pixels]).to_device(device);
    let predicted = judge.look(&images).1.argmax(1, false);
    for (label, count) in counts.iter_mut().enumerate() {
        *count += predicted.eq(label as i64).sum(Kind::Int64).int64_value(&[]) as u64;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_whether_it_can_be_asked_without_a_label() {
        let says = |label: &str| {
            let text = format!(r#"{{"digest": "d", "inputs": [{{"name": "label", "shape": [-1]{label}}}]}}"#);
            serde_json::from_str::<Metadata>(&text).unwrap().takes_no_label()
        };
        assert!(says(r#", "optional": true"#));
        assert!(!says(""));
        assert!(!serde_json::from_str::<Metadata>(r#"{"digest": "d"}"#).unwrap().takes_no_label());
    }

    #[test]
    fn an_order_is_cut_into_requests_without_a_gap() {
        let order = Order { label: None, first: 7, n: 1200 };
        let parts: Vec<_> = order.batches().map(|part| (part.first, part.n)).collect();
        assert_eq!(parts, [(7, 500), (507, 500), (1007, 200)]);
    }
}
