//! The HTTP/2 client on a container's pipe, with one method per operation of the agent.
//!
//! The agent is not trusted: the size of its answers is bounded, another protocol version is refused, and a broken
//! connection is an error of this one sandbox.
//!
//! A link lasts for days, and both of its ends are ours. No limit that the HTTP/2 libraries set against hostile peers
//! may end it in ordinary use. The table lists the limits of h2 0.4.20 and hyper 1, and the reason why none is reached:
//!
//! | limit | it ends | here |
//! | --- | --- | --- |
//! | 100 empty DATA frames in a connection's life | the connection | none is sent: [`records`] |
//! | small DATA frames: a budget of half the connection's window | the connection | sent only at the edge of a window: [`records`]. The budget remains as the bound for a lying agent |
//! | 1,024 frames for streams that h2 has forgotten, in a connection's life | the connection | lifted at both ends |
//! | 50 reset streams are remembered, for 1 s | nothing: later frames are answered, and counted above | unchanged |
//! | 20 streams reset before they are accepted | the connection | lifted in the agent, which a pause freezes |
//! | a header list of 16 KiB; 4 times as much, or too many CONTINUATION frames | the request; the connection | routes have at most 48 KiB, the agent accepts 256 KiB |
//! | 4,096 streams at once, as the agent announces | nothing: requests wait | unchanged |
//! | a ping without an answer for 20 s | the connection | no request is open while a sandbox is paused |
//! | 2^30 streams in a connection's life | all later requests | 12,000 requests a second for a day |

mod context;
mod files;
mod process;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::engine::Pipe;
use crate::protocol::{self, Code, Hello, Metrics, PROTOCOL_VERSION, Refusal};
use crate::records;
pub use files::FileContent;

/// The longest answer that is not a stream, bytes.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// The longest route with its query, bytes. Every path that the kernel accepts fits, even with every letter escaped.
/// The HTTP library would refuse a longer route, or end the connection for all requests.
const MAX_ROUTE_BYTES: usize = 48 << 10;

/// The most unread bytes of one stream.
const WINDOW: u32 = 128 << 10;

/// The most unread bytes of all streams of a link; it bounds the memory that one lying agent can occupy in the server.
/// It is 256 times [`WINDOW`], so that streams without a reader do not block the others.
const ALL_WINDOWS: u32 = 32 << 20;

/// Time without an answer to a ping after which the agent counts as gone. Also the interval between pings.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The reason why an operation on an agent failed.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The connection broke: the container is gone, or its agent violated the protocol.
    #[error("the link to the sandbox broke")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// This one operation broke off. The sandbox and its other operations are unaffected.
    #[error("the sandbox did not finish this operation")]
    Unfinished(#[source] Box<dyn Error + Send + Sync>),
    /// The agent speaks another protocol version than this server.
    #[error("the agent in the image speaks protocol {0}, this server {PROTOCOL_VERSION}: rebuild the image")]
    Version(u32),
    /// The agent refused the request.
    #[error("{message}")]
    Refused {
        /// The kind of refusal.
        code: Code,
        /// The reason, for people.
        message: String,
    },
}

impl LinkError {
    /// Classifies a failure: HTTP/2 distinguishes the reset of one stream from the end of the connection.
    fn broken(err: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let err = err.into();
        if is_reset(&*err) { Self::Unfinished(err) } else { Self::Broken(err) }
    }
}

fn is_reset(err: &(dyn Error + 'static)) -> bool {
    match err.downcast_ref::<h2::Error>() {
        Some(err) => err.is_reset(),
        None => err.source().is_some_and(is_reset),
    }
}

/// A request's body.
type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// A connection to one agent. Dropping it closes the pipe, which ends the container, and breaks the remaining streams.
#[derive(Debug)]
pub struct Link {
    requests: http2::SendRequest<Body>,
    ended: CancellationToken,
    /// The error that ended the connection, if one did.
    cause: Arc<OnceLock<hyper::Error>>,
    _connection: DropGuard,
}

/// Runs the connection's tasks until the link is dropped, even if streams of it are still held.
#[derive(Debug, Clone)]
struct Tasks(CancellationToken);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        tokio::spawn(self.0.clone().run_until_cancelled_owned(task));
    }
}

impl Link {
    /// Opens an HTTP/2 connection on `pipe` and asks for the agent's [`Hello`].
    ///
    /// # Errors
    ///
    /// [`LinkError::Version`] when the agent speaks another protocol version, [`LinkError::Broken`] when no agent
    /// answers.
    pub async fn open(pipe: Pipe) -> Result<(Self, Hello), LinkError> {
        let tasks = Tasks(CancellationToken::new());
        let (requests, connection) = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(ALL_WINDOWS)
            .keep_alive_interval(PING_TIMEOUT)
            .keep_alive_timeout(PING_TIMEOUT)
            // After a request is dropped, frames of its answer still arrive for a moment. h2 counts each as an error
            // and tolerates 1,024 in a connection's life, but our own clients may drop any number of requests.
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(pipe.into_io()))
            .await
            .map_err(LinkError::broken)?;
        let (ended, cause) = (CancellationToken::new(), Arc::new(OnceLock::new()));
        tasks.execute({
            let (ended, cause) = (ended.clone(), Arc::clone(&cause));
            async move {
                if let Err(err) = connection.await {
                    let _ = cause.set(err);
                }
                ended.cancel();
            }
        });
        let link = Self { requests, ended, cause, _connection: tasks.0.drop_guard() };
        let hello: Hello = link.call(Method::GET, protocol::HELLO, empty()).await?;
        if hello.protocol != PROTOCOL_VERSION {
            return Err(LinkError::Version(hello.protocol));
        }
        Ok((link, hello))
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// A token that is cancelled when the connection ends.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// The error that ended the connection; `None` while it is open, and if the agent closed it in order.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.get().map(|err| err as _)
    }

    /// Replaces the environment of the whole sandbox, for everything started or executed from now on.
    ///
    /// # Errors
    ///
    /// [`LinkError::Broken`] only.
    pub async fn set_environment(&self, environment: &BTreeMap<String, String>) -> Result<(), LinkError> {
        self.send(Method::PUT, protocol::ENV, json(environment)).await.map(|_| ())
    }

    /// Reads the container's current resource usage.
    ///
    /// # Errors
    ///
    /// [`LinkError::Broken`] only.
    pub async fn metrics(&self) -> Result<Metrics, LinkError> {
        self.call(Method::GET, protocol::METRICS, empty()).await
    }

    /// Connects to a port inside the container. Shutting down one direction leaves the other open; dropping the
    /// connection closes both.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] with [`Code::PortClosed`] when nothing listens there.
    pub async fn connect(
        &self,
        port: u16,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static + use<>, LinkError> {
        let request = Request::connect(format!("127.0.0.1:{port}")).body(empty()).expect("an address is valid");
        let response = self.send_request(request).await?;
        let upgraded = hyper::upgrade::on(response).await.map_err(LinkError::broken)?;
        Ok(records::connection(TokioIo::new(upgraded)))
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> Result<T, LinkError> {
        let response = self.send(method, path, body).await?;
        serde_json::from_slice(&read(response).await?).map_err(LinkError::broken)
    }

    async fn send(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>, LinkError> {
        if path.len() > MAX_ROUTE_BYTES {
            let message = format!("a path or a name is too long: {} bytes, escaped", path.len());
            return Err(LinkError::Refused { code: Code::InvalidArgument, message });
        }
        let request = Request::builder().method(method).uri(format!("http://agent{path}")).body(body);
        self.send_request(request.expect("our routes are valid")).await
    }

    async fn send_request(&self, request: Request<Body>) -> Result<Response<Incoming>, LinkError> {
        let response = self.requests.clone().send_request(request).await.map_err(LinkError::broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let body = read(response).await?;
        let Refusal { code, message } = serde_json::from_slice(&body).map_err(LinkError::broken)?;
        Err(LinkError::Refused { code, message })
    }
}

fn empty() -> Body {
    full(Bytes::new())
}

fn json<T: Serialize + ?Sized>(value: &T) -> Body {
    full(serde_json::to_vec(value).expect("the protocol's types can be written as JSON").into())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A stream of one piece, for an operation that takes a stream.
fn once(piece: Bytes) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static {
    futures::stream::iter([Ok(piece)])
}

/// A streamed body. An error in `pieces` resets the request's stream, so that the agent does not take a part for the
/// whole.
fn streamed<E>(pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Body
where
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    StreamBody::new(records::encode(pieces.map_err(Into::into)).map_ok(Frame::data)).boxed_unsync()
}

/// A route with its query.
fn with_query<T: Serialize>(path: &str, query: &T) -> String {
    format!("{path}?{}", serde_urlencoded::to_string(query).expect("the protocol's queries are flat"))
}

/// Decodes the pieces of a streamed answer as they arrive.
fn pieces(response: Response<Incoming>) -> impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static {
    records::decode(
        BodyStream::new(response.into_body()).try_filter_map(|frame| std::future::ready(Ok(frame.into_data().ok()))),
    )
}

/// Parses the lines of a streamed answer as they arrive. A line longer than `max_bytes` is an error.
fn lines<T: DeserializeOwned>(
    response: Response<Incoming>,
    max_bytes: usize,
) -> impl Stream<Item = Result<T, LinkError>> + Send + Unpin + 'static {
    let reader = StreamReader::new(pieces(response));
    let lines = FramedRead::with_capacity(reader, LinesCodec::new_with_max_length(max_bytes), 64 * 1024);
    lines.map(|line| {
        let line = line.map_err(|err| match err {
            // Unwrapped, because `LinesCodecError` does not return it from `source()`.
            LinesCodecError::Io(err) => LinkError::broken(err),
            err @ LinesCodecError::MaxLineLengthExceeded => LinkError::broken(err),
        })?;
        serde_json::from_str(&line).map_err(LinkError::broken)
    })
}

async fn read(response: Response<Incoming>) -> Result<Bytes, LinkError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(err) if err.is::<LengthLimitError>() => Err(LinkError::Unfinished(err)),
        Err(err) => Err(LinkError::broken(err)),
    }
}
