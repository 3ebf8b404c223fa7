//! Dispatches requests to the handlers of the protocol's routes.

use futures::StreamExt;
use futures::stream;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response};
use tokio::sync::mpsc;

use super::Agent;
use super::answer::{Answer, Body, Refused, chunks, done, json, line, lines, read_json, read_query, streamed};
use super::users::User;
use super::{files, ports};
use crate::protocol::{
    self, ContextQuery, FileQuery, Hello, ListQuery, MoveQuery, PROTOCOL_VERSION, ReadQuery, WatchQuery, Watcher,
    WriteQuery,
};

/// The most events that wait for the server. When the queue is full, the agent stops reading and the code blocks in
/// `write`.
const EVENTS_WAITING: usize = 16;

impl Agent {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let answer = if request.method() == Method::CONNECT {
            ports::connect(request).await
        } else {
            let (head, body) = request.into_parts();
            self.route(&head.method, head.uri.path(), head.uri.query(), body).await
        };
        answer.unwrap_or_else(Refused::into_response)
    }

    async fn route(&self, method: &Method, path: &str, query: Option<&str>, body: Incoming) -> Answer {
        match (method, path) {
            (&Method::GET, protocol::HELLO) => Ok(self.hello()),
            (&Method::GET, protocol::METRICS) => Ok(json(&self.meter.read(&self.users.default))),
            (&Method::PUT, protocol::ENV) => {
                self.users.set_environment(read_json(body).await?);
                Ok(done())
            }
            (&Method::POST, protocol::EXECUTIONS) => self.execute(body).await,
            (_, path) if path.starts_with(protocol::CONTEXTS) => self.route_context(method, path, query, body).await,
            (_, path) if path.starts_with(protocol::PROCESSES) => self.route_process(method, path, query, body).await,
            (_, path) if path.starts_with(protocol::FILES) => self.route_file(method, path, query, body).await,
            (_, protocol::WATCHERS) => self.route_watcher(method, query).await,
            (_, path) => Err(no_route(path)),
        }
    }

    fn hello(&self) -> Response<Body> {
        json(&Hello { protocol: PROTOCOL_VERSION, languages: self.contexts.languages() })
    }

    async fn execute(&self, body: Incoming) -> Answer {
        let execute = read_json(body).await?;
        let (sender, receiver) = mpsc::channel(EVENTS_WAITING);
        self.contexts.execute(execute, sender)?;
        let events = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        Ok(lines(events))
    }

    async fn route_context(&self, method: &Method, path: &str, query: Option<&str>, body: Incoming) -> Answer {
        let id = || read_query(query).map(|ContextQuery { id }| id);
        match (method, path) {
            (&Method::GET, protocol::CONTEXTS) => Ok(json(&self.contexts.all())),
            (&Method::POST, protocol::CONTEXTS) => Ok(json(&self.contexts.start(read_json(body).await?).await?)),
            (&Method::DELETE, protocol::CONTEXTS) => self.contexts.remove(&id()?).map(|()| done()),
            (&Method::POST, protocol::CONTEXT_RESTART) => Ok(json(&self.contexts.restart(&id()?).await?)),
            (&Method::POST, protocol::CONTEXT_INTERRUPT) => self.contexts.interrupt(&id()?).map(|()| done()),
            (_, path) => Err(no_route(path)),
        }
    }

    async fn route_process(&self, method: &Method, path: &str, query: Option<&str>, body: Incoming) -> Answer {
        let running = || self.commands.find_running(&read_query(query)?);
        match (method, path) {
            (&Method::GET, protocol::PROCESSES) => {
                return Ok(lines(stream::iter(self.commands.running()).map(|running| running.info())));
            }
            (&Method::POST, protocol::PROCESSES) => {
                return Ok(streamed(self.commands.start(read_json(body).await?)?.map(Ok)));
            }
            (&Method::GET, protocol::PROCESS_EVENTS) => {
                return Ok(streamed(self.commands.find(&read_query(query)?)?.subscribe().map(Ok)));
            }
            (&Method::POST, protocol::PROCESS_STDIN) => running()?.write_stdin(chunks(body)).await,
            (&Method::DELETE, protocol::PROCESS_STDIN) => running()?.close_stdin().await,
            (&Method::POST, protocol::PROCESS_TERMINAL) => running()?.write_terminal(chunks(body)).await,
            (&Method::PUT, protocol::PROCESS_TERMINAL) => running()?.resize(read_json(body).await?),
            (&Method::POST, protocol::PROCESS_SIGNAL) => {
                let protocol::SendSignal { signal } = read_json(body).await?;
                running()?.signal(signal)
            }
            (_, path) => Err(no_route(path)),
        }
        .map(|()| done())
    }

    async fn route_file(&self, method: &Method, path: &str, query: Option<&str>, body: Incoming) -> Answer {
        match (method, path) {
            (&Method::GET, protocol::FILES) => self.read_file(query),
            (&Method::PUT, protocol::FILES) => {
                let query: WriteQuery = read_query(query)?;
                files::write(&self.user(&query.user)?, &query, chunks(body)).await.map(|()| done())
            }
            (&Method::DELETE, protocol::FILES) => {
                let query: FileQuery = read_query(query)?;
                files::remove(self.user(&query.user)?, &query.path).await.map(|()| done())
            }
            (&Method::GET, protocol::ENTRY) => {
                let query: FileQuery = read_query(query)?;
                Ok(json(&files::stat(&self.user(&query.user)?, &query.path)?))
            }
            (&Method::GET, protocol::LIST) => {
                let query: ListQuery = read_query(query)?;
                let batches = files::list(self.user(&query.user)?, &query).await?;
                Ok(streamed(batches.map(|entries| Ok(entries.iter().flat_map(line).collect()))))
            }
            (&Method::POST, protocol::DIRECTORIES) => {
                let query: FileQuery = read_query(query)?;
                Ok(json(&files::make_directory(&self.user(&query.user)?, &query.path)?))
            }
            (&Method::POST, protocol::MOVE) => {
                let query: MoveQuery = read_query(query)?;
                Ok(json(&files::relocate(self.user(&query.user)?, &query.from, &query.to).await?))
            }
            (&Method::GET, protocol::WATCH) => Ok(streamed(self.watch(query).await?.into_stream())),
            (_, path) => Err(no_route(path)),
        }
    }

    fn read_file(&self, query: Option<&str>) -> Answer {
        let query: ReadQuery = read_query(query)?;
        let content = files::read(&self.user(&query.user)?, &query)?;
        let (size, modified_ns) = (HeaderValue::from(content.size), HeaderValue::from(content.modified_ns));
        let mut response = streamed(content.into_stream());
        response.headers_mut().insert(protocol::FILE_SIZE, size);
        response.headers_mut().insert(protocol::FILE_MODIFIED, modified_ns);
        Ok(response)
    }

    async fn route_watcher(&self, method: &Method, query: Option<&str>) -> Answer {
        let id = || read_query(query).map(|Watcher { id }| id);
        match *method {
            Method::POST => Ok(json(&self.watches.keep(self.watch(query).await?))),
            Method::GET => Ok(streamed(stream::iter(self.watches.take(&id()?).await?).map(Ok))),
            Method::DELETE => self.watches.remove(&id()?).map(|()| done()),
            _ => Err(no_route(protocol::WATCHERS)),
        }
    }

    async fn watch(&self, query: Option<&str>) -> Result<files::Watch, Refused> {
        let query: WatchQuery = read_query(query)?;
        self.watches.watch(self.user(&query.user)?, query).await
    }

    fn user(&self, name: &Option<String>) -> Result<User, Refused> {
        self.users.get(name.as_deref())
    }
}

fn no_route(path: &str) -> Refused {
    Refused::not_found(format!("there is no route `{path}`"))
}
