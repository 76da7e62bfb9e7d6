//! The store as the commands see it: blocking, and failing in the contract's words.

use lethe_api::contract::{BundleKind, Digest, Failure, Record};
use lethe_store::{Bundle, Folder, Scratch, Store};
use tokio::runtime::Runtime;

use crate::{
    curves::Curves,
    failure::{Failed, Result},
};

/// What is kept in a run's scratch space: the state of its training, and how it went so far.
const CHECKPOINT: &str = "checkpoint";
const METRICS: &str = "metrics.jsonl";
/// And, once it is done, the digest of its record.
const DONE: &str = "done";
/// A checkpoint holds five times the weights; a larger one is not read.
const MAX_CHECKPOINT: u64 = 64 << 30;
const MAX_BLOB: usize = 256 << 20;

pub(crate) struct Artifacts {
    runtime: Runtime,
    store: Store,
}

/// Where a training keeps its state between two pods.
pub(crate) struct Checkpoint<'a> {
    artifacts: &'a Artifacts,
    scratch: Scratch,
}

impl Artifacts {
    pub(crate) fn open(uri: &str) -> Result<Self> {
        Ok(Self { runtime: runtime()?, store: Store::open(uri)? })
    }

    /// The bundle with this digest, verified, if it is of this kind.
    pub(crate) fn bundle(&self, digest: &Digest, kind: BundleKind) -> Result<Bundle> {
        Ok(self.runtime.block_on(self.store.get_bundle(digest, kind))?)
    }

    /// Names of the files in a bundle's folder.
    pub(crate) fn files(&self, digest: &Digest) -> Result<Vec<String>> {
        Ok(self.runtime.block_on(self.store.bundle_folder(digest).list())?)
    }

    /// Copies a bundle from elsewhere into the store, verified.
    pub(crate) fn import(&self, uri: &str, digest: &Digest, kind: BundleKind) -> Result<Bundle> {
        Ok(self.runtime.block_on(self.store.import(uri, digest, kind))?)
    }

    pub(crate) fn put_bundle(&self, kind: BundleKind, weights: Vec<u8>, model: Vec<u8>) -> Result<Digest> {
        let bundle = Bundle::new(kind, weights, model)?;
        self.keep(&bundle)?;
        tracing::info!(?kind, digest = %bundle.digest(), "stored");
        Ok(bundle.digest().clone())
    }

    /// Writes a bundle, be it there already or not.
    pub(crate) fn keep(&self, bundle: &Bundle) -> Result<()> {
        Ok(self.runtime.block_on(self.store.put_bundle(bundle))?)
    }

    pub(crate) fn put_record(&self, bytes: Vec<u8>) -> Result<Digest> {
        Ok(self.runtime.block_on(self.store.put_record(bytes))?)
    }

    /// The record with this digest, verified, if there is one.
    pub(crate) fn record(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        if_found(self.runtime.block_on(self.store.get_record(digest, Record::MAX_BYTES)))
    }

    /// Keeps a page about the record with this digest, and says where.
    pub(crate) fn put_report(&self, record: &Digest, page: String) -> Result<String> {
        Ok(self.runtime.block_on(self.store.put_report(record, page.into_bytes()))?)
    }

    pub(crate) fn put_blob(&self, bytes: Vec<u8>) -> Result<Digest> {
        Ok(self.runtime.block_on(self.store.put_blob(bytes))?)
    }

    /// The blob with this digest, verified, if there is one.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        if_found(self.runtime.block_on(self.store.get_blob(digest, MAX_BLOB)))
    }

    /// Any bundle with this digest, whatever its kind.
    pub(crate) fn any_bundle(&self, digest: &Digest) -> Result<Bundle> {
        Ok(self.runtime.block_on(self.store.bundle_folder(digest).read(digest))?)
    }

    pub(crate) fn checkpoint(&self, plan: &Digest) -> Checkpoint<'_> {
        Checkpoint { artifacts: self, scratch: self.store.scratch(plan) }
    }
}

impl Checkpoint<'_> {
    /// Fails if nothing can be written here.
    pub(crate) fn try_out(&self) -> Result<()> {
        Ok(self.artifacts.runtime.block_on(self.scratch.try_out())?)
    }

    /// Keeps a state, and what the training has said on its way there, in place of the one before: as a whole or not at
    /// all.
    pub(crate) fn save(&self, curves: &Curves, state: &[u8]) -> Result<()> {
        let lines = curves.to_lines();
        // In one object: a state never goes on from lines that are not its own.
        let whole = [&(lines.len() as u64).to_le_bytes()[..], &lines, state].concat();
        self.artifacts.runtime.block_on(self.scratch.put(CHECKPOINT, &whole))?;
        self.show(curves);
        Ok(())
    }

    /// The last state that was kept, with what the training had said. A damaged one is worth no more than none: the work
    /// starts again and comes to the same result.
    pub(crate) fn load(&self) -> Result<Option<(Curves, Vec<u8>)>> {
        let kept = match self.artifacts.runtime.block_on(self.scratch.get(CHECKPOINT, MAX_CHECKPOINT)) {
            Err(error @ (lethe_store::Error::Corrupt { .. } | lethe_store::Error::TooLarge { .. })) => {
                tracing::warn!(%error, "the checkpoint is not used");
                None
            }
            other => other?,
        };
        let parted = kept.and_then(|whole| match part(whole) {
            Ok(parts) => Some(parts),
            Err(problem) => {
                tracing::warn!(problem, "the checkpoint is not used");
                None
            }
        });
        Ok(parted)
    }

    /// Shows how the training goes to whoever looks. A plot is not worth a failure.
    pub(crate) fn show(&self, curves: &Curves) {
        if let Err(error) = self.artifacts.runtime.block_on(self.scratch.show(METRICS, curves.to_lines())) {
            tracing::warn!(%error, "{METRICS} could not be written");
        }
    }

    /// Removes what was kept, once it is not needed. Leaving it behind does no harm.
    pub(crate) fn clear(&self) {
        if let Err(error) = self.artifacts.runtime.block_on(self.scratch.clear(&[DONE])) {
            tracing::warn!(%error, "the scratch space could not be removed");
        }
    }

    /// Says to a pod that comes later that the work is done. Without it, that one would only do it again.
    pub(crate) fn say_done(&self, record: &Digest) {
        let said = self.scratch.put(DONE, record.as_str().as_bytes());
        if let Err(error) = self.artifacts.runtime.block_on(said) {
            tracing::warn!(%error, "that the work is done could not be kept");
        }
    }

    /// The digest that [`Checkpoint::say_done`] left; none if there is none that can be read.
    pub(crate) fn done(&self) -> Result<Option<Digest>> {
        const MAX: u64 = 1 << 10;
        match self.artifacts.runtime.block_on(self.scratch.get(DONE, MAX)) {
            Ok(said) => Ok(said.and_then(|said| String::from_utf8(said).ok()?.parse().ok())),
            Err(error) => if_usable(Err(error.into())),
        }
    }
}

/// What [`Checkpoint::save`] put together.
fn part(mut whole: Vec<u8>) -> Result<(Curves, Vec<u8>), String> {
    let Some((length, rest)) = whole.split_first_chunk::<8>() else {
        return Err("it is too short".into());
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let Some(lines) = rest.get(..length) else { return Err("it is of another version".into()) };
    let curves = Curves::parse(lines)?;
    let state = whole.split_off(8 + length);
    Ok((curves, state))
}

/// The bundle in a folder outside a store, by its digest, if there is a whole one.
pub(crate) fn exported(uri: &str) -> Result<Option<Digest>> {
    let folder = Folder::open(uri)?;
    if_found(runtime()?.block_on(folder.digest()))
}

/// Writes a bundle to a folder outside a store.
pub(crate) fn export(uri: &str, bundle: &Bundle) -> Result<()> {
    let folder = Folder::open(uri)?;
    Ok(runtime()?.block_on(folder.write(bundle))?)
}

/// What is missing or damaged is worth no more than nothing; a store that does not answer may have it.
pub(crate) fn if_usable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(failed) if failed.failure == Failure::BadArtifact => {
            tracing::warn!(%failed, "what an earlier pod left is not used");
            Ok(None)
        }
        other => Ok(Some(other?)),
    }
}

fn if_found<T>(result: lethe_store::Result<T>) -> Result<Option<T>> {
    match result {
        Err(lethe_store::Error::NotFound { .. }) => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failed::bad_configuration(format!("cannot start the input and output: {error}")))
}
