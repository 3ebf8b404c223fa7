//! The rest of a request body after an early response.
//!
//! An error response is often sent before the whole body has arrived. If the server then closes an HTTP/1 connection on
//! which data is still arriving, the kernel resets it, and the client loses the response. So the rest of the body is
//! read and discarded for a bounded time, as nginx does ("lingering close").

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// The longest time that the rest of a body is read. nginx's default is 30 s.
const LINGER: Duration = Duration::from_secs(10);
/// The longest time that the client may send nothing meanwhile. nginx's default is 5 s.
const IDLE: Duration = Duration::from_secs(5);

/// Arranges that the rest of the body is read if the response could be lost otherwise. That is not the case with
/// HTTP/2, which ends a single stream, or if the client still waits for `100 Continue` when the response is there: to
/// read the body would be to request it.
pub(super) fn linger(request: Request<Incoming>) -> Request<axum::body::Body> {
    if request.version() >= Version::HTTP_2 {
        return request.map(axum::body::Body::new);
    }
    let expects = request.headers().get(header::EXPECT).map(|value| value.as_bytes());
    // HTTP/1.0 has no `100 Continue`.
    let waits = request.version() == Version::HTTP_11
        && expects.is_some_and(|expects| expects.eq_ignore_ascii_case(b"100-continue"));
    request.map(|body| axum::body::Body::new(Lingering { body: Some(body), client_waits: waits }))
}

/// A body whose unread rest is read and discarded when it is dropped.
#[derive(Debug)]
struct Lingering {
    /// `None` once all of it has been read.
    body: Option<Incoming>,
    /// Whether the client waits for `100 Continue`, which hyper sends when the body is first read.
    client_waits: bool,
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.client_waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.client_waits {
            return;
        }
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            tokio::spawn(tokio::time::timeout(LINGER, discard(body)));
        }
    }
}

/// Reads until the end, an error, or [`IDLE`] without data.
async fn discard(mut body: Incoming) {
    while let Ok(Some(Ok(_))) = tokio::time::timeout(IDLE, body.frame()).await {}
}
