//! The audit log: that it is whole, that it goes on from where it was last seen, and that it says of what is claimed that it
//! was done.

use std::{collections::BTreeMap, fs, io, path::Path};

use jiff::Timestamp;
use kube::ResourceExt;
use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModel, RunType, UnlearnRun},
};
use lethe_evidence::TrustedKeys;
use lethe_store::log::{Log, Reading};
use lethe_transparency::{Action, Checkpoint, Said, Upshot, merkle};

use super::{Check, Exported, Notes, Outcome};
use crate::exit::{Result, Trouble};

/// The log and what is known of it.
pub(super) struct Kept<'a> {
    pub uri: &'a str,
    pub origin: &'a str,
    pub trusted: &'a TrustedKeys,
    /// Where the checkpoint lies that was seen last, if it is kept.
    pub since: Option<&'a Path>,
}

/// Everything that can be said of a log. If nothing is wrong with it, its checkpoint is kept in place of the one that was seen.
///
/// # Errors
/// If the log cannot be read, or the checkpoint not kept.
pub(super) async fn check(kept: &Kept<'_>, exported: &Exported, checks: &mut Vec<Check>) -> Result<()> {
    let unreachable = |error: &dyn std::fmt::Display| Trouble::unreachable(error.to_string());
    let log = Log::open(kept.uri).map_err(|error| unreachable(&error))?;
    let reading = log.read(kept.origin, kept.trusted).await.map_err(|error| unreachable(&error))?;
    let first = checks.len();
    let subject = format!("audit log {}", kept.origin);
    let notes = &mut Notes { subject, checks };
    is_whole(&reading, notes);
    let seen = kept.since.map(|file| (file, seen(file)));
    if let Some((file, seen)) = seen {
        let seen = seen.map_err(|error| unreachable(&format!("{}: {error}", file.display())))?;
        goes_on(seen.as_deref(), kept, &reading, notes);
    }
    let told = Told::of(&reading);
    for model in &exported.models {
        let subject = format!("model {} in the audit log", model.name_any());
        told.model(model, &reading, &mut Notes { subject, checks });
    }
    for run in &exported.runs {
        let subject = format!("run {} in the audit log", run.name_any());
        told.run(run, &mut Notes { subject, checks });
    }
    let is_fine = checks[first..].iter().all(|check| check.outcome != Outcome::Broken);
    if let (Some(file), Some((_, bytes)), true) = (kept.since, &reading.checkpoint, is_fine) {
        keep(file, bytes).map_err(|error| unreachable(&format!("{}: {error}", file.display())))?;
    }
    Ok(())
}

fn is_whole(reading: &Reading, notes: &mut Notes<'_>) {
    let size = reading.tree.size();
    for fault in &reading.faults {
        notes.that(&fault.what, Err(fault.why.clone()));
    }
    if reading.faults.is_empty() {
        notes.that(format!("{size} entries: every byte, hash and signature"), Ok(()));
    }
    match &reading.checkpoint {
        None => notes.not_checked("checkpoint", "there is none yet"),
        Some((checkpoint, _)) if checkpoint.size < size => {
            let behind = size - checkpoint.size;
            notes.not_checked(
                "checkpoint",
                format!("{behind} entries are behind it, each commit signed by itself"),
            );
        }
        Some((checkpoint, _)) => {
            let matches = reading.tree.root(size) == Some(checkpoint.root);
            let why = || "it is of other entries".to_owned();
            notes.that(format!("checkpoint of {size} entries"), if matches { Ok(()) } else { Err(why()) });
        }
    }
    let open: Vec<_> = reading.book.open().map(|number| number.to_string()).collect();
    match open.len() {
        0 => _ = notes.that("every intent and every decision has its outcome", Ok(())),
        _ => {
            let why = format!("{} have none yet: who writes is at work, or has died", open.join(", "));
            notes.not_checked("every intent and every decision has its outcome", why);
        }
    }
    for (number, entry) in reading.entries.iter().enumerate() {
        if let Said::Gap { entries } = entry.said {
            let why = format!("entry {number} says that {entries} more could not be kept before it");
            notes.not_checked("nothing was lost while the log could not be written", why);
        }
    }
}

/// Whether the log continues the one that was seen.
fn goes_on(seen: Option<&[u8]>, kept: &Kept<'_>, reading: &Reading, notes: &mut Notes<'_>) {
    const WHAT: &str = "it continues what was seen before";
    let Some(bytes) = seen else {
        return notes.not_checked(WHAT, "nothing was: what is seen now is kept for the next time");
    };
    let seen = match Checkpoint::open(bytes, kept.origin, kept.trusted) {
        Ok(seen) => seen,
        Err(error) => {
            notes.that(WHAT, Err(format!("what was seen before is not its checkpoint: {error}")));
            return;
        }
    };
    let size = reading.tree.size();
    let consistent = reading
        .tree
        .consistency(seen.size, size)
        .zip(reading.tree.root(size))
        .is_some_and(|(proof, root)| merkle::is_consistent((seen.size, seen.root), (size, root), &proof));
    let why = || {
        format!(
            "a log with {} entries was seen, and this one does not begin with them: entries were changed or taken out",
            seen.size
        )
    };
    let what = format!("it continues the {} entries that were seen before", seen.size);
    notes.that(what, if consistent { Ok(()) } else { Err(why()) });
}

/// None if none was kept.
fn seen(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// The one that was seen before is there until the next one is.
fn keep(file: &Path, checkpoint: &[u8]) -> io::Result<()> {
    let new = file.with_added_extension("new");
    fs::write(&new, checkpoint)?;
    fs::rename(new, file)
}

/// What the log says was done.
struct Told {
    /// When it began.
    since: Option<Timestamp>,
    /// Bundles that were promoted for a model, by its uid, with the number of the entry.
    promoted: BTreeMap<(String, String), u64>,
    /// Bundles that a Deployment was told to serve, by its namespace and name.
    served: BTreeMap<(String, String, String), u64>,
    /// Verdicts, by the uid of the run.
    judged: BTreeMap<String, String>,
}

impl Told {
    fn of(reading: &Reading) -> Self {
        let since = reading.entries.first().and_then(|entry| entry.at.parse().ok());
        let mut told =
            Self { since, promoted: BTreeMap::new(), served: BTreeMap::new(), judged: BTreeMap::new() };
        let done: BTreeMap<u64, bool> = reading
            .entries
            .iter()
            .filter_map(|entry| match entry.said {
                Said::Outcome { of, upshot, .. } => {
                    Some((of, matches!(upshot, Upshot::Done | Upshot::FoundDone)))
                }
                _ => None,
            })
            .collect();
        for (number, entry) in (0..).zip(&reading.entries) {
            if !done.get(&number).copied().unwrap_or_default() {
                continue;
            }
            let (Said::Intent { action, object, after, .. } | Said::Decision { action, object, after, .. }) =
                &entry.said
            else {
                continue;
            };
            let after = after.clone();
            match action {
                Action::Promote => _ = told.promoted.insert((object.uid.clone(), after), number),
                Action::Serve => {
                    let (namespace, name) = (object.namespace.clone(), object.name.clone());
                    told.served.insert((namespace, name, after), number);
                }
                Action::Judge => _ = told.judged.insert(object.uid.clone(), after),
                _ => {}
            }
        }
        told
    }

    /// Whether something of that time has to be in the log.
    fn covers(&self, at: Timestamp) -> bool {
        self.since.is_some_and(|since| since <= at)
    }

    /// Of every bundle that honours a part of the ledger, the log says that it was promoted; and of what is served, that it
    /// was to be.
    fn model(&self, model: &DiffusionModel, reading: &Reading, notes: &mut Notes<'_>) {
        let status = model.status.clone().unwrap_or_default();
        let uid = model.uid().unwrap_or_default();
        let bundles: BTreeMap<&Digest, Timestamp> =
            status.ledger.iter().map(|entry| (&entry.digest, entry.at.0)).collect();
        for (bundle, at) in bundles {
            let what = format!("{} was promoted", bundle.short());
            match self.promoted.get(&(uid.clone(), bundle.to_string())) {
                Some(number) => {
                    notes
                        .that(format!("{what}: entry {number} is in the log"), is_included(*number, reading));
                }
                None if self.covers(at) => _ = notes.that(what, Err("the log does not say so".into())),
                None => notes.not_checked(what, "the log began later"),
            }
        }
        let Some(served) = &status.served else { return };
        let what = format!("{} was put into service", served.digest.short());
        let namespace = model.namespace().unwrap_or_default();
        let key = (namespace, model.spec.serving.target.name.clone(), served.digest.to_string());
        match self.served.get(&key) {
            Some(number) => {
                notes.that(format!("{what}: entry {number} is in the log"), is_included(*number, reading));
            }
            None if self.covers(served.since.0) => {
                _ = notes.that(what, Err("the log does not say so".into()))
            }
            None => notes.not_checked(what, "the log began later"),
        }
    }

    fn run(&self, run: &UnlearnRun, notes: &mut Notes<'_>) {
        let verdict = run.status.as_ref().and_then(|status| status.verdict);
        let (Some(verdict), Some(created)) = (verdict, run.creation_timestamp()) else { return };
        if run.spec.type_ == RunType::Prepare || !self.covers(created.0) {
            return;
        }
        let what = "its verdict is the one that the log has";
        match self.judged.get(&run.uid().unwrap_or_default()) {
            Some(found) => _ = notes.same(what, &format!("{verdict:?}"), found),
            None => _ = notes.that(what, Err("the log has none".into())),
        }
    }
}

/// The proof that somebody can check who has nothing but the checkpoint.
fn is_included(number: u64, reading: &Reading) -> std::result::Result<(), String> {
    let checkpoint = reading.checkpoint.as_ref().map(|(checkpoint, _)| checkpoint);
    // What is behind the checkpoint is in the tree that the last commit is signed for.
    let size = checkpoint.map(|it| it.size).filter(|size| number < *size).unwrap_or(reading.tree.size());
    let parts =
        reading.tree.leaf(number).zip(reading.tree.root(size)).zip(reading.tree.inclusion(number, size));
    let is_in =
        parts.is_some_and(|((leaf, root), proof)| merkle::is_included(leaf, number, size, root, &proof));
    if is_in { Ok(()) } else { Err("it is not in the tree that is signed".into()) }
}

#[cfg(test)]
#[path = "log/tests.rs"]
mod tests;
