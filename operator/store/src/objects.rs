//! Reading with a limit and writing whole: the two things done to the storage below.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    MultipartUpload as _, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UploadPart, path::Path,
};

use crate::{
    cloud::{self, Options},
    error::{Error, Result},
    uri::{self, Place},
};

/// A folder of objects. Names given to it are single path segments, joined by the callers of this crate.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    storage: Arc<dyn ObjectStore>,
    root: Path,
    prefix: String,
    part: Option<usize>,
}

/// Parts that are sent at the same time.
const AT_ONCE: usize = 4;

impl Objects {
    pub(crate) fn open(uri: &str, must_exist: bool) -> Result<Self> {
        Self::open_with(uri, must_exist, || cloud::options(uri))
    }

    /// With these options, if they are needed.
    pub(crate) fn open_with(
        uri: &str,
        must_exist: bool,
        options: impl FnOnce() -> Result<Options>,
    ) -> Result<Self> {
        let Place { storage, root, prefix, part } = uri::resolve(uri, must_exist, options)?;
        Ok(Self { storage, root, prefix, part })
    }

    /// A folder below this one.
    pub(crate) fn below(&self, folder: &str) -> Self {
        Self { root: self.root.clone().join(folder), ..self.clone() }
    }

    /// How errors name an object: its path, as one would type it.
    pub(crate) fn name(&self, file: &str) -> String {
        self.typed(&self.root.clone().join(file))
    }

    fn typed(&self, path: &Path) -> String {
        format!("{}{path}", self.prefix)
    }

    /// All bytes of an object of at most `max` bytes.
    pub(crate) async fn read(&self, file: &str, max: u64) -> Result<Vec<u8>> {
        let path = self.root.clone().join(file);
        let failed = |error| Error::from_storage("read", self.typed(&path), error);
        let object = self.storage.get(&path).await.map_err(failed)?;
        let too_large = |bytes| Error::TooLarge { what: self.typed(&path), bytes, max };
        if object.meta.size > max {
            return Err(too_large(object.meta.size));
        }
        let mut bytes = Vec::with_capacity(object.meta.size as usize);
        let mut chunks = object.into_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(failed)?);
            // What was announced need not be what comes.
            if bytes.len() as u64 > max {
                return Err(too_large(bytes.len() as u64));
            }
        }
        Ok(bytes)
    }

    /// Writes an object as a whole: readers see the old one, or the new one, or none.
    pub(crate) async fn write(&self, file: &str, bytes: Vec<u8>) -> Result<()> {
        let path = self.root.clone().join(file);
        let written = match self.part {
            Some(part) if bytes.len() > part => self.write_in_parts(&path, bytes.into(), part).await,
            _ => self.storage.put(&path, PutPayload::from(bytes)).await.map(|_| ()),
        };
        written.map_err(|error| Error::from_storage("write", self.typed(&path), error))
    }

    /// Writes an object if there is none of that name: of two who do it at once, one is told that there is.
    pub(crate) async fn create(&self, file: &str, bytes: Vec<u8>) -> Result<Created> {
        let path = self.root.clone().join(file);
        let options = PutMode::Create.into();
        match self.storage.put_opts(&path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(Created::New),
            // Another one that is being written at the same moment is as good as there, once it is.
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::WasThere),
            Err(error) => Err(Error::from_storage("write", self.typed(&path), error)),
        }
    }

    /// Whether an object is there.
    pub(crate) async fn has(&self, file: &str) -> Result<bool> {
        let path = self.root.clone().join(file);
        match self.storage.head(&path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Error::from_storage("look for", self.typed(&path), error)),
        }
    }

    /// Nothing is there before the last part is, and the whole is confirmed.
    async fn write_in_parts(&self, path: &Path, bytes: Bytes, part: usize) -> object_store::Result<()> {
        let mut upload = self.storage.put_multipart(path).await?;
        let starts = (0..bytes.len()).step_by(part);
        let parts: Vec<UploadPart> = starts
            .map(|start| upload.put_part(bytes.slice(start..bytes.len().min(start + part)).into()))
            .collect();
        let sent = stream::iter(parts).buffer_unordered(AT_ONCE).try_collect::<()>().await;
        match sent {
            Ok(()) => upload.complete().await.map(|_| ()),
            Err(error) => {
                // The parts are nobody's, and cost money until they are removed. A server that is away cannot do so now.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Removes an object; it need not exist.
    pub(crate) async fn remove(&self, file: &str) -> Result<()> {
        let path = self.root.clone().join(file);
        match self.storage.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::from_storage("remove", self.typed(&path), error)),
        }
    }

    /// Every object below this folder, relative to it, sorted.
    pub(crate) async fn list(&self) -> Result<Vec<String>> {
        Ok(self.entries().await?.into_iter().map(|entry| entry.name).collect())
    }

    /// The same, with what the storage says of each.
    pub(crate) async fn entries(&self) -> Result<Vec<Entry>> {
        let failed = |error| Error::from_storage("list", self.typed(&self.root), error);
        let found: Vec<_> = self.storage.list(Some(&self.root)).try_collect().await.map_err(failed)?;
        let relative = |path: &Path| {
            let parts = path.prefix_match(&self.root)?.map(|part| part.as_ref().to_owned());
            Some(parts.collect::<Vec<_>>().join("/"))
        };
        let mut entries: Vec<Entry> = found
            .iter()
            .filter_map(|meta| {
                let name = relative(&meta.location)?;
                Some(Entry { name, bytes: meta.size, written: meta.last_modified.into() })
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

/// What became of an object that was to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    New,
    WasThere,
}

/// An object, as a list of them shows it.
pub(crate) struct Entry {
    pub name: String,
    pub bytes: u64,
    pub written: SystemTime,
}
