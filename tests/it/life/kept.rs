//! One kept sandbox, with the requests of E2B's SDKs, and those of clients that read nothing or leave early.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OnceCell, RwLock};
use tokio_util::task::AbortOnDropHandle;

use crate::e2b::{Answer, ENVD, INTERPRETER, KEY, Stream, answer, envelope, execution_lines, stdout};
use crate::support::Server;

/// The approximate number of unread bytes that the kernel holds for a client.
const SMALL_BUFFER: u32 = 4096;

/// The time limit for a condition.
const PATIENCE: Duration = Duration::from_secs(120);

/// The content type of envelopes.
pub(crate) const STREAM: &str = "application/connect+json";

/// A kept sandbox.
pub(crate) struct Kept {
    server: &'static Server,
    http: reqwest::Client,
    pub(crate) id: String,
    token: String,
    /// Held shared by actions that need a running sandbox, and exclusively by actions that pause it.
    pub(crate) awake: RwLock<()>,
    requests: AtomicU64,
    /// Things in the sandbox that many requests use. The first of these requests creates them.
    pub(super) large_file: OnceCell<()>,
    pub(super) tiny_files: OnceCell<()>,
    pub(super) reader: OnceCell<u64>,
    pub(super) context: OnceCell<String>,
    pub(super) port: OnceCell<()>,
}

impl Kept {
    pub(crate) async fn create(server: &'static Server, body: Value) -> Self {
        // Closes idle connections before the server does, because a request on a connection that the server closes
        // would fail.
        let http = reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(3)).build().expect("a client");
        let mut kept = Self {
            server,
            http,
            id: String::new(),
            token: String::new(),
            awake: RwLock::default(),
            requests: AtomicU64::default(),
            large_file: OnceCell::new(),
            tiny_files: OnceCell::new(),
            reader: OnceCell::new(),
            context: OnceCell::new(),
            port: OnceCell::new(),
        };
        let created = kept.control(Method::POST, "/v2/sandboxes", Some(body)).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let created = created.json();
        let text = |name: &str| created[name].as_str().unwrap_or_else(|| panic!("{name}: {created}")).to_owned();
        (kept.id, kept.token) = (text("sandboxID"), text("envdAccessToken"));
        kept
    }

    /// The number of requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the server still has the sandbox, running, and reports no loss of its container.
    pub(crate) async fn lives(&self) -> bool {
        let found = self.control(Method::GET, &format!("/sandboxes/{}", self.id), None).await;
        found.status == 200 && found.json()["state"] == "running" && self.losses().is_empty()
    }

    /// The lines of the server's log about the sandbox's loss.
    pub(crate) fn losses(&self) -> Vec<String> {
        let lines = self.server.logged("has lost its container");
        lines.into_iter().filter(|line| line.contains(&self.id)).collect()
    }

    pub(crate) async fn kill(&self) {
        let killed = self.control(Method::DELETE, &format!("/sandboxes/{}", self.id), None).await;
        assert_eq!(killed.status, 204, "{}", killed.text());
    }

    /// A call of the control plane.
    pub(super) async fn control(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path).header("x-api-key", KEY);
        answer(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.count();
        self.http.request(method, format!("{}{path}", self.server.url))
    }

    /// A request to one of its ports.
    pub(super) fn at(&self, port: u16, method: Method, path: &str) -> RequestBuilder {
        let request = self.request(method, path).header("E2b-Sandbox-Id", &self.id);
        request.header("E2b-Sandbox-Port", port).header("X-Access-Token", &self.token)
    }

    /// A request to its daemon.
    pub(super) fn envd(&self, method: Method, path: &str) -> RequestBuilder {
        self.at(ENVD, method, path)
    }

    /// Downloads a file.
    pub(super) async fn read(&self, path: &str) -> Answer {
        answer(self.envd(Method::GET, "/files").query(&[("path", path)])).await
    }

    /// An upload of raw bytes, without its body.
    pub(super) fn octets(&self, path: &str) -> RequestBuilder {
        let request = self.envd(Method::POST, "/files").query(&[("path", path)]);
        request.header("content-type", "application/octet-stream")
    }

    /// A unary call, such as `filesystem.Filesystem/Stat`.
    pub(super) async fn call(&self, method: &str, message: Value) -> Answer {
        answer(self.envd(Method::POST, &format!("/{method}")).json(&message)).await
    }

    /// A unary call that must succeed.
    pub(super) async fn done(&self, method: &str, message: Value) -> Value {
        let answer = self.call(method, message).await;
        assert_eq!(answer.status, 200, "{method}: {:.500}", answer.text());
        answer.json()
    }

    /// Starts a call whose answer is a stream.
    pub(super) async fn stream(&self, method: &str, message: Value) -> Stream {
        let request = self.envd(Method::POST, &format!("/{method}")).header("content-type", STREAM);
        Stream::new(request.body(envelope(0, message.to_string().as_bytes())).send().await.expect("an answer"))
    }

    /// Runs a shell command to its end; returns its standard output.
    pub(super) async fn shell(&self, command: &str) -> String {
        let mut stream = self.stream("process.Process/Start", bash(command, false)).await;
        let messages = stream.rest().await.unwrap_or_else(|| panic!("{command:.200}: it broke off"));
        let end = messages.len().checked_sub(2).map(|at| &messages[at]["event"]["end"]);
        assert!(end.is_some_and(|end| end["exitCode"] == 0), "{command:.200}: {messages:?}");
        stdout(&messages)
    }

    /// Starts a shell command and hangs up; returns its PID.
    pub(super) async fn background(&self, command: &str, stdin: bool) -> u64 {
        self.stream("process.Process/Start", bash(command, stdin)).await.pid().await
    }

    pub(super) async fn end(&self, pid: u64) {
        let message = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
        assert_eq!(self.done("process.Process/SendSignal", message).await, json!({}));
    }

    /// Executes code to its end; returns the lines of the answer.
    pub(super) async fn execute(&self, body: &Value) -> Vec<Value> {
        let answer = answer(self.at(INTERPRETER, Method::POST, "/execute").json(body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        execution_lines(&answer.text())
    }

    /// Waits until a file exists.
    pub(super) async fn until_there(&self, path: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stat = self.call("filesystem.Filesystem/Stat", json!({"path": path})).await;
            match stat.status {
                200 => return,
                404 => assert!(Instant::now() < deadline, "{path} did not come"),
                _ => panic!("{}", stat.text()),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// A new connection, for which the kernel holds few unread bytes.
    pub(crate) async fn connect(&self) -> TcpStream {
        self.count();
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(SMALL_BUFFER).expect("a size");
        let address = self.server.url.trim_start_matches("http://").parse().expect("an address");
        socket.connect(address).await.expect("a connection")
    }

    /// The first lines of a request. Further headers and the empty line must follow.
    pub(crate) fn head(&self, port: u16, method: &str, path: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: sandbox\r\ne2b-sandbox-id: {}\r\ne2b-sandbox-port: {port}\r\n\
             x-access-token: {}\r\n",
            self.id, self.token
        )
    }

    /// Sends bytes and hangs up at once.
    pub(super) async fn send_and_leave(&self, bytes: &[u8]) {
        let mut connection = self.connect().await;
        // A server that refuses the request need not read all of it.
        let _ = connection.write_all(bytes).await;
    }

    /// The bytes of a request for a call whose answer is a stream.
    pub(super) fn stream_request(&self, method: &str, message: &Value) -> Vec<u8> {
        let message = envelope(0, message.to_string().as_bytes());
        let head = self.head(ENVD, "POST", &format!("/{method}"));
        let head = format!("{head}content-type: {STREAM}\r\ncontent-length: {}\r\n\r\n", message.len());
        [head.into_bytes(), message].concat()
    }

    /// A request whose answer is only read on demand.
    pub(super) async fn unread(&self, port: u16, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Unread {
        let (mut requests, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(8192)
            .handshake(TokioIo::new(self.connect().await))
            .await
            .expect("a connection");
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = connection.await;
        }));
        let request = hyper::Request::builder().method(method).uri(path).header("host", "sandbox");
        let request = request.header("e2b-sandbox-id", &self.id).header("e2b-sandbox-port", port);
        let request = request.header("x-access-token", &self.token).header("content-type", kind);
        let response = requests.send_request(request.body(Full::new(Bytes::from(body))).expect("a request")).await;
        let response = response.expect("an answer");
        assert_eq!(response.status(), 200);
        Unread { body: response.into_body(), _connection: connection }
    }

    /// A call whose answer is a stream that is only read on demand.
    pub(super) async fn unread_stream(&self, method: &str, message: &Value) -> Unread {
        let message = envelope(0, message.to_string().as_bytes());
        self.unread(ENVD, Method::POST, &format!("/{method}"), STREAM, message).await
    }
}

/// The start request for a shell command.
pub(super) fn bash(command: &str, stdin: bool) -> Value {
    json!({"process": {"cmd": "/bin/bash", "args": ["-c", command]}, "stdin": stdin})
}

/// An answer that is only read on demand. Dropping it hangs up.
pub(super) struct Unread {
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

impl Unread {
    /// The next bytes: this many or a few more.
    pub(super) async fn take(&mut self, length: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < length {
            let frame = self.body.frame().await.expect("it goes on").expect("it is not broken off");
            taken.extend_from_slice(frame.data_ref().expect("content"));
        }
        taken
    }

    /// All remaining messages of a stream, which must end in an orderly way.
    pub(super) async fn messages(self) -> Vec<Value> {
        let body = self.body.collect().await.expect("it is not broken off").to_bytes();
        let mut rest = &body[..];
        let mut messages = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let (message, after) = after.split_at(length);
            messages.push(serde_json::from_slice(message).expect("JSON"));
            rest = after;
        }
        assert!(rest.is_empty(), "half an envelope");
        messages
    }
}

/// Bytes whose values depend on their position, and on the number.
pub(super) fn content(number: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| ((at + number * 7) % 251) as u8).collect()
}
