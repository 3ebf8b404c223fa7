//! The sandbox whose id is in a path of the control plane.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::http::AppState;
use crate::http::e2b::error::E2bError;
use crate::sandbox::{Owner, Sandbox, Sandboxes};

/// Finds the sandbox with the id in a path: `ID`, or `ID-CLIENT`, which old SDKs send. A sandbox of another owner is
/// not found.
pub(super) fn find(sandboxes: &Sandboxes, owner: Owner, path_id: &str) -> Result<Arc<Sandbox>, E2bError> {
    let id = path_id.split('-').next().unwrap_or_default();
    let found = sandboxes.get(id).filter(|sandbox| sandbox.spec.owner == owner);
    found.ok_or_else(|| E2bError::no_sandbox(id))
}

/// Extracts the sandbox whose id is in the path.
pub(super) struct Named(pub(super) Arc<Sandbox>);

impl FromRequestParts<AppState> for Named {
    type Rejection = E2bError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, E2bError> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        let Path(id) = id.map_err(|err| E2bError::bad_request(err.body_text()))?;
        let owner = *parts.extensions.get::<Owner>().expect("the check of the API key has set the owner");
        find(&state.sandboxes, owner, &id).map(Self)
    }
}
