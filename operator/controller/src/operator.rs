//! The process: what starts in which order, and what ends it.

use std::{future::Future, sync::Arc, time::Duration};

use futures::FutureExt;
use kube::Config;
use lethe_store::log::Log;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

use crate::{
    Args, client,
    controller::stop_on,
    evidence::Notary,
    health::{self, Health},
    leader::{Elector, Leadership, LeaseError},
    metrics::Metrics,
    scope::Watching,
    watchdog::Watchdog,
    work::work,
};

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
    #[error("--audit-log: {0}")]
    AuditLog(#[source] lethe_store::Error),
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
    check_keys(&args);
    let metrics = Arc::new(Metrics::new()?);
    metrics.memory_limit.set(args.memory_limit.map_or(f64::INFINITY, |bytes| bytes as f64));
    let watchdog = Arc::new(Watchdog::new(args.watch_seconds));
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
    let watching = Watching { client, watchdog, metrics, kueue: args.kueue };
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

/// A URI that is none is a mistake in the command line. A store that is not there yet may still be mounted.
fn check_store(args: &Args) -> Result<(), OperatorError> {
    if let Some(reason) = args.store_is_out_of_reach() {
        tracing::warn!(reason, "trainer pods would not find the store");
    }
    if let Some(Err(error @ lethe_store::Error::Uri { .. })) = args.audit_log.as_deref().map(Log::open) {
        return Err(OperatorError::AuditLog(error));
    }
    match lethe_store::Store::open(&args.store) {
        Ok(_) => Ok(()),
        Err(error @ lethe_store::Error::Uri { .. }) => Err(OperatorError::Store(error)),
        Err(error) => {
            tracing::warn!(%error, "the store cannot be read; runs wait for it");
            Ok(())
        }
    }
}

/// Keys that cannot be used yet may still be mounted: until then nothing is rolled out, and runs say so.
fn check_keys(args: &Args) {
    match Notary::new(args).map(|notary| notary.complaint()) {
        None => tracing::info!("nothing is signed: there is no --signing-key"),
        Some(None) => tracing::info!("what is measured is signed"),
        Some(Some(reason)) => tracing::warn!(reason, "nothing can be signed, and nothing is rolled out"),
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
