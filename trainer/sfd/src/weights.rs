//! Tensors to and from safetensors bytes: strict to read, deterministic to write.
//!
//! A file holds exactly the tensors that its reader expects, with the expected shapes and types and finite values, or it
//! is refused by the name of the first tensor that differs. Same tensors, same bytes.

use crate::error::{Error, Result, WeightsError};
use safetensors::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::HashMap;
use tch::{Device, Kind, Tensor};

/// The one metadata key. More than one would make the header's order, and so the digest, vary from run to run.
const HEADER: &str = "lethe";

/// A tensor that a file must hold.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) kind: Kind,
}

impl Expected {
    pub(crate) fn new(name: &str, shape: &[i64], kind: Kind) -> Self {
        Self { name: name.to_owned(), shape: shape.to_vec(), kind }
    }
}

/// Reads exactly `expected`, in that order, onto `device`. `file` names the file in the error.
pub(crate) fn read(
    file: &'static str,
    bytes: &[u8],
    expected: &[Expected],
    device: Device,
) -> Result<Vec<Tensor>> {
    read_tensors(bytes, expected, device).map_err(|source| Error::Weights { file, source })
}

/// The JSON that `write` put into the header.
pub(crate) fn read_header(file: &'static str, bytes: &[u8]) -> Result<String> {
    let header = || -> Result<String, WeightsError> {
        let (_, metadata) =
            SafeTensors::read_metadata(bytes).map_err(|error| WeightsError::Malformed(error.to_string()))?;
        let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get(HEADER));
        header.cloned().ok_or_else(|| WeightsError::Header(format!("no metadata key {HEADER:?}")))
    };
    header().map_err(|source| Error::Weights { file, source })
}

/// Writes named tensors; the file's order is by name, whatever the order given.
pub(crate) fn write<'a>(
    header: Option<String>,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
) -> Vec<u8> {
    let tensors: Vec<(String, Raw)> =
        tensors.into_iter().map(|(name, tensor)| (name, Raw::new(tensor))).collect();
    let metadata = header.map(|header| HashMap::from([(HEADER.to_owned(), header)]));
    safetensors::serialize(tensors, metadata).expect("own tensors have distinct names and matching sizes")
}

fn read_tensors(bytes: &[u8], expected: &[Expected], device: Device) -> Result<Vec<Tensor>, WeightsError> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| WeightsError::Malformed(error.to_string()))?;
    let mut unknown: Vec<&str> = file.names().into_iter().collect();
    unknown.sort_unstable();
    if let Some(name) = unknown.into_iter().find(|name| expected.iter().all(|tensor| tensor.name != *name)) {
        return Err(WeightsError::Unknown(name.to_owned()));
    }
    expected.iter().map(|tensor| read_tensor(&file, tensor, device)).collect()
}

fn read_tensor(file: &SafeTensors<'_>, expected: &Expected, device: Device) -> Result<Tensor, WeightsError> {
    let name = || expected.name.clone();
    let view = file.tensor(&expected.name).map_err(|_| WeightsError::Missing(name()))?;
    let (kind, kind_name) = (dtype(expected.kind), kind_name(expected.kind));
    if view.dtype() != kind {
        let found = format!("{:?}", view.dtype());
        return Err(WeightsError::Type { name: name(), found, expected: kind_name });
    }
    let found: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
    if found != expected.shape {
        return Err(WeightsError::Shape { name: name(), found, expected: expected.shape.clone() });
    }
    let tensor = Tensor::from_data_size(view.data(), &found, expected.kind);
    if tensor.isfinite().all().int64_value(&[]) == 0 {
        return Err(WeightsError::NotFinite(name()));
    }
    Ok(tensor.to_device(device))
}

fn dtype(kind: Kind) -> Dtype {
    match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Int64 => Dtype::I64,
        other => unreachable!("no file of this crate holds {other:?} tensors"),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "F32",
        Kind::Double => "F64",
        _ => "I64",
    }
}

/// A tensor's bytes in row-major order, on the CPU.
struct Raw {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Raw {
    fn new(tensor: &Tensor) -> Self {
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        let shape = tensor.size().iter().map(|&size| size as usize).collect();
        Self { dtype: dtype(tensor.kind()), shape, bytes }
    }
}

impl View for Raw {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
