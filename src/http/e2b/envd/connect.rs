//! The Connect protocol in JSON, as E2B's SDKs speak it with the daemon in a sandbox.
//!
//! Source: connectrpc.com/docs/protocol. A unary call is a plain POST whose error has a status; in a stream every message
//! has an envelope, the answer is always 200, and the last envelope tells how it ended. Nothing is ever compressed.

use std::marker::PhantomData;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::codec::FramedRead;
use tokio_util::io::StreamReader;

use super::envelope::{Envelopes, MAX_MESSAGE_BYTES, end, envelope};
use super::error::{Code, ConnectError};
use crate::http::json::parse;
use crate::sandbox::OperationError;

/// Exactly this: with a `charset` behind it the Python SDK does not take it for a stream.
const STREAM_TYPE: &str = "application/connect+json";

/// A streaming call that failed before its first message: 200, and an envelope that says so. SDKs would make something
/// else of a status.
pub(in crate::http::e2b) struct StreamError(ConnectError);

impl IntoResponse for StreamError {
    fn into_response(self) -> Response {
        stream_response(Body::from(end(Some(&self.0))))
    }
}

impl<E: Into<ConnectError>> From<E> for StreamError {
    fn from(err: E) -> Self {
        Self(err.into())
    }
}

/// The message of a unary call.
pub(in crate::http::e2b) struct Unary<T>(pub(in crate::http::e2b) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Unary<T> {
    type Rejection = ConnectError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ConnectError> {
        check_type(request.headers(), "application/json")?;
        let body = axum::body::to_bytes(request.into_body(), MAX_MESSAGE_BYTES).await;
        let body = body.map_err(|err| ConnectError::invalid(format!("the body cannot be read: {err}")))?;
        read(&body).map(Self)
    }
}

/// The message of a call whose answer is a stream.
pub(in crate::http::e2b) struct Opening<T>(pub(in crate::http::e2b) T);

impl<S: Send + Sync, T: DeserializeOwned + 'static> FromRequest<S> for Opening<T> {
    type Rejection = StreamError;

    async fn from_request(request: Request, state: &S) -> Result<Self, StreamError> {
        let mut messages = Messages::<T>::from_request(request, state).await?;
        match messages.next().await? {
            Some(message) => Ok(Self(message)),
            None => Err(ConnectError::invalid("the request has no message").into()),
        }
    }
}

/// The messages of a call whose request is a stream.
pub(in crate::http::e2b) struct Messages<T> {
    envelopes: futures::stream::BoxStream<'static, Result<Bytes, ConnectError>>,
    message: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Messages<T> {
    /// The next one; `None` at the end.
    pub(in crate::http::e2b) async fn next(&mut self) -> Result<Option<T>, ConnectError> {
        match self.envelopes.next().await {
            Some(payload) => read(&payload?).map(Some),
            None => Ok(None),
        }
    }
}

impl<S: Send + Sync, T> FromRequest<S> for Messages<T> {
    type Rejection = StreamError;

    async fn from_request(request: Request, _: &S) -> Result<Self, StreamError> {
        check_type(request.headers(), STREAM_TYPE)?;
        let pieces = request.into_body().into_data_stream().map_err(std::io::Error::other);
        let envelopes = FramedRead::new(StreamReader::new(pieces), Envelopes).boxed();
        Ok(Self { envelopes, message: PhantomData })
    }
}

fn check_type(headers: &HeaderMap, expected: &str) -> Result<(), ConnectError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected) {
        true => Ok(()),
        false => Err(ConnectError::new(Code::Unimplemented, format!("the content type must be {expected}"))),
    }
}

fn read<T: DeserializeOwned>(message: &[u8]) -> Result<T, ConnectError> {
    parse(message).map_err(|err| ConnectError::invalid(err.message))
}

fn stream_response(body: Body) -> Response {
    ([(header::CONTENT_TYPE, STREAM_TYPE)], body).into_response()
}

/// The answer of a call whose request was a stream: one message that says nothing.
pub(in crate::http::e2b) fn done() -> Response {
    let body = [envelope(0, &json!({})), end(None)].concat();
    stream_response(Body::from(body))
}

/// What a client wants of an answer that is a stream.
#[derive(Debug, Clone, Copy)]
pub(in crate::http::e2b) struct Pace {
    /// How long it may last.
    pub(in crate::http::e2b) timeout: Option<Duration>,
    /// After this long without a message it wants to hear that there is none.
    keep_alive: Duration,
}

impl Pace {
    fn new(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let timeout_ms: Option<f64> = text("connect-timeout-ms").and_then(|text| text.parse().ok());
        // Not a number, nothing, or longer than can be said: no limit.
        let timeout = timeout_ms.filter(|timeout_ms| *timeout_ms > 0.0);
        let timeout = timeout.and_then(|timeout_ms| Duration::try_from_secs_f64(timeout_ms / 1000.0).ok());
        let timeout = timeout.filter(|timeout| Instant::now().checked_add(*timeout).is_some());
        let keep_alive = text("keepalive-ping-interval").and_then(|text| text.parse().ok());
        let keep_alive = Duration::from_secs(keep_alive.filter(|seconds| *seconds > 0).unwrap_or(90));
        Self { timeout, keep_alive }
    }

    /// The same, but for something that keeps the time itself: it gets a little longer.
    pub(in crate::http::e2b) fn lenient(self) -> Self {
        Self { timeout: self.timeout.and_then(|timeout| timeout.checked_add(Duration::from_secs(2))), ..self }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Pace {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::new(&parts.headers))
    }
}

/// The answer of a unary call that is one long list, as it comes: `{"NAME": [...]}`. One that breaks off is no JSON.
pub(in crate::http::e2b) fn listed(
    name: &'static str,
    items: impl Stream<Item = Result<Value, OperationError>> + Send + 'static,
) -> Response {
    let items = items.enumerate().map(|(index, item)| {
        let item = item.inspect_err(|err| tracing::warn!(error = err as &dyn std::error::Error, "a list broke off"))?;
        let comma = if index == 0 { "" } else { "," };
        Ok::<_, OperationError>(Bytes::from(format!("{comma}{item}")))
    });
    let part = |text: String| futures::stream::iter([Ok(Bytes::from(text))]);
    let body = part(format!("{{\"{name}\":[")).chain(items).chain(part("]}".to_owned()));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

/// Messages as they come, `silence` where there is none for long, and the end. A sandbox that is lost
/// ([`ConnectError::lost`]) breaks the connection off: SDKs then ask whether it still lives.
pub(in crate::http::e2b) fn streamed(
    messages: impl Stream<Item = Result<Value, ConnectError>> + Send + Unpin + 'static,
    pace: Pace,
    silence: Value,
) -> Response {
    let deadline = pace.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let frames = futures::stream::unfold(Some(messages), move |messages| {
        let silence = silence.clone();
        async move {
            let mut messages = messages?;
            let over = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                message = messages.next() => message,
                () = over => Some(Err(ConnectError::too_late())),
                () = tokio::time::sleep(pace.keep_alive) => Some(Ok(silence)),
            };
            Some(match message {
                Some(Ok(message)) => (Ok(envelope(0, &message)), Some(messages)),
                Some(Err(err)) if err.code == Code::Unavailable => (Err(err), None),
                Some(Err(err)) => (Ok(end(Some(&err))), None),
                None => (Ok(end(None)), None),
            })
        }
    });
    stream_response(Body::from_stream(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_leniently() {
        let pace = |name: &'static str, text: &'static str| {
            Pace::new(&HeaderMap::from_iter([(header::HeaderName::from_static(name), text.parse().expect("a value"))]))
        };
        for (text, ms) in [("60000", Some(60_000)), ("1500.5", Some(1500)), ("0", None), ("x", None), ("-1", None)] {
            let timeout = pace("connect-timeout-ms", text).timeout;
            assert_eq!(timeout.map(|timeout| timeout.as_millis()), ms, "{text}");
        }
        for text in ["inf", "NaN", "1e300"] {
            assert_eq!(pace("connect-timeout-ms", text).timeout, None, "{text}");
        }
        for (text, seconds) in [("50", 50), ("0", 90), ("often", 90)] {
            assert_eq!(pace("keepalive-ping-interval", text).keep_alive.as_secs(), seconds, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_tells_silence_and_ends_at_its_deadline() {
        let pace = Pace { timeout: Some(Duration::from_millis(300)), keep_alive: Duration::from_millis(10) };
        let response = streamed(futures::stream::pending(), pace, json!({"keepalive": {}}));
        assert_eq!(response.headers()[header::CONTENT_TYPE], STREAM_TYPE);
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        assert!(body.starts_with(&envelope(0, &json!({"keepalive": {}}))), "{body:?}");
        assert!(body.ends_with(&end(Some(&ConnectError::too_late()))), "{body:?}");
    }

    #[tokio::test]
    async fn a_list_is_json_unless_it_breaks_off() {
        let text = async |items: Vec<Result<Value, OperationError>>| {
            axum::body::to_bytes(listed("items", futures::stream::iter(items)).into_body(), 1 << 20).await
        };
        assert_eq!(text(vec![]).await.expect("a body"), r#"{"items":[]}"#);
        assert_eq!(text(vec![Ok(json!(1)), Ok(json!({"a": 2}))]).await.expect("a body"), r#"{"items":[1,{"a":2}]}"#);
        assert!(text(vec![Ok(json!(1)), Err(OperationError::Lost("gone".into()))]).await.is_err());
    }

    #[tokio::test]
    async fn a_lost_sandbox_breaks_the_stream_off() {
        let pace = Pace { timeout: None, keep_alive: Duration::from_secs(90) };
        let response = streamed(futures::stream::iter([Err(ConnectError::lost())]), pace, json!({}));
        assert!(axum::body::to_bytes(response.into_body(), 1 << 20).await.is_err());
    }
}
