//! `serve`: one generator over HTTP.
//!
//! The server is alive at once, and ready when the bundle it was told to serve was read, verified and found to be
//! a generator. Until then, and if that fails, it says why, and keeps trying: a store may come back.

mod gallery;
mod metrics;
mod oip;
mod routes;
mod worker;

use std::{
    io,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use lethe_api::contract::{BundleKind, Digest, PlannedTarget, exit};
use lethe_sfd::{Device, ModelConfig};
use lethe_store::Store;
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use self::{metrics::Metrics, worker::Queue};
use crate::{
    cli::ServeArgs,
    failure::{Failed, Result},
    model, runtime,
};

/// Between two attempts to load the bundle.
const RETRY: Duration = Duration::from_secs(5);
/// Threads for HTTP; the model has its own.
const HTTP_THREADS: usize = 2;

/// What every request handler sees.
#[derive(Debug)]
struct Server {
    /// The model's name in the protocol's paths.
    name: String,
    loaded: OnceLock<Loaded>,
    /// Why the server is not ready yet.
    waiting: RwLock<String>,
    metrics: Metrics,
}

/// A verified generator, ready to draw.
#[derive(Debug)]
struct Loaded {
    digest: Digest,
    config: ModelConfig,
    forgotten: Vec<PlannedTarget>,
    queue: Queue,
}

impl Server {
    /// The model, or why there is none yet.
    fn model(&self) -> Result<&Loaded, String> {
        self.loaded.get().ok_or_else(|| self.waiting.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn wait(&self, reason: String) {
        tracing::warn!(reason, "not ready");
        *self.waiting.write().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

pub(crate) fn main(args: &ServeArgs) -> i32 {
    match serve(args) {
        Ok(()) => exit::DONE,
        Err(failed) => {
            tracing::error!(failure = ?failed.failure, "{failed}");
            failed.failure.exit_code()
        }
    }
}

fn serve(args: &ServeArgs) -> Result<()> {
    let device = runtime::init(args.threads.unwrap_or_else(runtime::all_threads), args.device.into())?;
    let failed = |error: io::Error| Failed::bad_configuration(format!("cannot serve: {error}"));
    let http = tokio::runtime::Builder::new_multi_thread().worker_threads(HTTP_THREADS).enable_all().build();
    let http: Runtime = http.map_err(failed)?;
    let server = Arc::new(Server {
        name: args.name.clone(),
        loaded: OnceLock::new(),
        waiting: RwLock::new("the bundle is being loaded".into()),
        metrics: Metrics::new().map_err(|e| Failed::internal(format!("metrics: {e}")))?,
    });
    http.block_on(async {
        let address = format!("0.0.0.0:{}", args.port);
        let listener = TcpListener::bind(&address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, name = server.name, "listening");
        tokio::spawn(load(server.clone(), args.store.clone(), args.bundle.clone(), device));
        let stop = stop()?;
        let http = axum::serve(listener, routes::routes(server)).with_graceful_shutdown(stop);
        http.await.map_err(failed)
    })
}

/// Loads the bundle, however long it takes until that works.
async fn load(server: Arc<Server>, store: String, bundle: String, device: Device) {
    loop {
        match try_load(&server, &store, &bundle, device).await {
            Ok(loaded) => {
                tracing::info!(digest = %loaded.digest, "ready");
                server.metrics.ready.set(1);
                // Set here and nowhere else, so it is not set yet.
                let _ = server.loaded.set(loaded);
                return;
            }
            Err(failed) => server.wait(failed.message),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_load(server: &Server, store: &str, bundle: &str, device: Device) -> Result<Loaded> {
    if bundle.is_empty() {
        return Err(Failed::bad_configuration(
            "no bundle to serve: set the pod template's annotation lethe.dev/bundle and pass it as LETHE_BUNDLE \
             (downward API), or use --bundle; Lethe sets the annotation once a model may be served",
        ));
    }
    let digest: Digest =
        bundle.parse().map_err(|e| Failed::bad_configuration(format!("LETHE_BUNDLE: {e}")))?;
    let bundle = Store::open(store)?.get_bundle(&digest, BundleKind::Generator).await?;
    let (model, generator) = model::denoiser(&bundle, device)?;
    let queue = worker::start(generator, server.metrics.clone())?;
    Ok(Loaded { digest, config: model.model, forgotten: model.forgotten, queue })
}

/// Ends with SIGTERM or Ctrl-C; requests that were accepted are answered first.
fn stop() -> Result<impl Future<Output = ()> + Send + 'static> {
    let failed = |error: io::Error| Failed::bad_configuration(format!("cannot watch for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}
