//! The Kubernetes client, with a layer that notices whether watches are alive, and how long other calls take.

use std::{
    fmt::Display,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::http::{Request, Response, Uri};
use futures::future::BoxFuture;
use http_body::{Body, Frame};
use kube::{Client, Config, client::ClientBuilder};
use tower::{Service, layer::layer_fn};
use tracing::Instrument;

use crate::{
    spans::{self, Call},
    watchdog::Watchdog,
};

/// A client for `config`. Whatever comes of a watch is told to `watchdog`.
pub fn connect(config: Config, watchdog: Arc<Watchdog>) -> kube::Result<Client> {
    let layer = layer_fn(move |inner| Noticing { inner, watchdog: watchdog.clone() });
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

/// Of an idle watch `kube` passes nothing on, but the API server sends bookmarks, and ends it after a while: those are
/// its signs of life. That it can be opened is none: whatever lies between may accept it and let nothing through.
#[derive(Clone)]
struct Noticing<S> {
    inner: S,
    watchdog: Arc<Watchdog>,
}

impl<S, A, B> Service<Request<A>> for Noticing<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Display + 'static,
    B: 'static,
{
    type Response = Response<Noticed<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let watched = watched(request.uri()).map(str::to_owned);
        let watchdog = self.watchdog.clone();
        let call = spans::call(&request);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let call = Call::begins(call);
            let answer = answer.instrument(call.span()).await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    call.failed(&error);
                    return Err(error);
                }
            };
            call.answered(answer.status());
            let watched = watched.filter(|_| answer.status().is_success());
            if let Some(path) = &watched {
                watchdog.expect(path);
            }
            Ok(answer.map(|inner| Noticed { inner, watched: watched.map(|path| (path, watchdog)) }))
        })
    }
}

/// The body of an answer, and what it is to be told to if it is that of a watch.
struct Noticed<B> {
    inner: B,
    watched: Option<(String, Arc<Watchdog>)>,
}

impl<B: Body + Unpin> Body for Noticed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some((path, watchdog)) = &self.watched
            && !matches!(frame, Some(Err(_)))
        {
            watchdog.beat(path);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// The path of a request, if it opens a watch.
fn watched(uri: &Uri) -> Option<&str> {
    let is_watch = uri.query()?.split('&').any(|pair| pair == "watch=true");
    is_watch.then(|| uri.path())
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// Whether a watch whose body is `body` has been heard after it was read to its end.
    async fn is_heard(body: impl Body<Data = Bytes, Error = std::io::Error> + Unpin) -> bool {
        let watchdog = Arc::new(Watchdog::new(200));
        let watched = Some(("/api/v1/pods".to_owned(), watchdog.clone()));
        let _ = Noticed { inner: body, watched }.collect().await;
        !watchdog.by_resource().is_empty()
    }

    #[tokio::test]
    async fn a_watch_lives_if_something_comes_of_it_or_the_api_server_ends_it() {
        let sent = |frames: Vec<Result<Frame<Bytes>, std::io::Error>>| {
            StreamBody::new(futures::stream::iter(frames))
        };
        assert!(is_heard(sent(vec![Ok(Frame::data(Bytes::from_static(b"{}")))])).await);
        assert!(is_heard(sent(vec![])).await);
        assert!(!is_heard(sent(vec![Err(std::io::Error::other("the connection broke"))])).await);
    }

    #[test]
    fn a_watch_is_known_by_its_query() {
        let watch = Uri::from_static("/apis/lethe.dev/v1alpha1/unlearnruns?&watch=true&timeoutSeconds=200");
        assert_eq!(watched(&watch), Some("/apis/lethe.dev/v1alpha1/unlearnruns"));
        assert_eq!(watched(&Uri::from_static("/apis/lethe.dev/v1alpha1/unlearnruns?limit=500")), None);
        assert_eq!(watched(&Uri::from_static("/apis/lethe.dev/v1alpha1/unlearnruns")), None);
    }
}
