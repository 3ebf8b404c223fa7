//! Languages, health, readiness and status.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::sandbox::Sandboxes;

/// `GET /v1/languages`.
pub(super) async fn languages(State(sandboxes): State<Sandboxes>) -> Json<Value> {
    Json(crate::http::languages::languages(&sandboxes))
}

/// `GET /v1/status`: the pool, the numbers of running and queued requests, and the limits.
pub(super) async fn status(State(sandboxes): State<Sandboxes>) -> Json<Value> {
    let status = sandboxes.status();
    let pool: Vec<_> = status
        .shelves
        .iter()
        .map(|shelf| {
            json!({
                "template": shelf.template.name,
                "warm": shelf.template.warm,
                "idle": shelf.idle,
                "launching": shelf.launching,
                "waiting": shelf.waiting,
                "failing": shelf.failing,
            })
        })
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "running": status.running,
        "queued": status.queued,
        "limits": {"max_sandboxes": status.config.max_sandboxes, "max_queued": status.config.max_queued},
        "pool": pool,
    }))
}

/// `GET /healthz`: 200 as long as this process responds.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: 200 if requests can be served, 503 otherwise.
pub(super) async fn readyz(State(sandboxes): State<Sandboxes>) -> impl IntoResponse {
    match sandboxes.is_ready().await {
        true => (StatusCode::OK, Json(json!({"status": "ready"}))),
        false => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready"}))),
    }
}
