//! The HTTP server: routes, keys, request ids. One folder per API.

mod auth;
mod e2b;
mod error;
mod json;
mod linger;
mod native;
mod patience;
mod serve;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::sandbox::Sandboxes;
use error::ApiError;

pub use auth::ApiKeys;
pub use e2b::Profile;
pub use patience::Patience;
pub use serve::serve;
pub use tls::{TlsConfig, TlsListener};

/// What the server listens on and accepts.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The address.
    pub listen: SocketAddr,
    /// Who may call.
    pub api_keys: ApiKeys,
    /// The domain whose names lead to sandboxes, `PORT-ID.DOMAIN`; it may hold a port.
    pub domain: Option<String>,
    /// Where to listen for TLS too, if anywhere.
    pub tls: Option<TlsConfig>,
    /// Whether to listen on [`DEBUG_PORTS`] too.
    pub debug_ports: bool,
    /// The largest body, bytes.
    pub max_body_bytes: usize,
    /// How long a client is waited for.
    pub patience: Patience,
}

/// What every handler may use.
#[derive(Debug, Clone)]
pub(crate) struct AppState {
    sandboxes: Sandboxes,
    api_keys: ApiKeys,
    domain: Option<String>,
    /// How long a request's body may rest.
    stall_timeout: Duration,
    /// The sandbox that debug mode means when it names none.
    debug_sandbox: Arc<tokio::sync::Mutex<Option<String>>>,
}

impl AppState {
    /// The domain whose names lead to sandboxes, if there is one.
    fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }
}

impl axum::extract::FromRef<AppState> for Sandboxes {
    fn from_ref(state: &AppState) -> Self {
        state.sandboxes.clone()
    }
}

/// The ports that SDKs dial on this machine in debug mode, and those of a sandbox that they stand for.
pub const DEBUG_PORTS: [u16; 2] = [49983, 49999];

/// The routers of all listeners, which share what they remember.
#[derive(Debug, Clone)]
pub struct Routers(AppState, usize);

impl Routers {
    /// All that listeners answer with.
    pub fn new(sandboxes: Sandboxes, config: &HttpConfig) -> Self {
        let state = AppState {
            sandboxes,
            api_keys: config.api_keys.clone(),
            domain: config.domain.clone(),
            stall_timeout: config.patience.stall,
            debug_sandbox: Arc::default(),
        };
        Self(state, config.max_body_bytes)
    }

    /// What the server's own address answers.
    pub fn main(&self) -> Router {
        router(self.0.clone(), self.1, None)
    }

    /// What one of [`DEBUG_PORTS`] answers.
    pub fn debug(&self, port: u16) -> Router {
        router(self.0.clone(), self.1, Some(port))
    }
}

fn router(state: AppState, max_body_bytes: usize, listener: Option<u16>) -> Router {
    let keyed = Router::new()
        .route("/v1/run", post(native::run::run))
        .route("/v1/languages", get(native::status::languages))
        .route("/v1/status", get(native::status::status))
        .layer(middleware::from_fn_with_state(state.clone(), auth::require_key));
    let control = Router::new()
        .merge(keyed)
        .merge(e2b::control(&state))
        .layer(middleware::from_fn_with_state(state.clone(), auth::keep_pages_out))
        .route("/healthz", get(native::status::healthz))
        // As E2B calls it.
        .route("/health", get(native::status::healthz))
        .route("/readyz", get(native::status::readyz))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(RequestBodyTimeoutLayer::new(state.stall_timeout))
        .with_state(state.clone());
    let dispatch = e2b::Dispatch::new(state, control, listener);
    Router::new()
        .fallback(move |request| dispatch.clone().answer(request))
        .layer(PropagateRequestIdLayer::x_request_id())
        // Failures are logged where they end, once; this layer only opens the span.
        .layer(TraceLayer::new_for_http().on_failure(()).make_span_with(|request: &axum::http::Request<_>| {
            let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
            // The path without its query, which may hold secrets.
            tracing::info_span!("request", request.id = id, method = %request.method(), path = request.uri().path())
        }))
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
}

async fn not_found(uri: Uri) -> Response {
    refused(&uri, StatusCode::NOT_FOUND, "not_found", format!("there is no {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not take {method}", uri.path());
    refused(&uri, StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// In the shape of the API that the path belongs to.
fn refused(uri: &Uri, status: StatusCode, code: &'static str, message: String) -> Response {
    match e2b::owns(uri.path()) {
        true => e2b::error::E2bError::new(status, message).into_response(),
        false => ApiError::new(status, code, message).into_response(),
    }
}
