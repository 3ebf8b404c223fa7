//! A sandbox's interpreters: `/execute` and `/contexts`.

use axum::Router;
use axum::routing::get;

pub(super) fn routes() -> Router {
    Router::new().route("/health", get(|| async { axum::Json("OK") }))
}
