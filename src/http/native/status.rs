//! Languages, health, readiness, status and metrics.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::described::{HeadErrors, KeyErrors};
use crate::http::languages::Languages;
use crate::http::{AppState, metrics};
use crate::sandbox::{Sandboxes, ShelfStatus};

/// Lists the languages
///
/// Names, aliases, versions, preinstalled packages and limits.
#[utoipa::path(get, path = "/v1/languages", tag = "server", responses(
    (status = 200, description = "The languages.", body = Languages),
    KeyErrors,
))]
pub(super) async fn languages(State(sandboxes): State<Sandboxes>) -> Json<Languages> {
    Json(crate::http::languages::languages(&sandboxes))
}

/// The response of `GET /v1/status`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    /// The version of oncebox.
    version: &'static str,
    /// Sandboxes of single runs that are in use, those being removed included.
    running: usize,
    /// Requests that wait because `max_sandboxes` are in use.
    queued: usize,
    limits: ServerLimits,
    /// The templates.
    pool: Vec<PoolStatus>,
}

/// The limits of the server.
#[derive(Debug, Serialize, ToSchema)]
struct ServerLimits {
    /// The most sandboxes of single runs at the same time.
    max_sandboxes: usize,
    /// The most requests that wait.
    max_queued: usize,
}

/// The state of a template's warm sandboxes.
#[derive(Debug, Serialize, ToSchema)]
struct PoolStatus {
    /// The name of the template.
    template: String,
    /// How many sandboxes the template is to keep ready.
    warm: usize,
    /// How many are ready.
    idle: usize,
    /// How many are being started.
    launching: usize,
    /// Requests that wait for a sandbox of the template to start.
    waiting: usize,
    /// Whether the last start of one failed; the log has the cause.
    failing: bool,
}

impl From<&ShelfStatus> for PoolStatus {
    fn from(shelf: &ShelfStatus) -> Self {
        Self {
            template: shelf.template.name.clone(),
            warm: shelf.template.warm,
            idle: shelf.idle,
            launching: shelf.launching,
            waiting: shelf.waiting,
            failing: shelf.failing,
        }
    }
}

/// Shows what the server does
///
/// The numbers of running and waiting requests, the limits, and the warm sandboxes of each template.
#[utoipa::path(get, path = "/v1/status", tag = "server", responses(
    (status = 200, description = "The state of the server.", body = Status),
    KeyErrors,
))]
pub(super) async fn status(State(sandboxes): State<Sandboxes>) -> Json<Status> {
    let status = sandboxes.status();
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        running: status.running,
        queued: status.queued,
        limits: ServerLimits { max_sandboxes: status.config.max_sandboxes, max_queued: status.config.max_queued },
        pool: status.shelves.iter().map(PoolStatus::from).collect(),
    })
}

/// The response of `GET /healthz` and `GET /readyz`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, `ready` or `not ready`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Shows that the server runs
///
/// 200 as long as the process responds.
#[utoipa::path(get, path = "/healthz", tag = "server", responses(
    (status = 200, description = "The process responds.", body = Health),
    HeadErrors,
))]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Shows whether requests can be served
///
/// They can if the engine answers and every template that keeps sandboxes warm has started one.
#[utoipa::path(get, path = "/readyz", tag = "server", responses(
    (status = 200, description = "Requests can be served.", body = Health),
    (status = 503, description = "They cannot be served, or not yet.", body = Health),
    HeadErrors,
))]
pub(super) async fn readyz(State(sandboxes): State<Sandboxes>) -> (StatusCode, Json<Health>) {
    match sandboxes.is_ready().await {
        true => (StatusCode::OK, Json(Health { status: "ready" })),
        false => (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "not ready" })),
    }
}

/// Shows figures for Prometheus
///
/// In the text format of OpenMetrics. `docs/operations.md` lists the metrics.
#[utoipa::path(get, path = "/metrics", tag = "server", responses(
    (status = 200, description = "The metrics.", body = String, content_type = metrics::CONTENT_TYPE),
    KeyErrors,
))]
pub(super) async fn metrics(State(state): State<AppState>) -> Response {
    metrics::scrape(&state).await
}
