//! The errors of this dialect: those that the protocol sees, with their statuses, and those that the model sees.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rmcp::model::{CallToolResult, ContentBlock, ErrorCode};
use serde_json::json;

use crate::http::dialect::Refusal;
use crate::http::json::JsonError;
use crate::http::run_request::{InvalidField, field};
use crate::sandbox::{SandboxError, seconds};

/// A request that is no message, or that reaches no tool: a JSON-RPC error without the id of a request.
#[derive(Debug)]
pub(super) struct McpError {
    status: StatusCode,
    code: ErrorCode,
    message: String,
}

impl McpError {
    /// The error of JSON that is no message of the protocol.
    pub(super) fn not_a_message(err: serde_json::Error) -> Self {
        let message = format!("the body: must be one JSON-RPC message: {err}");
        Self { status: StatusCode::BAD_REQUEST, code: ErrorCode::INVALID_REQUEST, message }
    }

    /// The error of a body that is not JSON, or that has a name twice.
    pub(super) fn not_json(err: &serde_json::Error) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: ErrorCode::PARSE_ERROR, message: format!("the body: {err}") }
    }
}

impl From<JsonError> for McpError {
    fn from(err: JsonError) -> Self {
        Self { status: err.status, code: ErrorCode::INVALID_REQUEST, message: err.message }
    }
}

impl IntoResponse for McpError {
    fn into_response(self) -> Response {
        let error = json!({"code": self.code, "message": self.message});
        (self.status, Json(json!({"jsonrpc": "2.0", "id": null, "error": error}))).into_response()
    }
}

/// Renders the response to a request that reaches no handler. There is no metadata of OAuth: a client that finds some
/// asks its user to sign in, although its key would do.
pub(super) fn refuse(refusal: Refusal<'_>) -> Response {
    let status = match refusal {
        Refusal::Unauthorized => StatusCode::UNAUTHORIZED,
        Refusal::MissingScope(_) | Refusal::ForeignHost | Refusal::ForeignOrigin => StatusCode::FORBIDDEN,
        Refusal::TwoKeys | Refusal::BadHeader(_) => StatusCode::BAD_REQUEST,
        Refusal::UnknownPath(_) => StatusCode::NOT_FOUND,
        Refusal::WrongMethod(..) => StatusCode::METHOD_NOT_ALLOWED,
    };
    let error = McpError { status, code: ErrorCode::INVALID_REQUEST, message: refusal.to_string() };
    let mut response = error.into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Why a tool did not run. The model reads the message and can mend its call, so this is a result with `isError`: clients
/// do not show errors of the protocol to models.
#[derive(Debug)]
pub(super) struct Refused(String);

impl Refused {
    pub(super) fn new(message: String) -> Self {
        Self(message)
    }
}

impl From<JsonError> for Refused {
    fn from(err: JsonError) -> Self {
        Self(err.message)
    }
}

impl From<InvalidField> for Refused {
    fn from(err: InvalidField) -> Self {
        Self(err.to_string())
    }
}

impl From<SandboxError> for Refused {
    fn from(err: SandboxError) -> Self {
        match &err {
            SandboxError::Busy { retry_after, .. } => Self(format!("{err} in {} s", seconds(*retry_after))),
            // The cause goes to the log, once, and never to the client.
            SandboxError::Launch(_) | SandboxError::Lost(_) => {
                tracing::error!(error = &err as &dyn std::error::Error, "{err}");
                Self(err.to_string())
            }
            SandboxError::UnknownLanguage { .. }
            | SandboxError::File { .. }
            | SandboxError::TooLong { .. }
            | SandboxError::TemplateForbidden { .. }
            | SandboxError::NetworkForbidden { .. }
            | SandboxError::TooOften { .. }
            | SandboxError::Full { .. }
            | SandboxError::CpuUsedUp { .. }
            | SandboxError::OtherRequest { .. }
            | SandboxError::ShuttingDown => match field(&err) {
                Some(field) => Self(format!("{field}: {err}")),
                None => Self(err.to_string()),
            },
        }
    }
}

impl From<Refused> for CallToolResult {
    fn from(Refused(message): Refused) -> Self {
        Self::error(vec![ContentBlock::text(message)])
    }
}
