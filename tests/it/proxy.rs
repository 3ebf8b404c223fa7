//! A Docker Engine with something in between: its calls can be changed, delayed, refused and left unanswered.

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

/// The socket of the engine behind it.
pub(crate) fn engine_socket() -> PathBuf {
    let named = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let address = named.as_deref().unwrap_or("unix:///var/run/docker.sock");
    address.strip_prefix("unix://").expect("these tests need the engine's Unix socket").into()
}

type Body = BoxBody<Bytes, hyper::Error>;

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is passed on.
    Pass,
    /// It is passed on later.
    After(Duration),
    /// It is answered with this status, and the engine never hears of it.
    Refuse(StatusCode),
    /// It is answered with this status and these words.
    Say(StatusCode, &'static str),
    /// It is answered with this JSON.
    Answer(String),
    /// Its connection is closed.
    Cut,
    /// There is never an answer.
    Never,
    /// It is passed on, and there is never an answer.
    PassUnsaid,
}

/// Decides by method and path, the version's prefix left out: `/containers/create`.
type Decide = Box<dyn Fn(&Method, &str) -> Fate + Send + Sync>;
/// Changes what a container is to be made of.
type Change = Box<dyn Fn(&mut Value) + Send + Sync>;

/// Some of the engine's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    All,
    Create,
    Attach,
    Start,
    Remove,
    List,
    /// Of one container.
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

/// What is wrong with the engine, now. It can be changed at any time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<(Calls, Fate)>>>);

impl Fault {
    /// These calls meet this fate from now on.
    pub(crate) fn set(&self, calls: Calls, fate: Fate) {
        *self.0.lock().expect("the fault") = Some((calls, fate));
    }

    /// All is well from now on. Calls that hang go on hanging.
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

/// The engine, seen through rules.
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
    /// One that passes on what `decide` says, and changes the bodies of containers to create.
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

    /// One that passes on everything while there is no fault, and what the fault is about by its fate.
    pub(crate) fn with_faults(fault: &Fault) -> Self {
        let fault = fault.clone();
        Self::start(move |method, path| fault.decide(method, path), |_| {})
    }

    /// What `DOCKER_HOST` is to be.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

/// All that is served ends with it.
impl Drop for EngineProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// As the engine does: also when whoever asked has hung up.
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
    let is_told = fate != Fate::PassUnsaid;
    match fate {
        Fate::Pass | Fate::PassUnsaid => {}
        Fate::After(delay) => tokio::time::sleep(delay).await,
        Fate::Refuse(status) => return Ok(refusal(status, "refused by the test")),
        Fate::Say(status, message) => return Ok(refusal(status, message)),
        Fate::Answer(body) => return Ok(answer(StatusCode::OK, body)),
        Fate::Cut => return Err("cut".into()),
        Fate::Never => std::future::pending().await,
    }
    let engine = UnixStream::connect(engine_socket()).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(engine)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut response = sender.send_request(Request::from_parts(parts, body)).await?;
    if !is_told {
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

/// `/v1.41/containers/create` is `/containers/create`.
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
