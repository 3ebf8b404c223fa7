//! The HTTP server: routes, keys, request ids. One folder per API.

mod auth;
mod client_timeouts;
mod dialect;
mod docs;
mod e2b;
mod error;
mod interruptible;
mod json;
mod languages;
mod linger;
mod mcp;
mod metrics;
mod native;
mod openapi;
mod origin;
mod run_request;
mod serve;
mod single;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::response::Response;
use axum::{Router, middleware};
use prometheus_client::registry::Registry;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::keys::Keys;
use crate::sandbox::Sandboxes;
use dialect::{Dialect, Refusal};

pub use client_timeouts::ClientTimeouts;
pub use mcp::serve_stdio;
pub use metrics::Metrics;
pub use serve::serve;
pub use tls::{TlsConfig, TlsConfigError, TlsListener};

/// The configuration of the HTTP server.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The accepted API keys.
    pub api_keys: Keys,
    /// The domain whose names lead to sandboxes, `PORT-ID.DOMAIN`; it may contain a port.
    pub domain: Option<String>,
    /// The TLS listener, if there is one.
    pub tls: Option<TlsConfig>,
    /// Whether to listen on [`extra_ports`] as well.
    pub debug_ports: bool,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The limits on the time that a client may do nothing.
    pub timeouts: ClientTimeouts,
}

/// The state that all handlers share.
#[derive(Debug, Clone)]
pub(crate) struct AppState {
    sandboxes: Sandboxes,
    api_keys: Keys,
    metrics: Metrics,
    registry: Arc<Registry>,
    domain: Option<String>,
    /// The longest time without a byte of a request body.
    stall_timeout: Duration,
}

impl AppState {
    /// Returns the domain whose names lead to sandboxes, if there is one.
    fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }
}

impl axum::extract::FromRef<AppState> for Sandboxes {
    fn from_ref(state: &AppState) -> Self {
        state.sandboxes.clone()
    }
}

/// Returns the APIs that are served. A path belongs to the first dialect that owns it.
fn dialects() -> Vec<Arc<dyn Dialect>> {
    vec![Arc::new(e2b::E2b::default()), Arc::new(mcp::Mcp), Arc::new(native::Native)]
}

/// The routers of all listeners, which share their state.
#[derive(Debug, Clone)]
pub struct Routers {
    state: AppState,
    dialects: Vec<Arc<dyn Dialect>>,
    max_body_bytes: usize,
}

impl Routers {
    /// Creates the routers of a server with these sandboxes. `metrics` is one of the observers of their records.
    pub fn new(sandboxes: Sandboxes, metrics: Metrics, config: &HttpConfig) -> Self {
        let state = AppState {
            registry: Arc::new(metrics.registry(sandboxes.clone())),
            metrics,
            sandboxes,
            api_keys: config.api_keys.clone(),
            domain: config.domain.clone(),
            stall_timeout: config.timeouts.stall,
        };
        Self { state, dialects: dialects(), max_body_bytes: config.max_body_bytes }
    }

    /// Returns the router of the server's own addresses.
    pub fn main(&self) -> Router {
        self.router(None)
    }

    /// Returns the router of one of [`extra_ports`].
    pub fn on_port(&self, port: u16) -> Router {
        self.router(Some(port))
    }

    fn router(&self, port: Option<u16>) -> Router {
        let (mut keyed, mut open) = (Router::new(), Router::new());
        for dialect in &self.dialects {
            let key = auth::RequireKey { state: self.state.clone(), dialect: Arc::clone(dialect) };
            keyed = keyed.merge(dialect.routes().layer(middleware::from_fn_with_state(key, auth::require_key)));
            open = open.merge(dialect.open_routes());
        }
        let templates: Vec<_> = self.state.sandboxes.status().shelves.into_iter().map(|shelf| shelf.template).collect();
        let docs = docs::routes(&openapi::describe(&self.dialects, &templates));
        let (unknown, wrong) = (self.dialects.clone(), self.dialects.clone());
        let router = keyed
            .merge(docs)
            .layer(middleware::from_fn_with_state(self.state.clone(), auth::refuse_web_pages))
            .merge(open)
            .fallback(async move |uri: Uri| refused(&unknown, uri.path(), Refusal::UnknownPath(uri.path())))
            .method_not_allowed_fallback(async move |method: Method, uri: Uri| {
                refused(&wrong, uri.path(), Refusal::WrongMethod(&method, uri.path()))
            })
            .layer(middleware::from_fn(metrics::name_route))
            .layer(DefaultBodyLimit::max(self.max_body_bytes))
            .layer(RequestBodyTimeoutLayer::new(self.state.stall_timeout))
            .with_state(self.state.clone());
        let dialects = self.dialects.iter();
        let router = dialects.fold(router, |router, dialect| dialect.dispatch(&self.state, router, port));
        router
            .layer(middleware::from_fn_with_state(self.state.metrics.clone(), metrics::measure))
            .layer(PropagateRequestIdLayer::x_request_id())
            // Failures are logged once, where they are handled; this layer only opens the span.
            .layer(TraceLayer::new_for_http().on_failure(()).make_span_with(|request: &axum::http::Request<_>| {
                let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
                // Without the query, which may contain secrets.
                let (method, path) = (request.method(), request.uri().path());
                tracing::info_span!("request", request.id = id, %method, path, key = tracing::field::Empty)
            }))
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
    }
}

/// Returns the ports to which clients of any dialect connect in addition to the server's own.
pub fn extra_ports() -> Vec<u16> {
    dialects().iter().flat_map(|dialect| dialect.ports()).copied().collect()
}

/// Renders a refusal in the shape of the dialect that owns the path.
fn refused(dialects: &[Arc<dyn Dialect>], path: &str, refusal: Refusal<'_>) -> Response {
    let owner = dialects.iter().find(|dialect| dialect.owns(path));
    owner.expect("the native dialect owns every path").refuse(refusal)
}
