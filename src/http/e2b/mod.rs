//! E2B's API: the control plane and the services in sandboxes, on one origin.
//!
//! A request that names a sandbox is for that sandbox; any other is for the control plane or another dialect.

mod access;
mod control;
mod envd;
mod error;
mod interpreter;
mod letta;
mod operation_error;
mod proxy;

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tower::ServiceExt;
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;
use utoipa::openapi::OpenApi;

use super::AppState;
use super::dialect::{Dialect, Need, Refusal};
use super::metrics::RouteName;
use crate::sandbox::Template;
use access::{access_token_matches, check_traffic_token, key_has_ended, unauthorized};
use envd::signature::{self, FilesQuery};
use error::{E2bError, ProxyError};
use proxy::address::{self, Address, ENVD_PORT, INTERPRETER_PORT};
use proxy::debug::{self, SharedSandbox};
use proxy::ports;

/// E2B's API, as its SDKs and Letta use it.
#[derive(Debug, Default)]
pub(super) struct E2b {
    debug_sandbox: SharedSandbox,
}

impl Dialect for E2b {
    fn routes(&self) -> Router<AppState> {
        control::routes()
    }

    fn needs(&self) -> &'static [Need] {
        control::NEEDS
    }

    fn open_routes(&self) -> Router<AppState> {
        Router::new().route("/health", get(async || Json(json!({"status": "ok"}))))
    }

    fn describe(&self, _: &[Arc<Template>]) -> OpenApi {
        control::describe()
    }

    fn owns(&self, path: &str) -> bool {
        control::owns(path)
    }

    fn refuse(&self, refusal: Refusal<'_>) -> Response {
        match refusal {
            Refusal::Unauthorized => E2bError::new(StatusCode::UNAUTHORIZED, "Invalid API key"),
            Refusal::MissingScope(_) | Refusal::ForeignHost | Refusal::ForeignOrigin => {
                E2bError::new(StatusCode::FORBIDDEN, refusal.to_string())
            }
            Refusal::TwoKeys | Refusal::BadHeader(_) => E2bError::bad_request(refusal.to_string()),
            Refusal::UnknownPath(_) => E2bError::new(StatusCode::NOT_FOUND, refusal.to_string()),
            Refusal::WrongMethod(..) => E2bError::new(StatusCode::METHOD_NOT_ALLOWED, refusal.to_string()),
        }
        .into_response()
    }

    /// SDKs connect to these ports in debug mode.
    fn ports(&self) -> &'static [u16] {
        &[ENVD_PORT, INTERPRETER_PORT]
    }

    fn dispatch(&self, state: &AppState, router: Router, port: Option<u16>) -> Router {
        let dispatch = Dispatch::new(state.clone(), router, port, self.debug_sandbox.clone());
        Router::new().fallback(async move |request| dispatch.handle(request).await)
    }
}

/// Chooses between the server's own routes and those of the sandbox that a request names.
#[derive(Clone)]
struct Dispatch {
    state: AppState,
    debug_sandbox: SharedSandbox,
    server: Router,
    interpreter: Router,
    envd: Router,
    /// The sandbox port of which the listener takes the place, in debug mode.
    listener: Option<u16>,
}

impl Dispatch {
    /// `server` has the routes for requests that name no sandbox.
    fn new(state: AppState, server: Router, listener: Option<u16>, debug_sandbox: SharedSandbox) -> Self {
        // As with E2B, pages of any origin may call a sandbox. They need its id and token, which no browser adds by
        // itself. Debug mode requires neither, so there pages of other origins stay excluded.
        let pages = CorsLayer::new().allow_origin(Any).allow_methods(Any).allow_headers(AllowHeaders::mirror_request());
        let open = |router: Router| if listener.is_none() { router.layer(pages.clone()) } else { router };
        let stall_timeout = state.stall_timeout;
        let interpreter = interpreter::routes(state.clone()).layer(RequestBodyTimeoutLayer::new(stall_timeout));
        let interpreter = open(interpreter);
        Self { state, debug_sandbox, server, interpreter, envd: open(envd::routes(stall_timeout)), listener }
    }

    /// Handles any request.
    async fn handle(self, request: Request) -> Response {
        if *request.method() == Method::CONNECT {
            return E2bError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "CONNECT is not supported: this server is not a proxy",
            )
            .into_response();
        }
        let is_file = request.uri().path() == "/files";
        if is_preflight_for_sandbox(&request) {
            return call(self.envd, request).await;
        }
        match address::from_request(request.headers(), request.uri(), self.state.domain(), self.listener) {
            Ok(Address::Server) if is_file => self.signed_file(request).await,
            Ok(Address::Server) => call(self.server, request).await,
            // Some SDKs also add the headers for envd to calls of the control plane. envd has none of its paths.
            Ok(Address::Sandbox { port: ENVD_PORT, .. }) if control::owns(request.uri().path()) => {
                call(self.server, request).await
            }
            Ok(Address::Unnamed { port: ENVD_PORT }) if is_file && FilesQuery::from_uri(request.uri()).is_signed() => {
                self.signed_file(request).await
            }
            Ok(Address::Unnamed { port }) => {
                match debug::find(&self.state, &self.debug_sandbox, request.headers()).await {
                    Ok(sandbox) => self.sandbox(&sandbox.id, port, request).await,
                    Err(err) => err.into_response(),
                }
            }
            Ok(Address::Sandbox { id, port }) => self.sandbox(&id, port, request).await,
            Err(err) => err.into_response(),
        }
    }

    /// Handles a signed link to a file, which names no sandbox: finds the sandbox whose token made the signature.
    async fn signed_file(self, request: Request) -> Response {
        let query = FilesQuery::from_uri(request.uri());
        if !query.is_signed() {
            return signature::missing_signature().into_response();
        }
        let sandboxes = self.state.sandboxes.all();
        let signer = sandboxes.iter().find(|sandbox| query.is_signed_with(&sandbox.token, request.method()));
        match signer.map(|sandbox| sandbox.id.clone()) {
            Some(id) => self.sandbox(&id, ENVD_PORT, request).await,
            None => signature::invalid_signature().into_response(),
        }
    }

    async fn sandbox(self, id: &str, port: u16, mut request: Request) -> Response {
        let sandboxes = &self.state.sandboxes;
        let not_found = || ProxyError::NotFound { id: id.to_owned(), ending: sandboxes.ending(id) }.into_response();
        let Some(sandbox) = sandboxes.get(id) else { return not_found() };
        if let Err(err) = check_traffic_token(&sandbox, port, request.headers()) {
            return err.into_response();
        }
        // A token is optional here: SDKs do not send it with every call to the interpreter, and the id cannot be
        // guessed.
        if port == INTERPRETER_PORT && access_token_matches(&sandbox, request.headers()) == Some(false) {
            return unauthorized().into_response();
        }
        // The tokens of a sandbox are worth as much as the key that it was created with. Its other ports belong to those who
        // use the servers on them.
        let is_key_valid = self.state.api_keys.is_valid(sandbox.spec.owner);
        if !is_key_valid && matches!(port, INTERPRETER_PORT | ENVD_PORT) {
            return key_has_ended().into_response();
        }
        if sandbox.life().paused {
            if !sandbox.spec.auto_resume || !is_key_valid {
                return not_found();
            }
            if port == ENVD_PORT
                && let Err(err) = envd::check_access(&sandbox, &request)
            {
                return err.into_response();
            }
            let timeout = control::default_timeout(sandboxes, sandbox.spec.owner);
            if sandbox.resume(timeout).await.is_err() {
                return not_found();
            }
        }
        let (route, mut response) = match port {
            INTERPRETER_PORT => {
                request.extensions_mut().insert(sandbox);
                ("sandbox:interpreter", call(self.interpreter, request).await)
            }
            ENVD_PORT => {
                request.extensions_mut().insert(sandbox);
                ("sandbox:envd", call(self.envd, request).await)
            }
            _ => ("sandbox:port", ports::forward(&sandbox, port, request).await),
        };
        response.extensions_mut().insert(RouteName(route.to_owned()));
        response
    }
}

/// Returns whether a request is a CORS preflight for a request that names its sandbox by headers. The preflight itself
/// does not have these headers, only a list of their names.
fn is_preflight_for_sandbox(request: &Request) -> bool {
    let names = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|names| names.to_str().ok());
    *request.method() == Method::OPTIONS
        && names.is_some_and(|names| names.split(',').any(|name| name.trim().eq_ignore_ascii_case("e2b-sandbox-id")))
}

async fn call(router: Router, request: Request) -> Response {
    router.oneshot(request).await.unwrap_or_else(|never| match never {})
}
