//! A response body that ends early when what it depends on does.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::AbortOnDropHandle;

/// The end of a body after an interruption: its last piece, or the error that aborts it.
type End = Box<dyn FnOnce() -> Result<Bytes, BoxError> + Send>;

/// A body that is dropped when it is interrupted, whether or not the client reads it. If it stayed open while its sandbox
/// is frozen, the sandbox would be taken for lost.
pub(crate) struct Interruptible {
    /// `None` after the interruption.
    body: Arc<Mutex<Option<Body>>>,
    /// Also wakes the task that reads the body.
    interrupted: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None` after it was sent.
    end: Option<End>,
    _watch: AbortOnDropHandle<()>,
}

impl Interruptible {
    pub(crate) fn new(
        body: Body,
        interrupted: CancellationToken,
        end: impl FnOnce() -> Result<Bytes, BoxError> + Send + 'static,
    ) -> Self {
        let body = Arc::new(Mutex::new(Some(body)));
        let watch = drop_when_interrupted(Arc::downgrade(&body), interrupted.clone());
        let interrupted = Box::pin(interrupted.cancelled_owned());
        Self { body, interrupted, end: Some(Box::new(end)), _watch: AbortOnDropHandle::new(tokio::spawn(watch)) }
    }
}

async fn drop_when_interrupted(body: Weak<Mutex<Option<Body>>>, interrupted: CancellationToken) {
    interrupted.cancelled().await;
    if let Some(body) = body.upgrade() {
        let body = body.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(body);
    }
}

impl HttpBody for Interruptible {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.end.is_none() {
            return Poll::Ready(None);
        }
        let is_over = this.interrupted.as_mut().poll(cx).is_ready();
        match &mut *this.body.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(body) if !is_over => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            _ => Poll::Ready(this.end.take().map(|end| end().map(Frame::data))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{StreamExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    /// A body of one piece that then waits for ever, and a receiver that fails once the body is dropped.
    fn waiting() -> (Body, tokio::sync::oneshot::Receiver<()>) {
        let (held, dropped) = tokio::sync::oneshot::channel();
        let pieces = stream::iter([Ok::<_, std::convert::Infallible>("piece")]).chain(stream::pending());
        (Body::from_stream(pieces.inspect(move |_| _ = &held)), dropped)
    }

    fn aborted() -> Result<Bytes, BoxError> {
        Err("it is interrupted".into())
    }

    #[tokio::test(start_paused = true)]
    async fn an_interruption_wakes_the_reader_and_drops_an_unread_body() {
        let interrupted = CancellationToken::new();
        let ((read, _), (unread, unread_dropped)) = (waiting(), waiting());
        let mut read = Interruptible::new(read, interrupted.clone(), aborted);
        let _unread = Interruptible::new(unread, interrupted.clone(), aborted);
        assert!(read.frame().await.expect("a piece").is_ok());
        let interrupt = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            interrupted.cancel();
        };
        let (end, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(10), read.frame()), interrupt);
        assert!(end.expect("the reader is woken").expect("an error").is_err());
        assert!(unread_dropped.await.is_err());
    }

    #[tokio::test]
    async fn a_complete_body_ends_without_an_error_even_if_its_end_interrupts_the_sandbox() {
        let interrupted = CancellationToken::new();
        let last = interrupted.clone().drop_guard();
        let pieces = stream::iter([Ok::<_, std::convert::Infallible>("piece")]).inspect(move |_| _ = &last);
        let body = Interruptible::new(Body::from_stream(pieces), interrupted.clone(), aborted);
        assert_eq!(body.collect().await.expect("it is whole").to_bytes(), "piece");
        assert!(interrupted.is_cancelled());
    }

    #[tokio::test]
    async fn an_interruption_can_add_a_last_piece() {
        let interrupted = CancellationToken::new();
        let (body, _) = waiting();
        let mut body = Interruptible::new(body, interrupted.clone(), || Ok(Bytes::from_static(b"end")));
        let piece =
            async |body: &mut Interruptible| body.frame().await.map(|frame| frame.expect("a piece").into_data());
        assert_eq!(piece(&mut body).await.expect("a piece").expect("data"), "piece");
        interrupted.cancel();
        assert_eq!(piece(&mut body).await.expect("a piece").expect("data"), "end");
        assert!(piece(&mut body).await.is_none());
    }
}
