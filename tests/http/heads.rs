//! Requests whose heads decide the answer: it comes at once, whether or not the body does, and no `100 Continue` invites a
//! body that nobody will read.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::e2b::{ENVD, INTERPRETER, KEY, OTHER_KEY, Sandbox, answer, connect, envelope, in_time, server};

trials![
    a_body_that_is_declared_too_large_is_a_413_before_it_is_sent,
    what_a_head_decides_is_answered_without_the_body,
    a_client_that_expects_to_continue_is_asked_for_a_body_that_is_read,
    a_refusal_in_the_middle_of_an_expected_body_reaches_the_client,
    a_declared_length_is_refused_over_http2_too,
];

/// A time after which an answer is not one that came at once. The server waits longer for a body.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A client of HTTP/1.1 that decides itself what it sends when.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Connects and sends the head of a request. The headers end with `\r\n`.
    async fn send(line: &str, headers: &str) -> Self {
        let mut client = Self { stream: connect().await, received: Vec::new() };
        client.write(format!("{line} HTTP/1.1\r\nhost: h\r\n{headers}\r\n").as_bytes()).await;
        client
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it is sent");
    }

    /// The status of the next answer, which must come at once, and its body if it declares a length.
    async fn answer(&mut self) -> (u16, String) {
        let read = tokio::time::timeout(AT_ONCE, self.read_answer()).await;
        read.unwrap_or_else(|_| panic!("no answer, only {:?}", String::from_utf8_lossy(&self.received)))
    }

    async fn read_answer(&mut self) -> (u16, String) {
        let end = loop {
            match self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.read_more().await,
            }
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).expect("text").to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        while self.received.len() < length {
            self.read_more().await;
        }
        let body = String::from_utf8_lossy(&self.received.drain(..length).collect::<Vec<_>>()).into_owned();
        let status = head.strip_prefix("http/1.1 ").and_then(|rest| rest[..3].parse().ok());
        (status.unwrap_or_else(|| panic!("{head}")), body)
    }

    async fn read_more(&mut self) {
        let read = self.stream.read_buf(&mut self.received).await.expect("an answer");
        assert!(read > 0, "it was closed after {:?}", String::from_utf8_lossy(&self.received));
    }
}

/// The headers of a request to a port of a sandbox.
fn to(sandbox: &Sandbox, port: u16, token: &str) -> String {
    format!("e2b-sandbox-id: {}\r\ne2b-sandbox-port: {port}\r\nx-access-token: {token}\r\n", sandbox.id)
}

const JSON: &str = "content-type: application/json\r\n";
const STREAM: &str = "content-type: application/connect+json\r\n";
const BYTES: &str = "content-type: application/octet-stream\r\n";
const EXPECTS: &str = "expect: 100-continue\r\n";

/// Sends each head alone, with and without an expectation, and checks that the first answer has the status.
async fn decide(heads: &[(String, String, u16)]) {
    for (line, headers, status) in heads {
        for expectation in ["", EXPECTS, "expect: 100-Continue\r\n"] {
            let mut client = Client::send(line, &format!("{headers}{expectation}")).await;
            let (found, body) = client.answer().await;
            assert_eq!(found, *status, "{line}\n{headers}{expectation}: {body}");
        }
    }
}

async fn a_body_that_is_declared_too_large_is_a_413_before_it_is_sent() {
    let sandbox = Sandbox::interpreted().await;
    let Sandbox { id, token, .. } = sandbox;
    let key = format!("x-api-key: {KEY}\r\n{JSON}");
    let (envd, interpreter) = (to(sandbox, ENVD, token), to(sandbox, INTERPRETER, token));
    let heads = [
        ("POST /v1/run", key.clone()),
        ("POST /sandboxes", key.clone()),
        ("POST /v2/sandboxes", key.clone()),
        (&format!("POST /sandboxes/{id}/connect"), key.clone()),
        (&format!("POST /v2/sandboxes/{id}/connect"), key.clone()),
        (&format!("POST /sandboxes/{id}/timeout"), key.clone()),
        (&format!("POST /sandboxes/{id}/refreshes"), key.clone()),
        (&format!("POST /sandboxes/{id}/pause"), key.clone()),
        (&format!("POST /sandboxes/{id}/resume"), key.clone()),
        (&format!("PUT /sandboxes/{id}/network"), key),
        ("POST /process.Process/List", format!("{envd}{JSON}")),
        ("POST /process.Process/SendInput", format!("{envd}{JSON}")),
        ("POST /filesystem.Filesystem/Stat", format!("{envd}{JSON}")),
        ("POST /process.Process/Start", format!("{envd}{STREAM}")),
        ("POST /process.Process/Connect", format!("{envd}{STREAM}")),
        ("POST /filesystem.Filesystem/WatchDir", format!("{envd}{STREAM}")),
        ("POST /execute", format!("{interpreter}{JSON}")),
        ("POST /contexts", format!("{interpreter}{JSON}")),
    ];
    // One byte more than 32 MiB and the head of an envelope is too much everywhere.
    for length in ["1000000000000", "33554438"] {
        let declared = |(line, headers): &(&str, String)| {
            ((*line).to_owned(), format!("{headers}content-length: {length}\r\n"), 413)
        };
        decide(&heads.iter().map(declared).collect::<Vec<_>>()).await;
    }
    // The shape is that of the API.
    let (_, body) = Client::send("POST /v1/run", &format!("x-api-key: {KEY}\r\ncontent-length: 99999999999\r\n"))
        .await
        .answer()
        .await;
    assert!(body.contains("\"too_large\""), "{body}");
    let created = format!("x-api-key: {KEY}\r\ncontent-length: 99999999999\r\n");
    let (_, body) = Client::send("POST /sandboxes", &created).await.answer().await;
    assert!(body.starts_with("{\"code\":413,"), "{body}");
}

async fn what_a_head_decides_is_answered_without_the_body() {
    let sandbox = Sandbox::interpreted().await;
    let Sandbox { id, token, .. } = sandbox;
    let long = "content-length: 10\r\n";
    let key = format!("x-api-key: {KEY}\r\n{long}");
    let wrong = format!("x-api-key: {KEY}x\r\n{long}");
    let other = format!("x-api-key: {OTHER_KEY}\r\n{long}");
    let envd = |token: &str, kind: &str| format!("{}{kind}{long}", to(sandbox, ENVD, token));
    let interpreter = |token: &str| format!("{}{JSON}{long}", to(sandbox, INTERPRETER, token));
    let nobody = format!("e2b-sandbox-id: inobody\r\ne2b-sandbox-port: {ENVD}\r\n{long}");
    let heads = [
        ("POST /v1/run", long.to_owned(), 401),
        ("POST /v1/run", wrong.clone(), 401),
        ("POST /sandboxes", long.to_owned(), 401),
        ("POST /v2/sandboxes", wrong.clone(), 401),
        (&format!("POST /sandboxes/{id}/timeout"), wrong, 401),
        (&format!("POST /sandboxes/{id}/timeout"), other, 404),
        ("POST /v2/sandboxes", format!("{key}idempotency-key: a\r\nidempotency-key: b\r\n"), 400),
        ("POST /v1/run", format!("{key}content-encoding: gzip\r\n"), 415),
        ("POST /v2/sandboxes", format!("{key}content-encoding: br\r\n"), 415),
        (&format!("POST /sandboxes/{id}/pause"), format!("{key}content-encoding: gzip\r\n"), 415),
        ("POST /execute", format!("{}content-encoding: gzip\r\n", interpreter(token)), 415),
        ("POST /filesystem.Filesystem/Stat", format!("{}content-encoding: gzip\r\n", envd(token, JSON)), 415),
        ("POST /files?path=/tmp/x", format!("{}content-encoding: br\r\n", envd(token, BYTES)), 400),
        ("POST /v1/nothing", key.clone(), 404),
        ("POST /sandboxes/x/y/nothing", key.clone(), 404),
        ("POST /templates", key.clone(), 501),
        ("PUT /v1/run", key.clone(), 405),
        ("PATCH /sandboxes", key.clone(), 405),
        (&format!("PUT /sandboxes/{id}/timeout"), key, 405),
        ("POST /files?path=/tmp/x", envd("wrong", BYTES), 401),
        ("POST /files?path=/tmp/x", long.to_owned(), 401),
        ("POST /files?path=/tmp/x", nobody, 502),
        ("POST /files", envd(token, BYTES), 400),
        ("PUT /files?path=/tmp/x", envd(token, BYTES), 405),
        ("POST /process.Process/Start", envd("wrong", STREAM), 401),
        ("POST /process.Process/StreamInput", envd("wrong", STREAM), 401),
        ("POST /filesystem.Filesystem/Stat", envd("wrong", JSON), 401),
        ("POST /process.Process/Start", envd(token, JSON), 415),
        ("POST /process.Process/StreamInput", envd(token, JSON), 415),
        ("POST /filesystem.Filesystem/Stat", envd(token, STREAM), 415),
        ("POST /filesystem.Filesystem/Nothing", envd(token, JSON), 404),
        ("PUT /filesystem.Filesystem/Stat", envd(token, JSON), 405),
        ("POST /execute", interpreter("wrong"), 401),
        ("POST /nothing", interpreter(token), 404),
        ("PUT /execute", interpreter(token), 405),
    ];
    decide(&heads.map(|(line, headers, status)| (line.to_owned(), headers, status))).await;
}

async fn a_client_that_expects_to_continue_is_asked_for_a_body_that_is_read() {
    let sandbox = Sandbox::interpreted().await;
    let key = format!("x-api-key: {KEY}\r\n{JSON}");
    let envd = to(sandbox, ENVD, &sandbox.token);
    let interpreter = format!("{}{JSON}", to(sandbox, INTERPRETER, &sandbox.token));
    let start = envelope(0, br#"{"process": {"cmd": "/bin/true"}}"#);
    let part =
        b"--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"/tmp/part\"\r\n\r\nof a form\r\n--b--\r\n";
    for (line, headers, body, status) in [
        ("POST /v1/run", key.clone(), json!({"language": "python", "code": "1"}).to_string().into_bytes(), 200),
        ("POST /v2/sandboxes", key, json!({"templateID": "none"}).to_string().into_bytes(), 404),
        ("POST /files?path=/tmp/whole", format!("{envd}{BYTES}"), b"uploaded".to_vec(), 200),
        ("POST /files", format!("{envd}content-type: multipart/form-data; boundary=b\r\n"), part.to_vec(), 200),
        (
            "POST /filesystem.Filesystem/Stat",
            format!("{envd}{JSON}content-encoding: identity\r\n"),
            b"{\"path\": \"/\"}".to_vec(),
            200,
        ),
        ("POST /process.Process/Start", format!("{envd}{STREAM}"), start, 200),
        ("POST /execute", interpreter, json!({"code": "1"}).to_string().into_bytes(), 200),
    ] {
        let length = body.len();
        let mut client = Client::send(line, &format!("{headers}{EXPECTS}content-length: {length}\r\n")).await;
        assert_eq!(client.answer().await, (100, String::new()), "{line}");
        client.write(&body).await;
        let (found, text) = client.answer().await;
        assert_eq!(found, status, "{line}: {text}");
    }
    // The same in chunks; and the connection serves the next request.
    let chunked = format!("{envd}{BYTES}{EXPECTS}transfer-encoding: chunked\r\n");
    let mut client = Client::send("POST /files?path=/tmp/chunked", &chunked).await;
    assert_eq!(client.answer().await.0, 100);
    client.write(b"3\r\nin \r\n6\r\nchunks\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.0, 200);
    client.write(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(client.answer().await.0, 200);
    for (path, content) in [("whole", "uploaded"), ("part", "of a form"), ("chunked", "in chunks")] {
        let read = answer(sandbox.envd(Method::GET, &format!("/files?path=/tmp/{path}"))).await;
        assert_eq!(read.text(), content);
    }
}

/// Once the client has been asked for the body, it may be sending when the refusal comes. If the server then closed the
/// connection, the refusal would be lost.
async fn a_refusal_in_the_middle_of_an_expected_body_reaches_the_client() {
    let headers = format!("x-api-key: {KEY}\r\n{EXPECTS}transfer-encoding: chunked\r\n");
    for path in ["/v1/run", "/v2/sandboxes"] {
        let mut client = Client::send(&format!("POST {path}"), &headers).await;
        assert_eq!(client.answer().await.0, 100, "{path}");
        let chunk = [b"100000\r\n", &[b' '; 1 << 20][..], b"\r\n"].concat();
        // Far more than the limit, and all of it before the client reads.
        in_time(async {
            for _ in 0..48 {
                client.write(&chunk).await;
            }
        })
        .await;
        let (found, text) = client.answer().await;
        assert_eq!(found, 413, "{path}: {text}");
    }
}

async fn a_declared_length_is_refused_over_http2_too() {
    use http_body_util::StreamBody;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    type Never = futures::stream::Pending<Result<hyper::body::Frame<bytes::Bytes>, std::convert::Infallible>>;
    let connecting = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(connect().await));
    let (mut sender, connection) = connecting.await.expect("HTTP/2");
    tokio::spawn(connection);
    for path in ["/v1/run", "/v2/sandboxes"] {
        let request = hyper::Request::post(format!("{}{path}", server().url)).header("x-api-key", KEY);
        let request = request.header("content-length", "1000000000000");
        let body: StreamBody<Never> = StreamBody::new(futures::stream::pending());
        let sent = sender.send_request(request.body(body).expect("a request"));
        let found = tokio::time::timeout(AT_ONCE, sent).await.expect("an answer at once").expect("an answer");
        assert_eq!(found.status(), 413, "{path}");
    }
}
