//! Languages, health, readiness and status.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::described::{HeadErrors, KeyErrors};
use crate::sandbox::{NetworkKind, Sandboxes, ShelfStatus};

/// The response of `GET /v1/languages`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Languages {
    languages: Vec<Language>,
}

/// A language that code can be run in.
#[derive(Debug, Serialize, ToSchema)]
struct Language {
    /// The name in requests.
    name: String,
    /// Other names for it.
    aliases: Vec<String>,
    /// The endings of its files, without the dot.
    extensions: Vec<String>,
    /// The version of the interpreter; `null` until the first sandbox of the language has started.
    #[schema(required)]
    version: Option<String>,
    /// The preinstalled packages and their versions; `null` until the first sandbox of the language has started.
    #[schema(required)]
    packages: Option<BTreeMap<String, String>>,
    network: NetworkKind,
    limits: LanguageLimits,
}

/// The limits of a language's template.
#[derive(Debug, Serialize, ToSchema)]
struct LanguageLimits {
    /// The default time of a run, milliseconds.
    timeout_ms: u64,
    /// The longest time that a run can request, milliseconds.
    max_timeout_ms: u64,
    memory_bytes: u64,
    /// Processor time, thousandths of a processor.
    cpu_millis: u64,
    processes: u64,
    disk_bytes: u64,
    output_bytes: u64,
}

impl From<&ShelfStatus> for Language {
    fn from(shelf: &ShelfStatus) -> Self {
        let template = &shelf.template;
        Self {
            name: template.name.clone(),
            aliases: template.aliases.clone(),
            extensions: template.extensions.clone(),
            version: shelf.language.as_ref().map(|language| language.version.clone()),
            packages: shelf.language.as_ref().map(|language| language.packages.clone()),
            network: template.network,
            limits: LanguageLimits {
                timeout_ms: template.timeout_ms,
                max_timeout_ms: template.max_timeout_ms,
                memory_bytes: template.memory_bytes,
                cpu_millis: template.cpu_millis,
                processes: template.processes,
                disk_bytes: template.disk_bytes,
                output_bytes: template.output_bytes,
            },
        }
    }
}

/// Lists the languages
///
/// Names, aliases, versions, preinstalled packages and limits.
#[utoipa::path(get, path = "/v1/languages", tag = "server", responses(
    (status = 200, description = "The languages.", body = Languages),
    KeyErrors,
))]
pub(super) async fn languages(State(sandboxes): State<Sandboxes>) -> Json<Languages> {
    let shelves = sandboxes.status().shelves;
    Json(Languages { languages: shelves.iter().filter(|shelf| shelf.template.runs).map(Language::from).collect() })
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
