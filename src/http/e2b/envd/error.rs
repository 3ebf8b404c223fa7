//! Errors of the Connect protocol.
//!
//! Source: connectrpc.com/docs/protocol, "Error codes".

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::protocol;
use crate::sandbox::{OperationError, Sandbox};

/// The protocol's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::http::e2b) enum Code {
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Unimplemented,
    Internal,
    Unavailable,
    Unauthenticated,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::Unknown | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }
}

/// The error of a call. Its response is the one of a unary call.
#[derive(Debug, thiserror::Error, Serialize)]
#[error("{message}")]
pub(in crate::http::e2b) struct ConnectError {
    pub(in crate::http::e2b) code: Code,
    pub(in crate::http::e2b) message: String,
}

impl ConnectError {
    pub(in crate::http::e2b) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(in crate::http::e2b) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// Returns the error of a sandbox that was lost, killed or paused during the call. SDKs match the message.
    pub(in crate::http::e2b) fn lost() -> Self {
        Self::new(Code::Unavailable, "The sandbox was not found")
    }

    /// Returns the error at the end of a stream whose sandbox was killed, cut off, or else paused. From its first words,
    /// SDKs know that they cannot use the sandbox any longer, and do not have to send a request to it, which could resume
    /// it.
    pub(in crate::http::e2b) fn interrupted(sandbox: &Sandbox) -> Self {
        let reason = if sandbox.is_killed() {
            "it was killed or reached its end of life"
        } else if sandbox.was_cut() {
            "its API key is not valid any longer"
        } else {
            "it was paused"
        };
        Self::new(Code::Unavailable, format!("The sandbox was not found: {reason}"))
    }

    pub(in crate::http::e2b) fn deadline_exceeded() -> Self {
        Self::new(Code::DeadlineExceeded, "the deadline of the request has passed")
    }
}

impl IntoResponse for ConnectError {
    fn into_response(self) -> Response {
        (self.code.status(), Json(self)).into_response()
    }
}

impl From<OperationError> for ConnectError {
    fn from(err: OperationError) -> Self {
        match err {
            OperationError::Refused { code, message } => {
                let code = match code {
                    protocol::Code::NotFound => Code::NotFound,
                    protocol::Code::InvalidArgument => Code::InvalidArgument,
                    protocol::Code::AlreadyExists => Code::AlreadyExists,
                    protocol::Code::Unauthenticated => Code::Unauthenticated,
                    protocol::Code::PermissionDenied => Code::PermissionDenied,
                    protocol::Code::FailedPrecondition => Code::FailedPrecondition,
                    protocol::Code::Exhausted => Code::ResourceExhausted,
                    protocol::Code::PortClosed => Code::Unavailable,
                    // Not `resource_exhausted`, which SDKs report as a rate limit.
                    protocol::Code::NoSpace | protocol::Code::Internal => Code::Internal,
                };
                Self::new(code, message)
            }
            OperationError::Lost(_) => Self::lost(),
            OperationError::Unfinished(_) => {
                let message = err.to_string();
                tracing::error!(error = &err as &dyn std::error::Error, "{message}");
                Self::new(Code::Internal, message)
            }
        }
    }
}
