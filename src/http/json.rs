//! JSON bodies whose mistakes are told with the field's path, in the shape of the API they were sent to.

use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;

/// What is wrong with a body.
#[derive(Debug)]
pub(crate) struct JsonError {
    /// 400, or 413 when it is too large.
    pub(crate) status: StatusCode,
    /// The field and what is wrong with it.
    pub(crate) message: String,
}

impl JsonError {
    fn invalid(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message }
    }
}

/// A JSON body; `E` is the shape of its rejection.
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

/// Reads a JSON object, and nothing after it.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    // serde would take a list for the members in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(JsonError::invalid("the body: invalid type: sequence, expected an object".to_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|err| {
        let field = match err.path().to_string() {
            // `?` is where the text broke off before there was a member.
            path if path == "." || path == "?" => "the body".to_owned(),
            path => path,
        };
        JsonError::invalid(format!("{field}: {}", err.into_inner()))
    })?;
    deserializer.end().map_err(|err| JsonError::invalid(format!("the body: {err}")))?;
    Ok(value)
}
