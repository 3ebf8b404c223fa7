//! The address of a request: the sandbox and the port that it is for. It comes from the headers that SDKs send, from
//! the host name, from the user name in the URL, or from the access token. If several of them name a sandbox, they must
//! name the same port of the same one. Otherwise a page that one sandbox serves could address another: a browser lets
//! it set headers, and sends the page's own host name with them.

use std::fmt;

use axum::http::{HeaderMap, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::http::e2b::error::ProxyError;
use crate::http::single::{HeaderError, single};

/// The port of a sandbox's interpreters.
pub(in crate::http::e2b) const INTERPRETER_PORT: u16 = 49999;

/// The port of envd, E2B's daemon for commands and files.
pub(in crate::http::e2b) const ENVD_PORT: u16 = 49983;

/// The domain whose names lead to this machine without any set-up, in browsers and in curl.
const LOCAL_DOMAIN: &str = "localhost";

/// The headers in which SDKs send the sandbox and its port.
const ID_HEADER: &str = "E2b-Sandbox-Id";
const PORT_HEADER: &str = "E2b-Sandbox-Port";

/// The id that SDKs in debug mode send for a sandbox that they did not create.
const DEBUG_ID: &str = "debug_sandbox_id";

/// The target of a request.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http::e2b) enum Address {
    /// The server itself.
    Server,
    /// A port of a sandbox.
    Sandbox {
        /// Its id.
        id: String,
        /// The port.
        port: u16,
    },
    /// A port of a sandbox without an id. The request's token identifies the sandbox; in debug mode there may be no
    /// token either.
    Unnamed {
        /// The port.
        port: u16,
    },
}

/// The target that one part of a request names.
#[derive(Debug)]
struct Claim {
    /// Which parts of the request name the sandbox and the port, for messages.
    names: [&'static str; 2],
    /// `None` if only the port is named.
    id: Option<String>,
    /// `None` if only the sandbox is named.
    port: Option<u16>,
}

impl Claim {
    fn new(name: &'static str, (id, port): (String, u16)) -> Self {
        Self { names: [name, name], id: Some(id), port: Some(port) }
    }
}

/// Returns the address of a request. `domain` is the server's own, in addition to `localhost`. `listener` is the
/// sandbox port of which the listener takes the place; it is set in debug mode only.
///
/// # Errors
///
/// If the address is incomplete or invalid, or if two parts of the request name different sandboxes or ports.
pub(in crate::http::e2b) fn from_request(
    headers: &HeaderMap,
    uri: &Uri,
    domain: Option<&str>,
    listener: Option<u16>,
) -> Result<Address, ProxyError> {
    if let Err(err @ HeaderError::Different(_)) = single(headers, "Authorization") {
        return Err(err.into());
    }
    let host = single(headers, "Host")?.and_then(|host| from_host(host, domain));
    let authority = uri.host().map(|host| from_host(host, domain));
    if let (Some(None), Some((id, port))) = (&authority, &host) {
        return Err(bad_address(format!("the URL names this server, and Host names port {port} of sandbox {id}")));
    }
    let claims = [
        from_headers(headers, listener.is_some())?,
        authority.flatten().map(|named| Claim::new("the URL", named)),
        host.map(|named| Claim::new("Host", named)),
        from_user(headers).map(|named| Claim::new("the user name", named)),
        listener.map(|port| Claim { names: ["the listener"; 2], id: None, port: Some(port) }),
    ];
    let claims: Vec<_> = claims.into_iter().flatten().collect();
    let ids = claims.iter().filter_map(|claim| Some((claim.id.as_deref()?, claim.names[0])));
    let ports = claims.iter().filter_map(|claim| Some((claim.port?, claim.names[1])));
    Ok(match (agreed("sandbox", ids)?, agreed("port", ports)?) {
        (Some(id), Some(port)) => Address::Sandbox { id: id.to_owned(), port },
        (None, Some(port)) => Address::Unnamed { port },
        (_, None) => from_token(headers, uri).unwrap_or(Address::Server),
    })
}

/// Returns the value that all parts of a request name; `None` if none of them does.
fn agreed<T: PartialEq + fmt::Display>(
    what: &str,
    mut named: impl Iterator<Item = (T, &'static str)>,
) -> Result<Option<T>, ProxyError> {
    let Some((value, by)) = named.next() else { return Ok(None) };
    match named.find(|(other, _)| *other != value) {
        None => Ok(Some(value)),
        Some((other, by_other)) => Err(bad_address(format!(
            "{by} names {what} {value}, and {by_other} names {what} {other}: name one of them"
        ))),
    }
}

/// Reads the headers of SDKs. In debug mode, there may be one without the other.
fn from_headers(headers: &HeaderMap, is_debug: bool) -> Result<Option<Claim>, ProxyError> {
    let (id, port) = (single(headers, ID_HEADER)?, single(headers, PORT_HEADER)?);
    let id = id.filter(|id| !is_debug || *id != DEBUG_ID);
    if id.is_some() && port.is_none() {
        return Err(bad_address("E2b-Sandbox-Id is there without E2b-Sandbox-Port"));
    }
    if id.is_none() && port.is_some() && !is_debug {
        return Err(bad_address("E2b-Sandbox-Port is there without E2b-Sandbox-Id"));
    }
    let port = port.map(|port| port.parse().map_err(|_| bad_address("E2b-Sandbox-Port is not a port"))).transpose()?;
    let id = id.map(|id| id_without_client(id).map(str::to_owned)).transpose()?;
    Ok((id.is_some() || port.is_some()).then_some(Claim { names: [ID_HEADER, PORT_HEADER], id, port }))
}

/// Returns the address of a request that identifies its sandbox by the access token only. Calls that run commands send
/// their Linux user in place of the user name in the URL, so the address there is lost. Some SDKs also send the token
/// to the control plane, so only the paths of sandboxes count.
fn from_token(headers: &HeaderMap, uri: &Uri) -> Option<Address> {
    headers.get("x-access-token").filter(|token| !token.is_empty())?;
    match uri.path().split('/').nth(1)? {
        "execute" | "contexts" => Some(Address::Unnamed { port: INTERPRETER_PORT }),
        "files" | "process.Process" | "filesystem.Filesystem" => Some(Address::Unnamed { port: ENVD_PORT }),
        _ => None,
    }
}

/// Reads the address from the user name. With `E2B_DOMAIN=x@HOST`, SDKs make URLs such as `https://PORT-ID.x@HOST`, in
/// which the intended host name has become the user name.
fn from_user(headers: &HeaderMap) -> Option<(String, u16)> {
    let user = basic_user(headers)?;
    from_label(user.split_once('.')?.0)
}

/// Returns the user name of Basic authentication; the password is ignored.
pub(in crate::http::e2b) fn basic_user(headers: &HeaderMap) -> Option<String> {
    let (scheme, credentials) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = String::from_utf8(BASE64_STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let user = credentials.split(':').next().unwrap_or_default();
    (!user.is_empty()).then(|| user.to_owned())
}

/// Reads the address from `PORT-ID.DOMAIN`, or from `PORT-ID-CLIENT.DOMAIN`, which old SDKs send.
fn from_host(host: &str, domain: Option<&str>) -> Option<(String, u16)> {
    let host = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let (label, parent) = host.split_once('.')?;
    let parent_is = |domain: &str| parent == domain.split(':').next().unwrap_or_default();
    if !parent_is(LOCAL_DOMAIN) && !domain.is_some_and(parent_is) {
        return None;
    }
    from_label(label)
}

fn from_label(label: &str) -> Option<(String, u16)> {
    let (port, rest) = label.split_once('-')?;
    let id = id_without_client(rest).ok()?;
    Some((id.to_owned(), port.parse().ok()?))
}

/// Returns the `ID` of `ID` or `ID-CLIENT`.
fn id_without_client(id: &str) -> Result<&str, ProxyError> {
    let id = id.split('-').next().unwrap_or_default();
    match !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        true => Ok(id),
        false => Err(bad_address("a sandbox id must consist of lower-case letters and digits")),
    }
}

fn bad_address(message: impl Into<String>) -> ProxyError {
    ProxyError::BadAddress(message.into())
}

impl From<HeaderError> for ProxyError {
    fn from(err: HeaderError) -> Self {
        bad_address(err.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: &str, port: u16) -> Option<(String, u16)> {
        Some((id.to_owned(), port))
    }

    fn sandbox(id: &str, port: u16) -> Option<Address> {
        Some(Address::Sandbox { id: id.to_owned(), port })
    }

    #[test]
    fn a_host_name_contains_port_and_sandbox() {
        assert_eq!(from_host("3000-iabc.localhost:8080", None), named("iabc", 3000));
        assert_eq!(from_host("49999-iabc-client.Sandbox.Lan", Some("sandbox.lan:8443")), named("iabc", 49999));
        for host in ["127.0.0.1:3000", "localhost:3000", "api.sandbox.lan", "3000-iabc.elsewhere", "x-iabc.localhost"] {
            assert_eq!(from_host(host, Some("sandbox.lan")), None, "{host}");
        }
    }

    fn authorized(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("a header's value"))])
    }

    #[test]
    fn the_user_name_is_read_without_a_password() {
        for value in ["Basic cm9vdDo=", "basic cm9vdA=="] {
            assert_eq!(basic_user(&authorized(value)), Some("root".to_owned()));
        }
        for other in ["Basic Og==", "Basic ?", "Basic", "Bearer cm9vdDo="] {
            assert_eq!(basic_user(&authorized(other)), None, "{other}");
        }
    }

    #[test]
    fn a_user_name_can_be_an_address() {
        let of = |user: &str| from_user(&authorized(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:")))));
        assert_eq!(of("49999-iabc.x"), named("iabc", 49999));
        assert_eq!(of("49983-iabc-client.x"), named("iabc", 49983));
        for other in ["api.x", "user", "root", "49999-iabc"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_can_replace_the_address() {
        let of = |path: &'static str, token: &'static str| {
            let headers = HeaderMap::from_iter([(
                header::HeaderName::from_static("x-access-token"),
                header::HeaderValue::from_static(token),
            )]);
            super::from_request(&headers, &Uri::from_static(path), None, None).ok()
        };
        assert_eq!(of("/process.Process/Start", "token"), Some(Address::Unnamed { port: ENVD_PORT }));
        assert_eq!(of("/execute", "token"), Some(Address::Unnamed { port: INTERPRETER_PORT }));
        assert_eq!(of("/execute", ""), Some(Address::Server));
        assert_eq!(of("/sandboxes/iabc", "token"), Some(Address::Server));
    }

    fn address(pairs: &[(&'static str, &str)], uri: &str, listener: Option<u16>) -> Result<Address, ProxyError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = name.parse::<header::HeaderName>().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        super::from_request(&headers, &uri.parse().expect("a URI"), Some("box.lan"), listener)
    }

    #[test]
    fn headers_contain_port_and_sandbox() {
        let of = |pairs: &[(&'static str, &str)]| address(pairs, "/health", None);
        let both = of(&[("E2b-Sandbox-Id", "iabc-old"), ("E2b-Sandbox-Port", "49983")]);
        assert_eq!(both.ok(), sandbox("iabc", 49983));
        assert_eq!(of(&[("host", "127.0.0.1")]).ok(), Some(Address::Server));
        assert!(of(&[("E2b-Sandbox-Id", "iabc")]).is_err());
        assert!(of(&[("E2b-Sandbox-Id", "../x"), ("E2b-Sandbox-Port", "1")]).is_err());
        assert!(of(&[("E2b-Sandbox-Id", "iabc"), ("E2b-Sandbox-Port", "123456")]).is_err());
    }

    #[test]
    fn parts_that_name_a_sandbox_must_name_the_same() {
        let basic = |user: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:")));
        let of = |uri: &str, host: &str, headers: Option<(&str, &str)>, user: Option<&str>| {
            let mut pairs = vec![("host", host)];
            pairs.extend(headers.iter().flat_map(|(id, port)| [("E2b-Sandbox-Id", *id), ("E2b-Sandbox-Port", *port)]));
            let user = user.map(basic);
            pairs.extend(user.as_deref().map(|user| ("authorization", user)));
            address(&pairs, uri, None)
        };
        for (uri, host, headers, user) in [
            ("/", "8000-iabc.localhost", Some(("iabc", "8000")), None),
            ("/", "8000-IABC-client.box.lan:1", Some(("iabc-other", "8000")), Some("8000-iabc.x")),
            ("http://8000-iabc.box.lan/", "elsewhere", None, Some("root")),
            ("http://8000-iabc.box.lan/", "8000-iabc.localhost", None, None),
            ("/", "elsewhere", Some(("iabc", "8000")), Some("8000-iabc.x")),
        ] {
            assert_eq!(of(uri, host, headers, user).ok(), sandbox("iabc", 8000), "{uri} {host}");
        }
        for (uri, host, headers, user) in [
            ("/", "8000-iabc.localhost", Some(("iother", "8000")), None),
            ("/", "8000-iabc.localhost", Some(("iabc", "8001")), None),
            ("/", "8000-iabc.localhost", None, Some("8000-iother.x")),
            ("/", "h", Some(("iabc", "8000")), Some("8001-iabc.x")),
            ("http://8000-iabc.localhost/", "8000-iother.localhost", None, None),
            ("http://8000-iabc.localhost/", "h", Some(("iother", "8000")), None),
            ("http://127.0.0.1/", "8000-iabc.localhost", None, None),
        ] {
            assert!(of(uri, host, headers, user).is_err(), "{uri} {host}");
        }
    }

    #[test]
    fn in_debug_mode_the_listener_is_the_port() {
        let of = |pairs: &[(&'static str, &str)]| address(pairs, "/", Some(ENVD_PORT));
        let unnamed = Some(Address::Unnamed { port: ENVD_PORT });
        let localhost = ("host", "localhost:49983");
        assert_eq!(of(&[localhost]).ok(), unnamed);
        assert_eq!(of(&[localhost, ("E2b-Sandbox-Id", DEBUG_ID)]).ok(), unnamed);
        assert_eq!(of(&[localhost, ("E2b-Sandbox-Id", DEBUG_ID), ("E2b-Sandbox-Port", "49983")]).ok(), unnamed);
        assert_eq!(of(&[("E2b-Sandbox-Id", "iabc"), ("E2b-Sandbox-Port", "49983")]).ok(), sandbox("iabc", ENVD_PORT));
        assert_eq!(of(&[("host", "49983-iabc.localhost:49983")]).ok(), sandbox("iabc", ENVD_PORT));
        for others in [
            &[("E2b-Sandbox-Id", "iabc"), ("E2b-Sandbox-Port", "8000")][..],
            &[("E2b-Sandbox-Id", DEBUG_ID), ("E2b-Sandbox-Port", "49999")],
            &[("E2b-Sandbox-Port", "49999")],
            &[("E2b-Sandbox-Id", "iabc")],
            &[("host", "8000-iabc.localhost:49983")],
        ] {
            assert!(of(others).is_err(), "{others:?}");
        }
    }
}
