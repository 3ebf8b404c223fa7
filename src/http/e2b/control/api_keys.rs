//! `/api-keys`: the keys of the server, for keys with the scope `admin`.
//!
//! Source: e2b-dev/infra, `spec/openapi.yml`, schemas `TeamAPIKey`, `CreatedTeamAPIKey` and `IdentifierMaskingDetails`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::shapes;
use crate::http::AppState;
use crate::http::e2b::error::E2bError;
use crate::http::json::Json;
use crate::keys::{EditError, Key, KeysFile, Mask, NewKey, Source};
use crate::sandbox::Owner;

type E2bResult<T> = Result<T, E2bError>;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/api-keys", get(list).post(create)).route("/api-keys/{id}", patch(rename).delete(revoke))
}

/// Returns all keys but revoked ones, without their texts.
async fn list(State(state): State<AppState>) -> axum::Json<Vec<Value>> {
    let keys = state.api_keys.all();
    axum::Json(keys.iter().filter(|key| key.revoked.is_none()).map(|key| shape(key)).collect())
}

#[derive(Debug, Deserialize)]
struct NameRequest {
    name: String,
}

/// Creates a key with the scopes that new keys have. The response is the only place that has its text.
async fn create(
    State(state): State<AppState>,
    Json(NameRequest { name }, _): Json<NameRequest, E2bError>,
) -> E2bResult<Response> {
    let (owner, text) = edit(&state, move |file| file.add(&NewKey::named(name))).await?;
    let keys = state.api_keys.all();
    let created = keys.iter().find(|key| key.owner == owner);
    let mut shape = shape(created.ok_or_else(|| E2bError::new(StatusCode::CONFLICT, "the key was changed meanwhile"))?);
    shape["key"] = json!(text);
    Ok((StatusCode::CREATED, axum::Json(shape)).into_response())
}

async fn rename(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Json(NameRequest { name }, _): Json<NameRequest, E2bError>,
) -> E2bResult<StatusCode> {
    let key = find(&state, &id)?;
    edit(&state, move |file| file.rename(&key.owner.to_string(), &name)).await?;
    Ok(StatusCode::OK)
}

/// Revokes a key. Its sandboxes live to their deadlines.
async fn revoke(State(state): State<AppState>, Path(id): Path<String>) -> E2bResult<StatusCode> {
    let key = find(&state, &id)?;
    edit(&state, move |file| file.revoke(&key.owner.to_string(), false)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes the file of keys, and reads it. Nothing is awaited after that, so that a key that revokes itself gets the
/// response.
async fn edit<T: Send + 'static>(
    state: &AppState,
    change: impl FnOnce(KeysFile) -> Result<T, EditError> + Send + 'static,
) -> E2bResult<T> {
    let file = state.api_keys.file();
    let changed = tokio::task::spawn_blocking(move || change(file)).await.expect("a change does not panic")?;
    state.api_keys.reload(&state.sandboxes).map_err(|err| failed(&err))?;
    Ok(changed)
}

impl From<EditError> for E2bError {
    fn from(err: EditError) -> Self {
        match err {
            EditError::Taken(_) => Self::new(StatusCode::CONFLICT, format!("name: {err}")),
            EditError::Field { .. } => Self::bad_request(err.to_string()),
            EditError::Unknown { .. } => Self::new(StatusCode::NOT_FOUND, "there is no such key"),
            EditError::Io { .. } | EditError::Format { .. } | EditError::Inline(_) => failed(&err),
        }
    }
}

/// Logs why the file of keys cannot be used. The client does not see its place.
fn failed(err: &(dyn std::error::Error + 'static)) -> E2bError {
    tracing::error!(error = err, "the file of keys cannot be used");
    E2bError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the file of keys cannot be changed; the server's log has the reason",
    )
}

/// Finds the key of the file with this id, which is a UUID or the id in the file.
fn find(state: &AppState, id: &str) -> E2bResult<Arc<Key>> {
    let keys = state.api_keys.all();
    let is_named = |key: &&Arc<Key>| uuid(key.owner) == id.to_ascii_lowercase() || key.owner.to_string() == id;
    let found = keys.iter().filter(|key| key.revoked.is_none()).find(is_named);
    let found = found.ok_or_else(|| E2bError::new(StatusCode::NOT_FOUND, format!("there is no key '{id}'")))?;
    match found.source {
        Source::File => Ok(Arc::clone(found)),
        Source::Environment => {
            let message = format!("the key {} comes from the server's environment, and is changed there", found.name);
            Err(E2bError::bad_request(message))
        }
    }
}

fn shape(key: &Key) -> Value {
    let Mask { prefix, length, first, last } = &key.mask;
    json!({
        "id": uuid(key.owner),
        "name": key.name,
        "mask": {"prefix": prefix, "valueLength": length, "maskedValuePrefix": first, "maskedValueSuffix": last},
        "createdAt": shapes::rfc3339(key.created.unwrap_or(SystemTime::UNIX_EPOCH)),
        "createdBy": null,
        "lastUsed": key.last_used().map(shapes::rfc3339),
    })
}

/// Returns the id of a key in the form that clients expect: a UUID of version 8.
fn uuid(owner: Owner) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(owner.to_string())[..16]);
    shapes::uuid(bytes)
}
