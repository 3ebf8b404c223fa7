//! The address of a request: the sandbox and the port that it is for. It comes from the headers that SDKs send, from
//! the host name, from the user name in the URL, or from the access token.

use axum::http::{HeaderMap, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::http::e2b::error::ProxyError;

/// The port of a sandbox's interpreters.
pub(in crate::http::e2b) const INTERPRETER_PORT: u16 = 49999;

/// The port of envd, E2B's daemon for commands and files.
pub(in crate::http::e2b) const ENVD_PORT: u16 = 49983;

/// The domain whose names lead to this machine without any set-up, in browsers and in curl.
const LOCAL_DOMAIN: &str = "localhost";

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

/// Returns the address of a request. `domain` is the server's own, in addition to `localhost`. `listener` is the
/// sandbox port of which the listener takes the place; it is set in debug mode only.
///
/// # Errors
///
/// If the address is incomplete or invalid.
pub(in crate::http::e2b) fn from_request(
    headers: &HeaderMap,
    uri: &Uri,
    domain: Option<&str>,
    listener: Option<u16>,
) -> Result<Address, ProxyError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(port) = listener
        && text("e2b-sandbox-id").is_none_or(|id| id == DEBUG_ID)
    {
        return Ok(Address::Unnamed { port });
    }
    match (text("e2b-sandbox-id"), text("e2b-sandbox-port")) {
        (Some(id), Some(port)) => {
            let port = port.parse().map_err(|_| bad_address("E2b-Sandbox-Port is not a port"))?;
            return Ok(Address::Sandbox { id: id_without_client(id)?.to_owned(), port });
        }
        (Some(_), None) => return Err(bad_address("E2b-Sandbox-Id is given without E2b-Sandbox-Port")),
        (None, Some(_)) => return Err(bad_address("E2b-Sandbox-Port is given without E2b-Sandbox-Id")),
        (None, None) => {}
    }
    let host = uri.host().or_else(|| text(header::HOST.as_str())).unwrap_or_default();
    let named = from_host(host, domain).or_else(|| from_user(headers)).or_else(|| from_token(headers, uri));
    Ok(named.unwrap_or(Address::Server))
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
fn from_user(headers: &HeaderMap) -> Option<Address> {
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
fn from_host(host: &str, domain: Option<&str>) -> Option<Address> {
    let host = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let (label, parent) = host.split_once('.')?;
    let parent_is = |domain: &str| parent == domain.split(':').next().unwrap_or_default();
    if !parent_is(LOCAL_DOMAIN) && !domain.is_some_and(parent_is) {
        return None;
    }
    from_label(label)
}

fn from_label(label: &str) -> Option<Address> {
    let (port, rest) = label.split_once('-')?;
    let id = id_without_client(rest).ok()?;
    Some(Address::Sandbox { id: id.to_owned(), port: port.parse().ok()? })
}

/// Returns the `ID` of `ID` or `ID-CLIENT`.
fn id_without_client(id: &str) -> Result<&str, ProxyError> {
    let id = id.split('-').next().unwrap_or_default();
    match !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        true => Ok(id),
        false => Err(bad_address("a sandbox id must consist of lower-case letters and digits")),
    }
}

fn bad_address(message: &str) -> ProxyError {
    ProxyError::BadAddress(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str, port: u16) -> Option<Address> {
        Some(Address::Sandbox { id: id.to_owned(), port })
    }

    #[test]
    fn a_host_name_contains_port_and_sandbox() {
        assert_eq!(from_host("3000-iabc.localhost:8080", None), sandbox("iabc", 3000));
        assert_eq!(from_host("49999-iabc-client.Sandbox.Lan", Some("sandbox.lan:8443")), sandbox("iabc", 49999));
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
        assert_eq!(of("49999-iabc.x"), sandbox("iabc", 49999));
        assert_eq!(of("49983-iabc-client.x"), sandbox("iabc", 49983));
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

    #[test]
    fn headers_contain_port_and_sandbox() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| {
                (name.parse::<header::HeaderName>().expect("a name"), value.parse().expect("a value"))
            });
            super::from_request(&headers.collect(), &Uri::from_static("/health"), None, None)
        };
        let both = of(&[("E2b-Sandbox-Id", "iabc-old"), ("E2b-Sandbox-Port", "49983")]);
        assert_eq!(both.ok(), sandbox("iabc", 49983));
        assert_eq!(of(&[("host", "127.0.0.1")]).ok(), Some(Address::Server));
        assert!(of(&[("E2b-Sandbox-Id", "iabc")]).is_err());
        assert!(of(&[("E2b-Sandbox-Id", "../x"), ("E2b-Sandbox-Port", "1")]).is_err());
        assert!(of(&[("E2b-Sandbox-Id", "iabc"), ("E2b-Sandbox-Port", "123456")]).is_err());
    }
}
