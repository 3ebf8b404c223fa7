//! envd, E2B's daemon in a sandbox, as its SDKs use it: commands, directories and files, on one port.
//!
//! Source: e2b-dev/infra, `packages/envd`.

mod connect;
mod files;
mod filesystem;
mod process;
mod upload;
mod user;

pub(in crate::http::e2b) mod envelope;
pub(in crate::http::e2b) mod error;
pub(in crate::http::e2b) mod signature;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{DefaultBodyLimit, Extension, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tower_http::timeout::RequestBodyTimeoutLayer;

use super::access::{access_token_matches, unauthorized};
use super::control;
use super::error::E2bError;
use super::proxy::lifetime::abort_when_interrupted;
use crate::sandbox::Sandbox;
use error::ConnectError;

/// Returns the routes. They expect the sandbox in the request's extensions. A request body fails after `stall_timeout`
/// without a byte, except for the input stream of a command.
pub(in crate::http::e2b) fn routes(stall_timeout: Duration) -> Router {
    let body_timeout = RequestBodyTimeoutLayer::new(stall_timeout);
    Router::new()
        .merge(process::routes())
        .merge(filesystem::routes())
        .layer(DefaultBodyLimit::max(envelope::MAX_MESSAGE_BYTES))
        .layer(body_timeout.clone())
        .merge(process::input_routes())
        .route("/metrics", get(metrics))
        .route("/envs", get(environment))
        .layer(middleware::from_fn(require_token))
        // These routes also accept a signature in place of the token.
        .merge(files::routes().layer(body_timeout))
        .route("/health", get(|| async { StatusCode::NO_CONTENT }))
        .fallback(|uri: Uri| async move { E2bError::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path())) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            E2bError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
        })
        .layer(middleware::from_fn(abort_when_interrupted))
        .layer(DefaultBodyLimit::disable())
}

/// Returns whether a request may call envd. A token, if sent, must be right; a secured sandbox requires one.
fn is_authorized(sandbox: &Sandbox, headers: &HeaderMap) -> bool {
    access_token_matches(sandbox, headers).unwrap_or(!sandbox.spec.secure)
}

/// Checks the token or signature of a request by its head, before a paused sandbox is resumed for it. The routes check
/// it again.
///
/// # Errors
///
/// 401, or 400 for the query of a file.
pub(in crate::http::e2b) fn check_access(sandbox: &Sandbox, request: &Request) -> Result<(), E2bError> {
    // A preflight of a browser has no token.
    if *request.method() == Method::OPTIONS {
        return Ok(());
    }
    match request.uri().path() {
        "/health" => Ok(()),
        "/files" => files::check_access(sandbox, request),
        _ if is_authorized(sandbox, request.headers()) => Ok(()),
        _ => Err(unauthorized()),
    }
}

async fn require_token(Extension(sandbox): Extension<Arc<Sandbox>>, request: Request, next: Next) -> Response {
    match is_authorized(&sandbox, request.headers()) {
        true => next.run(request).await,
        false => unauthorized().into_response(),
    }
}

async fn metrics(Extension(sandbox): Extension<Arc<Sandbox>>) -> Result<Json<Value>, ConnectError> {
    let metrics = sandbox.metrics().await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(Json(json!({
        "ts": now,
        "cpu_count": metrics.cpu_count,
        "cpu_used_pct": metrics.cpu_used_percent,
        "mem_total_mib": metrics.memory_total_bytes >> 20,
        "mem_used_mib": metrics.memory_used_bytes >> 20,
        "mem_total": metrics.memory_total_bytes,
        "mem_used": metrics.memory_used_bytes,
        "mem_cache": metrics.memory_cache_bytes,
        "disk_used": metrics.disk_used_bytes,
        "disk_total": metrics.disk_total_bytes,
    })))
}

async fn environment(Extension(sandbox): Extension<Arc<Sandbox>>) -> Json<BTreeMap<String, String>> {
    Json(control::environment(&sandbox))
}
