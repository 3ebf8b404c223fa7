//! Headers of which a request has one value.
//!
//! If such a header occurs twice with different values, programs on the way may choose different ones. So the request
//! is refused, rather than one of the values chosen.

use axum::http::HeaderMap;
use thiserror::Error;

/// Why the value of a header is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum HeaderError {
    /// The header occurs more than once, with different values.
    #[error("the header {0} occurs more than once, with different values: send it once")]
    Different(&'static str),
    /// The value is not text.
    #[error("the header {0} must consist of visible ASCII characters")]
    NotText(&'static str),
}

/// Returns the value of a header; `None` if the request does not have it.
///
/// # Errors
///
/// If the header has several values that differ, or its value is not text.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, HeaderError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.any(|other| other != value) {
        return Err(HeaderError::Different(name));
    }
    value.to_str().map(Some).map_err(|_| HeaderError::NotText(name))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn values_of_one_header_must_be_equal_text() {
        let find = |values: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HeaderName::from_static("x"), HeaderValue::from_bytes(value).expect("a value"));
            }
            single(&headers, "x").map(|value| value.map(str::to_owned))
        };
        assert_eq!(find(&[]), Ok(None));
        assert_eq!(find(&[b"a"]), Ok(Some("a".to_owned())));
        assert_eq!(find(&[b"a", b"a"]), Ok(Some("a".to_owned())));
        assert_eq!(find(&[b"a", b"b"]), Err(HeaderError::Different("x")));
        assert_eq!(find(&[b"a", b""]), Err(HeaderError::Different("x")));
        assert_eq!(find(&[b"\xff"]), Err(HeaderError::NotText("x")));
    }
}
