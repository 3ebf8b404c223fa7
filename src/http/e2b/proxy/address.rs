//! Which sandbox, and which of its ports, a request means: from the headers that SDKs send, from the host name, from a part of
//! that which arrives as a user's name, or from the token.

use axum::http::{HeaderMap, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::http::e2b::error::ProxyError;

/// Where a sandbox's interpreters are asked for.
pub(in crate::http::e2b) const INTERPRETER_PORT: u16 = 49999;

/// Where a sandbox's commands and files are asked for.
pub(in crate::http::e2b) const ENVD_PORT: u16 = 49983;

/// Names below it reach this machine without any set-up, in browsers and in curl.
const LOCAL_DOMAIN: &str = "localhost";

/// What SDKs call the sandbox that they did not create, in debug mode.
const DEBUG_ID: &str = "debug_sandbox_id";

/// What a request means.
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
    /// A port of a sandbox that the request's token names, or, in debug mode only, that nothing names.
    Unnamed {
        /// The port.
        port: u16,
    },
}

/// The address of a request. `domain` is the one whose names lead here, beside `localhost`; `listener` is the port of a
/// sandbox that the listener stands for, which is so in debug mode only.
///
/// # Errors
///
/// When there is half an address.
pub(in crate::http::e2b) fn of(
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
            let port = port.parse().map_err(|_| bad("E2b-Sandbox-Port is not a port"))?;
            return Ok(Address::Sandbox { id: own_part(id)?.to_owned(), port });
        }
        (Some(_), None) => return Err(bad("E2b-Sandbox-Id is given without E2b-Sandbox-Port")),
        (None, Some(_)) => return Err(bad("E2b-Sandbox-Port is given without E2b-Sandbox-Id")),
        (None, None) => {}
    }
    let host = uri.host().or_else(|| text(header::HOST.as_str())).unwrap_or_default();
    let named = from_host(host, domain).or_else(|| from_user(headers)).or_else(|| from_token(headers, uri));
    Ok(named.unwrap_or(Address::Server))
}

/// A sandbox's token, where calls that run commands name their Linux user and so lose the name that the URL had. Some SDKs send
/// it to the server itself, too: only what is asked of sandboxes alone counts.
fn from_token(headers: &HeaderMap, uri: &Uri) -> Option<Address> {
    headers.get("x-access-token").filter(|token| !token.is_empty())?;
    match uri.path().split('/').nth(1)? {
        "execute" | "contexts" => Some(Address::Unnamed { port: INTERPRETER_PORT }),
        "files" | "process.Process" | "filesystem.Filesystem" => Some(Address::Unnamed { port: ENVD_PORT }),
        _ => None,
    }
}

/// With `E2B_DOMAIN=x@HOST`, SDKs make URLs such as `https://PORT-ID.x@HOST`. What was to be the name of a host is then that
/// of a user.
fn from_user(headers: &HeaderMap) -> Option<Address> {
    let user = basic_user(headers)?;
    from_label(user.split_once('.')?.0)
}

/// Whom Basic authentication names, whatever the password.
pub(in crate::http::e2b) fn basic_user(headers: &HeaderMap) -> Option<String> {
    let (scheme, credentials) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = String::from_utf8(BASE64_STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let user = credentials.split(':').next().unwrap_or_default();
    (!user.is_empty()).then(|| user.to_owned())
}

/// `PORT-ID.DOMAIN`; what old SDKs add behind a further `-` does not matter.
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
    let id = own_part(rest).ok()?;
    Some(Address::Sandbox { id: id.to_owned(), port: port.parse().ok()? })
}

/// The sandbox's own id of `ID` or `ID-CLIENT`.
fn own_part(id: &str) -> Result<&str, ProxyError> {
    let id = id.split('-').next().unwrap_or_default();
    match !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        true => Ok(id),
        false => Err(bad("a sandbox id is lower-case letters and digits")),
    }
}

fn bad(message: &str) -> ProxyError {
    ProxyError::BadAddress(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str, port: u16) -> Option<Address> {
        Some(Address::Sandbox { id: id.to_owned(), port })
    }

    #[test]
    fn a_host_name_says_port_and_sandbox() {
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
    fn the_user_is_named_without_a_password() {
        for value in ["Basic cm9vdDo=", "basic cm9vdA=="] {
            assert_eq!(basic_user(&authorized(value)), Some("root".to_owned()));
        }
        for other in ["Basic Og==", "Basic ?", "Basic", "Bearer cm9vdDo="] {
            assert_eq!(basic_user(&authorized(other)), None, "{other}");
        }
    }

    #[test]
    fn a_users_name_can_be_an_address() {
        let of = |user: &str| from_user(&authorized(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:")))));
        assert_eq!(of("49999-iabc.x"), sandbox("iabc", 49999));
        assert_eq!(of("49983-iabc-client.x"), sandbox("iabc", 49983));
        for other in ["api.x", "user", "root", "49999-iabc"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_can_stand_for_the_address() {
        let of = |path: &'static str, token: &'static str| {
            let headers = HeaderMap::from_iter([(
                header::HeaderName::from_static("x-access-token"),
                header::HeaderValue::from_static(token),
            )]);
            super::of(&headers, &Uri::from_static(path), None, None).ok()
        };
        assert_eq!(of("/process.Process/Start", "token"), Some(Address::Unnamed { port: ENVD_PORT }));
        assert_eq!(of("/execute", "token"), Some(Address::Unnamed { port: INTERPRETER_PORT }));
        assert_eq!(of("/execute", ""), Some(Address::Server));
        assert_eq!(of("/sandboxes/iabc", "token"), Some(Address::Server));
    }

    #[test]
    fn headers_say_port_and_sandbox() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| {
                (name.parse::<header::HeaderName>().expect("a name"), value.parse().expect("a value"))
            });
            super::of(&headers.collect(), &Uri::from_static("/health"), None, None)
        };
        let both = of(&[("E2b-Sandbox-Id", "iabc-old"), ("E2b-Sandbox-Port", "49983")]);
        assert_eq!(both.ok(), sandbox("iabc", 49983));
        assert_eq!(of(&[("host", "127.0.0.1")]).ok(), Some(Address::Server));
        assert!(of(&[("E2b-Sandbox-Id", "iabc")]).is_err());
        assert!(of(&[("E2b-Sandbox-Id", "../x"), ("E2b-Sandbox-Port", "1")]).is_err());
        assert!(of(&[("E2b-Sandbox-Id", "iabc"), ("E2b-Sandbox-Port", "123456")]).is_err());
    }
}
