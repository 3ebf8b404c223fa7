//! Errors of the native API, with their statuses. Also the headers by which every dialect says when to try again.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::json::JsonError;
use super::run_request::{InvalidField, field};
use crate::protocol::LimitHit;
use crate::sandbox::{Retry, SandboxError, seconds};

/// An error response: `{"error": {"code", "message"}}`, with the `limit` that was reached, if one was.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    limit: Option<LimitHit>,
    retry: Option<Retry>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), limit: None, retry: None }
    }

    /// Returns a 400. The message names the field and the values that are accepted.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({"error": {"code": self.code, "message": self.message}});
        if let Some(limit) = self.limit {
            body["error"]["limit"] = json!(limit);
        }
        let mut response = (self.status, Json(body)).into_response();
        if let Some(retry) = self.retry {
            add_retry(&mut response, retry);
        }
        response
    }
}

/// Adds the header by which clients know whether to send the request again. Some do so even without `Retry-After`, but
/// not against `Should-Retry: false`.
pub(crate) fn add_retry(response: &mut Response, retry: Retry) {
    match retry {
        Retry::After(wait) => response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait))),
        Retry::Not => response.headers_mut().insert("should-retry", HeaderValue::from_static("false")),
    };
}

impl From<JsonError> for ApiError {
    fn from(err: JsonError) -> Self {
        let code = match err.status {
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            _ => "invalid_request",
        };
        Self::new(err.status, code, err.message)
    }
}

impl From<InvalidField> for ApiError {
    fn from(err: InvalidField) -> Self {
        Self::bad_request(err.to_string())
    }
}

impl From<SandboxError> for ApiError {
    fn from(err: SandboxError) -> Self {
        let message = match field(&err) {
            Some(field) => format!("{field}: {err}"),
            None => err.to_string(),
        };
        let (status, code, message) = match &err {
            SandboxError::UnknownLanguage { .. } | SandboxError::File { .. } | SandboxError::TooLong { .. } => {
                (StatusCode::BAD_REQUEST, "invalid_request", message)
            }
            SandboxError::TemplateForbidden { .. } | SandboxError::NetworkForbidden { .. } => {
                (StatusCode::FORBIDDEN, "forbidden", message)
            }
            SandboxError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "busy", message),
            SandboxError::TooOften { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_often", message),
            SandboxError::Full { .. } => (StatusCode::TOO_MANY_REQUESTS, "full", message),
            SandboxError::CpuUsedUp { .. } => (StatusCode::TOO_MANY_REQUESTS, "used_up", message),
            SandboxError::OtherRequest { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message),
            SandboxError::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message),
            // The cause goes to the log, once, and never to the client.
            SandboxError::Launch(_) | SandboxError::Lost(_) => {
                tracing::error!(error = &err as &dyn std::error::Error, "{message}");
                (StatusCode::SERVICE_UNAVAILABLE, "no_sandbox", message)
            }
        };
        Self { limit: err.limit(), retry: err.retry(), ..Self::new(status, code, message) }
    }
}
