//! Ends responses whose sandbox was killed, paused or cut off.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Extension, Request};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::e2b::envd::envelope::{STREAM_TYPE, end_envelope};
use crate::http::e2b::envd::error::ConnectError;
use crate::http::e2b::error::ProxyError;
use crate::http::interruptible::Interruptible;
use crate::sandbox::Sandbox;

/// Ends a response with an error when its sandbox is killed, paused or cut off. A stream of the Connect protocol gets its last
/// envelope, with an error. Any other body is aborted, because a regular end would look like a success.
pub(in crate::http::e2b) async fn abort_when_interrupted(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    request: Request,
    next: Next,
) -> Response {
    let interrupted = sandbox.interrupted();
    let Some(response) = interrupted.run_until_cancelled(next.run(request)).await else {
        return ProxyError::not_found(&sandbox.id).into_response();
    };
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let is_stream = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == STREAM_TYPE);
    let end = move || match is_stream {
        true => Ok(end_envelope(Some(&ConnectError::interrupted(&sandbox)))),
        false => Err(ConnectError::lost().into()),
    };
    response.map(|body| Body::new(Interruptible::new(body, interrupted, end)))
}
