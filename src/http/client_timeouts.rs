//! How long the server waits for a client. Without a limit, a client that is slow on purpose would hold its sandbox for ever.

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

/// How long a client may do nothing.
#[derive(Debug, Clone, Copy)]
pub struct ClientTimeouts {
    /// Between requests, and before the first: until the whole head of a request has arrived.
    pub head: Duration,
    /// Within a request: until the next byte of its body arrives, or the next byte of its answer is taken.
    pub stall: Duration,
}

/// The largest piece of an answer that is handed to the HTTP library at once, bytes; the default size of HTTP/2's frames. The guard
/// does not see whether the client takes a piece that was handed on, so pieces are small.
const MAX_PIECE: usize = 16 << 10;

/// Drops the body of an answer when its client takes nothing of it for too long. HTTP/2 needs this: a stream that is not read does
/// not stall its connection.
pub(super) struct StallGuard<T> {
    given: Arc<Mutex<Given<T>>>,
    /// The rest of a large piece.
    rest: Bytes,
    _watch: Option<AbortOnDropHandle<()>>,
}

struct Given<T> {
    /// The body, and a value that is dropped together with it. `None` once the client has stalled.
    body: Option<(Body, T)>,
    /// Since when a piece waits to be taken.
    waits_since: Option<Instant>,
}

impl<T: Send + 'static> StallGuard<T> {
    /// Guards a body. `held` is dropped with it.
    pub(super) fn new(body: Body, stall: Duration, held: T) -> Self {
        let is_empty = body.is_end_stream();
        let given = Arc::new(Mutex::new(Given { body: Some((body, held)), waits_since: Some(Instant::now()) }));
        let watch =
            (!is_empty).then(|| AbortOnDropHandle::new(tokio::spawn(drop_when_stalled(Arc::downgrade(&given), stall))));
        Self { given, rest: Bytes::new(), _watch: watch }
    }
}

/// Drops the body once a piece of it has waited for this long. The task holds no reference meanwhile, so the body is dropped as soon
/// as the answer is complete.
async fn drop_when_stalled<T>(given: Weak<Mutex<Given<T>>>, stall: Duration) {
    loop {
        let Some(waits_since) = given.upgrade().map(|given| lock(&given).waits_since) else { return };
        tokio::time::sleep_until(waits_since.unwrap_or_else(Instant::now) + stall).await;
        let Some(given) = given.upgrade() else { return };
        let body = {
            let mut given = lock(&given);
            let is_over = given.waits_since.is_some_and(|since| since.elapsed() >= stall);
            is_over.then(|| given.body.take())
        };
        if body.is_some() {
            tracing::debug!("dropped an answer: its client took nothing of it for {stall:?}");
            return;
        }
    }
}

/// A panic leaves the state valid.
fn lock<T>(given: &Mutex<Given<T>>) -> std::sync::MutexGuard<'_, Given<T>> {
    given.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> HttpBody for StallGuard<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut given = lock(&this.given);
        given.waits_since = None;
        let Some((body, _)) = &mut given.body else { return Poll::Ready(Some(Err(Box::new(Stalled)))) };
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
        // The last one too: it may be kept by whoever asked for it, together with this body.
        given.waits_since = Some(Instant::now());
        let piece = this.rest.split_to(this.rest.len().min(MAX_PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.given).body.as_ref().is_some_and(|(body, _)| body.is_end_stream()) && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let body = lock(&self.given).body.as_ref().map(|(body, _)| body.size_hint()).unwrap_or_default();
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// A client took too long.
#[derive(Debug)]
struct Stalled;

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client did not read the answer in time")
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
    async fn an_answer_that_nobody_takes_is_given_up() {
        let (held, mut given_up) = oneshot::channel::<()>();
        let mut body = StallGuard::new(endless(), STALL, held);
        for _ in 0..3 {
            assert!(body.frame().await.expect("a piece").is_ok());
            tokio::time::sleep(STALL - Duration::from_secs(1)).await;
            assert!(given_up.try_recv() == Err(oneshot::error::TryRecvError::Empty), "it was being taken");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(given_up.try_recv() == Err(oneshot::error::TryRecvError::Closed), "it is still held");
        assert!(body.frame().await.expect("an end that is none").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_one_piece_is_taken_in_small_ones_and_the_last_is_watched_too() {
        let (held, mut given_up) = oneshot::channel::<()>();
        let mut body = StallGuard::new(Body::from(vec![b'x'; 2 * MAX_PIECE + 1]), STALL, held);
        for (left, length) in [(2 * MAX_PIECE + 1, MAX_PIECE), (MAX_PIECE + 1, MAX_PIECE), (1, 1)] {
            assert_eq!((body.is_end_stream(), body.size_hint().exact()), (false, Some(left as u64)));
            let piece = body.frame().await.expect("a piece").expect("no error").into_data().expect("data");
            assert_eq!(piece.len(), length);
        }
        assert!(body.is_end_stream());
        tokio::time::sleep(STALL + Duration::from_secs(1)).await;
        assert!(given_up.try_recv() == Err(oneshot::error::TryRecvError::Closed), "it is still held");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_asked_for_is_given_up() {
        let (held, mut given_up) = oneshot::channel::<()>();
        let _body = StallGuard::new(Body::from("x"), STALL, held);
        tokio::time::sleep(STALL * 2 + Duration::from_secs(1)).await;
        assert!(given_up.try_recv() == Err(oneshot::error::TryRecvError::Closed), "it is still held");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_with_nothing_to_take_is_waited_for() {
        let pieces = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]);
        let idle = pieces.chain(futures::stream::pending());
        let mut body = StallGuard::new(Body::from_stream(idle), STALL, ());
        assert!(body.frame().await.expect("a piece").is_ok());
        assert!(tokio::time::timeout(STALL * 10, body.frame()).await.is_err(), "it says something");
        assert!(lock(&body.given).body.is_some());
    }
}
