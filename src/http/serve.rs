//! One listener answered, with a bound on how long a client may take to say what it wants, and to take what it gets.
//!
//! axum's own loop has none: a client that is slow on purpose would hold its connection for ever, and there are only so many.

use std::convert::Infallible;
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

/// What HTTP/1 may hold of a connection, each way, bytes: a whole head, or a piece of a body. Each step of an upload holds a piece,
/// eight at a time, so that a thousand slow uploads take half a gigabyte.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// Answers until `stopping` is cancelled, and then what is being answered.
///
/// A connection is closed on which no whole head of a request arrives for `timeouts.head` while nothing is being answered, be it
/// the first or the next; and one that takes no byte of what it is sent for `timeouts.stall`. How long a body or an answer
/// takes in all is not bounded.
pub async fn serve<L: Listener>(
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
        let stream = tokio::select! {
            (stream, _) = listener.accept() => stream,
            () = stopping.cancelled() => break,
        };
        let (requests, mut asked) = watch::channel(Requests::default());
        let router = router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (router, open) = (router.clone(), Open::new(requests.clone()));
            async move {
                let answer = router.oneshot(linger(request)).await.unwrap_or_else(|never| match never {});
                Ok::<_, Infallible>(answer.map(|body| StallGuard::new(body, timeouts.stall, open)))
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
                    // A head that is there already counts, however late it is looked at.
                    biased;
                    ended = connection.as_mut() => {
                        if let Err(err) = ended {
                            tracing::trace!("a connection broke: {err}");
                        }
                        return;
                    }
                    () = stopping.cancelled(), if !leaving => {}
                    () = idle(&mut asked, timeouts.head) => {
                        // Who has asked for something gets as long again to take the rest of it.
                        if leaving || asked.borrow().asked == 0 {
                            return tracing::trace!("a connection said nothing for {:?}", timeouts.head);
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

/// The requests of one connection.
#[derive(Debug, Default, Clone, Copy)]
struct Requests {
    /// All that there were.
    asked: u64,
    /// Those whose answers are not over.
    open: usize,
}

/// A request, until its answer is over.
#[derive(Debug)]
struct Open(watch::Sender<Requests>);

impl Open {
    fn new(requests: watch::Sender<Requests>) -> Self {
        requests.send_modify(|requests| {
            requests.asked += 1;
            requests.open += 1;
        });
        Self(requests)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|requests| requests.open -= 1);
    }
}

/// Waits until nothing was asked for so long, and everything before was answered. hyper looks at the clock for HTTP/1 only, and
/// once it knows that this is spoken.
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
            // The connection ends by itself.
            return std::future::pending().await;
        }
    }
}
