//! JSON bodies. Errors name the field by its path and have the shape of the API that received the body.

use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;

/// An invalid body.
#[derive(Debug)]
pub(crate) struct JsonError {
    /// 400, or 413 if the body is too large.
    pub(crate) status: StatusCode,
    /// The field, and the reason why it is invalid.
    pub(crate) message: String,
}

impl JsonError {
    fn invalid(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message }
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

    async fn from_request(request: Request, state: &S) -> Result<Self, E> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| JsonError {
            status: rejection.status(),
            message: rejection.body_text().to_lowercase(),
        })?;
        Ok(Self(parse(&bytes)?, PhantomData))
    }
}

/// Parses a JSON object. Anything after it is an error.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    // serde would accept an array as the members in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(JsonError::invalid("the body: invalid type: sequence, expected an object".to_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|err| {
        let field = match err.path().to_string() {
            // The path is `?` if the text ends before the first member.
            path if path == "." || path == "?" => "the body".to_owned(),
            path => path,
        };
        JsonError::invalid(format!("{field}: {}", err.into_inner()))
    })?;
    deserializer.end().map_err(|err| JsonError::invalid(format!("the body: {err}")))?;
    Ok(value)
}
