//! The way to one agent: the HTTP/2 client on a container's pipe, with one method per operation.
//!
//! Nothing the agent says is trusted: answers are bounded, another protocol version is refused, and a broken connection
//! is an error of this one sandbox.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, BodyStream, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::task::AbortHandle;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use crate::engine::Pipe;
use crate::protocol::{self, Context, Event, Execute, Hello, MAX_EVENT_BYTES, PROTOCOL_VERSION, StartContext};

/// The longest answer that is not a stream, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// An agent that does not answer a ping for this long is gone.
const SILENCE: Duration = Duration::from_secs(20);

/// Why an operation on an agent failed.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The connection broke: the container is gone, or its agent talks nonsense.
    #[error("the link to the sandbox broke")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// The agent is of another release than this server.
    #[error("the agent in the image speaks protocol {0}, this server {PROTOCOL_VERSION}: rebuild the image")]
    Version(u32),
    /// The agent will not do what it was asked, and says why.
    #[error("{message}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
}

impl LinkError {
    fn broken(err: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Broken(err.into())
    }
}

/// A connection to one agent. Dropping it closes the pipe, which ends the container.
#[derive(Debug)]
pub struct Link {
    requests: http2::SendRequest<Full<Bytes>>,
    connection: AbortHandle,
}

impl Link {
    /// Shakes hands over `pipe` and asks who is there.
    ///
    /// # Errors
    ///
    /// [`LinkError::Version`] when the agent is of another release, [`LinkError::Broken`] when there is none.
    pub async fn open(pipe: Pipe) -> Result<(Self, Hello), LinkError> {
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(SILENCE)
            .keep_alive_timeout(SILENCE)
            .handshake(TokioIo::new(pipe.into_io()))
            .await
            .map_err(LinkError::broken)?;
        let connection = tokio::spawn(async move {
            if let Err(err) = connection.await {
                tracing::debug!(error = &err as &dyn Error, "a link ended");
            }
        });
        let link = Self { requests, connection: connection.abort_handle() };
        let hello: Hello = link.call(Method::GET, protocol::HELLO, Bytes::new()).await?;
        if hello.protocol != PROTOCOL_VERSION {
            return Err(LinkError::Version(hello.protocol));
        }
        Ok((link, hello))
    }

    /// Whether the agent can no longer be reached.
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Starts an interpreter and returns once it waits for code.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the image lacks the language or its runner does not come up.
    pub async fn start_context(&self, language: &str) -> Result<Context, LinkError> {
        let asked = StartContext { language: language.to_owned() };
        self.call(Method::POST, protocol::CONTEXTS, json(&asked)).await
    }

    /// Runs code and streams what happens; dropping the stream interrupts it.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such context. How the code ends is [`Event::End`].
    pub async fn execute(
        &self,
        execute: &Execute,
    ) -> Result<impl Stream<Item = Result<Event, LinkError>> + Send + Unpin + 'static, LinkError> {
        let response = self.send(Method::POST, protocol::EXECUTIONS, json(execute)).await?;
        let frames = BodyStream::new(response.into_body())
            .try_filter_map(|frame| async { Ok(frame.into_data().ok()) })
            .map_err(std::io::Error::other);
        let reader = StreamReader::new(Box::pin(frames));
        let lines = FramedRead::with_capacity(reader, LinesCodec::new_with_max_length(MAX_EVENT_BYTES), 64 * 1024);
        Ok(lines.map(|line| {
            let line = line.map_err(LinkError::broken)?;
            serde_json::from_str(&line).map_err(LinkError::broken)
        }))
    }

    /// Writes a file as the user, with the directories above it; relative paths start at the user's home.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the path cannot be written.
    pub async fn write_file(&self, path: &str, content: Bytes) -> Result<(), LinkError> {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("path", path).finish();
        self.send(Method::PUT, &format!("{}?{query}", protocol::FILES), content).await.map(|_| ())
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, LinkError> {
        let response = self.send(method, path, body).await?;
        serde_json::from_slice(&read(response).await?).map_err(LinkError::broken)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, LinkError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://agent{path}"))
            .body(Full::new(body))
            .expect("our routes are valid");
        let response = self.requests.clone().send_request(request).await.map_err(LinkError::broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let message = String::from_utf8_lossy(&read(response).await?).into_owned();
        Err(LinkError::Refused { status, message })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("the protocol's types can be written as JSON").into()
}

async fn read(response: Response<Incoming>) -> Result<Bytes, LinkError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    Ok(body.collect().await.map_err(LinkError::Broken)?.to_bytes())
}
