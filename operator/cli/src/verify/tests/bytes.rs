//! One bit of every byte of a store, verified by what looks at that file. To verify all of the store once for every byte would take
//! minutes: that is done for a thousand of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lethe_api::Digest;

use super::{Done, broken, done, files};
use crate::verify::{Check, Notes, run, signatures};

/// Of larger files, not every byte is looked at in a few seconds.
const SMALL: usize = 64 << 10;
/// What there is in a store of a run that is over.
const FOLDERS: [&str; 4] = ["blobs", "bundles", "evidence", "records"];

#[tokio::test]
async fn every_byte_of_a_bundle_is_looked_at() {
    let done = done().await;
    for bundle in fs::read_dir(folder(&done, "bundles")).unwrap() {
        let files = files(&bundle.unwrap().path());
        let digest = named(&files[0]);
        let kind = done.store.bundle_folder(&digest).read(&digest).await.unwrap().kind();
        every_byte_is_told(&files, async || {
            let mut checks = Vec::new();
            run::bundle(&done.store, &digest, kind, "bundle", &mut notes(&mut checks)).await;
            checks
        })
        .await;
    }
}

#[tokio::test]
async fn every_byte_of_a_record_and_of_its_pictures_is_looked_at() {
    let done = done().await;
    let files = [files(&folder(&done, "records")), files(&folder(&done, "blobs"))].concat();
    // To read them anew each time would take longest. That they are missing is told as well, by their own names.
    fs::remove_dir_all(folder(&done, "bundles")).unwrap();
    every_byte_is_told(&files, async || {
        let mut checks = Vec::new();
        run::check(&done.exported.runs[0], &done.store, &mut notes(&mut checks)).await;
        checks
    })
    .await;
}

#[tokio::test]
async fn every_byte_of_signed_evidence_is_looked_at() {
    let done = done().await;
    every_byte_is_told(&files(&folder(&done, "evidence")), async || {
        let (run, mut checks) = (&done.exported.runs[0], Vec::new());
        signatures::run(run, &done.store, Some(&done.trusted), &mut notes(&mut checks)).await;
        checks
    })
    .await;
}

/// Whichever byte of these files is changed, something is broken that has the file's name, and otherwise nothing.
async fn every_byte_is_told(files: &[PathBuf], verify: impl AsyncFn() -> Vec<Check>) {
    assert!(!files.is_empty());
    for file in files {
        let (digest, whole) = (named(file), fs::read(file).unwrap());
        assert!((1..SMALL).contains(&whole.len()), "{} has {} bytes", file.display(), whole.len());
        let is_told = async || broken(&verify().await).iter().any(|said| said.contains(digest.short()));
        assert!(!is_told().await, "{} is whole", file.display());
        for at in 0..whole.len() {
            let bit = at % 8;
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            fs::write(file, flipped).unwrap();
            assert!(is_told().await, "bit {bit} of byte {at} of {}", file.display());
        }
        fs::write(file, whole).unwrap();
    }
}

fn notes(checks: &mut Vec<Check>) -> Notes<'_> {
    Notes { subject: "run".into(), checks }
}

/// A folder of the store, which has no others than those that some test here looks at.
fn folder(done: &Done, name: &str) -> PathBuf {
    let root = done.folder.path();
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<String> = entries.collect();
    found.sort();
    assert_eq!(found, FOLDERS);
    root.join(name)
}

/// The digest in a file's path: that of its bytes, or of the bundle that it belongs to.
fn named(file: &Path) -> Digest {
    let digest = |part: &str| Digest::from_hex(part.strip_suffix(".json").unwrap_or(part));
    file.iter().find_map(|part| digest(part.to_str()?)).expect("a file of a store has a digest in its path")
}
