//! Languages, health, readiness and status.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::sandbox::{Sandboxes, ShelfStatus};

/// `GET /v1/languages`: names, aliases, versions, preinstalled packages and limits. The image reports version and
/// packages; they are `null` until the first sandbox of the language has started.
pub(super) async fn languages(State(sandboxes): State<Sandboxes>) -> Json<Value> {
    let language = |shelf: &ShelfStatus| {
        let template = &shelf.template;
        json!({
            "name": template.name,
            "aliases": template.aliases,
            "extensions": template.extensions,
            "version": shelf.language.as_ref().map(|language| &language.version),
            "packages": shelf.language.as_ref().map(|language| &language.packages),
            "network": template.network,
            "limits": {
                "timeout_ms": template.timeout_ms,
                "max_timeout_ms": template.max_timeout_ms,
                "memory_bytes": template.memory_bytes,
                "cpu_millis": template.cpu_millis,
                "processes": template.processes,
                "disk_bytes": template.disk_bytes,
                "output_bytes": template.output_bytes,
            },
        })
    };
    let languages: Vec<_> =
        sandboxes.status().shelves.iter().filter(|shelf| shelf.template.runs).map(language).collect();
    Json(json!({"languages": languages}))
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
