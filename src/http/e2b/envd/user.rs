//! The Linux account of a call.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::http::e2b::proxy::address;

/// Extracts the account for which a call is made; `None` for the default one. It is an option, not a credential.
pub(in crate::http::e2b) struct User(pub(in crate::http::e2b) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // A name with a dot is not an account but the sandbox's address.
        Ok(Self(address::basic_user(&parts.headers).filter(|user| !user.contains('.'))))
    }
}
