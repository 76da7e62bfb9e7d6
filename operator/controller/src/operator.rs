//! The process: what starts in which order, and what ends it.

use std::{future::Future, sync::Arc, time::Duration};

use futures::FutureExt;
use kube::{
    Config,
    runtime::events::{Recorder, Reporter},
};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

use crate::{
    Args, client,
    collector::ObjectCollector,
    context::Context,
    controller::{self, Stop, stop_on},
    crds,
    health::{self, Health},
    journal::Journal,
    leader::{Elector, Leadership, LeaseError},
    metrics::Metrics,
    probe::Prober,
    progress::ProgressReader,
    scope::{Scope, Watching},
    stores::Inboxes,
    watchdog::Watchdog,
};

/// What is half done when the operator is asked to stop may take this long to end.
const DRAIN: Duration = Duration::from_secs(20);

/// So long may it take to answer the last scrape and to give the lease back.
const GOOD_BYE: Duration = Duration::from_secs(5);

/// What ends the process other than being asked to.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error("cannot find out how to reach the Kubernetes API: {0}; set KUBECONFIG, or run in a cluster")]
    Config(#[source] Box<kube::config::InferConfigError>),
    #[error("cannot make a Kubernetes client: {0}")]
    Client(#[source] Box<kube::Error>),
    #[error("--store: {0}")]
    Store(#[source] lethe_store::Error),
    #[error("cannot listen on {address}: {source}")]
    Bind { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot set up the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error("{what} ended although it never should: {why}")]
    Task { what: &'static str, why: String },
}

/// Runs the operator against the cluster that the environment names, until `shutdown`.
pub async fn run(
    args: Args,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), OperatorError> {
    let config = Config::infer().await.map_err(|e| OperatorError::Config(Box::new(e)))?;
    run_with(config, args, shutdown).await
}

/// Runs the operator against the cluster of `config`, until `shutdown` or until the lease is lost.
pub async fn run_with(
    config: Config,
    args: Args,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), OperatorError> {
    check_store(&args)?;
    let metrics = Arc::new(Metrics::new()?);
    let watchdog = Arc::new(Watchdog::default());
    let client = client::connect(config, watchdog.clone()).map_err(|e| OperatorError::Client(Box::new(e)))?;
    let (unready, unready_reader) = watch::channel("starting".to_owned());
    let health = Health { metrics: metrics.clone(), watchdog: watchdog.clone(), unready: unready_reader };
    let address = args.metrics_bind;
    let listener = health::bind(address).await.map_err(|source| OperatorError::Bind { address, source })?;
    // These two outlive the controllers: the last metrics can be scraped, and the lease is released last.
    let (end, ended) = watch::channel(false);
    let mut background = JoinSet::new();
    background.spawn(
        health::serve(listener, health, until(ended.clone()))
            .map(|result| Exit::Server(result.map_err(|error| error.to_string()).err().unwrap_or_default())),
    );
    let (elector, leadership) =
        Elector::new(client.clone(), &args.lease_namespace, &args.lease_name, &args.identity);
    background.spawn(elector.run(until(ended)).map(Exit::Lease));
    background.spawn(show_leadership(leadership.clone(), metrics.clone()));

    let stop = stop_on(shutdown);
    let watching = Watching { client, watchdog, metrics };
    let work = work(&args, watching, leadership, &unready, stop);
    let result = tokio::select! {
        result = work => result,
        Some(exit) = background.join_next() => Err(failure(exit)),
    };
    end.send_replace(true);
    let ended = async { while background.join_next().await.is_some() {} };
    if tokio::time::timeout(GOOD_BYE, ended).await.is_err() {
        tracing::warn!("the HTTP server or the lease did not end in time");
    }
    result?;
    tracing::info!("stopped");
    Ok(())
}

/// Watches, and works on what is seen, until `stop` and until what was begun is done.
async fn work(
    args: &Args,
    watching: Watching,
    leadership: Leadership,
    unready: &watch::Sender<String>,
    stop: Stop,
) -> Result<(), OperatorError> {
    let mut watches = JoinSet::new();
    let start = async {
        crds::wait(&watching.client, unready).await;
        unready.send_replace("reading what there is".into());
        let scopes: Vec<_> =
            args.scopes().iter().map(|n| Scope::start(n.as_deref(), &watching, &mut watches)).collect();
        for scope in &scopes {
            scope.stores.ready().await.map_err(|error| watch_ended(error.to_string()))?;
        }
        Ok::<_, OperatorError>(scopes)
    };
    let scopes = tokio::select! {
        scopes = start => scopes?,
        () = stop.clone() => return Ok(()),
    };
    let stores = scopes.iter().map(|scope| scope.stores.clone()).collect();
    watching.metrics.register(ObjectCollector::new(stores, watching.watchdog.clone())?)?;
    unready.send_replace(String::new());
    tracing::info!(scopes = scopes.len(), "ready");

    let mut controllers = JoinSet::new();
    let shared = Shared::new(args, &watching, leadership);
    let concurrency = (args.concurrency / scopes.len().try_into().unwrap_or(u16::MAX)).max(1);
    for Scope { stores, inboxes } in scopes {
        let context = shared.context(stores);
        start_controllers(&mut controllers, context, inboxes, concurrency, &stop);
    }
    tokio::select! {
        () = stop.clone() => {}
        Some(ended) = watches.join_next() => return Err(watch_ended(why(ended))),
        Some(ended) = controllers.join_next() => {
            // They end when they are asked to, which may be this very moment.
            if stop.clone().now_or_never().is_none() {
                return Err(OperatorError::Task { what: "a controller", why: why(ended) });
            }
        }
    }
    unready.send_replace("stopping".into());
    tracing::info!("stopping: what was begun is brought to its end");
    let drained = async { while controllers.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("some work did not end in time; the next leader continues it");
    }
    Ok(())
}

fn start_controllers(
    tasks: &mut JoinSet<()>,
    context: Context,
    inboxes: Inboxes,
    concurrency: u16,
    stop: &Stop,
) {
    let stores = context.stores.clone();
    tasks.spawn(controller::run(
        context.clone(),
        stores.requests,
        inboxes.requests,
        concurrency,
        stop.clone(),
    ));
    tasks.spawn(controller::run(context.clone(), stores.models, inboxes.models, concurrency, stop.clone()));
    tasks.spawn(controller::run(context, stores.runs, inboxes.runs, concurrency, stop.clone()));
}

/// A [`Context`] but for the stores.
struct Shared<'a> {
    args: &'a Args,
    watching: &'a Watching,
    leadership: Leadership,
    recorder: Recorder,
    prober: Prober,
    progress: Arc<ProgressReader>,
    journal: Arc<Journal>,
}

impl<'a> Shared<'a> {
    fn new(args: &'a Args, watching: &'a Watching, leadership: Leadership) -> Self {
        let reporter =
            Reporter { controller: "lethe.dev/operator".into(), instance: Some(args.identity.clone()) };
        let prober = Prober::new();
        Self {
            args,
            watching,
            leadership,
            recorder: Recorder::new(watching.client.clone(), reporter),
            progress: Arc::new(ProgressReader::new(prober.clone())),
            prober,
            journal: Arc::default(),
        }
    }

    fn context(&self, stores: crate::stores::Stores) -> Context {
        Context {
            client: self.watching.client.clone(),
            leadership: self.leadership.clone(),
            metrics: self.watching.metrics.clone(),
            recorder: self.recorder.clone(),
            installation: Arc::new(self.args.installation()),
            prober: self.prober.clone(),
            progress: self.progress.clone(),
            journal: self.journal.clone(),
            stores,
        }
    }
}

/// A URI that is none is a mistake in the command line. A store that is not there yet may still be mounted.
fn check_store(args: &Args) -> Result<(), OperatorError> {
    match lethe_store::Store::open(&args.store) {
        Ok(_) => Ok(()),
        Err(error @ lethe_store::Error::Uri { .. }) => Err(OperatorError::Store(error)),
        Err(error) => {
            tracing::warn!(%error, "the store cannot be read; runs wait for it");
            Ok(())
        }
    }
}

/// Why a background task ended.
enum Exit {
    Server(String),
    Lease(Result<(), LeaseError>),
    Never,
}

fn failure(exit: Result<Exit, JoinError>) -> OperatorError {
    match exit {
        Ok(Exit::Lease(Err(error))) => OperatorError::Lease(error),
        Ok(Exit::Lease(Ok(()))) => OperatorError::Task { what: "the lease", why: "it was given back".into() },
        Ok(Exit::Server(why)) => OperatorError::Task { what: "the HTTP server", why },
        Ok(Exit::Never) => OperatorError::Task { what: "a background task", why: "no reason".into() },
        Err(error) => OperatorError::Task { what: "a background task", why: error.to_string() },
    }
}

fn watch_ended(why: String) -> OperatorError {
    OperatorError::Task { what: "a watch", why }
}

fn why(ended: Result<(), JoinError>) -> String {
    ended.map_or_else(|error| error.to_string(), |()| "no reason".into())
}

async fn until(mut ended: watch::Receiver<bool>) {
    let _ = ended.wait_for(|&ended| ended).await;
}

/// Keeps `lethe_leader` true to the clock: it falls when the lease expires, whoever notices.
async fn show_leadership(leadership: Leadership, metrics: Arc<Metrics>) -> Exit {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while leadership.is_contested() {
        metrics.leader.set(leadership.holds().into());
        tick.tick().await;
    }
    Exit::Never
}
