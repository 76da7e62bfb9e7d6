//! Reading with a limit and writing whole: the two things done to the storage below.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};

use crate::{
    error::{Error, Result},
    uri::{self, Place},
};

/// A folder of objects. Names given to it are single path segments, joined by the callers of this crate.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    storage: Arc<dyn ObjectStore>,
    root: Path,
    prefix: &'static str,
}

impl Objects {
    pub(crate) fn open(uri: &str, must_exist: bool) -> Result<Self> {
        let Place { storage, root, prefix } = uri::resolve(uri, must_exist)?;
        Ok(Self { storage, root, prefix })
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
        let put = self.storage.put(&path, PutPayload::from(bytes)).await;
        put.map(|_| ()).map_err(|error| Error::from_storage("write", self.typed(&path), error))
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
        let failed = |error| Error::from_storage("list", self.typed(&self.root), error);
        let found: Vec<_> = self.storage.list(Some(&self.root)).try_collect().await.map_err(failed)?;
        let relative = |path: &Path| {
            let parts = path.prefix_match(&self.root)?.map(|part| part.as_ref().to_owned());
            Some(parts.collect::<Vec<_>>().join("/"))
        };
        let mut names: Vec<String> = found.iter().filter_map(|meta| relative(&meta.location)).collect();
        names.sort();
        Ok(names)
    }
}
