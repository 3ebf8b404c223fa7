//! Shared by the tests of the E2B API over plain HTTP: a server with two keys, its sandboxes, and recorded bodies.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::support::Server;

/// The key for the sandboxes of most tests.
pub(crate) const KEY: &str = "e2b_1111111111111111111111111111111111111111";
/// The key of another client.
pub(crate) const OTHER_KEY: &str = "e2b_2222222222222222222222222222222222222222";

pub(crate) const ENVD: u16 = 49983;
pub(crate) const INTERPRETER: u16 = 49999;

/// The server's time limit for the head of a request.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

static SERVER: OnceLock<Server> = OnceLock::new();

/// The server of these tests. Its `base` may write 64 MiB, and its `/dev/shm` has the same size; the code interpreter
/// may write 512 MiB. `python` has the same image as the code interpreter, but no writable system, and limits that are
/// soon hit.
pub(crate) fn server() -> &'static Server {
    SERVER.get_or_init(|| {
        let head_timeout = HEAD_TIMEOUT.as_millis().to_string();
        Server::start_cold(&[
            ("ONCEBOX_API_KEYS", &format!("{KEY},{OTHER_KEY}")),
            ("ONCEBOX_HEAD_TIMEOUT_MS", &head_timeout),
            ("ONCEBOX_TEMPLATES__FULL__WARM", "1"),
            ("ONCEBOX_TEMPLATES__BASE__WARM", "2"),
            ("ONCEBOX_TEMPLATES__FULL__DISK_BYTES", "536870912"),
            ("ONCEBOX_TEMPLATES__BASE__DISK_BYTES", "67108864"),
            ("ONCEBOX_TEMPLATES__PYTHON__IMAGE", "oncebox/full"),
            ("ONCEBOX_TEMPLATES__PYTHON__MEMORY_BYTES", "402653184"),
            ("ONCEBOX_TEMPLATES__PYTHON__PROCESSES", "64"),
            ("ONCEBOX_TEMPLATES__PYTHON__DISK_BYTES", "16777216"),
            ("ONCEBOX_TEMPLATES__PYTHON__OUTPUT_BYTES", "1000000"),
        ])
    })
}

/// Stops the server, if a test has started it. False if it did not end well.
pub(crate) fn stop() -> bool {
    SERVER.get().is_none_or(Server::stop)
}

/// Waits for work that would never end if it were blocked. The time limit leaves room for a slow machine.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("something is held up")
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks that the answer is an error in E2B's format; returns its message.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.headers["content-type"], "application/json", "{}", self.text());
        let body = self.json();
        let message = body["message"].as_str().unwrap_or_else(|| panic!("no message: {body}")).to_owned();
        assert_eq!(body, json!({"code": status, "message": message}));
        assert!(!message.is_empty() && !message.contains('\n'), "{message}");
        message
    }

    /// Checks that the answer is an error of a unary call.
    #[track_caller]
    pub(crate) fn call_error(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        body["message"].as_str().expect("a message").to_owned()
    }
}

/// Reads the complete answer to a request.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    whole(request.send().await.expect("an answer")).await
}

pub(crate) async fn whole(response: Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.expect("a whole body") }
}

/// A call of the control plane without a key.
pub(crate) fn request(method: Method, path: &str) -> RequestBuilder {
    server().http.request(method, format!("{}{path}", server().url))
}

/// A call of the control plane.
pub(crate) async fn api(method: Method, path: &str, body: Option<Value>) -> Answer {
    let request = request(method, path).header("x-api-key", KEY);
    answer(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

/// A kept sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) token: String,
    /// The answer that created it.
    pub(crate) created: Value,
}

static SHARED: OnceCell<Sandbox> = OnceCell::const_new();
static INTERPRETED: OnceCell<Sandbox> = OnceCell::const_new();

impl Sandbox {
    /// A sandbox that many tests use at once, for commands, files and ports.
    pub(crate) async fn shared() -> &'static Self {
        SHARED.get_or_init(|| Self::create(json!({"templateID": "base", "timeout": 900}))).await
    }

    /// A shared sandbox with interpreters.
    pub(crate) async fn interpreted() -> &'static Self {
        INTERPRETED.get_or_init(|| Self::create(json!({"templateID": "code-interpreter-v1", "timeout": 900}))).await
    }

    pub(crate) async fn create(body: Value) -> Self {
        let created = api(Method::POST, "/v2/sandboxes", Some(body)).await;
        assert_eq!(created.status, 201, "{}", created.text());
        Self::from(created.json())
    }

    pub(crate) fn from(created: Value) -> Self {
        let text = |name: &str| created[name].as_str().unwrap_or_else(|| panic!("{name}: {created}")).to_owned();
        Self { id: text("sandboxID"), token: text("envdAccessToken"), created }
    }

    /// A call of the control plane about this sandbox.
    pub(crate) async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        api(method, &format!("/sandboxes/{}{path}", self.id), body).await
    }

    pub(crate) async fn kill(&self) {
        assert_eq!(self.api(Method::DELETE, "", None).await.status, 204);
    }

    /// A request to one of its ports, without a token.
    pub(crate) fn at(&self, port: u16, method: Method, path: &str) -> RequestBuilder {
        request(method, path).header("E2b-Sandbox-Id", &self.id).header("E2b-Sandbox-Port", port)
    }

    /// A request to its daemon.
    pub(crate) fn envd(&self, method: Method, path: &str) -> RequestBuilder {
        self.at(ENVD, method, path).header("X-Access-Token", &self.token)
    }

    /// A unary call, such as `filesystem.Filesystem/Stat`.
    pub(crate) async fn call(&self, method: &str, message: Value) -> Answer {
        answer(self.envd(Method::POST, &format!("/{method}")).json(&message)).await
    }

    /// Starts a call whose answer is a stream.
    pub(crate) async fn stream(&self, method: &str, message: Value) -> Stream {
        self.stream_with(method, message, &[]).await
    }

    pub(crate) async fn stream_with(&self, method: &str, message: Value, headers: &[(&str, &str)]) -> Stream {
        let request = self.envd(Method::POST, &format!("/{method}")).header("content-type", "application/connect+json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Stream::new(request.body(envelope(0, message.to_string().as_bytes())).send().await.expect("an answer"))
    }

    /// Starts a shell command.
    pub(crate) async fn start(&self, command: &str) -> Stream {
        let process = json!({"cmd": "/bin/bash", "args": ["-c", command]});
        self.stream("process.Process/Start", json!({"process": process, "stdin": false})).await
    }

    /// Runs a shell command to its end; returns its standard output.
    pub(crate) async fn shell(&self, command: &str) -> String {
        let mut stream = self.start(command).await;
        let messages = stream.rest().await.unwrap_or_else(|| panic!("{command}: it broke off"));
        let end = &messages[messages.len() - 2]["event"]["end"];
        assert_eq!(end["exitCode"], 0, "{command}: {messages:?}");
        stdout(&messages)
    }

    pub(crate) async fn execute(&self, body: &Value) -> Vec<Value> {
        let answer = answer(self.at(INTERPRETER, Method::POST, "/execute").json(body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        execution_lines(&answer.text())
    }
}

/// The lines of an execution, without the keepalive lines. The pieces of one stream, of which there may be any number,
/// are joined.
pub(crate) fn execution_lines(lines: &str) -> Vec<Value> {
    let mut joined: Vec<Value> = Vec::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("a JSON line");
        let is_printed = line["type"] == "stdout" || line["type"] == "stderr";
        match joined.iter_mut().find(|before| is_printed && before["type"] == line["type"]) {
            Some(before) => {
                let both = [&*before, &line].map(|one| one["text"].as_str().expect("text")).concat();
                before["text"] = json!(both);
            }
            None if line["type"] == "keepalive" => {}
            None => joined.push(line),
        }
    }
    joined
}

/// The joined standard output of data messages.
pub(crate) fn stdout(messages: &[Value]) -> String {
    let pieces = messages.iter().filter_map(|message| message["event"]["data"]["stdout"].as_str());
    let bytes: Vec<u8> = pieces.flat_map(|piece| BASE64_STANDARD.decode(piece).expect("base64")).collect();
    String::from_utf8(bytes).expect("text")
}

/// Wraps a message in an envelope.
pub(crate) fn envelope(flags: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[flags], &length[..], message].concat()
}

/// The answer of a streaming call. Dropping it hangs up.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) response: Response,
    buffer: Vec<u8>,
}

impl Stream {
    #[track_caller]
    pub(crate) fn new(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/connect+json");
        Self { response, buffer: Vec::new() }
    }

    /// The next envelope; `Ok(None)` at an orderly end of the answer, an error if it broke off.
    pub(crate) async fn next(&mut self) -> reqwest::Result<Option<(u8, Value)>> {
        loop {
            if let Some((head, rest)) = self.buffer.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if let Some((message, rest)) = rest.split_at_checked(length) {
                    let found = (head[0], serde_json::from_slice(message).expect("JSON"));
                    self.buffer = rest.to_vec();
                    return Ok(Some(found));
                }
            }
            match self.response.chunk().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => {
                    assert!(self.buffer.is_empty(), "half an envelope: {:?}", self.buffer);
                    return Ok(None);
                }
            }
        }
    }

    /// The next message, which must exist.
    pub(crate) async fn message(&mut self) -> Value {
        let (flags, message) = self.next().await.expect("it goes on").expect("a message");
        assert_eq!(flags, 0, "{message}");
        message
    }

    /// The PID in the first message of a process.
    pub(crate) async fn pid(&mut self) -> u64 {
        let message = self.message().await;
        message["event"]["start"]["pid"].as_u64().unwrap_or_else(|| panic!("{message}"))
    }

    /// All remaining messages, up to the end. `None` if the stream broke off.
    pub(crate) async fn rest(&mut self) -> Option<Vec<Value>> {
        let mut messages = Vec::new();
        loop {
            let (flags, message) = self.next().await.ok()?.expect("an end");
            messages.push(message);
            if flags == 2 {
                assert!(self.next().await.ok()?.is_none(), "something comes after the end");
                return Some(messages);
            }
            assert_eq!(flags, 0);
        }
    }

    /// The code and the message of the error at the end of the stream.
    pub(crate) async fn error(&mut self) -> (String, String) {
        let messages = self.rest().await.expect("it is not broken off");
        let error = &messages.last().expect("an end")["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_else(|| panic!("{messages:?}")).to_owned();
        (text("code"), text("message"))
    }
}

/// Sends raw bytes; returns everything that is received until the server hangs up.
pub(crate) async fn raw(bytes: &[u8]) -> String {
    let mut stream = connect().await;
    // The server may hang up before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) async fn connect() -> TcpStream {
    TcpStream::connect(server().url.trim_start_matches("http://")).await.expect("a connection")
}

/// Compares a value with `tests/fixtures/e2b/NAME.json`, which `UPDATE_FIXTURES=1` writes. Values that differ from run
/// to run are checked for their format and replaced.
#[track_caller]
pub(crate) fn is_as_recorded(name: &str, mut value: Value) {
    redact(&mut value);
    let path = format!("{}/tests/fixtures/e2b/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = format!("{value:#}\n");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/e2b")).expect("a directory");
        std::fs::write(&path, &text).expect("a fixture");
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{path}: {err}"));
    assert_eq!(text, recorded, "{name}: UPDATE_FIXTURES=1 records it anew");
}

fn redact(value: &mut Value) {
    let Value::Object(members) = value else {
        if let Value::Array(list) = value {
            list.iter_mut().for_each(redact);
        }
        return;
    };
    for (name, value) in members {
        let text = value.as_str().unwrap_or_default();
        let alphanumeric =
            |length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let form = match name.as_str() {
            _ if value.is_null() => continue,
            "sandboxID" | "sandboxId" | "E2B_SANDBOX_ID" => {
                assert!(alphanumeric(21) && text.starts_with('i') && text.to_lowercase() == text, "{name}: {value}");
                "ID"
            }
            "envdAccessToken" | "trafficAccessToken" => {
                assert!(alphanumeric(32), "{name}: {value}");
                "TOKEN"
            }
            "startedAt" | "endAt" | "timestamp" | "modifiedTime" => {
                let time = humantime::parse_rfc3339(text).unwrap_or_else(|err| panic!("{name}: {value}: {err}"));
                let apart = SystemTime::now().duration_since(time).unwrap_or_else(|err| err.duration());
                assert!(apart < Duration::from_secs(86_400), "{name}: {value}");
                "TIME"
            }
            "ts" | "timestampUnix" | "cpuUsedPct" | "memUsed" | "memCache" | "diskUsed" | "cpu_used_pct"
            | "mem_used_mib" | "mem_used" | "mem_cache" | "disk_used" | "diskTotal" | "disk_total" => {
                assert!(value.as_f64().is_some_and(|number| number >= 0.0), "{name}: {value}");
                "NUMBER"
            }
            _ => {
                redact(value);
                continue;
            }
        };
        *value = json!(form);
    }
}
