//! The metrics and logs of sandboxes.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::named::{Named, find};
use super::query::Query;
use super::shapes;
use crate::http::AppState;
use crate::sandbox::{Owner, Sandbox, Sandboxes};

/// The largest time that counts as seconds, about 3,000 years ahead. A larger number is in milliseconds.
const MAX_SECONDS: u64 = 100_000_000_000;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/sandboxes/{id}/metrics", get(metrics))
        .route("/sandboxes/metrics", get(metrics_of_many))
        .route("/sandboxes/{id}/logs", get(logs_v1))
        .route("/v2/sandboxes/{id}/logs", get(logs_v2))
}

/// The period of the requested readings, in seconds since 1970. SDKs up to 2.0 send milliseconds.
#[derive(Debug, Deserialize)]
struct MetricsQuery {
    start: Option<u64>,
    end: Option<u64>,
}

/// Returns the readings of the period, oldest first.
async fn metrics(Named(sandbox): Named, Query(MetricsQuery { start, end }): Query<MetricsQuery>) -> Json<Vec<Value>> {
    let seconds = |time: u64| if time > MAX_SECONDS { time / 1000 } else { time };
    let period = start.map_or(0, seconds)..=end.map_or(u64::MAX, seconds);
    let readings = sandbox.readings();
    let found = readings.iter().filter(|reading| period.contains(&shapes::unix_seconds(reading.at)));
    Json(found.map(shapes::metric).collect())
}

#[derive(Debug, Deserialize)]
struct ManyMetricsQuery {
    #[serde(default)]
    sandbox_ids: String,
}

/// Returns the last reading of each of several sandboxes. Sandboxes that do not exist or have another owner are left
/// out.
async fn metrics_of_many(
    State(sandboxes): State<Sandboxes>,
    Extension(owner): Extension<Owner>,
    Query(ManyMetricsQuery { sandbox_ids }): Query<ManyMetricsQuery>,
) -> Json<Value> {
    let found = sandbox_ids.split(',').filter_map(|id| find(&sandboxes, owner, id.trim()).ok());
    let last = |sandbox: Arc<Sandbox>| Some((sandbox.id.clone(), shapes::metric(sandbox.readings().last()?)));
    Json(json!({"sandboxes": found.filter_map(last).collect::<Map<_, _>>()}))
}

/// Returns no logs. E2B's are those of its daemon in the sandbox; oncebox's agent logs to the server's log. The output
/// of user code is never kept.
async fn logs_v1(_: Named) -> Json<Value> {
    Json(json!({"logs": [], "logEntries": []}))
}

async fn logs_v2(_: Named) -> Json<Value> {
    Json(json!({"logs": []}))
}
