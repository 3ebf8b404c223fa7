//! E2B's error bodies. Its SDKs choose the exception by `code`, which must equal the HTTP status.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::engine::EngineError;
use crate::http::error::add_retry;
use crate::http::json::JsonError;
use crate::sandbox::{Ending, Retry, SandboxError};

/// An error response of the control plane: `{"code", "message"}`.
///
/// Source: e2b-dev/infra, `spec/openapi.yml`, schema `Error`.
#[derive(Debug)]
pub(crate) struct E2bError {
    status: StatusCode,
    message: String,
    /// What the client of a 429 should do.
    retry: Retry,
}

impl E2bError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry: Retry::After(Duration::from_secs(1)) }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Adds what the client or the operator can do.
    pub(crate) fn with_hint(mut self, hint: &str) -> Self {
        self.message.push_str("; ");
        self.message.push_str(hint);
        self
    }

    pub(crate) fn no_sandbox(id: &str) -> Self {
        let message = format!("Sandbox \"{id}\" doesn't exist or you don't have access to it");
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

impl IntoResponse for E2bError {
    fn into_response(self) -> Response {
        let body = json!({"code": self.status.as_u16(), "message": self.message});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            add_retry(&mut response, self.retry);
        }
        response
    }
}

impl From<JsonError> for E2bError {
    fn from(err: JsonError) -> Self {
        Self::new(err.status, err.message)
    }
}

impl From<EngineError> for E2bError {
    fn from(err: EngineError) -> Self {
        if let EngineError::Unsupported { .. } = err {
            return Self::new(StatusCode::NOT_IMPLEMENTED, err.to_string());
        }
        tracing::error!(error = &err as &dyn std::error::Error, "the engine failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the container engine failed")
    }
}

impl From<SandboxError> for E2bError {
    fn from(err: SandboxError) -> Self {
        let (message, retry) = (err.to_string(), err.retry());
        let shown = match err {
            SandboxError::UnknownLanguage { .. } | SandboxError::File { .. } => Self::bad_request(message),
            SandboxError::TooLong { .. } => Self::bad_request(format!("timeout: {message}")),
            SandboxError::TemplateForbidden { .. } | SandboxError::NetworkForbidden { .. } => {
                Self::new(StatusCode::FORBIDDEN, message)
            }
            SandboxError::OtherRequest { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, format!("Idempotency-Key: {message}"))
            }
            SandboxError::Busy { .. }
            | SandboxError::Full { .. }
            | SandboxError::TooOften { .. }
            | SandboxError::CpuUsedUp { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, message),
            SandboxError::ShuttingDown => Self::new(StatusCode::SERVICE_UNAVAILABLE, message),
            // The cause goes to the log, once, and never to the client.
            SandboxError::Launch(_) | SandboxError::Lost(_) => {
                tracing::error!(error = &err as &dyn std::error::Error, "{message}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        };
        Self { retry: retry.unwrap_or(shown.retry), ..shown }
    }
}

/// An error response of the proxy in front of a sandbox. SDKs match the message.
///
/// Source: e2b-dev/infra, `packages/shared/pkg/proxy/template`.
#[derive(Debug)]
pub(crate) enum ProxyError {
    /// The sandbox is unknown, has ended, or is paused.
    NotFound {
        /// The requested id.
        id: String,
        /// The reason why it ended, unless it was killed on request.
        ending: Option<Ending>,
    },
    /// Nothing listens on the port.
    PortClosed {
        /// The sandbox.
        id: String,
        /// The port.
        port: u16,
    },
    /// The server on the port sent no HTTP response.
    Unanswered {
        /// The sandbox.
        id: String,
        /// The port.
        port: u16,
    },
    /// The sandbox's ports are private, and the request has no traffic token or a wrong one.
    Private {
        /// The sandbox.
        id: String,
        /// Whether the request has a token.
        has_token: bool,
    },
    /// The address of the sandbox in the request is incomplete or invalid.
    BadAddress(String),
}

impl ProxyError {
    /// Returns the error for a sandbox that is unknown, or that was lost, killed or paused during the request.
    pub(super) fn not_found(id: impl Into<String>) -> Self {
        Self::NotFound { id: id.into(), ending: None }
    }
}

impl IntoResponse for ProxyError {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::NotFound { id, ending } => {
                // SDKs search the body for "The sandbox was not found".
                let message = match ending {
                    Some(ending) => format!("The sandbox was not found: it is gone, because {ending}"),
                    None => "The sandbox was not found".to_owned(),
                };
                (StatusCode::BAD_GATEWAY, json!({"sandboxId": id, "message": message, "code": 502}))
            }
            Self::PortClosed { id, port } => {
                let message = "The sandbox is running but port is not open";
                (StatusCode::BAD_GATEWAY, json!({"sandboxId": id, "message": message, "port": port, "code": 502}))
            }
            Self::Unanswered { id, port } => {
                let message = "The server on this port of the sandbox sent no HTTP response";
                (StatusCode::BAD_GATEWAY, json!({"sandboxId": id, "message": message, "port": port, "code": 502}))
            }
            Self::Private { id, has_token } => {
                let message = match has_token {
                    true => {
                        "Sandbox is secured with traffic access token. Provided token in header \
                             'e2b-traffic-access-token' is invalid"
                    }
                    false => {
                        "Sandbox is secured with traffic access token. Token header 'e2b-traffic-access-token' is \
                              missing"
                    }
                };
                (StatusCode::FORBIDDEN, json!({"sandboxId": id, "message": message, "code": 403}))
            }
            Self::BadAddress(message) => (StatusCode::BAD_REQUEST, json!({"code": 400, "message": message})),
        };
        (status, Json(body)).into_response()
    }
}
