//! JSON bodies whose mistakes are told in our own shape, with the field's path.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let code = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => "too_large",
                _ => "invalid_request",
            };
            ApiError::new(rejection.status(), code, rejection.body_text().to_lowercase())
        })?;
        let mut deserializer = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|err| {
            let path = err.path().to_string();
            match path.as_str() {
                // `?` is where the text broke off before there was a member.
                "." | "?" => ApiError::bad_request(format!("the body: {}", err.into_inner())),
                _ => ApiError::bad_request(format!("{path}: {}", err.into_inner())),
            }
        })?;
        deserializer.end().map_err(|err| ApiError::bad_request(format!("the body: {err}")))?;
        Ok(Self(value))
    }
}
