//! What a request must carry to be let into a sandbox.

use axum::http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq;

use super::error::{E2bError, ProxyError};
use super::proxy::address::ENVD_PORT;
use crate::sandbox::Sandbox;

/// Lets through to a private port only what carries its token. E2B's own daemon has another.
pub(super) fn may_reach(sandbox: &Sandbox, port: u16, headers: &HeaderMap) -> Result<(), ProxyError> {
    let Some(token) = sandbox.traffic_token.as_ref().filter(|_| port != ENVD_PORT) else { return Ok(()) };
    let given = headers.get("e2b-traffic-access-token");
    match given.is_some_and(|given| given.as_bytes().ct_eq(token.as_bytes()).into()) {
        true => Ok(()),
        false => Err(ProxyError::Private { id: sandbox.id.clone(), given: given.is_some() }),
    }
}

/// Whether the token that a request carries is that of the sandbox; `None` if it carries none.
pub(super) fn sent_token_is_right(sandbox: &Sandbox, headers: &HeaderMap) -> Option<bool> {
    headers.get("x-access-token").map(|given| given.as_bytes().ct_eq(sandbox.token.as_bytes()).into())
}

pub(super) fn unauthorized() -> E2bError {
    let message = "unauthorized access, please provide a valid access token or method signing if supported";
    E2bError::new(StatusCode::UNAUTHORIZED, message)
}
