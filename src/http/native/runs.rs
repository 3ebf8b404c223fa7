//! `GET /v1/runs`: the records of the newest runs of a key.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::described::KeyErrors;
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::sandbox::{Owner, RECENT, RunRecord};

/// The query of `GET /v1/runs`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsQuery {
    /// The most records; the default is the largest number.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

/// The response of `GET /v1/runs`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunsResponse {
    /// The newest first.
    runs: Vec<RecordResponse>,
}

/// The record of a run that has ended.
#[derive(Debug, Serialize, ToSchema)]
struct RecordResponse {
    /// The name of the API key.
    key: String,
    #[serde(flatten)]
    record: RunRecord,
}

/// Shows the records of the key's newest runs
///
/// They hold no code and no output, and no names of files, variables or arguments.
#[utoipa::path(get, path = "/v1/runs", tag = "run", params(RunsQuery), responses(
    (status = 200, description = "The records.", body = RunsResponse),
    KeyErrors,
))]
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
    let response = |record| RecordResponse { key: key.clone(), record: Arc::unwrap_or_clone(record) };
    Ok(Json(RunsResponse { runs: newest.map(response).collect() }))
}
