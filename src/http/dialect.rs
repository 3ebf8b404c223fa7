//! What one API brings to the server. A dialect is a folder beside this file, and a line in [`dialects`](super::dialects).

use std::fmt;

use axum::Router;
use axum::http::Method;
use axum::response::Response;

use super::AppState;

/// One API: its routes, the paths that are its own, and the shape of its errors.
pub(super) trait Dialect: fmt::Debug + Send + Sync {
    /// Its routes, which need an API key.
    fn routes(&self) -> Router<AppState>;

    /// Its routes that are open to everybody.
    fn open_routes(&self) -> Router<AppState> {
        Router::new()
    }

    /// Whether a path is its own, so that errors have its shape there.
    fn owns(&self, path: &str) -> bool;

    /// The answer to a request that does not get as far as a handler.
    fn refuse(&self, refusal: Refusal<'_>) -> Response;

    /// The ports on which its clients expect it beside the server's own address.
    fn ports(&self) -> &'static [u16] {
        &[]
    }

    /// Puts requests that are for a sandbox, not for the server, before `router`. `port` is the listener's, if that is one of
    /// [`Self::ports`].
    fn dispatch(&self, state: &AppState, router: Router, port: Option<u16>) -> Router {
        let _ = (state, port);
        router
    }
}

/// Why a request does not get as far as a handler.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal<'a> {
    /// It carries no valid API key.
    Unauthorized,
    /// There is no such path.
    UnknownPath(&'a str),
    /// The path does not take this method.
    WrongMethod(&'a Method, &'a str),
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized => f.write_str("a valid API key is needed, as `X-API-Key` or `Authorization: Bearer`"),
            Self::UnknownPath(path) => write!(f, "there is no {path}"),
            Self::WrongMethod(method, path) => write!(f, "{path} does not take {method}"),
        }
    }
}
