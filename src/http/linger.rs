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
/// HTTP/2, which ends a single stream, or if the client waits for `100 Continue` before it sends the body.
pub(super) fn linger(request: Request<Incoming>) -> Request<axum::body::Body> {
    let needed = request.version() < Version::HTTP_2 && !request.headers().contains_key(header::EXPECT);
    request.map(|body| match needed {
        true => axum::body::Body::new(Lingering(Some(body))),
        false => axum::body::Body::new(body),
    })
}

/// A body whose unread rest is read and discarded when it is dropped.
#[derive(Debug)]
struct Lingering(Option<Incoming>);

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) {
            tokio::spawn(tokio::time::timeout(LINGER, discard(body)));
        }
    }
}

/// Reads until the end, an error, or [`IDLE`] without data.
async fn discard(mut body: Incoming) {
    while let Ok(Some(Ok(_))) = tokio::time::timeout(IDLE, body.frame()).await {}
}
