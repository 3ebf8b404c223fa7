//! The program in the container: the protocol's routes, served as HTTP/2 on a pair of byte streams.

mod cgroup;
mod contexts;
mod execution;
mod files;
mod outcome;
mod sys;
mod text;

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::protocol::{self, Context, Event, Execute, Hello, PROTOCOL_VERSION, StartContext};
use contexts::{ContextError, Contexts};
use files::FileError;

/// Events waiting for the server. Beyond these the agent stops reading, and the code waits in its `write`.
const EVENTS_WAITING: usize = 16;

/// Where the agent finds and puts things.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory whose subdirectories hold a `language.json` each.
    pub languages: PathBuf,
    /// A directory of the agent's own for the runners' pipes.
    pub fifos: PathBuf,
}

/// Serves one server until it closes the connection.
///
/// # Errors
///
/// When the container is not as an image of ours is, or the connection breaks.
pub async fn serve<T>(io: T, options: Options) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let user = sys::User::find()?;
    files::fill_home(&user)?;
    let processes = sys::Processes::start()?;
    let contexts = Contexts::new(processes, user.clone(), &options.languages, options.fifos)?;
    let agent = Arc::new(Agent { contexts, user });
    let service = service_fn(move |request| {
        let agent = Arc::clone(&agent);
        async move { Ok::<_, Infallible>(agent.answer(request).await) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .serve_connection(TokioIo::new(io), service)
        .await
        .map_err(io::Error::other)
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Debug)]
struct Agent {
    contexts: Contexts,
    user: sys::User,
}

impl Agent {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let answer = match (head.method, head.uri.path()) {
            (Method::GET, protocol::HELLO) => Ok(self.hello()),
            (Method::POST, protocol::CONTEXTS) => self.start_context(body).await,
            (Method::POST, protocol::EXECUTIONS) => self.execute(body).await,
            (Method::PUT, protocol::FILES) => self.write_file(head.uri.query(), body).await,
            (_, path) => Err(Refusal(StatusCode::NOT_FOUND, format!("there is no route {path}"))),
        };
        answer.unwrap_or_else(|Refusal(status, message)| {
            let mut response = Response::new(full(message.into_bytes()));
            *response.status_mut() = status;
            response
        })
    }

    fn hello(&self) -> Response<Body> {
        json(&Hello { protocol: PROTOCOL_VERSION, languages: self.contexts.languages() })
    }

    async fn start_context(&self, body: Incoming) -> Result<Response<Body>, Refusal> {
        let asked: StartContext = read_json(body).await?;
        let id = self.contexts.start(&asked.language).await?;
        Ok(json(&Context { id }))
    }

    async fn execute(&self, body: Incoming) -> Result<Response<Body>, Refusal> {
        let execute: Execute = read_json(body).await?;
        let runner = self.contexts.get(&execute.context)?;
        let (sender, receiver) = mpsc::channel(EVENTS_WAITING);
        tokio::spawn(async move {
            let mut runner = runner.lock().await;
            execution::run(&mut runner, execute, sender).await;
        });
        let lines = futures::stream::unfold(receiver, |mut receiver| async {
            let event = receiver.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(line(&event))), receiver))
        });
        Ok(Response::new(StreamBody::new(lines).boxed_unsync()))
    }

    async fn write_file(&self, query: Option<&str>, body: Incoming) -> Result<Response<Body>, Refusal> {
        let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let path = pairs.find(|(name, _)| name == "path").map(|(_, path)| path.into_owned()).unwrap_or_default();
        let chunks =
            BodyStream::new(body).filter_map(|frame| async { frame.map(|frame| frame.into_data().ok()).transpose() });
        files::write(&self.user, &path, Box::pin(chunks)).await?;
        Ok(Response::new(full(Vec::new())))
    }
}

/// What the agent will not do: the status and why.
struct Refusal(StatusCode, String);

impl From<ContextError> for Refusal {
    fn from(err: ContextError) -> Self {
        let status = match err {
            ContextError::UnknownLanguage(_) => StatusCode::BAD_REQUEST,
            ContextError::NotFound(_) => StatusCode::NOT_FOUND,
            ContextError::NotReady(_) | ContextError::Start { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let cause = std::error::Error::source(&err).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self(status, format!("{err}{cause}"))
    }
}

impl From<FileError> for Refusal {
    fn from(err: FileError) -> Self {
        let status = match &err {
            FileError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            FileError::Path(_) | FileError::Io { .. } | FileError::Body(_) => StatusCode::BAD_REQUEST,
        };
        Self(status, err.to_string())
    }
}

async fn read_json<T: DeserializeOwned>(body: Incoming) -> Result<T, Refusal> {
    let bad = |err: &dyn std::fmt::Display| Refusal(StatusCode::BAD_REQUEST, err.to_string());
    let body = body.collect().await.map_err(|err| bad(&err))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|err| bad(&err))
}

fn json<T: Serialize>(value: &T) -> Response<Body> {
    Response::new(full(serde_json::to_vec(value).expect("the protocol's types can be written as JSON")))
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).expect("an event can be written as JSON");
    line.push(b'\n');
    line.into()
}

fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).boxed_unsync()
}
