//! A proxy for a Docker Engine: calls can be changed, delayed, refused and left unanswered.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

/// The socket of the engine behind the proxy.
pub(crate) fn engine_socket() -> PathBuf {
    let named = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let address = named.as_deref().unwrap_or("unix:///var/run/docker.sock");
    address.strip_prefix("unix://").expect("these tests need the engine's Unix socket").into()
}

type Body = BoxBody<Bytes, hyper::Error>;

/// The fate of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Forwards the call.
    Pass,
    /// Forwards the call after a delay.
    After(Duration),
    /// Answers with this status, without the engine.
    Refuse(StatusCode),
    /// Answers with this status and message.
    RefuseWith(StatusCode, &'static str),
    /// Answers with this JSON.
    Answer(String),
    /// Closes the connection.
    Cut,
    /// Never answers.
    Never,
    /// Forwards the call, but never answers.
    PassUnanswered,
}

/// Decides by method and path, without the version's prefix: `/containers/create`.
type Decide = Box<dyn Fn(&Method, &str) -> Fate + Send + Sync>;
/// Changes the specification of a container to create.
type Change = Box<dyn Fn(&mut Value) + Send + Sync>;

/// Kinds of the engine's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    All,
    Create,
    Attach,
    Start,
    Remove,
    List,
    /// The inspection of one container.
    Inspect,
    Pause,
    Resume,
}

impl Calls {
    pub(crate) fn include(self, method: &Method, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Create => path == "/containers/create",
            Self::Attach => path.ends_with("/attach"),
            Self::Start => path.ends_with("/start"),
            Self::Remove => method == Method::DELETE,
            Self::List => path == "/containers/json",
            Self::Pause => path.ends_with("/pause"),
            Self::Resume => path.ends_with("/unpause"),
            Self::Inspect => path != "/containers/json" && path.ends_with("/json") && path.starts_with("/containers/"),
        }
    }
}

/// The engine's current fault. It can be changed at any time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<(Calls, Fate)>>>);

impl Fault {
    /// From now on, these calls meet this fate.
    pub(crate) fn set(&self, calls: Calls, fate: Fate) {
        *self.0.lock().expect("the fault") = Some((calls, fate));
    }

    /// From now on there is no fault. Calls that hang continue to hang.
    pub(crate) fn clear(&self) {
        *self.0.lock().expect("the fault") = None;
    }

    fn decide(&self, method: &Method, path: &str) -> Fate {
        match &*self.0.lock().expect("the fault") {
            Some((calls, fate)) if calls.include(method, path) => fate.clone(),
            _ => Fate::Pass,
        }
    }
}

/// An engine behind rules.
pub(crate) struct EngineProxy {
    socket: PathBuf,
    _directory: TempDir,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Rules {
    decide: Decide,
    change: Change,
}

impl EngineProxy {
    /// Starts a proxy that treats calls as `decide` returns, and changes the bodies of containers to create.
    pub(crate) fn start(
        decide: impl Fn(&Method, &str) -> Fate + Send + Sync + 'static,
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("docker.sock");
        let rules = Arc::new(Rules { decide: Box::new(decide), change: Box::new(change) });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&socket).expect("a socket")
        };
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let rules = Arc::clone(&rules);
                tokio::spawn(async move {
                    let service = service_fn(|request| forward_to_its_end(request, Arc::clone(&rules)));
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        Self { socket, _directory: directory, runtime: Some(runtime) }
    }

    /// Starts a proxy that forwards every call, except those that a fault is about.
    pub(crate) fn with_faults(fault: &Fault) -> Self {
        let fault = fault.clone();
        Self::start(move |method, path| fault.decide(method, path), |_| {})
    }

    /// The value for `DOCKER_HOST`.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

/// Everything that is served ends with the proxy.
impl Drop for EngineProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Forwards a call to its end, even if the client has hung up, as the engine itself does.
async fn forward_to_its_end(request: Request<Incoming>, rules: Arc<Rules>) -> std::io::Result<Response<Body>> {
    let answer = tokio::spawn(forward(request, rules)).await;
    answer.map_err(std::io::Error::other)?.map_err(std::io::Error::other)
}

async fn forward(
    mut request: Request<Incoming>,
    rules: Arc<Rules>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let path = unversioned(request.uri().path()).to_owned();
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let body: Body = if path == "/containers/create" {
        let mut create: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
        (rules.change)(&mut create);
        let create = Bytes::from(create.to_string());
        parts.headers.insert("content-length", create.len().into());
        Full::new(create).map_err(|never: Infallible| match never {}).boxed()
    } else {
        body.boxed()
    };
    let fate = (rules.decide)(&parts.method, &path);
    let is_answered = fate != Fate::PassUnanswered;
    match fate {
        Fate::Pass | Fate::PassUnanswered => {}
        Fate::After(delay) => tokio::time::sleep(delay).await,
        Fate::Refuse(status) => return Ok(refusal(status, "refused by the test")),
        Fate::RefuseWith(status, message) => return Ok(refusal(status, message)),
        Fate::Answer(body) => return Ok(answer(StatusCode::OK, body)),
        Fate::Cut => return Err("cut".into()),
        Fate::Never => std::future::pending().await,
    }
    let engine = UnixStream::connect(engine_socket()).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(engine)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut response = sender.send_request(Request::from_parts(parts, body)).await?;
    if !is_answered {
        std::future::pending::<()>().await;
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let engine = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            let (Ok(client), Ok(engine)) = (upgrade.await, engine.await) else { return };
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(engine)).await;
        });
    }
    Ok(response.map(BodyExt::boxed))
}

/// Turns `/v1.41/containers/create` into `/containers/create`.
fn unversioned(path: &str) -> &str {
    match path.strip_prefix("/v").and_then(|rest| rest.find('/')) {
        Some(at) if path[2..2 + at].bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => &path[2 + at..],
        _ => path,
    }
}

fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    answer(status, serde_json::json!({"message": message}).to_string())
}

fn answer(status: StatusCode, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body));
    let mut response = Response::new(body.map_err(|never: Infallible| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}
