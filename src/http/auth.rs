//! API keys: who may call.

use std::fmt;
use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::AppState;
use super::e2b::Profile;
use super::error::ApiError;
use crate::sandbox::Tenant;

/// The keys that open the API. None at all means that it is open, which only loopback may be.
#[derive(Clone, Default)]
pub struct ApiKeys {
    keys: Vec<(String, Profile)>,
    /// Of those who need no key.
    profile: Profile,
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl ApiKeys {
    /// None yet; where it stays so, everybody has this profile.
    pub fn open_to(profile: Profile) -> Self {
        Self { keys: Vec::new(), profile }
    }

    /// Reads keys of one profile, with commas between them.
    ///
    /// # Errors
    ///
    /// When a key could not be sent in a header, or could be guessed, or is there already.
    pub fn with(mut self, text: &str, profile: Profile) -> Result<Self, String> {
        for key in text.split(',').map(str::trim).filter(|key| !key.is_empty()) {
            if key.len() < 8 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(
                    "must hold keys of at least 8 visible ASCII characters, with commas between them".to_owned()
                );
            }
            if self.keys.iter().any(|(other, _)| other == key) {
                return Err("holds a key that is there already".to_owned());
            }
            self.keys.push((key.to_owned(), profile));
        }
        Ok(self)
    }

    /// What the sandboxes of a key's owner are for.
    pub(crate) fn profile(&self, tenant: Tenant) -> Profile {
        self.keys.get(tenant.0).map_or(self.profile, |(_, profile)| *profile)
    }

    /// Whether no key is configured.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whose request this is, by the key it carries as `X-API-Key` or `Authorization: Bearer`. `None`: nobody's who may.
    pub(crate) fn tenant(&self, headers: &HeaderMap) -> Option<Tenant> {
        if self.is_empty() {
            return Some(Tenant(0));
        }
        given(headers).and_then(|key| self.position(key)).map(Tenant)
    }

    /// Compares with every key, each in constant time, so that the time taken tells nothing.
    fn position(&self, given: &str) -> Option<usize> {
        self.keys.iter().enumerate().fold(None, |found, (position, (key, _))| {
            let equal = bool::from(key.as_bytes().ct_eq(given.as_bytes()));
            if equal { Some(position) } else { found }
        })
    }
}

/// Lets a request through that carries a key, and notes whose it is.
pub(crate) async fn require_key(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    if let Some(tenant) = state.api_keys.tenant(request.headers()) {
        request.extensions_mut().insert(tenant);
        return next.run(request).await;
    }
    let message = "a valid API key is needed, as `X-API-Key` or `Authorization: Bearer`";
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message).into_response()
}

/// Keeps pages in browsers on this machine from calling a server that wants no key, under a name of their own that leads here or
/// across origins: a browser sends such a request before it asks whether it may.
pub(crate) async fn keep_pages_out(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if state.api_keys.is_empty() && may_be_a_page(&request, state.domain()) {
        let message =
            "without an API key, only programs on this machine are served, under its own name: set ONCEBOX_API_KEYS";
        return ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).into_response();
    }
    next.run(request).await
}

fn may_be_a_page(request: &Request, domain: Option<&str>) -> bool {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = request.uri().authority().map(Authority::as_str).or_else(|| text(header::HOST)).unwrap_or_default();
    let is_other = |origin: &str| origin.split_once("://").is_none_or(|(_, authority)| authority != host);
    !is_ours(host, domain) || text(header::ORIGIN).is_some_and(is_other)
}

/// Whether a host is this machine by its own name, or by the domain that is configured.
fn is_ours(host: &str, domain: Option<&str>) -> bool {
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

fn given(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    text(header::HeaderName::from_static("x-api-key")).or_else(|| text(header::AUTHORIZATION).and_then(bearer))
}

/// The name of the scheme is the same in any case.
fn bearer(value: &str) -> Option<&str> {
    value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_own_names() {
        for host in ["127.0.0.1:3000", "localhost", "LOCALHOST:1", "a.localhost:1", "[::1]:3000", "", "api.box.lan:1"] {
            assert!(is_ours(host, Some("box.lan:8443")), "{host}");
        }
        for host in ["evil.example:3000", "localhost.evil.example", "192.168.1.2", "mybox.lan", "notlocalhost"] {
            assert!(!is_ours(host, Some("box.lan:8443")), "{host}");
        }
    }

    #[test]
    fn keys_are_read_and_compared() {
        let parse = |text: &str| ApiKeys::default().with(text, Profile::E2b);
        let keys = parse(" first-key-1, second-key-2,").and_then(|keys| keys.with("third-key-3", Profile::Letta));
        let keys = keys.expect("three keys");
        assert_eq!((keys.position("first-key-1"), keys.position("second-key-2")), (Some(0), Some(1)));
        assert_eq!((keys.position("first-key-"), keys.position("")), (None, None));
        assert_eq!([0, 1, 2].map(|tenant| keys.profile(Tenant(tenant))), [Profile::E2b, Profile::E2b, Profile::Letta]);
        assert!(parse("short").is_err() && parse("same-key-1,same-key-1").is_err());
        assert!(parse("").expect("no key").is_empty());
        assert_eq!(ApiKeys::open_to(Profile::Letta).profile(Tenant(0)), Profile::Letta);
        assert_eq!(format!("{keys:?}"), "***");
    }
}
