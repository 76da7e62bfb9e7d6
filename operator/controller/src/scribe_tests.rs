//! The audit log of an operator, on a real file system.

use std::{fs, path::Path, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use lethe_evidence::{SigningKey, TrustedKeys};
use lethe_store::{
    folder_uri,
    log::{Known, Log, LogError, Reading, Writer},
};
use lethe_transparency::{Action, Entry, Object, Said, Upshot};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    keeping::Keeping,
    leader::Leadership,
    logbook::{Announcement, Logbook},
    metrics::{LogMetrics, Metrics},
    scribe::Scribe,
};

/// RFC 8032, section 7.1, test 1.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
const ORIGIN: &str = "lethe.dev/studio";

/// A folder with a key and a log, and one who writes it.
struct Desk {
    folder: TempDir,
    logbook: Logbook,
    scribe: JoinHandle<()>,
    lease: watch::Sender<Option<Instant>>,
    metrics: Arc<Metrics>,
    known: watch::Sender<Known>,
}

impl Desk {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("key.pem"), KEY).unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        Self::at(folder)
    }

    fn at(folder: TempDir) -> Self {
        let (logbook, scribe, lease, metrics, known) = writing(folder.path());
        Self { folder, logbook, scribe, lease, metrics, known }
    }

    fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("log")
    }

    /// The value of a metric.
    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    }

    /// Nobody has anything to say any more.
    async fn close(self) -> TempDir {
        drop(self.logbook);
        self.scribe.await.unwrap();
        self.folder
    }
}

type Writing = (Logbook, JoinHandle<()>, watch::Sender<Option<Instant>>, Arc<Metrics>, watch::Sender<Known>);

/// One who writes a log that lies there.
fn writing(folder: &Path) -> Writing {
    let (leadership, lease) = Leadership::granted();
    let (logbook, messages, problem) = Logbook::new();
    let keeping = Keeping {
        uri: folder_uri(&folder.join("log")).unwrap(),
        origin: ORIGIN.into(),
        key: folder.join("key.pem"),
        trusted: None,
        replica: "lethe-0".into(),
    };
    // Nothing is asked of it where nothing was left open.
    let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let of_log = LogMetrics::new(&metrics).unwrap();
    let scribe = Scribe::new(keeping, client, leadership, of_log, problem);
    let known = scribe.known();
    (logbook, tokio::spawn(scribe.run(messages)), lease, metrics, known)
}

/// The log that lies there, and the key that it is signed with.
fn opened(folder: &Path) -> (Log, SigningKey, TrustedKeys) {
    let key = SigningKey::load(&folder.join("key.pem")).unwrap();
    let trusted = TrustedKeys::only(key.public());
    (Log::open(&folder_uri(&folder.join("log")).unwrap()).unwrap(), key, trusted)
}

async fn read(folder: &Path) -> Reading {
    let (log, _, trusted) = opened(folder);
    log.read(ORIGIN, &trusted).await.unwrap()
}

/// Somebody who writes beside the one at the desk.
async fn command(folder: &Path) -> Writer {
    let (log, key, trusted) = opened(folder);
    Writer::open(log, ORIGIN, Arc::new(key), trusted).await.unwrap()
}

fn about(name: &str, first: bool) -> Announcement {
    let object = Object {
        kind: "Deployment".into(),
        namespace: "studio".into(),
        name: name.into(),
        uid: String::new(),
    };
    let (before, after, digests, reason) = Default::default();
    Announcement {
        said: Said::Intent { action: Action::Serve, object, before, after, digests, reason },
        first,
    }
}

/// What a collector said so many hours ago.
fn collects(name: &str, hours: i64) -> Entry {
    let Said::Intent { mut object, before, after, digests, reason, .. } = about(name, true).said else {
        unreachable!()
    };
    object.kind = "bundle".into();
    let said = Said::Intent { action: Action::Collect, object, before, after, digests, reason };
    let by = lethe_transparency::Writer { version: "0.1.0".into(), replica: "collect".into() };
    let at = Timestamp::now() - SignedDuration::from_hours(hours);
    Entry { at: at.to_string(), by, late: false, said }
}

fn names(reading: &Reading) -> Vec<String> {
    let name = |said: &Said| said.is_to_be().map(|(_, object)| object.name.clone());
    reading.entries.iter().filter_map(|entry| name(&entry.said)).collect()
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < end, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_a_thousand_is_a_few_writes() {
    let desk = Desk::new();
    let start = Instant::now();
    let all: Vec<_> = (0..1000)
        .map(|n| {
            let logbook = desk.logbook.clone();
            tokio::spawn(async move {
                let mut page = logbook.announce(vec![about(&n.to_string(), true)]).await;
                assert_eq!(page.unlogged(), None);
                page.conclude(0, Upshot::Done, "");
            })
        })
        .collect();
    for task in all {
        task.await.unwrap();
    }
    let took = start.elapsed();
    let folder = desk.close().await;
    let reading = read(folder.path()).await;
    assert_eq!(reading.faults, []);
    assert_eq!((reading.entries.len(), reading.book.open().count()), (2001, 0));
    let (checkpoint, _) = reading.checkpoint.unwrap();
    assert_eq!(checkpoint.size, 2001);
    let commits: usize = (0..8)
        .filter_map(|tile| fs::read_dir(folder.path().join(format!("log/commits/{tile:03}"))).ok())
        .map(Iterator::count)
        .sum();
    assert!(commits < 100, "{commits} writes");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn what_cannot_be_written_is_not_put_into_service_and_the_rest_is_written_later() {
    let desk = Desk::new();
    let mut page = desk.logbook.announce(vec![about("before", true)]).await;
    page.conclude(0, Upshot::Done, "");
    drop(page);
    // It began, and wrote an intent and its outcome.
    let checkpoint = || fs::read_to_string(desk.log().join("checkpoint")).unwrap_or_default();
    until("it is written", || checkpoint().lines().nth(1) == Some("3")).await;
    // The volume goes, and a file lies where it was.
    let away = desk.folder.path().join("away");
    fs::rename(desk.log(), &away).unwrap();
    fs::write(desk.log(), "").unwrap();
    let (size, failed) = ("lethe_audit_log_size", "lethe_audit_log_append_errors_total");
    assert_eq!((desk.metric(size), desk.metric(failed)), (3, 0));
    let start = Instant::now();
    let mut mixed = desk.logbook.announce(vec![about("served", true), about("taken out", false)]).await;
    assert!(mixed.unlogged().is_some());
    assert!(desk.logbook.problem().is_some_and(|why| why.contains("log")), "{:?}", desk.logbook.problem());
    mixed.conclude(1, Upshot::Done, "");
    drop(mixed);
    let mut open = desk.logbook.announce(vec![about("trained", false)]).await;
    assert!(open.unlogged().is_some());
    assert!(start.elapsed() < Duration::from_secs(3), "what goes on does not wait");
    open.conclude(0, Upshot::Failed, "conflict");
    drop(open);
    fs::remove_file(desk.log()).unwrap();
    fs::rename(&away, desk.log()).unwrap();
    until("it is written again", || desk.logbook.problem().is_none()).await;
    let mut page = desk.logbook.announce(vec![about("after", true)]).await;
    assert_eq!(page.unlogged(), None);
    page.conclude(0, Upshot::Done, "");
    drop(page);
    assert!(desk.metric(failed) > 0);
    let metrics = desk.metrics.clone();
    let folder = desk.close().await;
    let reading = read(folder.path()).await;
    let in_all = format!("\n{size} {}\n", reading.entries.len());
    assert!(metrics.render().unwrap().contains(&in_all), "{in_all}");
    assert_eq!(reading.faults, []);
    assert_eq!(reading.book.open().count(), 0, "{:#?}", reading.entries);
    let named: Vec<_> = names(&reading).into_iter().filter(|name| name != "served").collect();
    assert_eq!(named, ["before", "taken out", "trained", "after"]);
    let late = |name: &str| {
        let is = |said: &Said| said.is_to_be().is_some_and(|(_, object)| object.name == name);
        reading.entries.iter().find(|entry| is(&entry.said)).unwrap().late
    };
    assert!(late("trained") && !late("after"));
    // It was on its way when the log broke, or is not in it: nobody did it.
    if let Some(number) = names(&reading).iter().position(|name| name == "served") {
        let undone = reading
            .entries
            .iter()
            .any(|entry| matches!(entry.said, Said::Outcome { upshot: Upshot::LeftUndone, .. }));
        assert!(undone, "{number}");
    }
}

#[tokio::test]
async fn a_replica_without_the_lease_writes_nothing() {
    let desk = Desk::new();
    desk.lease.send_replace(None);
    let page = desk.logbook.announce(vec![about("a", true)]).await;
    assert!(page.unlogged().is_some_and(|why| why.contains("lease")), "{:?}", page.unlogged());
    drop(page);
    let folder = desk.close().await;
    assert_eq!(fs::read_dir(folder.path().join("log")).unwrap().count(), 0);
}

#[tokio::test]
async fn whoever_comes_next_goes_on_and_a_key_that_cannot_be_read_is_said() {
    let desk = Desk::new();
    desk.logbook.announce(vec![about("a", true)]).await.conclude(0, Upshot::Done, "");
    let folder = desk.close().await;
    let hidden = folder.path().join("hidden");
    fs::rename(folder.path().join("key.pem"), &hidden).unwrap();
    let desk = Desk::at(folder);
    let page = desk.logbook.announce(vec![about("b", true)]).await;
    assert!(page.unlogged().is_some_and(|why| why.contains("key.pem")), "{:?}", page.unlogged());
    drop(page);
    fs::rename(&hidden, desk.folder.path().join("key.pem")).unwrap();
    until("it is written again", || desk.logbook.problem().is_none()).await;
    desk.logbook.announce(vec![about("c", true)]).await.conclude(0, Upshot::Done, "");
    let folder = desk.close().await;
    let reading = read(folder.path()).await;
    assert_eq!((reading.faults.len(), reading.book.open().count()), (0, 0));
    assert_eq!(names(&reading), ["a", "c"]);
}

/// Says that something is done, and waits until the log has it with its outcome.
async fn says(logbook: &Logbook, name: &str) {
    let mut page = logbook.announce(vec![about(name, true)]).await;
    assert_eq!(page.unlogged(), None, "{name}");
    page.conclude(0, Upshot::Done, "");
}

/// The same, until it is written.
async fn does(logbook: &Logbook, folder: &Path, name: &str) {
    says(logbook, name).await;
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let reading = read(folder).await;
        if names(&reading).iter().any(|it| it == name) && reading.book.open().count() == 0 {
            return;
        }
        assert!(Instant::now() < end, "{name} is not written: {:#?}", reading.entries);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One that was frozen and is thawed still thinks that it has the lease.
#[tokio::test]
async fn two_that_write_in_turn_leave_one_history() {
    let desk = Desk::new();
    let all = ["0", "1", "2", "3", "4", "5"];
    // What it found open it would ask an API server about.
    does(&desk.logbook, desk.folder.path(), all[0]).await;
    let (other, scribe, _lease, _, _) = writing(desk.folder.path());
    for (turn, name) in all.iter().enumerate().skip(1) {
        let logbook = if turn % 2 == 0 { &desk.logbook } else { &other };
        does(logbook, desk.folder.path(), name).await;
    }
    drop(other);
    scribe.await.unwrap();
    let folder = desk.close().await;
    let reading = read(folder.path()).await;
    assert_eq!((reading.faults.len(), names(&reading)), (0, all.map(String::from).to_vec()));
}

/// A collector is between its intent and its outcome while the leader writes.
#[tokio::test]
async fn what_a_command_is_about_to_do_is_left_open_until_it_cannot_be_at_work_any_more() {
    let desk = Desk::new();
    does(&desk.logbook, desk.folder.path(), "0").await;
    let mut command = command(desk.folder.path()).await;
    let first = command.size();
    command.propose(&[collects("died", 3), collects("at work", 0)]).unwrap();
    command.commit().await.unwrap();
    says(&desk.logbook, "1").await;
    let folder = desk.close().await;
    let reading = read(folder.path()).await;
    assert_eq!(reading.book.open().collect::<Vec<_>>(), [first + 1], "{:#?}", reading.entries);
    let unknown = Said::Outcome { of: first, upshot: Upshot::Unknown, reason: String::new() };
    assert!(reading.entries.iter().any(|entry| entry.said == unknown), "{:#?}", reading.entries);
}

/// It said what it is about to do across the end of a tile, which nobody has shown yet, and died.
#[tokio::test]
async fn a_command_that_died_does_not_keep_the_leader_from_its_log() {
    let desk = Desk::new();
    does(&desk.logbook, desk.folder.path(), "0").await;
    let mut command = command(desk.folder.path()).await;
    let first = command.size();
    let all: Vec<_> = (0..256).map(|n| collects(&n.to_string(), 0)).collect();
    let taken = command.propose(&all).unwrap();
    command.commit().await.unwrap();
    assert!(taken < all.len(), "the tile is full");
    command.propose(&all[taken..]).unwrap();
    command.commit().await.unwrap();
    drop(command);
    says(&desk.logbook, "1").await;
    let reading = read(desk.close().await.path()).await;
    assert_eq!(reading.faults, []);
    assert_eq!(reading.book.open().collect::<Vec<_>>(), Vec::from_iter(first..first + 256));
}

/// Somebody who has the key puts a longer log in the place of the one that is written: who writes is overtaken, and goes on in it.
#[tokio::test]
async fn a_log_that_was_put_in_the_place_of_another_is_written_on_and_found_by_the_next_check() {
    let desk = Desk::new();
    for name in ["0", "1"] {
        does(&desk.logbook, desk.folder.path(), name).await;
    }
    let before = desk.known.borrow().heads.clone();
    fs::remove_dir_all(desk.log()).unwrap();
    fs::create_dir(desk.log()).unwrap();
    let (stranger, scribe, _lease, _, _) = writing(desk.folder.path());
    for name in ["a", "b", "c"] {
        does(&stranger, desk.folder.path(), name).await;
    }
    drop(stranger);
    scribe.await.unwrap();
    does(&desk.logbook, desk.folder.path(), "2").await;
    let known = desk.known.borrow().clone();
    assert!(before.iter().all(|head| known.heads.contains(head)), "{before:?} {known:?}");
    let folder = desk.close().await;
    assert_eq!(read(folder.path()).await.faults, [], "an auditor who comes for the first time");
    let (log, _, trusted) = opened(folder.path());
    let checked = log.check(ORIGIN, &trusted, &known).await;
    assert!(
        matches!(&checked, Err(LogError::Damaged { why, .. }) if why.contains("were others")),
        "{checked:?}"
    );
}

#[tokio::test]
async fn a_lease_that_was_lost_and_came_back_leaves_a_gap_that_is_said() {
    let desk = Desk::new();
    does(&desk.logbook, desk.folder.path(), "before").await;
    desk.lease.send_replace(None);
    let page = desk.logbook.announce(vec![about("taken out", false)]).await;
    assert!(page.unlogged().is_some_and(|why| why.contains("lease")), "{:?}", page.unlogged());
    drop(page);
    desk.lease.send_replace(Some(Instant::now() + Duration::from_secs(3600)));
    does(&desk.logbook, desk.folder.path(), "after").await;
    let folder = desk.close().await;
    let reading = read(folder.path()).await;
    assert_eq!((reading.faults.len(), names(&reading)), (0, ["before", "after"].map(String::from).to_vec()));
    let gaps: Vec<_> =
        reading.entries.iter().filter(|it| matches!(it.said, Said::Gap { entries: 1 })).collect();
    assert_eq!(gaps.len(), 1, "{:#?}", reading.entries);
}
