//! From the first look at the cluster to the last reconciliation.

use std::{future::Future, sync::Arc, time::Duration};

use futures::FutureExt;
use kube_runtime::events::Reporter;
use tokio::{
    sync::{oneshot, watch},
    task::{JoinError, JoinSet},
};

use crate::{
    Args, OperatorError,
    collector::ObjectCollector,
    context::Context,
    controller::{self, Stop},
    crds,
    evidence::Notary,
    herald::Herald,
    inspector::Inspector,
    journal::Journal,
    leader::Leadership,
    logbook::Logbook,
    metrics::LogMetrics,
    probe::Prober,
    progress::ProgressReader,
    scope::{Scope, Watching},
    scribe::Scribe,
    serving::Inquiry,
};

/// What is half done when the operator is asked to stop may take this long to end.
const DRAIN: Duration = Duration::from_secs(20);
/// And what became of it may take this long to be written down.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Watches, and works on what is seen, until `stop` and until what was begun is done.
pub async fn work(
    args: &Args,
    watching: Watching,
    leadership: Leadership,
    unready: &watch::Sender<String>,
    stop: Stop,
) -> Result<(), OperatorError> {
    let mut watches = JoinSet::new();
    let scopes = tokio::select! {
        scopes = look(args, &watching, unready, &mut watches) => scopes?,
        () = stop.clone() => return Ok(()),
    };
    let stores = scopes.iter().map(|scope| scope.stores.clone()).collect();
    watching.metrics.show(ObjectCollector::new(stores, watching.watchdog.clone()))?;
    let (logbook, written) = keep_log(args, &watching, &leadership, &mut watches)?;
    let mut controllers = start_controllers(args, &watching, leadership, logbook, scopes, &stop);
    unready.send_replace(String::new());
    tracing::info!("ready");

    until_stopped(&stop, &mut watches, &mut controllers).await?;
    unready.send_replace("stopping".into());
    drain(controllers).await;
    if tokio::time::timeout(LAST_WORDS, written).await.is_err() {
        tracing::warn!("what was done last is not in the audit log; the next leader looks what became of it");
    }
    Ok(())
}

/// Starts who writes the audit log, if one is kept. The second resolves once nobody has anything to say any more, and all of
/// it is written.
fn keep_log(
    args: &Args,
    watching: &Watching,
    leadership: &Leadership,
    tasks: &mut JoinSet<()>,
) -> Result<(Logbook, impl Future<Output = ()> + use<>), OperatorError> {
    let (done, written) = oneshot::channel::<()>();
    let written = written.map(|_| ());
    let Some(keeping) = args.keeping() else {
        return Ok((Logbook::none(), written));
    };
    let (logbook, messages, problem) = Logbook::new();
    let metrics = LogMetrics::new(&watching.metrics)?;
    let scribe =
        Scribe::new(keeping.clone(), watching.client.clone(), leadership.clone(), metrics.clone(), problem);
    if let every @ 1.. = args.audit_log_check_seconds {
        let (leadership, known) = (leadership.clone(), scribe.known());
        let every = Duration::from_secs(every.into());
        tasks.spawn(Inspector { keeping, every, leadership, metrics, known }.run());
    }
    tasks.spawn(async move {
        scribe.run(messages).await;
        drop(done);
        // Its end is waited for by whoever ends the process.
        std::future::pending().await
    });
    Ok((logbook, written))
}

/// Returns when it is asked to stop, or with what ended although it never should: an operator that goes on by half would look
/// as if it were whole.
async fn until_stopped(
    stop: &Stop,
    watches: &mut JoinSet<()>,
    controllers: &mut JoinSet<()>,
) -> Result<(), OperatorError> {
    tokio::select! {
        () = stop.clone() => Ok(()),
        Some(ended) = watches.join_next() => Err(ended_early("a watch", ended)),
        Some(ended) = controllers.join_next() => {
            // They end when they are asked to, which may be this very moment.
            match stop.clone().now_or_never() {
                Some(()) => Ok(()),
                None => Err(ended_early("a controller", ended)),
            }
        }
    }
}

/// Starts the watches, and returns once every cache is filled. Controllers decide from whole caches only.
async fn look(
    args: &Args,
    watching: &Watching,
    unready: &watch::Sender<String>,
    watches: &mut JoinSet<()>,
) -> Result<Vec<Scope>, OperatorError> {
    crds::wait(&watching.client, unready).await;
    unready.send_replace("reading what there is".into());
    let names = args.scopes();
    let scopes: Vec<_> = names.iter().map(|name| Scope::start(name.as_deref(), watching, watches)).collect();
    for scope in &scopes {
        let ready = scope.stores.ready().await;
        ready.map_err(|error| OperatorError::Task { what: "a watch", why: error.to_string() })?;
    }
    Ok(scopes)
}

fn start_controllers(
    args: &Args,
    watching: &Watching,
    leadership: Leadership,
    logbook: Logbook,
    scopes: Vec<Scope>,
    stop: &Stop,
) -> JoinSet<()> {
    let reporter =
        Reporter { controller: "lethe.dev/operator".into(), instance: Some(args.identity.clone()) };
    let herald = Arc::new(Herald::new(watching.client.clone(), reporter));
    let installation = Arc::new(args.installation());
    let notary = Notary::new(args).map(Arc::new);
    let prober = Prober::new();
    let progress = Arc::new(ProgressReader::new(prober.clone()));
    let inquiry = Arc::new(Inquiry::new(prober));
    let journal = Arc::new(Journal::default());
    let concurrency = (args.concurrency / scopes.len().try_into().unwrap_or(u16::MAX)).max(1);
    let mut tasks = JoinSet::new();
    for Scope { stores, inboxes } in scopes {
        let context = Context {
            client: watching.client.clone(),
            leadership: leadership.clone(),
            metrics: watching.metrics.clone(),
            herald: herald.clone(),
            installation: installation.clone(),
            approvals_are_protected: args.approvals_are_protected,
            notary: notary.clone(),
            inquiry: inquiry.clone(),
            progress: progress.clone(),
            journal: journal.clone(),
            logbook: logbook.clone(),
            stores: stores.clone(),
        };
        let (requests, models, runs) = (inboxes.requests, inboxes.models, inboxes.runs);
        tasks.spawn(controller::run(context.clone(), stores.requests, requests, concurrency, stop.clone()));
        tasks.spawn(controller::run(context.clone(), stores.models, models, concurrency, stop.clone()));
        tasks.spawn(controller::run(context, stores.runs, runs, concurrency, stop.clone()));
    }
    tasks
}

async fn drain(mut controllers: JoinSet<()>) {
    tracing::info!("stopping: what was begun is brought to its end");
    let drained = async { while controllers.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("some work did not end in time; the next leader continues it");
    }
}

fn ended_early(what: &'static str, ended: Result<(), JoinError>) -> OperatorError {
    let why = ended.map_or_else(|error| error.to_string(), |()| "no reason".into());
    OperatorError::Task { what, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn never() {
        std::future::pending().await
    }

    /// What becomes of it if the first watch and the first controller do this, beside others that go on.
    async fn with(
        watch: impl Future<Output = ()> + Send + 'static,
        controller: impl Future<Output = ()> + Send + 'static,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), String> {
        let (mut watches, mut controllers) = (JoinSet::new(), JoinSet::new());
        watches.spawn(watch);
        watches.spawn(never());
        controllers.spawn(controller);
        controllers.spawn(never());
        let ended = until_stopped(&controller::stop_on(stop), &mut watches, &mut controllers).await;
        ended.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_task_that_ends_ends_the_operator_and_is_named() {
        let ended = with(async {}, never(), never()).await.unwrap_err();
        assert!(ended.contains("a watch ended although it never should"), "{ended}");
        let panics = async { panic!("a mistake in it") };
        let ended = with(never(), panics, never()).await.unwrap_err();
        assert!(ended.contains("a controller ended") && ended.contains("panicked"), "{ended}");
    }

    #[tokio::test]
    async fn an_operator_that_is_asked_to_stop_does_not_complain_of_controllers_that_end() {
        assert_eq!(with(never(), never(), async {}).await, Ok(()));
        assert_eq!(with(never(), async {}, async {}).await, Ok(()));
    }
}
