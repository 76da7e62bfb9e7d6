//! A bundle: weights, their description, and the manifest that names both.

use std::collections::BTreeMap;

use lethe_api::contract::{BundleKind, Digest, FileEntry, Manifest};

use crate::{
    error::{Error, Result},
    objects::Objects,
};

/// Weights are held in memory whole: larger ones are not read.
const MAX_WEIGHTS: u64 = 16 << 30;
const MAX_MODEL: u64 = 4 << 20;

/// A bundle's bytes. However it was made, its files have the digests that its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    digest: Digest,
    kind: BundleKind,
    manifest: Vec<u8>,
    weights: Vec<u8>,
    model: Vec<u8>,
}

impl Bundle {
    /// Puts a bundle together. `weights` is a safetensors file and `model` the JSON that describes it.
    pub fn new(kind: BundleKind, weights: Vec<u8>, model: Vec<u8>) -> Result<Self> {
        check_weights(Manifest::WEIGHTS, &weights)?;
        let entry = |bytes: &[u8]| FileEntry { digest: Digest::of(bytes), bytes: bytes.len() as u64 };
        let files = BTreeMap::from([
            (Manifest::WEIGHTS.to_owned(), entry(&weights)),
            (Manifest::MODEL.to_owned(), entry(&model)),
        ]);
        let manifest = Manifest { schema: Manifest::SCHEMA.into(), kind, files };
        let manifest = serde_json::to_vec(&manifest)
            .map_err(|e| Error::refused(Manifest::FILE, format!("it cannot be written as JSON: {e}")))?;
        Ok(Self { digest: Digest::of(&manifest), kind, manifest, weights, model })
    }

    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub fn kind(&self) -> BundleKind {
        self.kind
    }

    /// The exact bytes of `manifest.json`.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The bytes of `model.safetensors`.
    pub fn weights(&self) -> &[u8] {
        &self.weights
    }

    /// The bytes of `model.json`.
    pub fn model(&self) -> &[u8] {
        &self.model
    }

    /// Refuses a bundle of another kind than the one that is needed.
    pub fn expect(self, kind: BundleKind) -> Result<Self> {
        if self.kind == kind {
            return Ok(self);
        }
        let reason = format!("it is a {:?} bundle; a {kind:?} bundle is needed here", self.kind);
        Err(Error::refused(format!("bundle {}", self.digest), reason))
    }
}

/// A folder that holds one bundle and nothing else.
#[derive(Clone, Debug)]
pub struct Folder {
    objects: Objects,
}

impl Folder {
    /// The folder at `uri`, in the store or elsewhere. It need not exist before a bundle is written to it.
    pub fn open(uri: &str) -> Result<Self> {
        Ok(Self::at(Objects::open(uri, false)?))
    }

    pub(crate) fn at(objects: Objects) -> Self {
        Self { objects }
    }

    /// Writes a bundle: the manifest last, so that the bundle is there whole or not at all.
    pub async fn write(&self, bundle: &Bundle) -> Result<()> {
        self.objects.write(Manifest::WEIGHTS, bundle.weights.clone()).await?;
        self.objects.write(Manifest::MODEL, bundle.model.clone()).await?;
        self.objects.write(Manifest::FILE, bundle.manifest.clone()).await
    }

    /// Reads the bundle with this digest, every byte verified.
    pub async fn read(&self, digest: &Digest) -> Result<Bundle> {
        let (bytes, manifest) = self.manifest(digest).await?;
        let weights = self.file(&manifest, Manifest::WEIGHTS, MAX_WEIGHTS).await?;
        check_weights(&self.objects.name(Manifest::WEIGHTS), &weights)?;
        let model = self.file(&manifest, Manifest::MODEL, MAX_MODEL).await?;
        Ok(Bundle { digest: digest.clone(), kind: manifest.kind, manifest: bytes, weights, model })
    }

    /// The digest of the bundle that is there, by its manifest. Nothing else of it is looked at.
    pub async fn digest(&self) -> Result<Digest> {
        Ok(Digest::of(self.objects.read(Manifest::FILE, Manifest::MAX_BYTES as u64).await?))
    }

    /// The names of all files in the folder, sorted.
    pub async fn list(&self) -> Result<Vec<String>> {
        self.objects.list().await
    }

    async fn manifest(&self, digest: &Digest) -> Result<(Vec<u8>, Manifest)> {
        let name = self.objects.name(Manifest::FILE);
        let bytes = self.objects.read(Manifest::FILE, Manifest::MAX_BYTES as u64).await?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::Another { what: name, found, asked: digest.clone() });
        }
        let manifest = Manifest::parse(&bytes).map_err(|problem| Error::refused(&name, problem))?;
        Ok((bytes, manifest))
    }

    async fn file(&self, manifest: &Manifest, file: &str, max: u64) -> Result<Vec<u8>> {
        let name = self.objects.name(file);
        let Some(entry) = manifest.files.get(file) else {
            return Err(Error::refused(name, "the manifest does not list it"));
        };
        if entry.bytes > max {
            return Err(Error::TooLarge { what: name, bytes: entry.bytes, max });
        }
        // A file longer than announced is of the wrong size, whatever the limit.
        let bytes = match self.objects.read(file, entry.bytes).await {
            Err(Error::TooLarge { bytes, .. }) => return Err(wrong_size(name, entry.bytes, bytes)),
            other => other?,
        };
        if bytes.len() as u64 != entry.bytes {
            return Err(wrong_size(name, entry.bytes, bytes.len() as u64));
        }
        verify(&name, &bytes, &entry.digest)?;
        Ok(bytes)
    }
}

/// Bytes have the digest that names them.
pub(crate) fn verify(name: &str, bytes: &[u8], expected: &Digest) -> Result<()> {
    let found = Digest::of(bytes);
    if found == *expected {
        return Ok(());
    }
    Err(Error::corrupt(name, expected, found))
}

fn wrong_size(name: String, expected: u64, found: u64) -> Error {
    Error::corrupt(name, format!("{expected} bytes"), format!("{found} bytes"))
}

/// The bytes begin as a safetensors file does. A pickle runs code when it is read, so it is never read.
fn check_weights(name: &str, bytes: &[u8]) -> Result<()> {
    if let Some(format) = foreign_format(bytes) {
        let reason =
            format!("it is {format}, not a safetensors file; convert it with the safetensors library");
        return Err(Error::refused(name, reason));
    }
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(Error::refused(name, "it is too short for a safetensors file"));
    };
    if u64::from_le_bytes(*length) > rest.len() as u64 {
        return Err(Error::refused(name, "it is not a safetensors file, or a truncated one"));
    }
    if rest.first() != Some(&b'{') {
        return Err(Error::refused(name, "it is not a safetensors file: its header is not JSON"));
    }
    Ok(())
}

/// The usual other ways to store weights, known by their first bytes. In a safetensors file, they would
/// announce a header of a hundred kilobytes or more that does not begin with a brace.
fn foreign_format(bytes: &[u8]) -> Option<&'static str> {
    let is_safetensors_header = bytes.get(8) == Some(&b'{');
    match bytes {
        _ if is_safetensors_header => None,
        [b'P', b'K', 3, 4, ..] => Some("a zip archive (bytes \"PK\"), as torch.save writes around a pickle"),
        [0x80, 2..=5, ..] => Some("a pickle (bytes 0x80 and a protocol number)"),
        [0x1f, 0x8b, ..] => Some("a gzip file"),
        [0x89, b'H', b'D', b'F', ..] => Some("an HDF5 file"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pickle_is_named_and_refused() {
        let zip = b"PK\x03\x04\x00\x00\x08\x08\x00archive/data.pkl".to_vec();
        let pickle = b"\x80\x02}q\x00(X\x05\x00\x00\x00stepsq\x01K\x01u.".to_vec();
        for (bytes, word) in [(zip, "zip"), (pickle, "pickle")] {
            let error = Bundle::new(BundleKind::Teacher, bytes, b"{}".to_vec()).unwrap_err();
            assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains(word)), "{error}");
        }
    }

    #[test]
    fn a_safetensors_header_whose_length_looks_like_a_pickle_is_not_one() {
        // 0x0480 bytes of header: the file begins with 0x80 0x04.
        let mut bytes = 0x0480_u64.to_le_bytes().to_vec();
        bytes.extend(std::iter::once(b'{').chain(std::iter::repeat_n(b' ', 0x0480)));
        assert!(Bundle::new(BundleKind::Teacher, bytes, b"{}".to_vec()).is_ok());
    }
}
