//! `serve`: one generator over HTTP.
//!
//! The server is alive at once, and ready when the bundle it was told to serve was read, verified and found to be
//! a generator. Until then, and if it is refused, it says why, and keeps trying: a store may come back. If loading
//! ends in a defect or a lack of memory, trying again in this process helps nobody: it ends, and says why.

mod gallery;
mod metrics;
mod oip;
mod proof;
mod routes;
mod worker;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use lethe_api::contract::{BundleKind, Digest, Failure, PlannedTarget, exit};
use lethe_sfd::{Device, ModelConfig};
use lethe_store::Store;
use tokio::{
    net::TcpListener,
    runtime::{Handle, Runtime},
    signal::unix::{SignalKind, signal},
    task,
};

use self::{metrics::Metrics, worker::Queue};
use crate::{
    cli::ServeArgs,
    failure::{Failed, Result, caught},
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

/// Which bundle to load, and to where.
#[derive(Clone, Debug)]
struct Source {
    store: String,
    bundle: String,
    /// Whose signature it needs, if it needs one.
    trusted: Option<PathBuf>,
    device: Device,
}

pub(crate) fn main(args: &ServeArgs) -> i32 {
    match caught(|| serve(args)) {
        Ok(()) => exit::DONE,
        Err(failed) => {
            args.termination.write(&failed.message);
            failed.tell()
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
    let (store, bundle) = (args.store.clone(), args.bundle.clone());
    let source = Source { store, bundle, trusted: args.trusted_keys.clone(), device };
    let result = http.block_on(async {
        let address = format!("0.0.0.0:{}", args.port);
        let listener = TcpListener::bind(&address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, name = server.name, "listening");
        let stop = stop()?;
        let http = axum::serve(listener, routes::routes(server.clone())).with_graceful_shutdown(stop);
        tokio::select! {
            ended = async { http.await.map_err(failed) } => ended,
            failed = load(&server, move |server| try_load(server, &source)) => Err(failed),
        }
    });
    // A store that does not answer must not keep a server that was told to stop.
    http.shutdown_background();
    result
}

/// Loads the bundle, however long it takes until that works, and then never returns. Returns what ended the loading
/// for good.
async fn load<L>(server: &Arc<Server>, attempt: L) -> Failed
where
    L: Fn(&Server) -> Result<Loaded> + Clone + Send + 'static,
{
    loop {
        // libtorch blocks while it loads, and panics where it fails.
        let (attempt, its) = (attempt.clone(), server.clone());
        let loaded = task::spawn_blocking(move || caught(|| attempt(&its))).await;
        match loaded.unwrap_or_else(|error| Err(Failed::internal(format!("loading the bundle: {error}")))) {
            Ok(loaded) => {
                tracing::info!(digest = %loaded.digest, "ready");
                server.metrics.ready.set(1);
                // Set here and nowhere else, so it is not set yet.
                let _ = server.loaded.set(loaded);
                return std::future::pending().await;
            }
            Err(failed) if matches!(failed.failure, Failure::Internal | Failure::OutOfMemory) => {
                return failed.of("loading the bundle");
            }
            Err(failed) => server.wait(failed.message),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Blocks; to be called on a thread of the runtime that may.
fn try_load(server: &Server, source: &Source) -> Result<Loaded> {
    let Source { store, bundle, trusted, device } = source;
    if bundle.is_empty() {
        return Err(Failed::bad_configuration(
            "no bundle to serve: set the pod template's annotation lethe.dev/bundle and pass it as LETHE_BUNDLE \
             (downward API), or use --bundle; Lethe sets the annotation once a model may be served",
        ));
    }
    let digest: Digest =
        bundle.parse().map_err(|e| Failed::bad_configuration(format!("LETHE_BUNDLE: {e}")))?;
    let store = Store::open(store)?;
    if let Some(trusted) = trusted {
        Handle::current().block_on(proof::check(&store, &digest, trusted))?;
    }
    let bundle = Handle::current().block_on(store.get_bundle(&digest, BundleKind::Generator))?;
    let (model, generator) = model::denoiser(&bundle, *device)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Arc<Server> {
        Arc::new(Server {
            name: "digits".into(),
            loaded: OnceLock::new(),
            waiting: RwLock::new(String::new()),
            metrics: Metrics::new().unwrap(),
        })
    }

    #[tokio::test]
    async fn a_panic_of_libtorch_while_loading_ends_the_server() {
        let multiply = |_: &Server| -> Result<Loaded> {
            let ones = tch::Tensor::ones([2, 3], (tch::Kind::Float, Device::Cpu));
            panic!("it did not fail: {:?}", ones.matmul(&ones))
        };
        let failed = load(&server(), multiply).await;
        assert_eq!(failed.failure.exit_code(), exit::INTERNAL);
        assert!(
            failed.message.starts_with("loading the bundle: ") && failed.message.contains("mat1 and mat2")
        );
    }

    #[tokio::test]
    async fn a_lack_of_memory_while_loading_ends_the_server() {
        let failed =
            load(&server(), |_| panic!("can't allocate memory: you tried to allocate 9 bytes")).await;
        assert_eq!(failed.failure, Failure::OutOfMemory);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_told_and_tried_again() {
        let server = server();
        let tried = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let attempt = move |_: &Server| match tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Err(Failed::new(Failure::StoreUnavailable, "the store does not answer")),
            _ => Err(Failed::internal("the end")),
        };
        assert_eq!(load(&server, attempt).await.message, "loading the bundle: the end");
        assert_eq!(server.model().unwrap_err(), "the store does not answer");
    }
}
