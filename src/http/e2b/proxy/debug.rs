//! Debug mode: SDKs connect to fixed ports on this machine, and most requests name no sandbox.
//!
//! Some SDKs create a sandbox and send its token, which identifies it. Some create a sandbox and send nothing: they get
//! the newest sandbox that requires no token. Others create none: they get one sandbox that they all share, as if this
//! machine were the sandbox. Requests without a token are accepted only while no API key is needed.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;

use crate::http::AppState;
use crate::http::e2b::access::unauthorized;
use crate::http::e2b::control::environment;
use crate::http::e2b::control::shapes::DEFAULT_TIMEOUT_S;
use crate::http::e2b::error::{E2bError, ProxyError};
use crate::sandbox::{CreateSpec, OnTimeout, Owner, Sandbox};

/// The template of the shared sandbox: the default of E2B's code interpreter SDKs.
const TEMPLATE: &str = "code-interpreter-v1";

/// The id of the sandbox that is shared by SDKs that create none; `None` until it is first needed.
pub(in crate::http::e2b) type SharedSandbox = Arc<Mutex<Option<String>>>;

/// The reason why no sandbox was found for a request.
pub(in crate::http::e2b) enum FindError {
    /// The sandbox has ended.
    Ended(ProxyError),
    /// The request is not authorized, or the shared sandbox could not be created.
    Refused(E2bError),
}

impl IntoResponse for FindError {
    fn into_response(self) -> Response {
        match self {
            Self::Ended(err) => err.into_response(),
            Self::Refused(err) => err.into_response(),
        }
    }
}

impl From<E2bError> for FindError {
    fn from(err: E2bError) -> Self {
        Self::Refused(err)
    }
}

/// Finds the sandbox whose token a request carries or, without a token, the newest open or the shared sandbox.
pub(in crate::http::e2b) async fn find(
    state: &AppState,
    shared: &SharedSandbox,
    headers: &HeaderMap,
) -> Result<Arc<Sandbox>, FindError> {
    let token = headers.get("x-access-token").and_then(|value| value.to_str().ok()).filter(|token| !token.is_empty());
    if let Some(token) = token {
        return state.sandboxes.by_token(token).ok_or_else(|| match state.sandboxes.ended_by_token(token) {
            Some(id) => FindError::Ended(ProxyError::NotFound { ending: state.sandboxes.ending(&id), id }),
            None => unauthorized().into(),
        });
    }
    // Web pages in a browser on this machine can send requests here, and must not run code.
    if state.api_keys.are_required() || headers.contains_key(header::ORIGIN) {
        return Err(unauthorized().into());
    }
    let open = state.sandboxes.all().into_iter().filter(|sandbox| !sandbox.spec.secure);
    let newest = open.max_by_key(|sandbox| sandbox.started).and_then(|newest| state.sandboxes.get(&newest.id));
    let mut shared = shared.lock().await;
    match newest {
        Some(newest) if shared.as_ref() != Some(&newest.id) => Ok(newest),
        _ => Ok(find_shared(state, &mut shared).await?),
    }
}

/// Returns the shared sandbox, and creates it anew if it has ended. `id` keeps its id.
async fn find_shared(state: &AppState, id: &mut Option<String>) -> Result<Arc<Sandbox>, E2bError> {
    let timeout = Duration::from_secs(DEFAULT_TIMEOUT_S.unsigned_abs());
    if let Some(sandbox) = id.as_ref().and_then(|id| state.sandboxes.get(id)) {
        sandbox.extend(timeout);
        return Ok(sandbox);
    }
    let template = state
        .sandboxes
        .kept_template(TEMPLATE)
        .ok_or_else(|| E2bError::new(StatusCode::NOT_FOUND, format!("template '{TEMPLATE}' not found")))?;
    let spec = CreateSpec {
        owner: Owner::ANYBODY,
        timeout,
        on_timeout: OnTimeout::Kill,
        auto_resume: false,
        network: template.network(),
        network_is_chosen: false,
        requested_network: Default::default(),
        metadata: Default::default(),
        env: Default::default(),
        secure: false,
        traffic: Default::default(),
        template,
    };
    let sandbox = state.sandboxes.create(spec, environment).await?;
    *id = Some(sandbox.id.clone());
    Ok(sandbox)
}
