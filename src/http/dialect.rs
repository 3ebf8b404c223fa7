//! The interface between the server and an API. Each dialect is a folder beside this file and an entry in
//! [`dialects`](super::dialects).

use std::fmt;

use axum::Router;
use axum::http::Method;
use axum::response::Response;

use super::AppState;
use super::single::HeaderError;

/// One API: its routes, the paths that belong to it, and the shape of its errors.
pub(super) trait Dialect: fmt::Debug + Send + Sync {
    /// Returns the routes that require an API key.
    fn routes(&self) -> Router<AppState>;

    /// Returns the routes that require no API key.
    fn open_routes(&self) -> Router<AppState> {
        Router::new()
    }

    /// Returns whether a path belongs to this dialect, so that errors there have its shape.
    fn owns(&self, path: &str) -> bool;

    /// Renders the response to a request that reaches no handler.
    fn refuse(&self, refusal: Refusal<'_>) -> Response;

    /// Returns the ports to which its clients connect in addition to the server's own.
    fn ports(&self) -> &'static [u16] {
        &[]
    }

    /// Wraps `router` so that requests for a sandbox, rather than for the server, do not reach it. `port` is the
    /// listener's port if it is one of [`Self::ports`].
    fn dispatch(&self, state: &AppState, router: Router, port: Option<u16>) -> Router {
        let _ = (state, port);
        router
    }
}

/// The reason why a request reaches no handler.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal<'a> {
    /// The request has no valid API key.
    Unauthorized,
    /// The request has API keys of two owners.
    TwoKeys,
    /// A header has no value that can be read.
    BadHeader(HeaderError),
    /// No route has this path.
    UnknownPath(&'a str),
    /// The path does not accept this method.
    WrongMethod(&'a Method, &'a str),
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized => f.write_str("a valid API key is needed, as `X-API-Key` or `Authorization: Bearer`"),
            Self::TwoKeys => f.write_str("X-API-Key and Authorization have keys of two owners: send one of them"),
            Self::BadHeader(err) => err.fmt(f),
            Self::UnknownPath(path) => write!(f, "there is no {path}"),
            Self::WrongMethod(method, path) => write!(f, "{path} does not take {method}"),
        }
    }
}
