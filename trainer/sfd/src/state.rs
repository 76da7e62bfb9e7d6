//! Training states as safetensors bytes.
//!
//! A training lists its mutable tensors once; saving writes them, resuming copies into them. A state also says which
//! training it belongs to, and another training refuses it.

use crate::error::{Error, Result, WeightsError};
use crate::weights::{self, Expected};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use tch::{Device, Tensor, no_grad};

const FILE: &str = "training state";

/// All that a training's future depends on but its tensors: stage, seed, model, settings, targets, and a fingerprint of what
/// it is given and does not change, such as the teacher or the images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity(Map<String, Value>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    step: u64,
    training: Identity,
}

impl Identity {
    /// From named parts; each is compared by its JSON form.
    pub(crate) fn new(parts: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self(parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn check(&self, saved: &Identity) -> Result<()> {
        let shown =
            |identity: &Identity, name: &str| identity.0.get(name).map_or("nothing".into(), Value::to_string);
        for &name in &PARTS {
            if self.0.get(name) != saved.0.get(name) {
                return Err(Error::Resume {
                    what: name,
                    saved: shown(saved, name),
                    expected: shown(self, name),
                });
            }
        }
        Ok(())
    }
}

/// The parts that an identity may have, in the order in which a difference is reported.
const PARTS: [&str; 6] = ["stage", "seed", "model", "settings", "targets", "input"];
/// Bytes of a fingerprint that are kept: enough that two trainings do not meet by chance.
const FINGERPRINT: usize = 16;

/// What tells these tensors from any others of the same sizes.
pub(crate) fn fingerprint<'a>(given: impl IntoIterator<Item = &'a Tensor>) -> Value {
    let mut hash = Sha256::new();
    for tensor in given {
        let tensor = tensor.to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        hash.update(bytes);
    }
    let mut text = String::new();
    for byte in &hash.finalize()[..FINGERPRINT] {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

pub(crate) fn save(identity: &Identity, step: u64, tensors: Vec<(String, &Tensor)>) -> Vec<u8> {
    let header = Header { step, training: identity.clone() };
    let header = serde_json::to_string(&header).expect("numbers, strings and maps have a JSON form");
    weights::write(Some(header), tensors)
}

/// Copies a saved state into `tensors` and returns its step.
pub(crate) fn load(bytes: &[u8], identity: &Identity, tensors: Vec<(String, &Tensor)>) -> Result<u64> {
    let header = weights::read_header(FILE, bytes)?;
    let header: Header = serde_json::from_str(&header)
        .map_err(|error| Error::Weights { file: FILE, source: WeightsError::Header(error.to_string()) })?;
    identity.check(&header.training)?;
    let expected: Vec<Expected> = tensors
        .iter()
        .map(|(name, tensor)| Expected { name: name.clone(), shape: tensor.size(), kind: tensor.kind() })
        .collect();
    let Some((_, first)) = tensors.first() else { return Ok(header.step) };
    let saved = weights::read(FILE, bytes, &expected, first.device())?;
    no_grad(|| {
        for ((_, tensor), saved) in tensors.iter().zip(&saved) {
            tensor.shallow_clone().copy_(saved);
        }
    });
    Ok(header.step)
}
