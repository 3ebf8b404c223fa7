//! Whom a call is made for.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::http::e2b::proxy::address;

/// The account that a call is made for. It is a choice, not a credential; whoever makes none gets the default.
pub(in crate::http::e2b) struct User(pub(in crate::http::e2b) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // An account's name has no dot; with one it is a part of the address.
        Ok(Self(address::basic_user(&parts.headers).filter(|user| !user.contains('.'))))
    }
}
