//! oncebox's own API.

mod run;
mod runs;
mod shapes;
mod status;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::AppState;
use super::dialect::{Dialect, Need, Refusal};
use super::error::ApiError;
use super::metrics;
use crate::keys::Scope;

/// What a key needs.
const NEEDS: &[Need] = &[
    Need::new("POST", "/v1/run", &[Scope::Run]),
    Need::new("GET", "/v1/runs", &[Scope::Run, Scope::Sandboxes]),
    Need::new("GET", "/v1/languages", &[]),
    Need::new("GET", "/v1/status", &[Scope::Metrics]),
    Need::new("GET", "/metrics", &[Scope::Metrics]),
];

/// oncebox's own API. It owns every path that no other dialect owns.
#[derive(Debug)]
pub(super) struct Native;

impl Dialect for Native {
    fn routes(&self) -> Router<AppState> {
        Router::new()
            .route("/v1/run", post(run::run))
            .route("/v1/runs", get(runs::runs))
            .route("/v1/languages", get(status::languages))
            .route("/v1/status", get(status::status))
            .route("/metrics", get(metrics::metrics))
    }

    fn needs(&self) -> &'static [Need] {
        NEEDS
    }

    fn open_routes(&self) -> Router<AppState> {
        Router::new().route("/healthz", get(status::healthz)).route("/readyz", get(status::readyz))
    }

    fn owns(&self, _: &str) -> bool {
        true
    }

    fn refuse(&self, refusal: Refusal<'_>) -> Response {
        let (status, code) = match refusal {
            Refusal::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Refusal::MissingScope(_) | Refusal::ForeignHost | Refusal::ForeignOrigin => {
                (StatusCode::FORBIDDEN, "forbidden")
            }
            Refusal::TwoKeys | Refusal::BadHeader(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Refusal::UnknownPath(_) => (StatusCode::NOT_FOUND, "not_found"),
            Refusal::WrongMethod(..) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        };
        ApiError::new(status, code, refusal.to_string()).into_response()
    }
}
