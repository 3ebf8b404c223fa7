//! JSON bodies. Errors name the field by its path and have the shape of the API that received the body.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::error::Error as StdError;
use std::fmt;
use std::marker::PhantomData;

use axum::RequestExt;
use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use http_body_util::LengthLimitError;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// An invalid body.
#[derive(Debug)]
pub(crate) struct JsonError {
    /// 400, 413 if the body is too large, or 415 if it is encoded.
    pub(crate) status: StatusCode,
    /// The field, and the reason why it is invalid.
    pub(crate) message: String,
}

impl JsonError {
    fn invalid(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message }
    }

    fn too_large(most: u64) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, message: format!("the body: must have at most {most} bytes") }
    }
}

/// A JSON body; `E` is the error of the API.
pub(crate) struct Json<T, E>(pub(crate) T, pub(crate) PhantomData<E>);

impl<S, T, E> FromRequest<S> for Json<T, E>
where
    S: Send + Sync,
    T: DeserializeOwned,
    E: From<JsonError> + IntoResponse,
{
    type Rejection = E;

    async fn from_request(request: Request, _: &S) -> Result<Self, E> {
        Ok(Self(parse(&read(request).await?)?, PhantomData))
    }
}

/// A JSON body that may be missing; `E` is the error of the API.
pub(crate) struct OptionalJson<T, E>(pub(crate) T, pub(crate) PhantomData<E>);

impl<S, T, E> FromRequest<S> for OptionalJson<T, E>
where
    S: Send + Sync,
    T: DeserializeOwned + Default,
    E: From<JsonError> + IntoResponse,
{
    type Rejection = E;

    async fn from_request(request: Request, _: &S) -> Result<Self, E> {
        let body = read(request).await?;
        Ok(Self(if body.is_empty() { T::default() } else { parse(&body)? }, PhantomData))
    }
}

/// Reads a whole body, up to the limit of its route.
///
/// A body that is declared to be larger is refused before any of it is read, so that a client with
/// `Expect: 100-continue` does not send it, and no client waits for a body that it never finishes. So is one that is
/// compressed.
pub(crate) async fn read(request: Request) -> Result<Bytes, JsonError> {
    check_encoding(request.headers())?;
    let request = request.with_limited_body();
    // The limit, or the declared length if that is lower: then nothing is refused here.
    let most = request.body().size_hint().upper();
    if let Some(most) = most {
        check_length(request.headers(), most)?;
    }
    axum::body::to_bytes(request.into_body(), usize::MAX).await.map_err(|err| {
        let mut causes = std::iter::successors(err.source(), |cause| (*cause).source());
        let is_too_large = causes.any(|cause| cause.is::<LengthLimitError>());
        match most {
            Some(most) if is_too_large => JsonError::too_large(most),
            _ => JsonError::invalid(format!("the body cannot be read: {err}")),
        }
    })
}

/// Refuses a body whose head declares it to be larger than `most`. A body in chunks declares no length.
pub(crate) fn check_length(headers: &HeaderMap, most: u64) -> Result<(), JsonError> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > most) { Err(JsonError::too_large(most)) } else { Ok(()) }
}

/// Refuses a body that is not sent as it is.
fn check_encoding(headers: &HeaderMap) -> Result<(), JsonError> {
    let is_other = |value: &&HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get_all(header::CONTENT_ENCODING).iter().find(is_other) {
        None => Ok(()),
        Some(other) => {
            let other = String::from_utf8_lossy(other.as_bytes());
            let message = format!("content encoding `{other}`: must be identity");
            Err(JsonError { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, message })
        }
    }
}

/// A JSON object of strings. A name that occurs twice is an error, as it is for the members of other objects.
#[derive(Debug, Default)]
pub(crate) struct Pairs(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            match pairs.entry(name) {
                Entry::Vacant(entry) => entry.insert(value),
                Entry::Occupied(entry) => {
                    return Err(A::Error::custom(format_args!("duplicate name `{}`", entry.key())));
                }
            };
        }
        Ok(Pairs(pairs))
    }
}

/// Parses a JSON object. Anything after it is an error.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    // serde would accept an array as the members in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(JsonError::invalid("the body: invalid type: sequence, expected an object".to_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = read_members(&mut deserializer, "the body")?;
    deserializer.end().map_err(|err| JsonError::invalid(format!("the body: {err}")))?;
    Ok(value)
}

/// Reads the members of an object that has been parsed. `whole` is its name in errors.
pub(crate) fn members<T: DeserializeOwned>(object: Map<String, Value>, whole: &str) -> Result<T, JsonError> {
    read_members(Value::Object(object), whole)
}

fn read_members<'de, T, D>(deserializer: D, whole: &str) -> Result<T, JsonError>
where
    T: DeserializeOwned,
    D: Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(deserializer).map_err(|err| {
        let field = match err.path().to_string() {
            // The path is `?` if the text ends before the first member.
            path if path == "." || path == "?" => whole.to_owned(),
            path => path,
        };
        JsonError::invalid(format!("{field}: {}", err.into_inner()))
    })
}
