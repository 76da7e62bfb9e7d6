//! Weights as safetensors bytes, without libtorch: strict to read, deterministic to write.
//!
//! A file holds exactly the tensors that its reader expects, with the expected shapes and types and finite values, or it is
//! refused by the name of the first tensor that differs. Same tensors, same bytes. Whatever the bytes are, an error is one
//! line of readable text, and nothing is allocated that is much larger than they are.

#![forbid(unsafe_code)]

mod error;

use std::{borrow::Cow, collections::HashMap};

use safetensors::{Dtype, SafeTensors, View, tensor::Metadata};

pub use error::{Error, Result};

/// The one metadata key. More than one would make the header's order, and so the digest, vary from run to run.
const HEADER: &str = "lethe";

/// The types that a file may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    F32,
    F64,
    I64,
}

/// A tensor that a file must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub name: String,
    pub shape: Vec<usize>,
    pub kind: Kind,
}

/// A tensor to write: its values in row-major order, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor<'a> {
    pub shape: Vec<usize>,
    pub kind: Kind,
    pub bytes: Cow<'a, [u8]>,
}

/// The bytes of exactly the tensors in `expected`, in that order.
///
/// # Errors
/// If the file is none, or the first tensor that is not as expected: an unknown one first, then in the order of `expected`.
pub fn read<'a>(bytes: &'a [u8], expected: &[Expected]) -> Result<Vec<&'a [u8]>> {
    let file = SafeTensors::deserialize(bytes).map_err(malformed)?;
    let mut names = file.names();
    names.sort_unstable();
    // The file may have as many tensors as it likes: looking for each in all of `expected` would take forever.
    let known: std::collections::HashSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
    if let Some(name) = names.into_iter().find(|name| !known.contains(name)) {
        return Err(Error::Unknown(name.to_owned()));
    }
    expected.iter().map(|tensor| read_tensor(&file, tensor)).collect()
}

/// The JSON that [`write`] put into the header.
///
/// # Errors
/// If the file is none, or has no such header.
pub fn header(bytes: &[u8]) -> Result<String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
    let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get(HEADER));
    header.cloned().ok_or_else(|| Error::Header(format!("no metadata key {HEADER:?}")))
}

/// What a file holds, by name: what to expect of it if nothing is known of it.
///
/// # Errors
/// If the file is none, or holds a tensor of another type than the three.
pub fn contents(bytes: &[u8]) -> Result<Vec<Expected>> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
    let expected = |metadata: &Metadata, name: String| {
        let info = metadata.info(&name).ok_or_else(|| Error::Missing(name.clone()))?;
        let kind = [Kind::F32, Kind::F64, Kind::I64].into_iter().find(|kind| kind.dtype() == info.dtype);
        let kind = kind.ok_or_else(|| Error::Type {
            name: name.clone(),
            found: format!("{:?}", info.dtype),
            expected: "F32, F64 or I64",
        })?;
        Ok(Expected { name, shape: info.shape.clone(), kind })
    };
    let mut names = metadata.offset_keys();
    names.sort_unstable();
    names.into_iter().map(|name| expected(&metadata, name)).collect()
}

/// Writes named tensors; the file's order is by type and name, whatever the order given.
///
/// # Errors
/// If a tensor's bytes are not as many as its shape says.
pub fn write<'a>(
    header: Option<String>,
    tensors: impl IntoIterator<Item = (String, Tensor<'a>)>,
) -> Result<Vec<u8>> {
    let metadata = header.map(|header| HashMap::from([(HEADER.to_owned(), header)]));
    safetensors::serialize(tensors, metadata).map_err(malformed)
}

fn read_tensor<'a>(file: &SafeTensors<'a>, expected: &Expected) -> Result<&'a [u8]> {
    let name = || expected.name.clone();
    let view = file.tensor(&expected.name).map_err(|_| Error::Missing(name()))?;
    if view.dtype() != expected.kind.dtype() {
        let (found, expected) = (format!("{:?}", view.dtype()), expected.kind.name());
        return Err(Error::Type { name: name(), found, expected });
    }
    if view.shape() != expected.shape {
        let (found, expected) = (view.shape().to_vec(), expected.shape.clone());
        return Err(Error::Shape { name: name(), found, expected });
    }
    if !expected.kind.is_finite(view.data()) {
        return Err(Error::NotFinite(name()));
    }
    Ok(view.data())
}

fn malformed(error: safetensors::SafeTensorError) -> Error {
    Error::Malformed(error.to_string())
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::F32 => "F32",
            Kind::F64 => "F64",
            Kind::I64 => "I64",
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            Kind::F32 => Dtype::F32,
            Kind::F64 => Dtype::F64,
            Kind::I64 => Dtype::I64,
        }
    }

    /// Whether every value is a finite number.
    fn is_finite(self, bytes: &[u8]) -> bool {
        // A number with all bits of the exponent set is infinite or none. No early end: that would be slower.
        match self {
            Kind::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .fold(true, |all, &value| all & f32::from_le_bytes(value).is_finite()),
            Kind::F64 => bytes
                .as_chunks()
                .0
                .iter()
                .fold(true, |all, &value| all & f64::from_le_bytes(value).is_finite()),
            Kind::I64 => true,
        }
    }
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.kind.dtype()
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

#[cfg(test)]
mod tests;
