//! The tokens that a request needs to reach a sandbox.

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use subtle::ConstantTimeEq;

use super::error::{E2bError, ProxyError};
use super::proxy::address::ENVD_PORT;
use crate::sandbox::Sandbox;

/// Checks the traffic token, which a request needs if the sandbox's ports are private. The port of envd has a token of
/// its own.
pub(super) fn check_traffic_token(sandbox: &Sandbox, port: u16, headers: &HeaderMap) -> Result<(), ProxyError> {
    let Some(token) = sandbox.traffic_token.as_ref().filter(|_| port != ENVD_PORT) else { return Ok(()) };
    match matches(headers, "e2b-traffic-access-token", token) {
        Some(true) => Ok(()),
        sent => Err(ProxyError::Private { id: sandbox.id.clone(), has_token: sent.is_some() }),
    }
}

/// Returns whether the access token of a request is the sandbox's; `None` if the request has none.
pub(super) fn access_token_matches(sandbox: &Sandbox, headers: &HeaderMap) -> Option<bool> {
    matches(headers, "x-access-token", &sandbox.token)
}

/// Returns whether every value of a header is this token; `None` if there is none.
fn matches(headers: &HeaderMap, name: &str, token: &str) -> Option<bool> {
    let equal = |sent: &HeaderValue| sent.as_bytes().ct_eq(token.as_bytes());
    headers.get_all(name).iter().map(equal).reduce(|all, equal| all & equal).map(bool::from)
}

pub(super) fn unauthorized() -> E2bError {
    let message = "unauthorized access, please provide a valid access token or method signing if supported";
    E2bError::new(StatusCode::UNAUTHORIZED, message)
}

/// Returns the error of a request to a sandbox whose owner may not use it any longer.
pub(super) fn key_has_ended() -> E2bError {
    E2bError::new(StatusCode::UNAUTHORIZED, "the API key of this sandbox is not valid any longer")
}
