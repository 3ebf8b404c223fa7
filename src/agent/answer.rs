//! Builds the agent's answers: JSON values, lines of JSON, and refusals.

use std::convert::Infallible;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Response, StatusCode};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{Code, Refusal};
use crate::records;

/// An answer's body. An error in it resets the stream, so that the server does not take a part for the whole.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The result of a route's handler.
pub(crate) type Answer = Result<Response<Body>, Refused>;

/// The error of a refused request.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Refusal);

impl Refused {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Refusal { code, message: message.into() })
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// An error of the operating system, with `message` in front of its text.
    pub(crate) fn io(message: impl std::fmt::Display, err: &io::Error) -> Self {
        Self::new(code_of(err), format!("{message}: {err}"))
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = json(&self.0);
        // Every refusal has this status. Its kind is in the code, which the server's dialects map to their statuses.
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response
    }
}

impl From<io::Error> for Refused {
    fn from(err: io::Error) -> Self {
        Self::new(code_of(&err), err.to_string())
    }
}

fn code_of(err: &io::Error) -> Code {
    match err.kind() {
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::AlreadyExists => Code::AlreadyExists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::NoSpace,
        io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename => Code::InvalidArgument,
        io::ErrorKind::DirectoryNotEmpty => Code::FailedPrecondition,
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Code::Exhausted,
        _ => match Errno::from_io_error(err) {
            // Opening a socket or a missing device fails with one of the last two.
            Some(Errno::LOOP | Errno::NXIO | Errno::NODEV) => Code::InvalidArgument,
            Some(Errno::MFILE | Errno::NFILE) => Code::Exhausted,
            _ => Code::Internal,
        },
    }
}

/// Parses a query.
pub(crate) fn read_query<T: DeserializeOwned>(query: Option<&str>) -> Result<T, Refused> {
    serde_urlencoded::from_str(query.unwrap_or_default()).map_err(|err| Refused::invalid(err.to_string()))
}

/// Parses a JSON body.
pub(crate) async fn read_json<T: DeserializeOwned>(body: Incoming) -> Result<T, Refused> {
    let body = body.collect().await.map_err(|err| Refused::invalid(err.to_string()))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|err| Refused::invalid(err.to_string()))
}

/// Decodes the pieces of a streamed body.
pub(crate) fn chunks(body: Incoming) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
    records::decode(BodyStream::new(body).try_filter_map(|frame| std::future::ready(Ok(frame.into_data().ok()))))
}

/// An answer that is one JSON value.
pub(crate) fn json<T: Serialize>(value: &T) -> Response<Body> {
    full(serde_json::to_vec(value).expect("the protocol's types can be written as JSON"))
}

/// An empty answer: the request succeeded.
pub(crate) fn done() -> Response<Body> {
    full(Vec::new())
}

fn full(bytes: Vec<u8>) -> Response<Body> {
    Response::new(Full::new(Bytes::from(bytes)).map_err(|never: Infallible| match never {}).boxed_unsync())
}

/// A streamed answer. Its head is sent at once.
pub(crate) fn streamed(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    Response::new(StreamBody::new(records::encode(pieces).map_ok(Frame::data)).boxed_unsync())
}

/// A streamed answer with one line of JSON per value.
pub(crate) fn lines<T: Serialize>(values: impl Stream<Item = T> + Send + 'static) -> Response<Body> {
    streamed(values.map(|value| Ok(line(&value))))
}

/// Encodes a value as one line of JSON.
pub(crate) fn line<T: Serialize>(value: &T) -> Bytes {
    let mut line = BytesMut::new().writer();
    serde_json::to_writer(&mut line, value).expect("the protocol's types can be written as JSON");
    let mut line = line.into_inner();
    line.put_u8(b'\n');
    line.freeze()
}
