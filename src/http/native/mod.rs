//! oncebox's own API.

mod described;
mod run;
mod runs;
mod shapes;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::dialect::{Dialect, Need, Refusal};
use super::error::ApiError;
use crate::keys::Scope;
use crate::sandbox::Template;

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

/// The routes that require a key, with their description.
fn keyed() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(run::run))
        .routes(routes!(runs::runs))
        .routes(routes!(status::languages))
        .routes(routes!(status::status))
        .routes(routes!(status::metrics))
}

/// The routes that require no key, with their description.
fn open() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(status::healthz)).routes(routes!(status::readyz))
}

impl Dialect for Native {
    fn routes(&self) -> Router<AppState> {
        keyed().into()
    }

    fn needs(&self) -> &'static [Need] {
        NEEDS
    }

    fn open_routes(&self) -> Router<AppState> {
        open().into()
    }

    fn describe(&self, templates: &[Arc<Template>]) -> OpenApi {
        let mut api = keyed().merge(open()).into_openapi();
        described::fill_in(&mut api, templates);
        api
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
