//! The interface between the server and an API. Each dialect is a folder beside this file and an entry in
//! [`dialects`](super::dialects).

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::response::Response;
use utoipa::openapi::OpenApi;

use super::AppState;
use super::single::HeaderError;
use crate::keys::Scope;
use crate::sandbox::Template;

/// One API: its routes, the paths that belong to it, and the shape of its errors.
pub(super) trait Dialect: fmt::Debug + Send + Sync {
    /// Returns the routes that require an API key.
    fn routes(&self) -> Router<AppState>;

    /// Returns what a key needs for each of [`Self::routes`].
    fn needs(&self) -> &'static [Need];

    /// Returns the routes that require no API key.
    fn open_routes(&self) -> Router<AppState> {
        Router::new()
    }

    /// Returns the description of all its routes. [`openapi::describe`](super::openapi::describe) adds what a key needs,
    /// and the parameters of paths.
    fn describe(&self, templates: &[Arc<Template>]) -> OpenApi {
        let _ = templates;
        OpenApi::default()
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

/// What a key needs for a route.
#[derive(Debug)]
pub(super) struct Need {
    /// The method; `*` for all that no other row has.
    pub(super) method: &'static str,
    /// The path of the route, with its parameters in braces.
    pub(super) route: &'static str,
    /// The scopes of which one is enough. Without any, every key will do.
    pub(super) scopes: &'static [Scope],
}

impl Need {
    pub(super) const fn new(method: &'static str, route: &'static str, scopes: &'static [Scope]) -> Self {
        Self { method, route, scopes }
    }

    /// Returns the scopes that a route needs. One that is missing in the table needs the scope that opens most.
    pub(super) fn scopes(table: &'static [Self], method: &Method, route: &str) -> &'static [Scope] {
        const MISSING: &[Scope] = &[Scope::Admin];
        let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
        Self::find(table, method, route).map_or(MISSING, |need| need.scopes)
    }

    /// Returns the row of a route; `None` if the table has none, as for a route that requires no key.
    pub(super) fn find(table: &'static [Self], method: &str, route: &str) -> Option<&'static Self> {
        table.iter().find(|need| need.route == route && (need.method == method || need.method == "*"))
    }
}

/// The reason why a request reaches no handler.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal<'a> {
    /// The request has no valid API key.
    Unauthorized,
    /// The request has API keys of two owners.
    TwoKeys,
    /// The API key has none of these scopes.
    MissingScope(&'static [Scope]),
    /// A header has no value that can be read.
    BadHeader(HeaderError),
    /// The host is not a name of this server.
    ForeignHost,
    /// The request comes from a page of another host.
    ForeignOrigin,
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
            Self::MissingScope(scopes) => {
                let names: Vec<_> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
                write!(f, "this API key lacks the scope {}", names.join(" or "))
            }
            Self::BadHeader(err) => err.fmt(f),
            Self::ForeignHost => f.write_str(
                "this host name is not known here: use an address or `localhost`, or set `domain` to the name",
            ),
            Self::ForeignOrigin => f.write_str("the header Origin names another host: its pages are refused"),
            Self::UnknownPath(path) => write!(f, "there is no {path}"),
            Self::WrongMethod(method, path) => write!(f, "{path} does not take {method}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_needs_what_the_first_row_for_its_method_has_and_a_forgotten_one_everything() {
        const TABLE: &[Need] = &[
            Need::new("GET", "/a/{id}", &[Scope::Run, Scope::Build]),
            Need::new("*", "/a/{id}", &[Scope::Build]),
            Need::new("GET", "/b", &[]),
        ];
        for (method, route, scopes) in [
            (Method::GET, "/a/{id}", &[Scope::Run, Scope::Build][..]),
            (Method::HEAD, "/a/{id}", &[Scope::Run, Scope::Build]),
            (Method::DELETE, "/a/{id}", &[Scope::Build]),
            (Method::GET, "/b", &[]),
            (Method::POST, "/b", &[Scope::Admin]),
            (Method::GET, "/a/1", &[Scope::Admin]),
            (Method::GET, "", &[Scope::Admin]),
        ] {
            assert_eq!(Need::scopes(TABLE, &method, route), scopes, "{method} {route}");
        }
    }
}
