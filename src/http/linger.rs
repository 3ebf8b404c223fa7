//! What a client still sends when its answer is there already.
//!
//! A refusal is often known before the whole body is there. Where HTTP/1 closes a connection with content on its way, the system
//! resets it, and the client loses the answer that says why. So the rest is read and thrown away, as nginx and others do
//! ("lingering close"), for a bounded time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// How long the rest is read, and how long the client may send nothing meanwhile. By default nginx reads for 30 s and waits for 5 s.
const LINGER: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(5);

/// Has the rest of a request's body read, where an answer could be lost otherwise: not under HTTP/2, which ends one stream alone,
/// and not where the client asks before it sends the body.
pub(super) fn linger(request: Request<Incoming>) -> Request<axum::body::Body> {
    let needed = request.version() < Version::HTTP_2 && !request.headers().contains_key(header::EXPECT);
    request.map(|body| match needed {
        true => axum::body::Body::new(Lingering(Some(body))),
        false => axum::body::Body::new(body),
    })
}

/// A body of which what is not read when it is dropped is thrown away.
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

/// Reads until the end, or until nothing comes any more.
async fn discard(mut body: Incoming) {
    while let Ok(Some(Ok(_))) = tokio::time::timeout(IDLE, body.frame()).await {}
}
