//! Errors of the native API, with their statuses.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::json::JsonError;
use crate::sandbox::{SandboxError, seconds};

/// An error response: `{"error": {"code", "message"}}`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after_s: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after_s: None }
    }

    /// Returns a 400. The message names the field and the values that are accepted.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
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

impl From<SandboxError> for ApiError {
    fn from(err: SandboxError) -> Self {
        let message = err.to_string();
        match err {
            SandboxError::UnknownLanguage { .. } => Self::bad_request(format!("language: {message}")),
            SandboxError::File { index, .. } => Self::bad_request(format!("files[{index}].path: {message}")),
            SandboxError::Busy { retry_after, .. } => Self {
                retry_after_s: Some(seconds(retry_after)),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message)
            },
            SandboxError::TooOften { retry_after, .. } => Self {
                retry_after_s: Some(seconds(retry_after)),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_often", message)
            },
            SandboxError::OtherRequest { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message),
            SandboxError::Full { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, "full", message),
            SandboxError::ShuttingDown => Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message),
            // The cause goes to the log, once, and never to the client.
            SandboxError::Launch(_) | SandboxError::Lost(_) => {
                tracing::error!(error = &err as &dyn std::error::Error, "{message}");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_sandbox", message)
            }
        }
    }
}
