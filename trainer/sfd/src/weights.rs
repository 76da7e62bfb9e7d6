//! Tensors to and from safetensors bytes, by way of [`lethe_weights`].

use crate::error::{Error, Result};
use lethe_weights as bytes;
use tch::{Device, Kind, Tensor};

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

    fn to_bytes(&self) -> bytes::Expected {
        let shape = self.shape.iter().map(|&size| size as usize).collect();
        bytes::Expected { name: self.name.clone(), shape, kind: kind(self.kind) }
    }
}

/// Reads exactly `expected`, in that order, onto `device`. `file` names the file in the error.
pub(crate) fn read(
    file: &'static str,
    bytes: &[u8],
    expected: &[Expected],
    device: Device,
) -> Result<Vec<Tensor>> {
    let whole: Vec<bytes::Expected> = expected.iter().map(Expected::to_bytes).collect();
    let read = bytes::read(bytes, &whole).map_err(|source| Error::Weights { file, source })?;
    let tensor = |(values, expected): (&[u8], &Expected)| {
        Tensor::from_data_size(values, &expected.shape, expected.kind).to_device(device)
    };
    Ok(read.into_iter().zip(expected).map(tensor).collect())
}

/// The JSON that `write` put into the header.
pub(crate) fn read_header(file: &'static str, bytes: &[u8]) -> Result<String> {
    bytes::header(bytes).map_err(|source| Error::Weights { file, source })
}

/// Writes named tensors; the file's order is by name, whatever the order given.
pub(crate) fn write<'a>(
    header: Option<String>,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
) -> Vec<u8> {
    let tensors = tensors.into_iter().map(|(name, tensor)| (name, raw(tensor)));
    bytes::write(header, tensors).expect("own tensors have distinct names and matching sizes")
}

/// A tensor's bytes in row-major order, on the CPU.
fn raw(tensor: &Tensor) -> bytes::Tensor<'static> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    let shape = tensor.size().iter().map(|&size| size as usize).collect();
    bytes::Tensor { shape, kind: kind(tensor.kind()), bytes: bytes.into() }
}

fn kind(kind: Kind) -> bytes::Kind {
    match kind {
        Kind::Float => bytes::Kind::F32,
        Kind::Double => bytes::Kind::F64,
        Kind::Int64 => bytes::Kind::I64,
        other => unreachable!("no file of this crate holds {other:?} tensors"),
    }
}
