//! Waiting for something to become true, by watching.

use std::{fmt::Debug, sync::OnceLock, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{wait::await_condition, watcher},
};
use serde::{Serialize, de::DeserializeOwned};

static PATIENCE: OnceLock<Duration> = OnceLock::new();

/// Sets how long anything may take, once for the whole binary.
pub fn set_patience(patience: Duration) {
    // Whoever came first was this binary's tier as well.
    let _ = PATIENCE.set(patience);
}

fn patience() -> Duration {
    PATIENCE.get().copied().unwrap_or(Duration::from_secs(60))
}

/// Kinds that are watched and shown.
pub trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
}
impl<K> Kind for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
}

/// The object `name` as soon as it `is` as described by `what`. It need not exist yet.
///
/// # Errors
/// If that takes too long; the message shows the object as it is then.
pub async fn until<K: Kind>(
    api: &Api<K>,
    name: &str,
    what: &str,
    is: impl Fn(&K) -> bool + Send + Sync,
) -> Result<K> {
    let watched = await_condition(api.clone(), name, |object: Option<&K>| object.is_some_and(&is));
    match tokio::time::timeout(patience(), watched).await {
        Ok(found) => found?.context("the watch ended without the object"),
        Err(_) => {
            let now = api.get_opt(name).await.ok().flatten();
            bail!(
                "{} {name}: waited {} s until {what}; it is\n{}",
                K::kind(&()),
                patience().as_secs(),
                show(&now)
            )
        }
    }
}

/// Returns once the object `name`, with this uid if one is given, is gone.
///
/// # Errors
/// If that takes too long.
pub async fn until_gone<K: Kind>(api: &Api<K>, name: &str, uid: Option<&str>) -> Result<()> {
    let is_gone =
        |object: Option<&K>| object.is_none_or(|found| uid.is_some() && found.meta().uid.as_deref() != uid);
    match tokio::time::timeout(patience(), await_condition(api.clone(), name, is_gone)).await {
        Ok(found) => found.map(|_| ()).map_err(Into::into),
        Err(_) => {
            let now = api.get_opt(name).await.ok().flatten();
            bail!("{} {name} is not gone after {} s:\n{}", K::kind(&()), patience().as_secs(), show(&now))
        }
    }
}

/// The first object with these labels that `is` as described by `what`.
///
/// # Errors
/// If that takes too long; the message shows which there are.
pub async fn until_any<K: Kind>(
    api: &Api<K>,
    labels: &str,
    what: &str,
    is: impl Fn(&K) -> bool + Send + Sync,
) -> Result<K> {
    let events = watcher(api.clone(), watcher::Config::default().labels(labels));
    let found = events.try_filter_map(|event| {
        let object = match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) if is(&object) => Some(object),
            _ => None,
        };
        std::future::ready(Ok(object))
    });
    let mut found = Box::pin(found);
    let first = async {
        loop {
            match found.next().await {
                Some(Ok(object)) => return Ok(object),
                // The watcher opens the watch again by itself.
                Some(Err(_)) => {}
                None => return Err(anyhow!("the watch ended")),
            }
        }
    };
    match tokio::time::timeout(patience(), first).await {
        Ok(found) => found,
        Err(_) => {
            let list = api.list(&kube::api::ListParams::default().labels(labels)).await?;
            let names: Vec<_> = list.items.iter().map(|object| object.name_any()).collect();
            let kind = K::kind(&());
            bail!("no {kind} with {labels} {what} after {} s; there are {names:?}", patience().as_secs())
        }
    }
}

/// Asks `question` again and again until its answer `is` as wanted: for what sends no events.
///
/// # Errors
/// If that takes too long; the message shows the last answer.
pub async fn until_answer<T: Debug>(
    what: &str,
    question: impl AsyncFn() -> Result<T>,
    is: impl Fn(&T) -> bool,
) -> Result<T> {
    until_answer_every(Duration::from_millis(100), what, question, is).await
}

/// The same, where to ask costs something.
///
/// # Errors
/// If that takes too long.
pub async fn until_answer_every<T: Debug>(
    pause: Duration,
    what: &str,
    question: impl AsyncFn() -> Result<T>,
    is: impl Fn(&T) -> bool,
) -> Result<T> {
    let deadline = tokio::time::Instant::now() + patience();
    loop {
        let answer = question().await;
        match answer {
            Ok(answer) if is(&answer) => return Ok(answer),
            answer if tokio::time::Instant::now() > deadline => {
                bail!("waited {} s until {what}; the last answer: {answer:?}", patience().as_secs())
            }
            _ => tokio::time::sleep(pause).await,
        }
    }
}

/// An object as YAML, without what nobody reads.
pub fn show<K: Serialize>(object: &K) -> String {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(|m| m.as_object_mut()) {
        metadata.remove("managedFields");
    }
    serde_saphyr::to_string(&value).unwrap_or_else(|error| error.to_string())
}
