//! The tokens that a request needs to reach a sandbox.

use axum::http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq;

use super::error::{E2bError, ProxyError};
use super::proxy::address::ENVD_PORT;
use crate::sandbox::Sandbox;

/// Checks the traffic token, which a request needs if the sandbox's ports are private. The port of envd has a token of
/// its own.
pub(super) fn check_traffic_token(sandbox: &Sandbox, port: u16, headers: &HeaderMap) -> Result<(), ProxyError> {
    let Some(token) = sandbox.traffic_token.as_ref().filter(|_| port != ENVD_PORT) else { return Ok(()) };
    let sent = headers.get("e2b-traffic-access-token");
    match sent.is_some_and(|sent| sent.as_bytes().ct_eq(token.as_bytes()).into()) {
        true => Ok(()),
        false => Err(ProxyError::Private { id: sandbox.id.clone(), has_token: sent.is_some() }),
    }
}

/// Returns whether the access token of a request is the sandbox's; `None` if the request has none.
pub(super) fn access_token_matches(sandbox: &Sandbox, headers: &HeaderMap) -> Option<bool> {
    headers.get("x-access-token").map(|sent| sent.as_bytes().ct_eq(sandbox.token.as_bytes()).into())
}

pub(super) fn unauthorized() -> E2bError {
    let message = "unauthorized access, please provide a valid access token or method signing if supported";
    E2bError::new(StatusCode::UNAUTHORIZED, message)
}
