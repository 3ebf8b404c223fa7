//! The way to one agent: the HTTP/2 client on a container's pipe, with one method per operation.
//!
//! Nothing the agent says is trusted: answers are bounded, another protocol version is refused, and a broken connection
//! is an error of this one sandbox.
//!
//! A link lasts for days, and its two ends are ours: no limit that HTTP/2's libraries have against hostile peers may end it in
//! ordinary use. These are the limits of h2 0.4.20 and hyper 1, and why none is met:
//!
//! | limit | what it ends | here |
//! | --- | --- | --- |
//! | 100 empty DATA frames in a connection's life | the connection | none is sent: [`records`] |
//! | small DATA frames: a budget of half the connection's window | the connection | none is sent but at the edge of a window: [`records`]. It stays as the bound for a lying agent |
//! | 1,024 frames for streams that h2 has forgotten, in a connection's life | the connection | lifted at both ends |
//! | 50 reset streams are remembered, for 1 s | nothing: later frames are answered, and counted above | as it is |
//! | 20 streams reset before they are accepted | the connection | lifted in the agent, which is frozen by a pause |
//! | a header list of 16 KiB, 4 times as much, or too many CONTINUATION frames | the request; the connection | routes have 48 KiB at the most, the agent takes 256 KiB |
//! | 4,096 streams at once, as the agent announces | nothing: requests wait | as it is |
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
use crate::records::{self, packed, unpacked};
pub use files::FileContent;

/// The longest answer that is not a stream, bytes.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// The longest route with its query, bytes. Every path that a kernel takes fits, every letter of it escaped; longer ones would
/// be refused by the HTTP library, or end the connection for all.
const MAX_ROUTE_BYTES: usize = 48 << 10;

/// What waits unread in one stream, bytes, and in all of them: what one lying agent can make the server hold. The second
/// is 256 times the first, so that streams that nobody reads do not hold up the others.
const WINDOW: u32 = 128 << 10;
const ALL_WINDOWS: u32 = 32 << 20;

/// An agent that does not answer a ping for this long is gone.
const SILENCE: Duration = Duration::from_secs(20);

/// Why an operation on an agent failed.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The connection broke: the container is gone, or its agent talks nonsense.
    #[error("the link to the sandbox broke")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// This one operation broke off. The sandbox lives, and so does everything else that is asked of it.
    #[error("the sandbox did not finish this operation")]
    Unfinished(#[source] Box<dyn Error + Send + Sync>),
    /// The agent is of another release than this server.
    #[error("the agent in the image speaks protocol {0}, this server {PROTOCOL_VERSION}: rebuild the image")]
    Version(u32),
    /// The agent will not do what it was asked, and says why.
    #[error("{message}")]
    Refused {
        /// Its reason.
        code: Code,
        /// Its words.
        message: String,
    },
}

impl LinkError {
    /// HTTP/2 tells the end of one stream from that of the connection.
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

/// A connection to one agent. Dropping it closes the pipe, which ends the container, and breaks the streams that are left.
#[derive(Debug)]
pub struct Link {
    requests: http2::SendRequest<Body>,
    ended: CancellationToken,
    /// Why it ended, once it has.
    cause: Arc<OnceLock<hyper::Error>>,
    _connection: DropGuard,
}

/// Runs the connection's tasks for as long as there is a link, also while streams of it are held.
#[derive(Debug, Clone)]
struct Tasks(CancellationToken);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        tokio::spawn(self.0.clone().run_until_cancelled_owned(task));
    }
}

impl Link {
    /// Shakes hands over `pipe` and asks who is there.
    ///
    /// # Errors
    ///
    /// [`LinkError::Version`] when the agent is of another release, [`LinkError::Broken`] when there is none.
    pub async fn open(pipe: Pipe) -> Result<(Self, Hello), LinkError> {
        let tasks = Tasks(CancellationToken::new());
        let (requests, connection) = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(ALL_WINDOWS)
            .keep_alive_interval(SILENCE)
            .keep_alive_timeout(SILENCE)
            // Answers that nobody waits for any more go on arriving for a moment. Each is an error to h2, of which it forgives
            // 1,024 in a connection's life; our own clients cause as many as they like.
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(pipe.into_io()))
            .await
            .map_err(LinkError::broken)?;
        let (ended, cause) = (CancellationToken::new(), Arc::new(OnceLock::new()));
        let (end, because) = (ended.clone(), Arc::clone(&cause));
        tasks.execute(async move {
            if let Err(err) = connection.await {
                let _ = because.set(err);
            }
            end.cancel();
        });
        let link = Self { requests, ended, cause, _connection: tasks.0.drop_guard() };
        let hello: Hello = link.call(Method::GET, protocol::HELLO, empty()).await?;
        if hello.protocol != PROTOCOL_VERSION {
            return Err(LinkError::Version(hello.protocol));
        }
        Ok((link, hello))
    }

    /// Whether the agent can no longer be reached.
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Cancelled when the agent can no longer be reached.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Why the agent can no longer be reached; `None` while it can, and when it closed the connection in order.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.get().map(|err| err as _)
    }

    /// Replaces the environment of the whole sandbox, for what is started or executed from now on.
    ///
    /// # Errors
    ///
    /// [`LinkError::Broken`] only.
    pub async fn set_environment(&self, environment: &BTreeMap<String, String>) -> Result<(), LinkError> {
        self.send(Method::PUT, protocol::ENV, json(environment)).await.map(|_| ())
    }

    /// Asks what the container uses now.
    ///
    /// # Errors
    ///
    /// [`LinkError::Broken`] only.
    pub async fn metrics(&self) -> Result<Metrics, LinkError> {
        self.call(Method::GET, protocol::METRICS, empty()).await
    }

    /// Connects to a port inside the container. Shutting down one direction leaves the other open; dropping it closes
    /// both.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] with [`Code::PortClosed`] when nothing listens there.
    pub async fn connect(
        &self,
        port: u16,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static + use<>, LinkError> {
        let request = Request::connect(format!("127.0.0.1:{port}")).body(empty()).expect("an address is valid");
        let response = self.answered(request).await?;
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
        self.answered(request.expect("our routes are valid")).await
    }

    async fn answered(&self, request: Request<Body>) -> Result<Response<Incoming>, LinkError> {
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

/// The one piece of a body that is there already, for an operation that takes many.
fn once(piece: Bytes) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static {
    futures::stream::iter([Ok(piece)])
}

/// A body of pieces that are not there yet. An error in it breaks the request off, which the agent sees.
fn streamed<E>(pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Body
where
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    StreamBody::new(packed(pieces.map_err(Into::into)).map_ok(Frame::data)).boxed_unsync()
}

/// A route with its query.
fn with_query<T: Serialize>(path: &str, query: &T) -> String {
    format!("{path}?{}", serde_urlencoded::to_string(query).expect("the protocol's queries are flat"))
}

/// The pieces of an answer that is a stream, as they come.
fn pieces(response: Response<Incoming>) -> impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static {
    unpacked(
        BodyStream::new(response.into_body()).try_filter_map(|frame| std::future::ready(Ok(frame.into_data().ok()))),
    )
}

/// An answer's lines as they come. None may be longer than `max_bytes`.
fn lines<T: DeserializeOwned>(
    response: Response<Incoming>,
    max_bytes: usize,
) -> impl Stream<Item = Result<T, LinkError>> + Send + Unpin + 'static {
    let reader = StreamReader::new(pieces(response));
    let lines = FramedRead::with_capacity(reader, LinesCodec::new_with_max_length(max_bytes), 64 * 1024);
    lines.map(|line| {
        let line = line.map_err(|err| match err {
            // It does not name its cause as such.
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
