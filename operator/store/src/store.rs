//! The layout of the store.

use std::collections::BTreeMap;

use lethe_api::contract::{BundleKind, Digest};

use crate::{
    bundle::{Bundle, Folder, verify},
    error::{Error, Result},
    objects::Objects,
};

/// A content-addressed store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) objects: Objects,
    uri: String,
}

impl Store {
    /// Opens the store at `uri`, for example `file:///artifacts`. A folder on this machine must exist: a
    /// store that was not mounted must not be mistaken for an empty one.
    /// Where a bucket is and who asks for it is said by the environment ([`crate::CREDENTIALS`]).
    pub fn open(uri: &str) -> Result<Self> {
        Ok(Self { objects: Objects::open(uri, true)?, uri: uri.into() })
    }

    /// The same, with variables of a provider instead of those of the environment.
    pub fn open_with(uri: &str, variables: BTreeMap<String, String>) -> Result<Self> {
        Ok(Self { objects: Objects::open_with(uri, true, || Ok(variables))?, uri: uri.into() })
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    pub async fn put_bundle(&self, bundle: &Bundle) -> Result<()> {
        self.bundle_folder(bundle.digest()).write(bundle).await
    }

    /// The bundle with this digest, every byte verified, if it is of this kind.
    pub async fn get_bundle(&self, digest: &Digest, kind: BundleKind) -> Result<Bundle> {
        self.bundle_folder(digest).read(digest).await?.expect(kind)
    }

    /// The folder of the bundle with this digest.
    pub fn bundle_folder(&self, digest: &Digest) -> Folder {
        Folder::at(self.objects.below("bundles").below(digest.hex()))
    }

    /// Copies a bundle from anywhere into the store, after every byte was verified and the kind checked.
    pub async fn import(&self, uri: &str, digest: &Digest, kind: BundleKind) -> Result<Bundle> {
        if let Ok(known) = self.get_bundle(digest, kind).await {
            return Ok(known);
        }
        let bundle = Folder::open(uri)?.read(digest).await?.expect(kind)?;
        self.put_bundle(&bundle).await?;
        Ok(bundle)
    }

    /// Keeps a measurement record (JSON) and returns its name.
    pub async fn put_record(&self, bytes: Vec<u8>) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        self.objects.below("records").write(&record_file(&digest), bytes).await?;
        Ok(digest)
    }

    /// The record with this digest, verified, of at most `max` bytes.
    pub async fn get_record(&self, digest: &Digest, max: usize) -> Result<Vec<u8>> {
        read_verified(&self.objects.below("records"), &record_file(digest), digest, max).await
    }

    /// Keeps a page for people (HTML) beside the record that it shows, and returns its place, as one would type it. It can
    /// be made again from the record: nothing reads it, so that it needs no name of its own.
    pub async fn put_report(&self, record: &Digest, page: Vec<u8>) -> Result<String> {
        let (records, file) = (self.objects.below("records"), format!("{}.html", record.hex()));
        records.write(&file, page).await?;
        Ok(records.name(&file))
    }

    /// Keeps any bytes and returns their name.
    pub async fn put_blob(&self, bytes: Vec<u8>) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        self.objects.below("blobs").write(digest.hex(), bytes).await?;
        Ok(digest)
    }

    /// The blob with this digest, verified, of at most `max` bytes.
    pub async fn get_blob(&self, digest: &Digest, max: usize) -> Result<Vec<u8>> {
        read_verified(&self.objects.below("blobs"), digest.hex(), digest, max).await
    }

    /// The space in which the run of this plan may keep what it needs to go on after an interruption.
    pub fn scratch(&self, plan: &Digest) -> Scratch {
        Scratch { objects: self.objects.below("scratch").below(plan.hex()) }
    }
}

/// What a run keeps for itself while it works. Nothing in it is ever served.
#[derive(Clone, Debug)]
pub struct Scratch {
    objects: Objects,
}

impl Scratch {
    /// Keeps `bytes` under `name`, in place of what was there.
    pub async fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        // Scratch is named by what it is for, not by what it holds, so it carries its own digest.
        let mut sealed = Digest::of(bytes).as_str().as_bytes().to_vec();
        sealed.push(b'\n');
        sealed.extend_from_slice(bytes);
        self.objects.write(name, sealed).await
    }

    /// Shows `bytes` under `name` to whoever looks while the run goes on. As it carries no digest, it is never read back.
    pub async fn show(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.objects.write(name, bytes).await
    }

    /// What was kept under `name`, verified; `None` if nothing was.
    pub async fn get(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let mut sealed = match self.objects.read(name, max).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        let what = self.objects.name(name);
        let Some(end) = sealed.iter().take(128).position(|&byte| byte == b'\n') else {
            return Err(Error::corrupt(what, "a digest in the first line", "none"));
        };
        let bytes = sealed.split_off(end + 1);
        let line = String::from_utf8_lossy(&sealed[..end]);
        match line.parse::<Digest>() {
            Ok(digest) => verify(&what, &bytes, &digest)?,
            Err(_) => return Err(Error::corrupt(what, "a digest in the first line", line)),
        }
        Ok(Some(bytes))
    }

    /// Fails if nothing can be written here: a small file is written, and removed.
    pub async fn try_out(&self) -> Result<()> {
        const TRIED: &str = "tried";
        self.objects.write(TRIED, b"tried\n".to_vec()).await?;
        self.objects.remove(TRIED).await
    }

    /// Removes everything that was kept, but for what is named.
    pub async fn clear(&self, but: &[&str]) -> Result<()> {
        for name in self.objects.list().await?.iter().filter(|name| !but.contains(&name.as_str())) {
            self.objects.remove(name).await?;
        }
        Ok(())
    }
}

fn record_file(digest: &Digest) -> String {
    format!("{}.json", digest.hex())
}

async fn read_verified(objects: &Objects, file: &str, digest: &Digest, max: usize) -> Result<Vec<u8>> {
    let bytes = objects.read(file, max as u64).await?;
    verify(&objects.name(file), &bytes, digest)?;
    Ok(bytes)
}
