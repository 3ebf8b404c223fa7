//! Failed operations as plain HTTP errors, for the services that do not use Connect.

use axum::http::StatusCode;

use super::error::E2bError;
use crate::protocol::Code;
use crate::sandbox::OperationError;

/// Converts a failed operation to an error with the status by which SDKs choose their exceptions.
pub(super) fn operation_error(err: OperationError) -> E2bError {
    match err {
        OperationError::Refused { code, message } => E2bError::new(status(code), message),
        OperationError::Lost(_) => E2bError::new(StatusCode::BAD_GATEWAY, "The sandbox was not found"),
        OperationError::Unfinished(_) => {
            let message = err.to_string();
            tracing::error!(error = &err as &dyn std::error::Error, "{message}");
            E2bError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
    }
}

/// Returns the HTTP status of an agent's error code, outside of Connect.
pub(super) fn status(code: Code) -> StatusCode {
    match code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::AlreadyExists | Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Code::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::PortClosed | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
