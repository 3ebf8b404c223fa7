//! Where a request comes from, for the record of the run that it begins.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tower_http::request_id::RequestId;

use crate::sandbox::Origin;

/// The longest part of a request's id that is kept. A client can choose the id of its request.
const MAX_ID_LENGTH: usize = 128;

/// The address at the other end of a request's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The id of a request and the address of its client. By default, neither is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    id: String,
    client: Option<IpAddr>,
}

impl Source {
    /// Returns the origin of a run that comes in by this door.
    pub(super) fn by(self, door: &'static str) -> Origin {
        Origin { run_id: self.id, door, client: self.client }
    }
}

impl<S: Sync> FromRequestParts<S> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let id = parts.extensions.get::<RequestId>().and_then(|id| id.header_value().to_str().ok()).unwrap_or_default();
        let client = parts.extensions.get::<Peer>().map(|Peer(address)| address.ip().to_canonical());
        Ok(Self { id: id.chars().take(MAX_ID_LENGTH).collect(), client })
    }
}
