//! Messages of the Open Inference Protocol, version 2 (REST), as far as this model has use for them.

use lethe_api::contract::PlannedTarget;
use lethe_sfd::ModelConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Loaded, worker::Images};

/// Images in one request.
pub(super) const MAX_BATCH: usize = 1024;

#[derive(Debug, Serialize)]
pub(super) struct ServerMetadata {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) extensions: [&'static str; 0],
}

#[derive(Debug, Serialize)]
pub(super) struct ModelMetadata<'a> {
    name: &'a str,
    /// A model's version is its digest.
    versions: [&'a str; 1],
    platform: &'static str,
    inputs: [TensorMetadata; 2],
    outputs: [TensorMetadata; 1],
    /// The verified digest of what is served.
    digest: &'a str,
    /// What this model was taught to forget, and what it shows instead.
    forgotten: &'a [PlannedTarget],
    /// Names of the labels, in the order of their numbers.
    labels: &'a [String],
}

#[derive(Debug, Serialize)]
pub(super) struct TensorMetadata {
    name: &'static str,
    datatype: &'static str,
    /// -1 is the batch.
    shape: Vec<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct InferRequest {
    id: Option<String>,
    inputs: Vec<InputTensor>,
}

#[derive(Debug, Deserialize)]
struct InputTensor {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    data: Vec<Value>,
}

#[derive(Debug, Serialize)]
pub(super) struct InferResponse<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: [OutputTensor; 1],
}

#[derive(Debug, Serialize)]
struct OutputTensor {
    name: &'static str,
    datatype: &'static str,
    shape: [i64; 4],
    data: Vec<f32>,
}

impl<'a> ModelMetadata<'a> {
    pub(super) fn of(name: &'a str, model: &'a Loaded) -> Self {
        let tensor = |name, datatype, shape| TensorMetadata { name, datatype, shape };
        let image = model.config.image;
        Self {
            name,
            versions: [model.digest.as_str()],
            platform: "lethe_sfd",
            inputs: [tensor("label", "BYTES", vec![-1]), tensor("seed", "INT64", vec![-1])],
            outputs: [tensor("image", "FP32", vec![-1, image.channels, image.height, image.width])],
            digest: model.digest.as_str(),
            forgotten: &model.forgotten,
            labels: &model.config.labels,
        }
    }
}

impl InferRequest {
    /// The (label, seed) pairs that are asked for.
    ///
    /// # Errors
    /// In words for the client.
    pub(super) fn pairs(&self, config: &ModelConfig) -> Result<Vec<(i64, u64)>, String> {
        if let Some(unknown) = self.inputs.iter().find(|input| input.name != "label" && input.name != "seed")
        {
            let name: String = unknown.name.chars().take(80).collect();
            return Err(format!("unknown input {name:?}; the inputs are \"label\" and \"seed\""));
        }
        let (labels, seeds) = (self.input("label")?, self.input("seed")?);
        if labels.data.len() != seeds.data.len() {
            let (labels, seeds) = (labels.data.len(), seeds.data.len());
            return Err(format!("{labels} labels and {seeds} seeds: there must be as many of both"));
        }
        let labels = labels.data.iter().map(|value| label(&labels.datatype, value, config));
        let seeds = seeds.data.iter().map(|value| seed(&seeds.datatype, value));
        labels.zip(seeds).map(|(label, seed)| Ok((label?, seed?))).collect()
    }

    fn input(&self, name: &str) -> Result<&InputTensor, String> {
        let mut found = self.inputs.iter().filter(|input| input.name == name);
        let Some(input) = found.next() else { return Err(format!("input {name:?} is missing")) };
        if found.next().is_some() {
            return Err(format!("input {name:?} is there twice"));
        }
        let n = input.data.len();
        if n == 0 || n > MAX_BATCH {
            return Err(format!("input {name:?} has {n} elements; 1 to {MAX_BATCH} are allowed"));
        }
        if input.shape != [n as i64] {
            let shape: Vec<i64> = input.shape.iter().copied().take(8).collect();
            return Err(format!("input {name:?} has shape {shape:?} but {n} elements; expected [{n}]"));
        }
        Ok(input)
    }
}

impl<'a> InferResponse<'a> {
    pub(super) fn new(name: &'a str, model: &'a Loaded, request: InferRequest, images: &Images) -> Self {
        let shape = model.config.image;
        let image = OutputTensor {
            name: "image",
            datatype: "FP32",
            shape: [images.len() as i64, shape.channels, shape.height, shape.width],
            data: images.concat(),
        };
        let version = model.digest.as_str();
        Self { model_name: name, model_version: version, id: request.id, outputs: [image] }
    }
}

/// A label by its name, or, as a whole number, by its place among the labels.
fn label(datatype: &str, value: &Value, config: &ModelConfig) -> Result<i64, String> {
    let found = match datatype {
        "BYTES" => value.as_str().and_then(|name| config.label(name)),
        "INT8" | "INT16" | "INT32" | "INT64" | "UINT8" | "UINT16" | "UINT32" | "UINT64" => {
            value.as_i64().filter(|label| (0..config.classes()).contains(label))
        }
        other => return Err(format!("input \"label\" has datatype {:?}; send BYTES or INT64", cut(other))),
    };
    found.ok_or_else(|| {
        let known = config.labels.iter().take(32).cloned().collect::<Vec<_>>().join(", ");
        format!("the model has no label {}; it has {known}", cut(&value.to_string()))
    })
}

fn seed(datatype: &str, value: &Value) -> Result<u64, String> {
    if datatype != "INT64" && datatype != "UINT64" {
        return Err(format!("input \"seed\" has datatype {:?}; send INT64", cut(datatype)));
    }
    value.as_u64().ok_or_else(|| format!("a seed is a whole number from 0, not {}", cut(&value.to_string())))
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(json: &str) -> Result<Vec<(i64, u64)>, String> {
        let config = r#"{"image":{"channels":1,"height":8,"width":8},"labels":["zero","one"]}"#;
        let request: InferRequest = serde_json::from_str(json).map_err(|e| e.to_string())?;
        request.pairs(&serde_json::from_str(config).unwrap())
    }

    #[test]
    fn labels_come_by_name_or_number() {
        let by_name = r#"{"inputs":[{"name":"label","shape":[2],"datatype":"BYTES","data":["one","zero"]},
            {"name":"seed","shape":[2],"datatype":"INT64","data":[7,8]}]}"#;
        assert_eq!(pairs(by_name).unwrap(), [(1, 7), (0, 8)]);
        let by_number = by_name.replace("BYTES", "INT32").replace(r#"["one","zero"]"#, "[1,0]");
        assert_eq!(pairs(&by_number).unwrap(), [(1, 7), (0, 8)]);
    }

    #[test]
    fn a_client_is_told_what_is_wrong() {
        let good = r#"{"inputs":[{"name":"label","shape":[1],"datatype":"BYTES","data":["one"]},
            {"name":"seed","shape":[1],"datatype":"INT64","data":[7]}]}"#;
        assert!(pairs(good).is_ok());
        for (found, replaced, word) in [
            ("\"one\"", "\"two\"", "it has zero, one"),
            ("[7]", "[-7]", "from 0"),
            ("[7]", "[7,8]", "shape"),
            ("\"INT64\"", "\"FP32\"", "INT64"),
            ("\"seed\"", "\"sed\"", "unknown input"),
            ("BYTES", "FP32", "BYTES"),
        ] {
            let message = pairs(&good.replace(found, replaced)).unwrap_err();
            assert!(message.contains(word), "{found} -> {replaced}: {message}");
        }
    }
}
