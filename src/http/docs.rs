//! `/openapi.json`, and a page that shows it, `/docs/`. The page is in the program and loads nothing from another host.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use super::AppState;
use super::error::ApiError;

/// Scripts and styles only from this server, and nothing in the page's text. Its icons are `data:` URLs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the routes, which require no key.
pub(super) fn routes(api: &OpenApi) -> Router<AppState> {
    let json = Bytes::from(api.to_json().expect("a description can be written as JSON"));
    // The other layout, and a validator elsewhere, would be stopped by the policy.
    let config = Arc::new(Config::from("/openapi.json").use_base_layout().validator_url("none"));
    let index = Arc::clone(&config);
    Router::new()
        .route("/openapi.json", get(async move || ([(header::CONTENT_TYPE, "application/json")], json.clone())))
        .route("/docs", get(async || Redirect::to("/docs/")))
        .route("/docs/", get(async move || file("", index)))
        .route("/docs/{*file}", get(async move |Path(name): Path<String>| file(&name, config)))
}

/// Returns a file of the page. It is compressed, as it is in the program.
fn file(name: &str, config: Arc<Config<'static>>) -> Response {
    let file = utoipa_swagger_ui::serve(name, config).expect("the page's files are text where they must be");
    let Some(file) = file else {
        return ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("there is no /docs/{name}")).into_response();
    };
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::try_from(file.content_type).expect("a media type");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    (headers, file.bytes.into_owned()).into_response()
}
