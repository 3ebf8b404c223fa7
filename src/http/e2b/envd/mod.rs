//! A sandbox's daemon as E2B's SDKs know it: commands, directories and files, on one port.
//!
//! Source: e2b-dev/infra, `packages/envd`.

mod connect;
mod envelope;
mod files;
mod filesystem;
mod process;
mod upload;
mod user;

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

use super::access::{sent_token_is_right, unauthorized};
use super::control;
use super::error::E2bError;
use super::proxy::lifetime::while_it_lives;
use crate::sandbox::Sandbox;
use error::ConnectError;

/// The routes. The sandbox is among the request's extensions. A request's body may rest for `stall_timeout`, but for what is typed.
pub(in crate::http::e2b) fn routes(stall_timeout: Duration) -> Router {
    let in_time = RequestBodyTimeoutLayer::new(stall_timeout);
    Router::new()
        .merge(process::routes())
        .merge(filesystem::routes())
        .layer(in_time.clone())
        .merge(process::input_routes())
        .route("/metrics", get(metrics))
        .route("/envs", get(environment))
        .layer(middleware::from_fn(require_token))
        // A link to a file is signed instead.
        .merge(files::routes().layer(in_time))
        .route("/health", get(|| async { StatusCode::NO_CONTENT }))
        .fallback(|uri: Uri| async move { E2bError::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path())) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            E2bError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
        })
        .layer(middleware::from_fn(while_it_lives))
        .layer(DefaultBodyLimit::disable())
}

/// What a request says of its sandbox's token. One that is sent must be right; secured sandboxes want one.
fn has_token(sandbox: &Sandbox, headers: &HeaderMap) -> bool {
    sent_token_is_right(sandbox, headers).unwrap_or(!sandbox.spec.secure)
}

async fn require_token(Extension(sandbox): Extension<Arc<Sandbox>>, request: Request, next: Next) -> Response {
    match has_token(&sandbox, request.headers()) {
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
