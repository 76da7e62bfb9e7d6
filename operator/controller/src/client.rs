//! The Kubernetes client, with a layer that notices when watches are (re)opened.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use axum::http::{Request, Response, Uri};
use futures::future::BoxFuture;
use kube::{Client, Config, client::ClientBuilder};
use tower::{Service, layer::layer_fn};

use crate::watchdog::Watchdog;

/// A client for `config`. Every watch that the API server accepts is told to `watchdog`.
pub fn connect(config: Config, watchdog: Arc<Watchdog>) -> kube::Result<Client> {
    let layer = layer_fn(move |inner| Noticing { inner, watchdog: watchdog.clone() });
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

/// An idle watch sends nothing that `kube` would pass on, but the API server ends it after a while and it
/// is opened again: that is the sign of life.
#[derive(Clone)]
struct Noticing<S> {
    inner: S,
    watchdog: Arc<Watchdog>,
}

impl<S, A, B> Service<Request<A>> for Noticing<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let watched = watched(request.uri()).map(str::to_owned);
        let watchdog = self.watchdog.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(path) = watched
                && answer.status().is_success()
            {
                watchdog.beat(&path);
            }
            Ok(answer)
        })
    }
}

/// The path of a request, if it opens a watch.
fn watched(uri: &Uri) -> Option<&str> {
    let is_watch = uri.query()?.split('&').any(|pair| pair == "watch=true");
    is_watch.then(|| uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_known_by_its_query() {
        let watch = Uri::from_static("/apis/lethe.dev/v1alpha1/unlearnruns?&watch=true&timeoutSeconds=200");
        assert_eq!(watched(&watch), Some("/apis/lethe.dev/v1alpha1/unlearnruns"));
        assert_eq!(watched(&Uri::from_static("/apis/lethe.dev/v1alpha1/unlearnruns?limit=500")), None);
        assert_eq!(watched(&Uri::from_static("/apis/lethe.dev/v1alpha1/unlearnruns")), None);
    }
}
