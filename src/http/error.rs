//! Errors of the native API, with their statuses. Also the headers by which every dialect says when to try again.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

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

/// The body of every answer with an error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ErrorDetail)]
struct ErrorDetail {
    /// The kind of error, for programs. More may be added.
    #[schema(value_type = String, example = "invalid_request")]
    code: &'static str,
    /// The reason, for people. It names the field, and what would be right.
    message: String,
    /// The limit that was reached, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    limit: Option<LimitHit>,
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
        let error = ErrorDetail { code: self.code, message: self.message, limit: self.limit };
        let mut response = (self.status, Json(ErrorBody { error })).into_response();
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
