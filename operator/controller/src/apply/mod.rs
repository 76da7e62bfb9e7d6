//! **The one way from a decision to the cluster.** No other module changes anything in the API server, but
//! for the lease in [`crate::leader`].
//!
//! Everything is decided from caches that may lag behind. So the status names the version of the object
//! that was decided about: if that is not the newest, the API server refuses the write and nothing else
//! happens. Where the status stays as it is and there are effects, the version is asked for first.
//!
//! What is about to be done is said to the audit log first, all of one decision at once, and what became of it afterwards.

mod effects;

use std::future::Future;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use kube_runtime::events::{Event, EventType};
use lethe_api::{Digest, printable::printable};
use lethe_core::{Decision, Effect, trail};
use lethe_transparency::{Said, Upshot};
use serde_json::json;

use crate::{
    calls,
    context::Context,
    controller::Kind,
    error::{Error, Result},
    leader::WRITE_TIMEOUT,
    logbook::{Announcement, Page},
};

/// Longest note of an event that the API server accepts.
const MAX_NOTE: usize = 1024;

/// Carries out a decision: the status, then the effects in order, then the events.
///
/// Events are published even if an effect failed, since they tell of the status, which was written.
pub async fn apply<K: Kind>(context: &Context, observed: &K, decision: Decision<K::Status>) -> Result<()> {
    let is_news = differs(observed, &decision.status);
    if !is_news && decision.effects.is_empty() {
        return publish_all(context, observed, &decision.events).await;
    }
    let said = if is_news { observed.said(&decision.status) } else { Vec::new() };
    let decided = said.len();
    let mut page = announce(context, observed, said, &decision.effects).await?;
    let current = match is_news {
        true => write_status(context, observed, &decision.status).await.inspect_err(|error| {
            (0..decided).for_each(|index| page.conclude(index, Upshot::Failed, error.category().as_str()));
        })?,
        // Last of all: to write the log may take its time.
        false => {
            confirm_current(context, observed).await?;
            observed.clone()
        }
    };
    (0..decided).for_each(|index| page.conclude(index, Upshot::Done, ""));
    let done = effects::carry_out(context, current, &decision.effects, &mut page, decided).await;
    publish_all(context, observed, &decision.events).await?;
    done
}

/// Says to the audit log what is about to be decided and done. What must not be decided before it says so is not.
async fn announce<K: Kind>(
    context: &Context,
    observed: &K,
    said: Vec<Said>,
    effects: &[Effect],
) -> Result<Page> {
    if !context.leadership.holds() {
        return Err(Error::NotLeader { action: format!("work on {}", describe(observed)) });
    }
    let must = said.iter().any(trail::must_be_said_first);
    let decided = said.into_iter().map(|said| Announcement { first: trail::must_be_said_first(&said), said });
    let of = trail::named(observed);
    let intents = effects
        .iter()
        .map(|effect| Announcement { said: trail::intent(effect, &of), first: effect.puts_into_service() });
    let page = context.logbook.announce(decided.chain(intents).collect()).await;
    match page.unlogged().filter(|_| must) {
        Some(why) => {
            Err(Error::Unlogged { action: format!("promote for {}", describe(observed)), why: why.into() })
        }
        None => Ok(page),
    }
}

/// Events tell of the status, which was written.
async fn publish_all<K: Kind>(context: &Context, observed: &K, events: &[lethe_core::Event]) -> Result<()> {
    for event in events {
        publish(context, observed, event).await;
    }
    Ok(())
}

/// Every write passes here: only the holder of the lease writes, and no write outlasts the lease.
async fn write<T>(
    context: &Context,
    action: String,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T> {
    if !context.leadership.holds() {
        return Err(Error::NotLeader { action });
    }
    tracing::debug!(action, "writing");
    calls::within(WRITE_TIMEOUT, action, call).await
}

/// Whether a status says something else than the observed one.
fn differs<K: Kind>(observed: &K, status: &K::Status) -> bool {
    if observed.status() == Some(status) {
        return false;
    }
    let known = observed.status().map(|known| json(&K::owned(known)));
    // Definitions of before gave what was never looked at no status: an empty one says the same.
    known.unwrap_or_else(|| json!({})) != json(&K::owned(status))
}

/// Writes the status, and returns the object as it then is.
async fn write_status<K: Kind>(context: &Context, observed: &K, status: &K::Status) -> Result<K> {
    let wanted = json(&K::owned(status));
    let what = describe(observed);
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {
            "name": observed.name_any(),
            "uid": observed.uid(),
            "resourceVersion": observed.resource_version(),
        },
        "status": wanted,
    });
    let parameters = PatchParams::apply(K::MANAGER).force();
    let name = observed.name_any();
    let api = api::<K>(context, observed);
    let patch = Patch::Apply(&patch);
    let call = api.patch_status(&name, &parameters, &patch);
    let written =
        write(context, format!("write the status of {what}"), call).await.map_err(|e| stale(e, what))?;
    replaced(context, observed, &written);
    K::wrote(context, observed, status);
    Ok(written)
}

fn json(status: &impl serde::Serialize) -> serde_json::Value {
    // A status is made of strings, numbers and lists: there is nothing in it that JSON cannot say.
    serde_json::to_value(status).unwrap_or_default()
}

/// Asks the API server whether the cache was up to date.
async fn confirm_current<K: Kind>(context: &Context, observed: &K) -> Result<()> {
    let what = describe(observed);
    let name = observed.name_any();
    let api = api::<K>(context, observed);
    let newest = calls::read(format!("read {what}"), api.get_metadata_opt(&name)).await?;
    let newest = newest.and_then(|newest| newest.metadata.resource_version);
    if newest.is_some() && newest == observed.resource_version() {
        return Ok(());
    }
    Err(Error::Stale { what })
}

/// Remembers that caches which still have the old version are behind.
fn replaced<K: Kind>(context: &Context, old: &K, new: &K) {
    if let (Some(uid), Some(version)) = (old.uid(), old.resource_version())
        && new.resource_version().is_some_and(|new| new != version)
    {
        context.journal.replaced(&uid, &version);
    }
}

/// Tells people of an error that waits for them, on the object that it keeps from moving.
pub async fn complain<K: Kind>(context: &Context, object: &K, error: &Error) {
    if error.category().waits_for_people() {
        let note = format!("{error}");
        let event = lethe_core::Event { warning: true, reason: "CannotApply".into(), note };
        publish(context, object, &event).await;
    }
}

/// A refused precondition says that the object changed; that it is not found, that it is gone.
fn stale(error: Error, what: String) -> Error {
    match error {
        Error::Api { source: kube::Error::Api(status), .. } if matches!(status.code, 404 | 409) => {
            Error::Stale { what }
        }
        other => other,
    }
}

/// An event that cannot be published is counted, and stops nothing.
async fn publish<K: Kind>(context: &Context, object: &K, event: &lethe_core::Event) {
    let event = Event {
        type_: if event.warning { EventType::Warning } else { EventType::Normal },
        reason: event.reason.clone(),
        note: Some(shortened(&printable(&event.note))),
        action: action_of(&event.note),
        secondary: None,
    };
    let reference = object.object_ref(&());
    let recorder = context.herald.recorder();
    let call = recorder.publish(&event, &reference);
    let action = format!("publish {} on {}", event.reason, describe(object));
    if let Err(error) = write(context, action, call).await {
        tracing::warn!(%error, "an event is lost");
        context.metrics.event_errors.with_label_values(&[K::CONTROLLER]).inc();
    }
}

/// The recorder folds events of the same reason and action into a series, which keeps the note of the first. So another
/// note is another action: an event must not go on saying what was true once.
fn action_of(note: &str) -> String {
    format!("Reconcile-{}", Digest::of(note).short())
}

fn shortened(note: &str) -> String {
    let end = note.floor_char_boundary(MAX_NOTE);
    note[..end].to_owned()
}

fn api<K: Kind>(context: &Context, object: &K) -> Api<K> {
    Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default())
}

fn describe<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_characters() {
        let note = "é".repeat(MAX_NOTE);
        assert_eq!(shortened(&note).len(), MAX_NOTE);
        assert_eq!(shortened(&format!("x{note}")).len(), MAX_NOTE - 1);
    }

    #[test]
    fn only_the_same_note_is_folded_into_a_series() {
        assert_eq!(action_of("1 label is forgotten"), action_of("1 label is forgotten"));
        assert_ne!(action_of("1 label is forgotten"), action_of("2 labels are forgotten"));
        // What the API server accepts.
        assert!(action_of("").len() <= 128);
    }

    /// The invariant of this module, read from the source of the crate.
    #[test]
    fn nothing_else_in_this_crate_writes() {
        let writes = [
            "PatchParams",
            "PostParams",
            "DeleteParams",
            "Patch::",
            "EvictParams",
            ".publish(",
            ".delete(",
            ".create(",
            ".replace(",
            ".replace_status(",
            ".patch(",
            ".patch_status(",
            "client.request",
            ".delete_collection(",
        ];
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let (mut folders, mut read) = (vec![source.clone()], 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path == source.join("apply") || path == source.join("leader.rs") {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                read += 1;
                for word in writes {
                    let file = path.display();
                    assert!(!text.contains(word), "{file} uses {word}: only apply and leader write");
                }
            }
        }
        assert!(read > 10, "only {read} files were read");
    }
}
