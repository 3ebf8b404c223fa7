//! The server loop of one listener, with limits on the time that a client may take to send a request and to read the
//! response.
//!
//! axum's own loop has no such limits: deliberately slow clients could hold connections for ever and use them up.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::client_timeouts::{ClientTimeouts, StallGuard};
use super::linger::linger;
use super::origin::Peer;

/// The largest HTTP/1 buffer of a connection in each direction: a whole head, or a piece of a body. An upload holds up
/// to eight such pieces, one in each step on the way, so a thousand slow uploads take half a gigabyte.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// Serves connections until `stopping` is cancelled, then waits for the requests in progress.
///
/// A connection is closed if it has no request in progress and no complete request head arrives for `timeouts.head`, or
/// if the client takes no byte of a response for `timeouts.stall`. The total time of a body or a response is not
/// limited.
pub async fn serve<L: Listener<Addr = SocketAddr>>(
    mut listener: L,
    router: Router,
    timeouts: ClientTimeouts,
    stopping: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(timeouts.head).max_buf_size(MAX_BUFFER_BYTES);
    builder.http2().timer(TokioTimer::new());
    let connections = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => break,
        };
        let (requests, mut changes) = watch::channel(Requests::default());
        let router = router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            let (router, open) = (router.clone(), OpenRequest::new(requests.clone()));
            async move {
                let response = router.oneshot(linger(request)).await.unwrap_or_else(|never| match never {});
                Ok::<_, Infallible>(response.map(|body| StallGuard::new(body, timeouts.stall, open)))
            }
        });
        let mut stream = Box::pin(TimeoutStream::new(stream));
        stream.as_mut().set_write_timeout_pinned(Some(timeouts.stall));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let stopping = stopping.clone();
        connections.spawn(async move {
            let (mut connection, mut leaving) = (pin!(connection), false);
            loop {
                tokio::select! {
                    // A head that has already arrived counts, even if this task was late to poll it.
                    biased;
                    ended = connection.as_mut() => {
                        if let Err(err) = ended {
                            tracing::trace!("a connection failed: {err}");
                        }
                        return;
                    }
                    () = stopping.cancelled(), if !leaving => {}
                    () = idle(&mut changes, timeouts.head) => {
                        // A client that has sent a request gets the same time again to read the rest of the response.
                        if leaving || changes.borrow().received == 0 {
                            return tracing::trace!("closed a connection that sent no request for {:?}", timeouts.head);
                        }
                    }
                }
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The counts of one connection's requests.
#[derive(Debug, Default, Clone, Copy)]
struct Requests {
    /// All requests so far.
    received: u64,
    /// The requests whose responses are not complete.
    open: usize,
}

/// Counts a request as open until its response is complete.
#[derive(Debug)]
struct OpenRequest(watch::Sender<Requests>);

impl OpenRequest {
    fn new(requests: watch::Sender<Requests>) -> Self {
        requests.send_modify(|requests| {
            requests.received += 1;
            requests.open += 1;
        });
        Self(requests)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.send_modify(|requests| requests.open -= 1);
    }
}

/// Waits until no request has been open and none has arrived for `head`. hyper's own timeout applies to HTTP/1 only,
/// and only after hyper has recognised the protocol.
async fn idle(requests: &mut watch::Receiver<Requests>, head: Duration) {
    loop {
        let changed = if requests.borrow_and_update().open > 0 {
            requests.changed().await
        } else {
            match tokio::time::timeout(head, requests.changed()).await {
                Ok(changed) => changed,
                Err(_) => return,
            }
        };
        if changed.is_err() {
            // All senders are gone: the connection is ending.
            return std::future::pending().await;
        }
    }
}
