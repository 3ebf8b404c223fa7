//! API keys: who may call.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::AppState;
use super::dialect::{Dialect, Refusal};
use super::e2b::Profile;
use super::error::ApiError;
use crate::sandbox::Owner;

/// The keys that open the API. None at all means that it is open, which only loopback may be.
#[derive(Clone, Default)]
pub struct ApiKeys {
    keys: Vec<ApiKey>,
    /// The profile where there is no key.
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

impl ApiKeys {
    /// No keys yet. Without any, everybody has this profile.
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
            if self.keys.iter().any(|other| other.key == key) {
                return Err("holds a key that is there already".to_owned());
            }
            self.keys.push(ApiKey { key: key.to_owned(), owner: Owner::of_key(key), profile });
        }
        Ok(self)
    }

    /// The profile of an owner's key.
    pub(crate) fn profile(&self, owner: Owner) -> Profile {
        self.keys.iter().find(|key| key.owner == owner).map_or(self.profile, |key| key.profile)
    }

    /// Whether no key is configured.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The owner of the key that a request carries as `X-API-Key` or `Authorization: Bearer`. `None` if the key is missing or unknown.
    pub(crate) fn owner(&self, headers: &HeaderMap) -> Option<Owner> {
        if self.is_empty() {
            return Some(Owner::ANYBODY);
        }
        given(headers).and_then(|key| self.find(key))
    }

    /// Compares with every key, each in constant time, so that the time taken tells nothing.
    fn find(&self, given: &str) -> Option<Owner> {
        self.keys.iter().fold(None, |found, ApiKey { key, owner, .. }| {
            let equal = bool::from(key.as_bytes().ct_eq(given.as_bytes()));
            if equal { Some(*owner) } else { found }
        })
    }
}

/// Which keys are valid, and how a request without one is refused.
#[derive(Clone)]
pub(super) struct RequireKey {
    pub(super) state: AppState,
    pub(super) dialect: Arc<dyn Dialect>,
}

/// Lets a request through that carries a valid key, and notes its owner.
pub(super) async fn require_key(State(own): State<RequireKey>, mut request: Request, next: Next) -> Response {
    match own.state.api_keys.owner(request.headers()) {
        Some(owner) => {
            request.extensions_mut().insert(owner);
            next.run(request).await
        }
        None => own.dialect.refuse(Refusal::Unauthorized),
    }
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
        let names = ["first-key-1", "second-key-2", "third-key-3"];
        assert_eq!(names.map(|key| keys.find(key)), names.map(|key| Some(Owner::of_key(key))));
        assert_eq!((keys.find("first-key-"), keys.find("")), (None, None));
        let profiles = names.map(|key| keys.profile(Owner::of_key(key)));
        assert_eq!(profiles, [Profile::E2b, Profile::E2b, Profile::Letta]);
        assert!(parse("short").is_err() && parse("same-key-1,same-key-1").is_err());
        assert!(parse("").expect("no key").is_empty());
        assert_eq!(ApiKeys::open_to(Profile::Letta).profile(Owner::ANYBODY), Profile::Letta);
        assert_eq!(format!("{keys:?}"), "***");
    }
}
