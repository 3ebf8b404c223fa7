//! Query parameters, with errors in E2B's shape.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::http::e2b::error::E2bError;

/// Extracts the query parameters.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = E2bError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, E2bError> {
        let read = axum::extract::Query::try_from_uri(&parts.uri);
        read.map(|axum::extract::Query(query)| Self(query)).map_err(|err| E2bError::bad_request(err.body_text()))
    }
}
