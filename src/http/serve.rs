//! One listener answered, with a bound on how long a client may take to say what it wants.
//!
//! axum's own loop has none: a client that is slow on purpose would hold its connection for ever, and there are only so many.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Answers until `stopping` is cancelled, and then what is being answered.
///
/// A connection is closed on which no whole head of a request arrives for `head_timeout`, be it the first or the next. How
/// long a body or an answer takes is not bounded.
pub async fn serve<L: Listener>(mut listener: L, router: Router, head_timeout: Duration, stopping: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head_timeout);
    builder.http2().timer(TokioTimer::new());
    let connections = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            (stream, _) = listener.accept() => stream,
            () = stopping.cancelled() => break,
        };
        let (router, asked) = (router.clone(), CancellationToken::new());
        let first = asked.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            asked.cancel();
            let router = router.clone();
            async move {
                Ok::<_, Infallible>(router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}))
            }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // hyper looks at the clock once it knows which HTTP is spoken.
            let silent = pin!(async {
                if tokio::time::timeout(head_timeout, first.cancelled()).await.is_ok() {
                    std::future::pending::<()>().await;
                }
            });
            tokio::select! {
                // A head that is there already counts, however late it is looked at.
                biased;
                ended = connection => {
                    if let Err(err) = ended {
                        tracing::trace!("a connection broke: {err}");
                    }
                }
                () = silent => tracing::trace!("a connection said nothing for {head_timeout:?}"),
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}
