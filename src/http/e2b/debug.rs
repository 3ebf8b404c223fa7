//! Debug mode: SDKs dial fixed ports on this machine and mostly do not say which sandbox they mean.
//!
//! Some create a sandbox and send its token, which says it. Others create none: then it is one that all of them share, as
//! they would on a machine that is itself the sandbox. It is there only while no API key is configured.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};

use super::error::E2bError;
use super::shapes::DEFAULT_TIMEOUT_S;
use super::unauthorized;
use crate::http::AppState;
use crate::sandbox::{CreateSpec, OnTimeout, Sandbox, Tenant};

/// What such SDKs would have asked for.
const TEMPLATE: &str = "code-interpreter-v1";

/// The sandbox whose token a request carries, or else the shared one.
pub(super) async fn find(state: &AppState, headers: &HeaderMap) -> Result<Arc<Sandbox>, E2bError> {
    let token = headers.get("x-access-token").and_then(|value| value.to_str().ok()).filter(|token| !token.is_empty());
    if let Some(token) = token {
        return state.sandboxes.by_token(token).ok_or_else(unauthorized);
    }
    if !state.api_keys.is_empty() {
        return Err(unauthorized());
    }
    shared(state).await
}

async fn shared(state: &AppState) -> Result<Arc<Sandbox>, E2bError> {
    let timeout = Duration::from_secs(DEFAULT_TIMEOUT_S.unsigned_abs());
    let mut id = state.debug_sandbox.lock().await;
    if let Some(sandbox) = id.as_ref().and_then(|id| state.sandboxes.get(id)) {
        sandbox.extend(timeout);
        return Ok(sandbox);
    }
    let template = state
        .sandboxes
        .kept_template(TEMPLATE)
        .ok_or_else(|| E2bError::new(StatusCode::NOT_FOUND, format!("template '{TEMPLATE}' not found")))?;
    let sandbox = state
        .sandboxes
        .create(CreateSpec {
            tenant: Tenant(0),
            timeout,
            on_timeout: OnTimeout::Kill,
            auto_resume: false,
            network: template.network,
            metadata: Default::default(),
            env: Default::default(),
            secure: false,
            traffic: Default::default(),
            template,
        })
        .await?;
    *id = Some(sandbox.id.clone());
    Ok(sandbox)
}
