//! The Connect protocol in JSON, which E2B's SDKs use for envd.
//!
//! Source: connectrpc.com/docs/protocol. A unary call is a plain POST, and an error has an HTTP status. In a stream
//! every message has an envelope, the status is always 200, and the last envelope contains the error, if any. Only what
//! the head of a request decides has an HTTP status in either kind of call. Compression is not supported.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::codec::FramedRead;
use tokio_util::io::StreamReader;

use super::envelope::{Envelopes, HEAD_BYTES, MAX_MESSAGE_BYTES, STREAM_TYPE, end_envelope, envelope};
use super::error::{Code, ConnectError};
use crate::http::json::{self, JsonError, parse};
use crate::http::single::{HeaderError, single};
use crate::sandbox::OperationError;

/// The header in which a 415 names the content types that are accepted.
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// The content type of a unary call.
const UNARY_TYPE: &str = "application/json";

/// The error of a streaming call that failed before its first message. It is sent as a 200 with an envelope, because
/// SDKs would interpret an HTTP status differently.
pub(in crate::http::e2b) struct StreamError(ConnectError);

impl IntoResponse for StreamError {
    fn into_response(self) -> Response {
        stream_response(Body::from(end_envelope(Some(&self.0))))
    }
}

impl<E: Into<ConnectError>> From<E> for StreamError {
    fn from(err: E) -> Self {
        Self(err.into())
    }
}

/// The refusal of a call by its head: an HTTP error with the JSON of a unary call's error, also for streaming calls.
pub(in crate::http::e2b) enum HeadError {
    /// The content type is not that of this kind of call, which is named here.
    ContentType(&'static str),
    /// A header has no value that can be read.
    Header(HeaderError),
    /// The body is declared to be too large or to be compressed, or cannot be read.
    Body(JsonError),
}

impl IntoResponse for HeadError {
    fn into_response(self) -> Response {
        match self {
            Self::ContentType(expected) => {
                let error = ConnectError::new(Code::Unimplemented, format!("the content type must be {expected}"));
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, [(ACCEPT_POST, expected)], Json(error)).into_response()
            }
            Self::Header(err) => ConnectError::invalid(err.to_string()).into_response(),
            // Not `resource_exhausted` for a body that is too large: SDKs report that code as a rate limit.
            Self::Body(err) => {
                let code = match err.status {
                    StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::Unimplemented,
                    _ => Code::InvalidArgument,
                };
                (err.status, Json(ConnectError::new(code, err.message))).into_response()
            }
        }
    }
}

/// Extracts the message of a unary call.
pub(in crate::http::e2b) struct Unary<T>(pub(in crate::http::e2b) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Unary<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        check_type(request.headers(), UNARY_TYPE).map_err(IntoResponse::into_response)?;
        let body = json::read(request).await.map_err(|err| HeadError::Body(err).into_response())?;
        parse_message(&body).map(Self).map_err(IntoResponse::into_response)
    }
}

/// Extracts the message of a call whose response is a stream.
pub(in crate::http::e2b) struct ServerStreaming<T>(pub(in crate::http::e2b) T);

impl<S: Send + Sync, T: DeserializeOwned + 'static> FromRequest<S> for ServerStreaming<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let most = (MAX_MESSAGE_BYTES + HEAD_BYTES) as u64;
        json::check_length(request.headers(), most).map_err(|err| HeadError::Body(err).into_response())?;
        let mut messages = Messages::<T>::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        match messages.next().await {
            Ok(Some(message)) => Ok(Self(message)),
            Ok(None) => Err(StreamError(ConnectError::invalid("the request has no message")).into_response()),
            Err(err) => Err(StreamError(err).into_response()),
        }
    }
}

/// Extracts the messages of a call whose request is a stream.
pub(in crate::http::e2b) struct Messages<T> {
    envelopes: futures::stream::BoxStream<'static, Result<Bytes, ConnectError>>,
    message: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Messages<T> {
    /// Returns the next message; `None` at the end.
    pub(in crate::http::e2b) async fn next(&mut self) -> Result<Option<T>, ConnectError> {
        match self.envelopes.next().await {
            Some(payload) => parse_message(&payload?).map(Some),
            None => Ok(None),
        }
    }
}

impl<S: Send + Sync, T> FromRequest<S> for Messages<T> {
    type Rejection = HeadError;

    async fn from_request(request: Request, _: &S) -> Result<Self, HeadError> {
        check_type(request.headers(), STREAM_TYPE)?;
        let pieces = request.into_body().into_data_stream().map_err(std::io::Error::other);
        let envelopes = FramedRead::new(StreamReader::new(pieces), Envelopes).boxed();
        Ok(Self { envelopes, message: PhantomData })
    }
}

/// Checks the content type of a request. Its parameters are ignored.
fn check_type(headers: &HeaderMap, expected: &'static str) -> Result<(), HeadError> {
    let sent = single(headers, "Content-Type").map_err(HeadError::Header)?.unwrap_or_default();
    match sent.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected) {
        true => Ok(()),
        false => Err(HeadError::ContentType(expected)),
    }
}

fn parse_message<T: DeserializeOwned>(message: &[u8]) -> Result<T, ConnectError> {
    parse(message).map_err(|err| ConnectError::invalid(err.message))
}

fn stream_response(body: Body) -> Response {
    ([(header::CONTENT_TYPE, STREAM_TYPE)], body).into_response()
}

/// Returns the response of a call whose request was a stream: one empty message.
pub(in crate::http::e2b) fn empty_response() -> Response {
    let body = [envelope(0, &json!({})), end_envelope(None)].concat();
    stream_response(Body::from(body))
}

/// The timeouts that a client sets for a response stream.
#[derive(Debug, Clone, Copy)]
pub(in crate::http::e2b) struct StreamTimeouts {
    /// The longest duration of the stream.
    pub(in crate::http::e2b) timeout: Option<Duration>,
    /// The time without a message after which a keep-alive message is sent.
    keep_alive: Duration,
}

impl StreamTimeouts {
    fn new(headers: &HeaderMap) -> Result<Self, HeaderError> {
        let timeout_ms = single(headers, "Connect-Timeout-Ms")?.and_then(|text| text.trim().parse::<f64>().ok());
        // There is no timeout if the header is missing, not a positive number, or too large for an `Instant`.
        let timeout = timeout_ms.filter(|timeout_ms| *timeout_ms > 0.0);
        let timeout = timeout.and_then(|timeout_ms| Duration::try_from_secs_f64(timeout_ms / 1000.0).ok());
        let timeout = timeout.filter(|timeout| Instant::now().checked_add(*timeout).is_some());
        let keep_alive = single(headers, "Keepalive-Ping-Interval")?.and_then(|text| text.trim().parse().ok());
        let keep_alive = Duration::from_secs(keep_alive.filter(|seconds| *seconds > 0).unwrap_or(90));
        Ok(Self { timeout, keep_alive })
    }

    /// Extends the timeout by a little, for an operation in the sandbox that enforces the same timeout itself.
    pub(in crate::http::e2b) fn with_grace(self) -> Self {
        Self { timeout: self.timeout.and_then(|timeout| timeout.checked_add(Duration::from_secs(2))), ..self }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for StreamTimeouts {
    type Rejection = HeadError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HeadError> {
        Self::new(&parts.headers).map_err(HeadError::Header)
    }
}

/// Streams the response of a unary call that is one long list: `{"NAME": [...]}`. If an item fails, the body is
/// incomplete JSON.
pub(in crate::http::e2b) fn list_response(
    name: &'static str,
    items: impl Stream<Item = Result<Value, OperationError>> + Send + 'static,
) -> Response {
    let items = items.enumerate().map(|(index, item)| {
        let item =
            item.inspect_err(|err| tracing::warn!(error = err as &dyn std::error::Error, "a list is incomplete"))?;
        let comma = if index == 0 { "" } else { "," };
        Ok::<_, OperationError>(Bytes::from(format!("{comma}{item}")))
    });
    let part = |text: String| futures::stream::iter([Ok(Bytes::from(text))]);
    let body = part(format!("{{\"{name}\":[")).chain(items).chain(part("]}".to_owned()));
    ([(header::CONTENT_TYPE, UNARY_TYPE)], Body::from_stream(body)).into_response()
}

/// Streams messages as they come, `keep_alive` after a time without one, and the end.
pub(in crate::http::e2b) fn message_stream(
    messages: impl Stream<Item = Result<Value, ConnectError>> + Send + Unpin + 'static,
    timeouts: StreamTimeouts,
    keep_alive: Value,
) -> Response {
    let deadline = timeouts.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let frames = futures::stream::unfold(Some(messages), move |messages| {
        let keep_alive = keep_alive.clone();
        async move {
            let mut messages = messages?;
            let timed_out = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                message = messages.next() => message,
                () = timed_out => Some(Err(ConnectError::deadline_exceeded())),
                () = tokio::time::sleep(timeouts.keep_alive) => Some(Ok(keep_alive)),
            };
            Some(match message {
                Some(Ok(message)) => (Ok(envelope(0, &message)), Some(messages)),
                Some(Err(err)) => (Ok::<_, Infallible>(end_envelope(Some(&err))), None),
                None => (Ok(end_envelope(None)), None),
            })
        }
    });
    stream_response(Body::from_stream(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_timeouts_are_ignored() {
        let timeouts = |name: &'static str, text: &'static str| {
            StreamTimeouts::new(&HeaderMap::from_iter([(
                header::HeaderName::from_static(name),
                text.parse().expect("a value"),
            )]))
            .expect("one value")
        };
        for (text, ms) in [("60000", Some(60_000)), ("1500.5", Some(1500)), ("0", None), ("x", None), ("-1", None)] {
            let timeout = timeouts("connect-timeout-ms", text).timeout;
            assert_eq!(timeout.map(|timeout| timeout.as_millis()), ms, "{text}");
        }
        for text in ["inf", "NaN", "1e300"] {
            assert_eq!(timeouts("connect-timeout-ms", text).timeout, None, "{text}");
        }
        for (text, seconds) in [("50", 50), ("0", 90), ("often", 90)] {
            assert_eq!(timeouts("keepalive-ping-interval", text).keep_alive.as_secs(), seconds, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_sends_keep_alives_and_ends_at_its_deadline() {
        let timeouts =
            StreamTimeouts { timeout: Some(Duration::from_millis(300)), keep_alive: Duration::from_millis(10) };
        let response = message_stream(futures::stream::pending(), timeouts, json!({"keepalive": {}}));
        assert_eq!(response.headers()[header::CONTENT_TYPE], STREAM_TYPE);
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        assert!(body.starts_with(&envelope(0, &json!({"keepalive": {}}))), "{body:?}");
        assert!(body.ends_with(&end_envelope(Some(&ConnectError::deadline_exceeded()))), "{body:?}");
    }

    #[tokio::test]
    async fn a_list_is_json_unless_an_item_fails() {
        let text = async |items: Vec<Result<Value, OperationError>>| {
            axum::body::to_bytes(list_response("items", futures::stream::iter(items)).into_body(), 1 << 20).await
        };
        assert_eq!(text(vec![]).await.expect("a body"), r#"{"items":[]}"#);
        assert_eq!(text(vec![Ok(json!(1)), Ok(json!({"a": 2}))]).await.expect("a body"), r#"{"items":[1,{"a":2}]}"#);
        assert!(text(vec![Ok(json!(1)), Err(OperationError::Lost("gone".into()))]).await.is_err());
    }

    #[tokio::test]
    async fn a_stream_of_a_lost_sandbox_ends_with_an_error() {
        let timeouts = StreamTimeouts { timeout: None, keep_alive: Duration::from_secs(90) };
        let response = message_stream(futures::stream::iter([Err(ConnectError::lost())]), timeouts, json!({}));
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        assert_eq!(body, end_envelope(Some(&ConnectError::lost())));
    }
}
