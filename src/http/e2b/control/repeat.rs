//! The header `Idempotency-Key`: requests that a client may repeat after it has lost the answer.

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};

use crate::http::e2b::error::E2bError;
use crate::http::single::single;
use crate::sandbox::CreationKey;

const HEADER: &str = "Idempotency-Key";

/// The longest key that SDKs send.
const MAX_KEY_BYTES: usize = 255;

/// Returns the key of a request; `None` if it has none.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, E2bError> {
    let key = single(headers, HEADER).map_err(|err| E2bError::bad_request(err.to_string()))?;
    match key {
        Some(key) if !(1..=MAX_KEY_BYTES).contains(&key.len()) => {
            let message = format!("{HEADER}: must have from 1 to {MAX_KEY_BYTES} characters, not {}", key.len());
            Err(E2bError::bad_request(message))
        }
        key => Ok(key.map(str::to_owned)),
    }
}

/// Returns the key of a creation with a digest of the request: its whole body, byte for byte, and `secure`, which
/// depends on the route too.
pub(super) fn creation_key(key: String, secure: bool, body: &[u8]) -> CreationKey {
    let digest = Sha256::new().chain_update([u8::from(secure)]).chain_update(body).finalize().into();
    CreationKey { key, digest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_depends_on_the_body_and_the_route() {
        let digest = |secure, body: &[u8]| creation_key("k".to_owned(), secure, body).digest;
        assert_eq!(digest(true, b"{}"), digest(true, b"{}"));
        assert_ne!(digest(true, b"{}"), digest(true, b"{} "));
        assert_ne!(digest(true, b"{}"), digest(false, b"{}"));
    }
}
