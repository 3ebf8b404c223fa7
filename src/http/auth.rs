//! The check of API keys, and the one that refuses web pages while no key is needed.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::dialect::{Dialect, Need, Refusal};
use super::error::ApiError;
use super::interruptible::Interruptible;
use super::single::single;
use crate::keys::{Identity, Keys};

/// Returns whose API key a request carries as `X-API-Key` or, without that, as `Authorization: Bearer`. Clients send tokens
/// of their own as the latter, so it is ignored beside the former unless it is a key too.
///
/// # Errors
///
/// If the key is missing or not valid, or if the request has keys of two owners.
fn identify(keys: &Keys, headers: &HeaderMap) -> Result<Identity, Refusal<'static>> {
    if let Some(anybody) = keys.anybody() {
        return Ok(anybody);
    }
    let key = single(headers, "X-API-Key").map_err(Refusal::BadHeader)?;
    let bearer = single(headers, "Authorization").map_err(Refusal::BadHeader)?.and_then(bearer);
    let of_bearer = bearer.and_then(|key| keys.find(key));
    let Some(key) = key else { return of_bearer.ok_or(Refusal::Unauthorized) };
    let found = keys.find(key).ok_or(Refusal::Unauthorized)?;
    match of_bearer {
        Some(other) if other.key.owner != found.key.owner => Err(Refusal::TwoKeys),
        _ => Ok(found),
    }
}

/// The state of [`require_key`]: the valid keys, and the dialect that renders refusals.
#[derive(Clone)]
pub(super) struct RequireKey {
    pub(super) state: AppState,
    pub(super) dialect: Arc<dyn Dialect>,
}

/// Refuses requests without a valid key that has a scope of the route, and puts the key's owner into the extensions of the
/// others. When a key is not valid any longer, its requests end.
pub(super) async fn require_key(State(config): State<RequireKey>, mut request: Request, next: Next) -> Response {
    let refuse = |refusal| config.dialect.refuse(refusal);
    let Identity { key, ended } = match identify(&config.state.api_keys, request.headers()) {
        Ok(identity) => identity,
        Err(refusal) => return refuse(refusal),
    };
    tracing::Span::current().record("key", key.name.as_str());
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let scopes = Need::scopes(config.dialect.needs(), request.method(), route);
    if !key.has_one_of(scopes) {
        return refuse(Refusal::MissingScope(scopes));
    }
    request.extensions_mut().insert(key.owner);
    let Some(response) = ended.run_until_cancelled(next.run(request)).await else {
        return refuse(Refusal::Unauthorized);
    };
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response
        .map(|body| Body::new(Interruptible::new(body, ended, || Err("the API key is not valid any longer".into()))))
}

/// Refuses requests that a web page may have sent, while no key is needed. A page reaches this server from a
/// browser on this machine, either across origins or under a foreign host name that resolves to this machine. CORS does
/// not prevent that: a browser sends simple requests without a preflight.
pub(crate) async fn refuse_web_pages(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if !state.api_keys.are_required() && may_be_from_page(&request, state.domain()) {
        let message = "without an API key, web pages and foreign host names are refused: configure one (docs/keys.md)";
        return ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).into_response();
    }
    next.run(request).await
}

fn may_be_from_page(request: &Request, domain: Option<&str>) -> bool {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = request.uri().authority().map(Authority::as_str).or_else(|| text(header::HOST)).unwrap_or_default();
    let is_other = |origin: &str| origin.split_once("://").is_none_or(|(_, authority)| authority != host);
    !is_own_host(host, domain) || text(header::ORIGIN).is_some_and(is_other)
}

/// Returns whether a `Host` is a name of this machine or belongs to the configured domain.
fn is_own_host(host: &str, domain: Option<&str>) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']).to_ascii_lowercase();
    let is_below = |parent: &str| name == parent || name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    name.is_empty()
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || is_below("localhost")
        || domain.is_some_and(|domain| is_below(domain.split(':').next().unwrap_or_default()))
}

/// Returns the token of a `Bearer` header. The scheme is case-insensitive.
fn bearer(value: &str) -> Option<&str> {
    value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine_are_recognised() {
        for host in ["127.0.0.1:3000", "localhost", "LOCALHOST:1", "a.localhost:1", "[::1]:3000", "", "api.box.lan:1"] {
            assert!(is_own_host(host, Some("box.lan:8443")), "{host}");
        }
        for host in ["evil.example:3000", "localhost.evil.example", "192.168.1.2", "mybox.lan", "notlocalhost"] {
            assert!(!is_own_host(host, Some("box.lan:8443")), "{host}");
        }
    }
}
