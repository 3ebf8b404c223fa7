//! `GET /v1/runs`: the records of the newest runs of a key.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use serde::{Deserialize, Serialize};

use crate::http::AppState;
use crate::http::error::ApiError;
use crate::sandbox::{Owner, RECENT, RunRecord};

/// The query of `GET /v1/runs`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsQuery {
    limit: Option<usize>,
}

/// The answer of `GET /v1/runs`.
#[derive(Debug, Serialize)]
pub(super) struct RunsResponse {
    runs: Vec<RunResponse>,
}

#[derive(Debug, Serialize)]
struct RunResponse {
    key: String,
    #[serde(flatten)]
    record: RunRecord,
}

/// Returns the records of the key's own runs, the newest first.
pub(super) async fn runs(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    query: Result<Query<RunsQuery>, QueryRejection>,
) -> Result<Json<RunsResponse>, ApiError> {
    let Query(RunsQuery { limit }) = query.map_err(|err| ApiError::bad_request(err.body_text()))?;
    let limit = limit.unwrap_or(RECENT);
    if !(1..=RECENT).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit: must be from 1 to {RECENT}, not {limit}")));
    }
    let key = state.api_keys.name(owner);
    let newest = state.sandboxes.recent_runs(owner).into_iter().take(limit);
    let response = |record| RunResponse { key: key.clone(), record: Arc::unwrap_or_clone(record) };
    Ok(Json(RunsResponse { runs: newest.map(response).collect() }))
}
