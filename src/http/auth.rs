//! API keys, and the check that refuses web pages while there are none.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::AppState;
use super::dialect::{Dialect, Refusal};
use super::e2b::Profile;
use super::error::ApiError;
use super::single::single;
use crate::sandbox::Owner;

/// The configured API keys. Without any, every request is accepted, and the server listens on loopback only.
#[derive(Clone, Default)]
pub struct ApiKeys {
    keys: Vec<ApiKey>,
    /// The profile of requests while no key is configured.
    profile: Profile,
}

#[derive(Clone)]
struct ApiKey {
    key: String,
    owner: Owner,
    profile: Profile,
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a list of API keys cannot be used. No key is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ApiKeyError {
    /// A key cannot be sent in a header, or is short enough to be guessed.
    #[error("must hold keys of at least 8 visible ASCII characters, with commas between them")]
    Weak,
    /// A key is in the set already.
    #[error("holds a key that is already configured")]
    Duplicate,
}

impl ApiKeys {
    /// Returns an empty set of keys. While it stays empty, every request has this profile.
    pub fn without_keys(profile: Profile) -> Self {
        Self { keys: Vec::new(), profile }
    }

    /// Adds the keys of one profile; `text` separates them by commas.
    ///
    /// # Errors
    ///
    /// If a key cannot be sent in a header, is short enough to be guessed, or is already in the set.
    pub fn with_keys(mut self, text: &str, profile: Profile) -> Result<Self, ApiKeyError> {
        for key in text.split(',').map(str::trim).filter(|key| !key.is_empty()) {
            if key.len() < 8 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ApiKeyError::Weak);
            }
            if self.keys.iter().any(|other| other.key == key) {
                return Err(ApiKeyError::Duplicate);
            }
            self.keys.push(ApiKey { key: key.to_owned(), owner: Owner::of_key(key), profile });
        }
        Ok(self)
    }

    /// Returns the profile of the owner's key.
    pub(crate) fn profile(&self, owner: Owner) -> Profile {
        self.keys.iter().find(|key| key.owner == owner).map_or(self.profile, |key| key.profile)
    }

    /// Returns whether no key is configured.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the owner of the key that a request carries as `X-API-Key` or, without that, as `Authorization: Bearer`.
    /// Clients send tokens of their own as the latter, so it is ignored beside the former unless it is a key too.
    ///
    /// # Errors
    ///
    /// If the key is missing or unknown, or if the request has keys of two owners.
    pub(super) fn owner(&self, headers: &HeaderMap) -> Result<Owner, Refusal<'static>> {
        if self.is_empty() {
            return Ok(Owner::ANYBODY);
        }
        let key = single(headers, "X-API-Key").map_err(Refusal::BadHeader)?;
        let bearer = single(headers, "Authorization").map_err(Refusal::BadHeader)?.and_then(bearer);
        let of_bearer = bearer.and_then(|key| self.find(key));
        let Some(key) = key else { return of_bearer.ok_or(Refusal::Unauthorized) };
        let owner = self.find(key).ok_or(Refusal::Unauthorized)?;
        match of_bearer {
            Some(other) if other != owner => Err(Refusal::TwoKeys),
            _ => Ok(owner),
        }
    }

    /// Finds the owner of a key. It compares with every configured key, each in constant time, so that the duration
    /// reveals nothing.
    fn find(&self, sent: &str) -> Option<Owner> {
        self.keys.iter().fold(None, |found, ApiKey { key, owner, .. }| {
            let equal = bool::from(key.as_bytes().ct_eq(sent.as_bytes()));
            if equal { Some(*owner) } else { found }
        })
    }
}

/// The state of [`require_key`]: the valid keys, and the dialect that renders refusals.
#[derive(Clone)]
pub(super) struct RequireKey {
    pub(super) state: AppState,
    pub(super) dialect: Arc<dyn Dialect>,
}

/// Refuses requests without a valid key, and puts the key's owner into the extensions of the others.
pub(super) async fn require_key(State(config): State<RequireKey>, mut request: Request, next: Next) -> Response {
    match config.state.api_keys.owner(request.headers()) {
        Ok(owner) => {
            request.extensions_mut().insert(owner);
            next.run(request).await
        }
        Err(refusal) => config.dialect.refuse(refusal),
    }
}

/// Refuses requests that a web page may have sent, while no key is configured. A page reaches this server from a
/// browser on this machine, either across origins or under a foreign host name that resolves to this machine. CORS does
/// not prevent that: a browser sends simple requests without a preflight.
pub(crate) async fn refuse_web_pages(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if state.api_keys.is_empty() && may_be_from_page(&request, state.domain()) {
        let message = "without an API key, web pages and foreign host names are refused: set ONCEBOX_API_KEYS";
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

    #[test]
    fn keys_are_read_and_compared() {
        let parse = |text: &str| ApiKeys::default().with_keys(text, Profile::E2b);
        let keys = parse(" first-key-1, second-key-2,").and_then(|keys| keys.with_keys("third-key-3", Profile::Letta));
        let keys = keys.expect("three keys");
        let names = ["first-key-1", "second-key-2", "third-key-3"];
        assert_eq!(names.map(|key| keys.find(key)), names.map(|key| Some(Owner::of_key(key))));
        assert_eq!((keys.find("first-key-"), keys.find("")), (None, None));
        let profiles = names.map(|key| keys.profile(Owner::of_key(key)));
        assert_eq!(profiles, [Profile::E2b, Profile::E2b, Profile::Letta]);
        assert!(parse("short").is_err() && parse("same-key-1,same-key-1").is_err());
        assert!(parse("").expect("no key").is_empty());
        assert_eq!(ApiKeys::without_keys(Profile::Letta).profile(Owner::ANYBODY), Profile::Letta);
        assert_eq!(format!("{keys:?}"), "***");
    }
}
