//! The audit log on a real file system.

use std::{fs, path::Path, sync::Arc};

use lethe_evidence::{SigningKey, TrustedKeys};
use lethe_store::{
    folder_uri,
    log::{Known, Log, LogError, Reading, Writer},
};
use lethe_transparency::{Action, Entry, Object, Said, Upshot, merkle, tile};
use tempfile::TempDir;

#[path = "log/check.rs"]
mod known;

const ORIGIN: &str = "lethe.dev/studio";

/// RFC 8032, section 7.1, test 1.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

/// Test 2 of the same, and the public keys of both.
const SECOND: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n-----END PRIVATE KEY-----\n";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
const SECOND_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n-----END PUBLIC KEY-----\n";

fn key() -> Arc<SigningKey> {
    load(KEY)
}

fn load(pem: &str) -> Arc<SigningKey> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), pem).unwrap();
    Arc::new(SigningKey::load(file.path()).unwrap())
}

fn trust(pems: &[&str]) -> TrustedKeys {
    TrustedKeys::from_pem(pems.concat().as_bytes()).unwrap()
}

fn log(folder: &Path) -> Log {
    Log::open(&folder_uri(folder).unwrap()).unwrap()
}

async fn writer(folder: &Path) -> Result<Writer, LogError> {
    let key = key();
    let trusted = TrustedKeys::only(key.public());
    Writer::open(log(folder), ORIGIN, key, trusted).await
}

async fn read(folder: &Path) -> Reading {
    log(folder).read(ORIGIN, &TrustedKeys::only(key().public())).await.unwrap()
}

async fn check(folder: &Path, known: &Known) -> Result<(), LogError> {
    log(folder).check(ORIGIN, &TrustedKeys::only(key().public()), known).await
}

/// The id of a commit's key is in its last line, behind the name. Something by a trusted key, or the checkpoint, follows each of them.
fn names_another_key(file: &Path, good: &[u8], at: usize) -> bool {
    let after_last =
        |wanted: u8, bytes: &[u8]| bytes.iter().rposition(|byte| *byte == wanted).map_or(0, |it| it + 1);
    let line = after_last(b'\n', &good[..good.len() - 1]);
    let id = line + after_last(b' ', &good[line..]);
    file.to_string_lossy().contains("/commits/") && (id..id + 6).contains(&at)
}

fn said(said: Said) -> Entry {
    let by = lethe_transparency::Writer { version: "0.1.0".into(), replica: "lethe-0".into() };
    Entry { at: "2026-11-24T21:00:00Z".into(), by, late: false, said }
}

fn intent(name: &str) -> Entry {
    let object = Object {
        kind: "Deployment".into(),
        namespace: "studio".into(),
        name: name.into(),
        uid: String::new(),
    };
    let (before, after, reason) = Default::default();
    said(Said::Intent { action: Action::Serve, object, before, after, digests: [].into(), reason })
}

fn outcome(of: u64) -> Entry {
    said(Said::Outcome { of, upshot: Upshot::Done, reason: String::new() })
}

/// Appends all, in as many commits as are needed.
async fn append(writer: &mut Writer, mut entries: &[Entry]) -> Result<(), LogError> {
    while !entries.is_empty() {
        let taken = writer.propose(entries)?;
        writer.commit().await?;
        entries = &entries[taken..];
    }
    Ok(())
}

/// So many pairs of an intent and its outcome, `batch` pairs at once.
async fn fill(writer: &mut Writer, pairs: usize, batch: usize) {
    for _ in 0..pairs.div_ceil(batch) {
        let first = writer.size();
        let numbers = (first..).step_by(2).take(batch);
        let entries: Vec<_> = numbers.flat_map(|n| [intent(&n.to_string()), outcome(n)]).collect();
        append(writer, &entries).await.unwrap();
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_was_appended_is_read_in_order_and_whoever_comes_next_goes_on() {
    let folder = TempDir::new().unwrap();
    for round in 0..9_u64 {
        let mut writer = writer(folder.path()).await.unwrap();
        assert_eq!(writer.size(), 2 * 40 * round);
        // Without, it has to be found from what was committed.
        fill(&mut writer, 40, 1 + round as usize % 4 * 13).await;
        let size = 2 * 40 * (round + 1);
        append(&mut writer, &[]).await.unwrap();
        assert!(writer.size() >= size);
        if writer.size() > size {
            break;
        }
        if round % 2 == 0 {
            writer.show().await.unwrap();
        }
    }
    let reading = read(folder.path()).await;
    assert_eq!(reading.faults, []);
    assert_eq!(reading.book.open().count(), 0);
    for (number, entry) in reading.entries.iter().enumerate() {
        let wanted = if number % 2 == 0 { intent(&number.to_string()) } else { outcome(number as u64 - 1) };
        assert_eq!(*entry, wanted);
    }
}

#[tokio::test]
async fn a_writer_begins_where_the_log_ends_wherever_the_last_one_died() {
    let folder = TempDir::new().unwrap();
    let mut entries = 0;
    for round in 0..60_u64 {
        let mut writer = writer(folder.path()).await.unwrap();
        assert_eq!(writer.size(), entries, "in round {round}");
        fill(&mut writer, 9, 9).await;
        entries = writer.size();
        match round % 3 {
            // Before the tiles, after them and before the checkpoint, after it.
            0 => {}
            1 => {
                let before = fs::read(folder.path().join("checkpoint")).ok();
                writer.show().await.unwrap();
                match before {
                    Some(before) => fs::write(folder.path().join("checkpoint"), before).unwrap(),
                    None => fs::remove_file(folder.path().join("checkpoint")).unwrap(),
                }
            }
            _ => writer.show().await.unwrap(),
        }
    }
    assert!(entries > 3 * tile::WIDTH);
    writer(folder.path()).await.unwrap().show().await.unwrap();
    let reading = read(folder.path()).await;
    assert_eq!(reading.faults, []);
    assert_eq!(reading.tree.size(), entries);
    for bundle in ["000", "001", "002", "003"] {
        assert!(
            folder.path().join("tile/entries").join(bundle).exists()
                && folder.path().join("tile/0").join(bundle).exists()
        );
    }
    let (checkpoint, _) = reading.checkpoint.unwrap();
    assert_eq!((checkpoint.size, Some(checkpoint.root)), (entries, reading.tree.root(entries)));
}

#[tokio::test]
async fn two_writers_never_write_two_histories() {
    let folder = TempDir::new().unwrap();
    let (mut one, mut two) = (writer(folder.path()).await.unwrap(), writer(folder.path()).await.unwrap());
    append(&mut one, &[intent("a")]).await.unwrap();
    let overtaken = append(&mut two, &[intent("b")]).await;
    assert!(matches!(overtaken, Err(LogError::Overtaken)));
    // It goes on overtaken until it has read what the other wrote, however far that has gone.
    fill(&mut one, 300, 20).await;
    one.show().await.unwrap();
    assert!(matches!(append(&mut two, &[intent("b")]).await, Err(LogError::Overtaken)));
    let mut two = writer(folder.path()).await.unwrap();
    append(&mut two, &[intent("b")]).await.unwrap();
    assert!(matches!(append(&mut one, &[intent("c")]).await, Err(LogError::Overtaken)));
    let reading = read(folder.path()).await;
    assert_eq!(reading.faults, []);
    assert_eq!(reading.entries.last(), Some(&intent("b")));
    assert_eq!(reading.book.open().collect::<Vec<_>>(), [0, two.size() - 1]);
}

/// As many tasks append at once as there are threads, each an entry of its own, and each until it is in.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_writers_at_once_every_entry_is_in_the_log_once() {
    let folder = Arc::new(TempDir::new().unwrap());
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let folder = folder.clone();
            tokio::spawn(async move {
                for n in 0..12 {
                    let entry = intent(&format!("{task}-{n}"));
                    loop {
                        let mut writer = writer(folder.path()).await.unwrap();
                        match append(&mut writer, std::slice::from_ref(&entry)).await {
                            Ok(()) => break,
                            Err(LogError::Overtaken) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let reading = read(folder.path()).await;
    assert_eq!(reading.faults, []);
    let mut found: Vec<_> = reading.entries.iter().map(|entry| entry.to_bytes().unwrap()).collect();
    found.sort();
    found.dedup();
    assert_eq!((reading.entries.len(), found.len()), (48, 48));
}

#[tokio::test]
async fn an_entry_that_may_have_been_written_is_not_written_again() {
    let folder = TempDir::new().unwrap();
    let mut writer = writer(folder.path()).await.unwrap();
    append(&mut writer, &[intent("a")]).await.unwrap();
    // The folder goes, as a volume does, and comes back: what was proposed is still to be written.
    let away = folder.path().with_extension("away");
    fs::rename(folder.path(), &away).unwrap();
    writer.propose(&[outcome(0)]).unwrap();
    let gone = writer.commit().await.unwrap_err();
    assert!(matches!(gone, LogError::Damaged { .. }), "{gone}");
    assert!(!folder.path().exists(), "nothing was written where the log is not");
    assert!(writer.is_pending());
    fs::rename(&away, folder.path()).unwrap();
    writer.commit().await.unwrap();
    assert_eq!((writer.size(), read(folder.path()).await.faults), (2, vec![]));
    // It was written, and whoever wrote it was told that it was not.
    writer.propose(&[intent("b")]).unwrap();
    let mut other = self::writer(folder.path()).await.unwrap();
    append(&mut other, &[intent("b")]).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!((writer.size(), writer.is_pending()), (3, false));
    assert_eq!(read(folder.path()).await.entries.len(), 3);
}

#[tokio::test]
async fn to_begin_reads_no_more_than_what_is_behind_the_last_full_tile() {
    let folder = TempDir::new().unwrap();
    let mut first = writer(folder.path()).await.unwrap();
    append(&mut first, &[intent("open for long")]).await.unwrap();
    fill(&mut first, 400, 10).await;
    first.show().await.unwrap();
    let size = first.size();
    assert!(size > 3 * tile::WIDTH);
    let keep = fs::read(folder.path().join("tile/entries/000")).unwrap();
    for name in ["commits/000", "commits/001", "tile/0", "tile/entries"] {
        fs::remove_dir_all(folder.path().join(name)).unwrap();
    }
    let next = writer(folder.path()).await.unwrap();
    assert_eq!((next.size(), next.book().open().collect::<Vec<_>>()), (size, vec![0]));
    fs::create_dir_all(folder.path().join("tile/entries")).unwrap();
    fs::write(folder.path().join("tile/entries/000"), keep).unwrap();
    assert_eq!(next.entry(0).await.unwrap(), intent("open for long"));
    assert_eq!(next.entry(size - 1).await.unwrap(), outcome(size - 2));
}

/// A log with two full tiles and some entries behind them.
async fn example() -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut writer = writer(folder.path()).await.unwrap();
    fill(&mut writer, 260, 65).await;
    writer.show().await.unwrap();
    assert_eq!(read(folder.path()).await.faults, []);
    folder
}

/// One bit of a file of the log is another. The file stays so.
async fn a_flip_is_found(log: &Path, file: &Path, good: &[u8], at: usize, bit: u8) {
    let mut bad = good.to_vec();
    bad[at] ^= 1 << bit;
    fs::write(file, bad).unwrap();
    let faults = read(log).await.faults;
    assert!(!faults.is_empty(), "bit {bit} of byte {at} of {}", file.display());
    let checked = check(log, &Known::default()).await;
    let is_found = matches!(checked, Err(LogError::Damaged { .. }));
    // Nothing is wrong with what is by a key that is not trusted any more, if what follows it vouches for it.
    let is_as_good = names_another_key(file, good, at);
    assert!(is_found || is_as_good, "{checked:?}: bit {bit} of byte {at} of {}", file.display());
}

#[tokio::test]
async fn every_flipped_byte_is_found() {
    let folder = example().await;
    let mut random = fastrand::Rng::with_seed(7);
    for path in files(folder.path()) {
        let good = fs::read(&path).unwrap();
        let ends = [0, good.len() - 1];
        let some = (0..24).map(|_| random.usize(..good.len())).chain(ends);
        for at in some.collect::<Vec<_>>() {
            a_flip_is_found(folder.path(), &path, &good, at, random.u8(..8)).await;
        }
        fs::write(&path, good).unwrap();
    }
    assert_eq!(read(folder.path()).await.faults, []);
}

/// One with full tiles has hundreds of thousands of bytes: to read all of it once for each would take an hour.
#[tokio::test]
async fn every_byte_of_a_log_that_has_no_tiles_yet_is_looked_at() {
    let folder = TempDir::new().unwrap();
    let mut writer = writer(folder.path()).await.unwrap();
    append(&mut writer, &[intent("open")]).await.unwrap();
    fill(&mut writer, 2, 1).await;
    writer.show().await.unwrap();
    assert_eq!(read(folder.path()).await.faults, []);
    let files = files(folder.path());
    assert_eq!(files.len(), 4, "three commits and a checkpoint: {files:?}");
    for path in files {
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            a_flip_is_found(folder.path(), &path, &good, at, (at % 8) as u8).await;
        }
        fs::write(&path, good).unwrap();
    }
    assert_eq!(read(folder.path()).await.faults, []);
}

#[tokio::test]
async fn what_is_missing_cut_off_or_beside_it_is_found() {
    let folder = example().await;
    for path in files(folder.path()) {
        let good = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let lags = ["checkpoint", "tile/0/001", "tile/entries/001"].iter().any(|it| path.ends_with(it));
        assert_eq!(read(folder.path()).await.faults.is_empty(), lags, "without {}", path.display());
        // Who is told of no checkpoint knows of no end.
        let is_unknown = path.ends_with("checkpoint");
        assert_eq!(
            check(folder.path(), &Known::default()).await.is_ok(),
            is_unknown,
            "without {}",
            path.display()
        );
        let shown = check(folder.path(), &Known { heads: Vec::new(), shown: 520 }).await;
        assert!(shown.is_err(), "without {}", path.display());
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(!read(folder.path()).await.faults.is_empty(), "a part of {}", path.display());
        fs::write(&path, good).unwrap();
        let beside = path.with_file_name("beside");
        fs::write(&beside, "").unwrap();
        assert!(!read(folder.path()).await.faults.is_empty(), "{}", beside.display());
        fs::remove_file(beside).unwrap();
    }
}

#[tokio::test]
async fn a_log_from_which_the_end_was_taken_is_not_written_on() {
    let folder = example().await;
    let last = files(&folder.path().join("commits/002")).pop().unwrap();
    fs::remove_file(last).unwrap();
    let error = writer(folder.path()).await.err().unwrap();
    assert!(matches!(&error, LogError::Damaged { what, .. } if what == "checkpoint"), "{error}");
    assert!(error.to_string().contains("restore it"), "{error}");
}

#[tokio::test]
async fn a_log_of_another_or_with_another_key_is_not_written_on() {
    let folder = example().await;
    let another =
        Writer::open(log(folder.path()), "lethe.dev/b", key(), TrustedKeys::only(key().public())).await;
    assert!(matches!(another, Err(LogError::Damaged { .. })));
    let other = trust(&[SECOND_PUBLIC]);
    assert!(matches!(Writer::open(log(folder.path()), ORIGIN, key(), other).await, Err(LogError::Untrusted)));
    assert!(matches!(
        lethe_store::folder_uri(&folder.path().join("gone")).map(|uri| Log::open(&uri)),
        Ok(Err(_))
    ));
}

/// As docs/audit-log.md says it is done: trust both, sign with the new one, and once a tile is full of what that signed, no
/// longer trust the old one where the log is written. Whoever reads all of it needs both.
#[tokio::test]
async fn a_log_goes_on_with_another_key() {
    let folder = TempDir::new().unwrap();
    let mut before = writer(folder.path()).await.unwrap();
    fill(&mut before, 20, 20).await;
    before.show().await.unwrap();
    drop(before);
    let open =
        async |trusted: &[&str]| Writer::open(log(folder.path()), ORIGIN, load(SECOND), trust(trusted)).await;
    assert!(matches!(open(&[SECOND_PUBLIC]).await, Err(LogError::Untrusted | LogError::Damaged { .. })));
    let mut after = open(&[PUBLIC, SECOND_PUBLIC]).await.unwrap();
    assert_eq!(after.size(), 40, "it goes on where it was");
    fill(&mut after, 150, 50).await;
    after.show().await.unwrap();
    drop(after);
    let mut alone = open(&[SECOND_PUBLIC]).await.unwrap();
    fill(&mut alone, 10, 10).await;
    alone.show().await.unwrap();

    let read = async |trusted: &[&str]| log(folder.path()).read(ORIGIN, &trust(trusted)).await.unwrap();
    let both = read(&[PUBLIC, SECOND_PUBLIC]).await;
    assert!(both.faults.is_empty(), "{:?}", both.faults);
    assert_eq!(both.entries.len(), 360);
    for one in [PUBLIC, SECOND_PUBLIC] {
        assert!(!read(&[one]).await.faults.is_empty(), "half of it is signed by a key that is not trusted");
    }
}

#[tokio::test]
async fn the_collector_sees_nothing_of_a_log() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("log")).unwrap();
    let mut writer = writer(&folder.path().join("log")).await.unwrap();
    fill(&mut writer, 200, 50).await;
    writer.show().await.unwrap();
    let store = lethe_store::Store::open(&folder_uri(folder.path()).unwrap()).unwrap();
    store.put_blob(b"garbage".to_vec()).await.unwrap();
    assert_eq!(store.inventory().await.unwrap().len(), 1);
}

/// A proof from the log convinces somebody who has the checkpoint and nothing else.
#[tokio::test]
async fn a_proof_of_an_entry_is_one_for_whoever_has_the_checkpoint() {
    let folder = example().await;
    let reading = read(folder.path()).await;
    let (checkpoint, _) = reading.checkpoint.as_ref().unwrap();
    for number in [0, 255, 256, 511, 519] {
        let leaf = merkle::leaf(&reading.entries[number as usize].to_bytes().unwrap());
        let proof = reading.tree.inclusion(number, checkpoint.size).unwrap();
        assert!(merkle::is_included(leaf, number, checkpoint.size, checkpoint.root, &proof));
    }
}
