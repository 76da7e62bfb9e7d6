//! What the three controllers have in common: when to look, what to do with an error, how to stop.

use std::{
    fmt::Debug,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    channel::mpsc::UnboundedReceiver,
    future::{BoxFuture, Shared},
    stream,
};
use kube::{Resource, ResourceExt, core::NamespaceResourceScope};
use kube_runtime::{
    Controller,
    controller::{self, Action},
    reflector::{ObjectRef, Store},
};
use lethe_core::Decision;
use lethe_transparency::Said;
use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use crate::{
    apply::{apply, complain},
    context::Context,
    error::{Category, Error, Result, backoff},
    packed::{Pack, Packed},
    spans,
};

/// Conflicts are how caches that lag behind show themselves. More in a row than this are an error.
const USUAL_CONFLICTS: u32 = 3;
/// How soon to look again at an object that the cache has too old. Its watch wakes us sooner.
const CATCH_UP: Duration = Duration::from_secs(1);
/// Changes within this time are looked at once.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// A kind that has a life of its own.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    type Status: Clone + Debug + PartialEq + Serialize + Send + Sync;

    /// The value of the metric label `controller`.
    const CONTROLLER: &'static str;
    /// The field manager of its status.
    const MANAGER: &'static str;

    fn status(&self) -> Option<&Self::Status>;

    /// The part of the status that this controller owns.
    fn owned(status: &Self::Status) -> Self::Status {
        status.clone()
    }

    /// Observes what matters for the object, and decides.
    fn decide(
        object: &Self,
        context: &Context,
    ) -> impl Future<Output = Result<Decision<Self::Status>>> + Send;

    /// What an auditor asks for of a status that is to be written in place of this object's.
    fn said(&self, after: &Self::Status) -> Vec<Said>;

    /// Called once a status was written in place of the observed one.
    fn wrote(_context: &Context, _observed: &Self, _status: &Self::Status) {}
}

/// How a cache keeps objects of a kind.
pub trait Cached:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    type Kind: Kind;

    fn object(self: Arc<Self>) -> Arc<Self::Kind>;
}

impl<K: Kind> Cached for K {
    type Kind = K;

    fn object(self: Arc<Self>) -> Arc<K> {
        self
    }
}

impl<K: Kind + Pack> Cached for Packed<K> {
    type Kind = K;

    fn object(self: Arc<Self>) -> Arc<K> {
        Arc::new(self.open())
    }
}

/// When to stop.
pub type Stop = Shared<BoxFuture<'static, ()>>;

/// Works on the objects that the inbox names until told to stop, and then until nothing is left half done.
pub async fn run<C: Cached>(
    context: Context,
    store: Store<C>,
    inbox: UnboundedReceiver<ObjectRef<C>>,
    concurrency: u16,
    stop: Stop,
) {
    let acquisitions = context.leadership.acquisitions();
    Controller::for_stream(stream::pending(), store)
        .with_config(controller::Config::default().concurrency(concurrency).debounce(DEBOUNCE))
        .reconcile_on(inbox)
        // While waiting for the lease nothing was done: look at everything once it is here.
        .reconcile_all_on(acquisitions)
        .graceful_shutdown_on(stop)
        .run(reconcile::<C>, on_error::<C>, Arc::new(context))
        .for_each(|result| async {
            match result {
                Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                Err(error) => tracing::debug!(controller = C::Kind::CONTROLLER, %error, "nothing to work on"),
            }
        })
        .await;
}

async fn reconcile<C: Cached>(kept: Arc<C>, context: Arc<Context>) -> Result<Action> {
    if !context.leadership.holds() {
        let (namespace, name) = (kept.namespace(), kept.name_any());
        tracing::debug!(
            controller = C::Kind::CONTROLLER,
            namespace,
            name,
            "put aside: the lease is not held"
        );
        return Ok(Action::await_change());
    }
    let uid = kept.uid().unwrap_or_default();
    if context.journal.is_behind(&uid, &kept.resource_version().unwrap_or_default()) {
        return Ok(Action::requeue(CATCH_UP));
    }
    let start = Instant::now();
    let object = kept.object();
    let look = spans::look(&*object);
    let result = decide_and_apply(&*object, &context).instrument(look.clone()).await;
    let duration = start.elapsed().as_secs_f64();
    context.metrics.reconcile_duration.with_label_values(&[C::Kind::CONTROLLER]).observe(duration);
    let recheck = match result {
        Ok(recheck) => recheck,
        Err(error) => {
            // Whoever was not the first looks again: that is usual.
            if error.category() != Category::Conflict {
                spans::failed(&look, error.category().as_str(), &error);
            }
            complain(&context, &*object, &error).instrument(look).await;
            return Err(error);
        }
    };
    context.journal.succeeded(&uid);
    Ok(recheck.map_or_else(Action::await_change, Action::requeue))
}

async fn decide_and_apply<K: Kind>(object: &K, context: &Context) -> Result<Option<Duration>> {
    let decision = K::decide(object, context).await?;
    let recheck = decision.recheck;
    apply(context, object, decision).await?;
    Ok(recheck)
}

fn on_error<C: Cached>(kept: Arc<C>, error: &Error, context: Arc<Context>) -> Action {
    let failures = context.journal.failed(&kept.uid().unwrap_or_default());
    let category = error.category();
    let wait = backoff(category, failures);
    let (namespace, name) = (kept.namespace().unwrap_or_default(), kept.name_any());
    let controller = C::Kind::CONTROLLER;
    if category == Category::Conflict && failures <= USUAL_CONFLICTS {
        tracing::debug!(controller, namespace, name, %error, "looking again");
        return Action::requeue(wait);
    }
    let labels = [controller, category.as_str()];
    context.metrics.reconcile_errors.with_label_values(&labels).inc();
    tracing::warn!(
        controller, namespace, name, category = category.as_str(), failures,
        retry_seconds = wait.as_secs_f64(), %error, "could not work on an object"
    );
    Action::requeue(wait)
}

/// A future that several can wait for.
pub fn stop_on(trigger: impl Future<Output = ()> + Send + 'static) -> Stop {
    trigger.boxed().shared()
}
