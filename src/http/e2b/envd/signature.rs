//! Signed links to files. The query contains a signature that was made with the sandbox's token, so the request needs
//! no token.
//!
//! Source: e2b-dev/infra, `packages/envd/internal/api/auth.go`.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{Method, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::e2b::error::E2bError;

/// The query of `/files`.
#[derive(Debug, Clone, Default)]
pub(in crate::http::e2b) struct FilesQuery {
    pub(in crate::http::e2b) path: Option<String>,
    pub(in crate::http::e2b) username: Option<String>,
    signature: Option<String>,
    signature_expiration: Option<String>,
    /// A parameter that occurs more than once.
    repeated: Option<&'static str>,
}

impl FilesQuery {
    /// Reads the query of a URI.
    pub(in crate::http::e2b) fn from_uri(uri: &Uri) -> Self {
        Self::parse(uri.query())
    }

    /// Reads a query.
    fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let (name, member) = match &*name {
                "path" => ("path", &mut parsed.path),
                "username" => ("username", &mut parsed.username),
                "signature" => ("signature", &mut parsed.signature),
                "signature_expiration" => ("signature_expiration", &mut parsed.signature_expiration),
                _ => continue,
            };
            if member.replace(value.into_owned()).is_some() {
                parsed.repeated = Some(name);
            }
        }
        parsed
    }

    /// Returns whether the signature was made with this token. The expiration is not checked.
    pub(in crate::http::e2b) fn is_signed_with(&self, token: &str, method: &Method) -> bool {
        let Some(sent) = &self.signature else { return false };
        let operation = if *method == Method::POST { "write" } else { "read" };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut signed = format!("{}:{operation}:{}:{token}", text(&self.path), text(&self.username));
        if let Some(expiration) = &self.signature_expiration {
            signed = format!("{signed}:{expiration}");
        }
        let signature = format!("v1_{}", STANDARD_NO_PAD.encode(Sha256::digest(signed)));
        signature.as_bytes().ct_eq(sent.as_bytes()).into()
    }

    /// Refuses a query with a parameter that occurs more than once.
    pub(in crate::http::e2b) fn check_parameters(&self) -> Result<(), E2bError> {
        match self.repeated {
            None => Ok(()),
            Some(name) => {
                Err(E2bError::bad_request(format!("the query parameter {name} occurs more than once: send it once")))
            }
        }
    }

    /// Returns whether there is a signature, valid or not.
    pub(in crate::http::e2b) fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    /// Checks that the signature was made with this token and has not expired.
    ///
    /// # Errors
    ///
    /// 401 with the message of E2B's envd.
    pub(in crate::http::e2b) fn check(&self, token: &str, method: &Method) -> Result<(), E2bError> {
        if !self.is_signed() {
            return Err(missing_signature());
        }
        if !self.is_signed_with(token, method) {
            return Err(invalid_signature());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Some(expiration) = &self.signature_expiration else { return Ok(()) };
        // The expiration is part of the signed text, so only a client that has the token can send an invalid number.
        match expiration.parse::<u64>().is_ok_and(|expiration| expiration >= now) {
            true => Ok(()),
            false => Err(unauthorized("signature is already expired")),
        }
    }
}

pub(in crate::http::e2b) fn missing_signature() -> E2bError {
    unauthorized("missing signature query parameter")
}

pub(in crate::http::e2b) fn invalid_signature() -> E2bError {
    unauthorized("invalid signature")
}

pub(in crate::http::e2b) fn unauthorized(message: &str) -> E2bError {
    E2bError::new(StatusCode::UNAUTHORIZED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0";
    const SIGNED: &str = "path=hello.txt&username=user&signature=v1_gUtH%2Fs9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E";

    #[test]
    fn a_signature_made_by_e2b_is_valid() {
        let query = FilesQuery::parse(Some(SIGNED));
        assert!(query.check(TOKEN, &Method::GET).is_ok());
        assert!(query.check(TOKEN, &Method::HEAD).is_ok());
        assert!(query.check(TOKEN, &Method::POST).is_err());
        assert!(query.check("another", &Method::GET).is_err());
        assert!(FilesQuery { path: Some("other".to_owned()), ..query }.check(TOKEN, &Method::GET).is_err());
        assert!(FilesQuery::parse(None).check(TOKEN, &Method::GET).is_err());
    }

    #[test]
    fn a_signature_is_valid_until_it_expires() {
        let signed = |expiration: &str| {
            let text = Sha256::digest(format!("p:write::{TOKEN}:{expiration}"));
            FilesQuery {
                path: Some("p".to_owned()),
                signature: Some(format!("v1_{}", STANDARD_NO_PAD.encode(text))),
                signature_expiration: Some(expiration.to_owned()),
                ..FilesQuery::default()
            }
        };
        assert!(signed("99999999999").check(TOKEN, &Method::POST).is_ok());
        for late in ["1700000000", "-1", "soon"] {
            assert!(signed(late).is_signed_with(TOKEN, &Method::POST));
            assert!(signed(late).check(TOKEN, &Method::POST).is_err(), "{late}");
        }
        let moved = FilesQuery { signature_expiration: Some("99999999998".to_owned()), ..signed("99999999999") };
        assert!(moved.check(TOKEN, &Method::POST).is_err());
    }
}
