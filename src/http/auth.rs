//! The check of API keys, and the one that refuses web pages while no key is needed.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
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
    // Also of values that are no text: an `Origin` like that is not this server's.
    let text = |name| request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let authority = request.uri().authority().map(|authority| Cow::from(authority.as_str()));
    let host = authority.or_else(|| text(header::HOST)).unwrap_or_default();
    let is_other = |origin: Cow<'_, str>| origin.split_once("://").is_none_or(|(_, authority)| authority != host);
    !is_own_host(&host, domain) || text(header::ORIGIN).is_some_and(is_other)
}

/// Refuses a request for a foreign host, or from a page of another host, whatever its key. A name that a browser may have
/// been led to by DNS is foreign; an address is not, for no page of another host is shown under it.
pub(super) fn refuse_foreign(request: &Request, domain: Option<&str>) -> Result<(), Refusal<'static>> {
    let headers = request.headers();
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => single(headers, "Host").map_err(Refusal::BadHeader)?.unwrap_or_default(),
    };
    if !is_own_host(host, domain) && host_name(host).parse::<IpAddr>().is_err() {
        return Err(Refusal::ForeignHost);
    }
    let Some(origin) = single(headers, "Origin").map_err(Refusal::BadHeader)? else { return Ok(()) };
    match origin.split_once("://") {
        Some((_, of)) if !of.is_empty() && (of == host || is_own_host(of, domain)) => Ok(()),
        _ => Err(Refusal::ForeignOrigin),
    }
}

/// Returns whether a `Host` is a name of this machine or belongs to the configured domain.
fn is_own_host(host: &str, domain: Option<&str>) -> bool {
    let name = host_name(host).to_ascii_lowercase();
    let is_below = |parent: &str| name == parent || name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    name.is_empty()
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || is_below("localhost")
        || domain.is_some_and(|domain| is_below(domain.split(':').next().unwrap_or_default()))
}

/// Returns a host without its port, and an IPv6 address without its brackets.
fn host_name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_matches(['[', ']'])
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

    #[test]
    fn an_origin_that_is_no_text_is_foreign() {
        let may_be_from_page = |origin: &[u8]| {
            let request = Request::builder().header("host", "localhost:3000").header("origin", origin);
            super::may_be_from_page(&request.body(Body::empty()).expect("a request"), None)
        };
        assert!(!may_be_from_page(b"http://localhost:3000"));
        assert!(may_be_from_page(b"http://localhost:3000\xe9") && may_be_from_page(b"\xe9"));
    }

    #[test]
    fn foreign_names_and_pages_of_other_hosts_are_refused() {
        let refused = |host: &str, origin: Option<&str>| {
            let mut request = Request::builder().header("host", host);
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            let request = request.body(Body::empty()).expect("a request");
            match refuse_foreign(&request, Some("box.lan:8443")) {
                Ok(()) => None,
                Err(refusal) => Some(refusal.to_string()),
            }
        };
        let (host, origin) = (Some(Refusal::ForeignHost.to_string()), Some(Refusal::ForeignOrigin.to_string()));
        for own in ["127.0.0.1:3000", "localhost:3000", "api.box.lan:8443", "192.0.2.1:3000", "[2001:db8::1]:3000"] {
            assert_eq!(refused(own, None), None, "{own}");
            assert_eq!(refused(own, Some(&format!("http://{own}"))), None, "{own}");
            assert_eq!(refused(own, Some("http://localhost:5173")), None, "{own}");
            for foreign in ["http://evil.example", "null", "", "http://", "http://192.0.2.2:3000", "file://"] {
                assert_eq!(refused(own, Some(foreign)), origin, "{own} {foreign}");
            }
        }
        for foreign in ["evil.example:3000", "localhost.evil.example", "server"] {
            assert_eq!(refused(foreign, None), host, "{foreign}");
            assert_eq!(refused(foreign, Some(&format!("http://{foreign}"))), host, "{foreign}");
        }
    }
}
