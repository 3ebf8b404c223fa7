//! The limits on the time that the server waits for a client. Without them, a deliberately slow client could hold its
//! sandbox for ever.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// The longest times that a client may do nothing.
#[derive(Debug, Clone, Copy)]
pub struct ClientTimeouts {
    /// The time until the whole head of the next request has arrived, from the start of the connection or the end of a
    /// response.
    pub head: Duration,
    /// The time until the next byte of a request body arrives, or the next byte of a response is taken.
    pub stall: Duration,
}

/// The largest piece of a response that is handed to hyper at once: the default size of HTTP/2's frames. The guard does
/// not see whether the client takes a piece that hyper has, so pieces are small.
const MAX_PIECE_BYTES: usize = 16 << 10;

/// A response body that drops its content once the client has taken nothing of it for too long. The write timeout of
/// the connection is not enough for HTTP/2: a stream that is not read does not stall its connection.
pub(super) struct StallGuard<T> {
    guarded: Arc<Mutex<Guarded<T>>>,
    /// The part of a large piece that hyper has not yet received.
    rest: Bytes,
    _watch: Option<AbortOnDropHandle<()>>,
}

/// The state that a [`StallGuard`] shares with its timer task.
struct Guarded<T> {
    /// The body, and a value that is dropped together with it. `None` once the client has stalled.
    body: Option<(Body, T)>,
    /// The time at which the last piece was handed out; `None` while the guard waits for the body.
    waiting_since: Option<Instant>,
}

impl<T: Send + 'static> StallGuard<T> {
    /// Guards a body. `held` is dropped together with it.
    pub(super) fn new(body: Body, stall: Duration, held: T) -> Self {
        let is_empty = body.is_end_stream();
        let guarded = Arc::new(Mutex::new(Guarded { body: Some((body, held)), waiting_since: Some(Instant::now()) }));
        let watch = (!is_empty)
            .then(|| AbortOnDropHandle::new(tokio::spawn(drop_when_stalled(Arc::downgrade(&guarded), stall))));
        Self { guarded, rest: Bytes::new(), _watch: watch }
    }
}

/// Drops the body once a piece of it has waited for `stall`. While it sleeps, the task holds no strong reference, so
/// the body is dropped as soon as the response is complete.
async fn drop_when_stalled<T>(guarded: Weak<Mutex<Guarded<T>>>, stall: Duration) {
    loop {
        let Some(waiting_since) = guarded.upgrade().map(|guarded| lock(&guarded).waiting_since) else { return };
        tokio::time::sleep_until(waiting_since.unwrap_or_else(Instant::now) + stall).await;
        let Some(guarded) = guarded.upgrade() else { return };
        let body = {
            let mut guarded = lock(&guarded);
            let is_over = guarded.waiting_since.is_some_and(|since| since.elapsed() >= stall);
            is_over.then(|| guarded.body.take())
        };
        if body.is_some() {
            tracing::debug!("dropped a response: its client took nothing of it for {stall:?}");
            return;
        }
    }
}

/// Locks the state, also after a panic, which leaves it valid.
fn lock<T>(guarded: &Mutex<Guarded<T>>) -> std::sync::MutexGuard<'_, Guarded<T>> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> HttpBody for StallGuard<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut guarded = lock(&this.guarded);
        guarded.waiting_since = None;
        let Some((body, _)) = &mut guarded.body else { return Poll::Ready(Some(Err(Box::new(Stalled)))) };
        if this.rest.is_empty() {
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(err)) => return Poll::Ready(Some(Err(err.into()))),
                None => return Poll::Ready(None),
            }
        }
        // The timer also runs for the last piece: hyper may keep it, and this body, until the client takes it.
        guarded.waiting_since = Some(Instant::now());
        let piece = this.rest.split_to(this.rest.len().min(MAX_PIECE_BYTES));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.guarded).body.as_ref().is_some_and(|(body, _)| body.is_end_stream()) && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let body = lock(&self.guarded).body.as_ref().map(|(body, _)| body.size_hint()).unwrap_or_default();
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// The error of a body that was dropped because its client stalled.
#[derive(Debug)]
struct Stalled;

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client did not read the response in time")
    }
}

impl std::error::Error for Stalled {}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt;
    use http_body_util::BodyExt;
    use tokio::sync::oneshot;

    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    fn endless() -> Body {
        Body::from_stream(futures::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(b"x"))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_the_client_stops_reading_is_dropped() {
        let (held, mut dropped) = oneshot::channel::<()>();
        let mut body = StallGuard::new(endless(), STALL, held);
        for _ in 0..3 {
            assert!(body.frame().await.expect("a piece").is_ok());
            tokio::time::sleep(STALL - Duration::from_secs(1)).await;
            assert!(dropped.try_recv() == Err(oneshot::error::TryRecvError::Empty), "the client was still reading");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(dropped.try_recv() == Err(oneshot::error::TryRecvError::Closed), "it is still held");
        assert!(body.frame().await.expect("an error").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_piece_is_split_and_the_last_part_is_guarded_too() {
        let (held, mut dropped) = oneshot::channel::<()>();
        let mut body = StallGuard::new(Body::from(vec![b'x'; 2 * MAX_PIECE_BYTES + 1]), STALL, held);
        for (left, length) in
            [(2 * MAX_PIECE_BYTES + 1, MAX_PIECE_BYTES), (MAX_PIECE_BYTES + 1, MAX_PIECE_BYTES), (1, 1)]
        {
            assert_eq!((body.is_end_stream(), body.size_hint().exact()), (false, Some(left as u64)));
            let piece = body.frame().await.expect("a piece").expect("no error").into_data().expect("data");
            assert_eq!(piece.len(), length);
        }
        assert!(body.is_end_stream());
        tokio::time::sleep(STALL + Duration::from_secs(1)).await;
        assert!(dropped.try_recv() == Err(oneshot::error::TryRecvError::Closed), "it is still held");
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_the_client_never_reads_is_dropped() {
        let (held, mut dropped) = oneshot::channel::<()>();
        let _body = StallGuard::new(Body::from("x"), STALL, held);
        tokio::time::sleep(STALL * 2 + Duration::from_secs(1)).await;
        assert!(dropped.try_recv() == Err(oneshot::error::TryRecvError::Closed), "it is still held");
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_without_new_data_is_kept() {
        let pieces = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]);
        let idle = pieces.chain(futures::stream::pending());
        let mut body = StallGuard::new(Body::from_stream(idle), STALL, ());
        assert!(body.frame().await.expect("a piece").is_ok());
        assert!(tokio::time::timeout(STALL * 10, body.frame()).await.is_err(), "no data was expected");
        assert!(lock(&body.guarded).body.is_some());
    }
}
