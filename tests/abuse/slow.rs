//! Clients that send or read slowly on purpose. Each costs one connection for a configured time; others are answered
//! meanwhile, and the server's memory stays bounded. Clients with a reason to be silent are not hurried.

mod windows;

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use libtest_mimic::Trial;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::attacker::{self, address, head};
use crate::e2b::{ENVD, INTERPRETER, KEY, Sandbox, Stream, envelope};
use crate::support::{Server, eventually};

/// The server's time limit for the head of a request, and for each byte of a body or an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The time limit for the server to close such a connection, on a busy machine.
const BOUND: Duration = Duration::from_secs(30);

/// The time limit for another client's `1 + 1` there, while four tests send requests at once.
const SOON: Duration = Duration::from_secs(20);

/// The bytes that slow clients may add to the server's memory.
const GROWTH: u64 = 64 << 20;

static SERVER: OnceLock<(Server, u64)> = OnceLock::new();

fn server() -> &'static Server {
    let (server, _) = SERVER.get_or_init(|| {
        let patience = PATIENCE.as_millis().to_string();
        let server = Server::start_cold(&[
            ("ONCEBOX_API_KEYS", KEY),
            ("ONCEBOX_HEAD_TIMEOUT_MS", &patience),
            ("ONCEBOX_STALL_TIMEOUT_MS", &patience),
            ("ONCEBOX_TEMPLATES__NODE__WARM", "6"),
        ]);
        let before = server.memory_bytes();
        (server, before)
    });
    server
}

/// Stops the server, if a test has started it. False if it did not end well.
pub(crate) fn stop() -> bool {
    SERVER.get().is_none_or(|(server, _)| server.stop())
}

async fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceCell<Sandbox> = OnceCell::const_new();
    SANDBOX.get_or_init(|| attacker::create(server(), "code-interpreter-v1")).await
}

fn case<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial {
    crate::case("slow", name, test)
}

/// The part of a request that is sent before its body stops.
type Begin = fn(&Sandbox) -> String;

const BODIES: [(&str, Begin); 9] = [
    ("a creation", |_| begun("POST /v2/sandboxes", "", "{")),
    ("a run", |_| begun("POST /v1/run", "", "{\"code\"")),
    ("a time-out's change", |sandbox| begun(&format!("POST /sandboxes/{}/timeout", sandbox.id), "", "{")),
    ("an execution", |sandbox| begun("POST /execute", &to(sandbox, INTERPRETER), "{\"code\"")),
    ("a context", |sandbox| begun("POST /contexts", &to(sandbox, INTERPRETER), "{")),
    ("a call", |sandbox| {
        let kind = "content-type: application/json\r\n";
        begun("POST /process.Process/List", &(to(sandbox, ENVD) + kind), "{")
    }),
    ("a stream's call", |sandbox| {
        let kind = "content-type: application/connect+json\r\n";
        begun("POST /process.Process/Start", &(to(sandbox, ENVD) + kind), "\0\0")
    }),
    ("an upload", |sandbox| {
        let kind = "content-type: application/octet-stream\r\n";
        begun("POST /files?path=/tmp/stopped", &(to(sandbox, ENVD) + kind), "some")
    }),
    ("an upload in parts", |sandbox| {
        let kind = "content-type: multipart/form-data; boundary=b\r\n";
        begun("POST /files?path=/tmp/stopped", &(to(sandbox, ENVD) + kind), "--b\r\ncontent-disposition: form-data; na")
    }),
];

fn to(sandbox: &Sandbox, port: u16) -> String {
    head(sandbox, port, "").split_once("\r\nhost: h\r\n").expect("a head").1.to_owned()
}

fn begun(line: &str, headers: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: h\r\nx-api-key: {KEY}\r\n{headers}content-length: 99999\r\n\r\n{body}")
}

/// Requests whose answers are endless, or too large for any buffer.
const ANSWERS: [(&str, Begin); 4] = [
    ("an execution that prints for ever", |sandbox| {
        let code = json!({"code": "while True: print('x' * 1000)"}).to_string();
        asked("POST /execute", &to(sandbox, INTERPRETER), &code)
    }),
    ("a file of a terabyte", |sandbox| asked("GET /files?path=/dev/shm/sparse", &to(sandbox, ENVD), "")),
    ("a command that prints for ever", |sandbox| {
        let call = json!({"process": {"cmd": "/usr/bin/yes"}}).to_string();
        let call = String::from_utf8(envelope(0, call.as_bytes())).expect("text");
        let kind = "content-type: application/connect+json\r\n";
        asked("POST /process.Process/Start", &(to(sandbox, ENVD) + kind), &call)
    }),
    ("a port that sends for ever", |sandbox| asked("GET /", &to(sandbox, 8000), "")),
];

fn asked(line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("{line} HTTP/1.1\r\nhost: h\r\nx-api-key: {KEY}\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

pub(crate) fn trials() -> Vec<Trial> {
    let bodies = BODIES.into_iter().map(|(what, begin)| {
        case(&format!("{what} whose body stops is given up after its time"), move || body_stops(begin))
    });
    let answers = ANSWERS.into_iter().map(|(what, begin)| {
        case(&format!("{what}, asked for and never read, is given up after its time"), move || is_not_read(begin))
    });
    bodies
        .chain(answers)
        .chain([
            case("500 clients that send a byte of head per second hold up nobody", heads_drip),
            case("500 clients that connect and say nothing hold up nobody", say_nothing),
            case("a run that prints for ever to nobody is cancelled", run_is_not_read),
            case("clients that shut down their side get an answer or an end", half_closed),
            case("who reads slowly but reads is not hurried", reads_slowly),
            case("who sends slowly but sends is not hurried", sends_slowly),
            case("answers with nothing to say are not hurried", says_nothing),
        ])
        .chain(windows::trials())
        .collect()
}

/// Whether the server still has its end of a connection.
fn is_held(client: SocketAddr) -> bool {
    let hex = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let ends = format!("{} {} 01", hex(address(server())), hex(client));
    std::fs::read_to_string("/proc/net/tcp").expect("connections").lines().any(|line| line.contains(&ends))
}

async fn connect(sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(server())).await.expect("a connection");
    stream.write_all(sent.as_bytes()).await.expect("it is sent");
    assert!(is_held(stream.local_addr().expect("its address")), "the server has no end of it");
    stream
}

/// Waits until the server closes a connection that was opened at `began`, and checks that it does not do so too early.
async fn is_let_go(stream: &TcpStream, began: Instant, what: &str) {
    let client = stream.local_addr().expect("its address");
    while is_held(client) {
        assert!(began.elapsed() < BOUND, "{what}: still held after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() > PATIENCE / 2, "{what}: already after {:?}", began.elapsed());
}

/// Another client's run is correct and fast, and the memory is bounded.
async fn others_are_well() {
    let began = Instant::now();
    let run = server().http.post(format!("{}/v1/run", server().url)).header("x-api-key", KEY);
    let run = run.json(&json!({"language": "js", "code": "1 + 1"})).send().await.expect("an answer");
    let answer: Value = run.json().await.expect("JSON");
    assert_eq!(answer["results"], json!(["2"]), "{answer}");
    assert!(began.elapsed() < SOON, "1 + 1 took {:?}", began.elapsed());
    let (server, before) = SERVER.get().expect("a server");
    let grown = server.memory_bytes().saturating_sub(*before);
    assert!(grown < GROWTH, "it grew by {grown} bytes");
}

async fn body_stops(begin: Begin) {
    let begun = begin(sandbox().await);
    let (began, mut stream) = (Instant::now(), connect(&begun).await);
    others_are_well().await;
    let mut told = Vec::new();
    let end = tokio::time::timeout(BOUND, stream.read_to_end(&mut told)).await;
    assert!(end.is_ok(), "it still waits");
    assert!(attacker::status(&told).is_none_or(|status| status >= 400 || status == 200), "{told:?}");
    assert!(began.elapsed() > PATIENCE / 2, "already after {:?}", began.elapsed());
    others_are_well().await;
}

/// Creates the content of the answers. The file is in memory, because on the disk its whole size would count as
/// written.
async fn prepare() {
    static READY: OnceCell<()> = OnceCell::const_new();
    READY
        .get_or_init(|| async {
            let server = "import socket\ns = socket.create_server(('127.0.0.1', 8000))\nprint('up', flush=True)\nwhile True:\n    \
                          c, _ = s.accept()\n    c.recv(9999)\n    c.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n')\n    \
                          try:\n        while True: c.sendall(b'x' * 65536)\n    except OSError: pass";
            let server = BASE64_STANDARD.encode(server);
            shell(&format!(
                "truncate -s 1T /dev/shm/sparse; echo {server} | base64 -d > /tmp/endless.py; \
                 nohup python3 /tmp/endless.py > /tmp/up 2>&1 & until grep -q up /tmp/up; do sleep 0.05; done"
            ))
            .await;
        })
        .await;
}

fn request(method: Method, port: u16, path: &str, sandbox: &Sandbox) -> RequestBuilder {
    let request = server().http.request(method, format!("{}{path}", server().url));
    let request = request.header("e2b-sandbox-id", &sandbox.id).header("e2b-sandbox-port", port);
    request.header("x-access-token", &sandbox.token)
}

/// Runs a command in the sandbox to its end; returns its output.
async fn shell(command: &str) -> String {
    let call = json!({"process": {"cmd": "/bin/bash", "args": ["-c", command]}, "stdin": false}).to_string();
    let start = request(Method::POST, ENVD, "/process.Process/Start", sandbox().await);
    let start = start.header("content-type", "application/connect+json").body(envelope(0, call.as_bytes()));
    let messages = Stream::new(start.send().await.expect("an answer")).rest().await.expect("an end");
    crate::e2b::stdout(&messages)
}

async fn is_not_read(begin: Begin) {
    prepare().await;
    let begun = begin(sandbox().await);
    let (began, mut stream) = (Instant::now(), connect(&begun).await);
    others_are_well().await;
    is_let_go(&stream, began, "an answer that nobody reads").await;
    // The part of the answer that was sent before arrives, but the answer ends incomplete.
    let mut told = vec![0; 12];
    stream.read_exact(&mut told).await.expect("its first line");
    assert_eq!(told, b"HTTP/1.1 200");
    let drained = async { while stream.read(&mut [0; 65536]).await.is_ok_and(|length| length > 0) {} };
    tokio::time::timeout(BOUND, drained).await.expect("an end");
    others_are_well().await;
    // The execution was cancelled: the interpreter is free.
    let execute = request(Method::POST, INTERPRETER, "/execute", sandbox().await).json(&json!({"code": "6 * 7"}));
    let answer = tokio::time::timeout(BOUND, async { execute.send().await.expect("an answer").text().await });
    assert!(answer.await.expect("it is not held up").expect("text").contains("\"42\""));
}

async fn heads_drip() {
    let mut streams = Vec::new();
    for _ in 0..500 {
        streams.push(TcpStream::connect(address(server())).await.expect("a connection"));
    }
    let began = Instant::now();
    for byte in "GET /healthz HTTP/1.1\r\nhost: slow\r\n\r\n".bytes() {
        for stream in &mut streams {
            let _ = stream.write_all(&[byte]).await;
        }
        others_are_well().await;
        streams.retain(is_held_cheaply);
        if streams.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(
        streams.is_empty() && began.elapsed() < BOUND * 2,
        "{} are held after {:?}",
        streams.len(),
        began.elapsed()
    );
}

/// Whether the other side has not hung up, without a search through all connections.
fn is_held_cheaply(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 1]), Err(err) if err.kind() == std::io::ErrorKind::WouldBlock)
}

async fn say_nothing() {
    let mut streams = Vec::new();
    for _ in 0..500 {
        streams.push(TcpStream::connect(address(server())).await.expect("a connection"));
    }
    others_are_well().await;
    let began = Instant::now();
    for mut stream in streams {
        let end = tokio::time::timeout(BOUND, stream.read(&mut [0; 9])).await.expect("it still listens");
        assert!(end.is_err() || end.is_ok_and(|length| length == 0));
    }
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    others_are_well().await;
}

async fn run_is_not_read() {
    let body = json!({"language": "js", "code": "for (;;) console.log('x'.repeat(1000))", "timeout_ms": 600_000});
    let asked = asked("POST /v1/run", "accept: text/event-stream\r\n", &body.to_string());
    let (began, stream) = (Instant::now(), connect(&asked).await);
    is_let_go(&stream, began, "a run that nobody reads").await;
    eventually("it is cancelled", async || {
        let status = server().http.get(format!("{}/v1/status", server().url)).header("x-api-key", KEY);
        status.send().await.expect("an answer").json::<Value>().await.expect("JSON")["running"] == 0
    })
    .await;
    others_are_well().await;
}

async fn half_closed() {
    let body = json!({"language": "js", "code": "1 + 1"}).to_string();
    for sent in [
        "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(),
        "GET /hea".to_owned(),
        asked("POST /v1/run", "", &body),
        begun("POST /v1/run", "", "{"),
        String::new(),
    ] {
        let mut stream = connect(&sent).await;
        stream.shutdown().await.expect("one side is shut down");
        let mut told = Vec::new();
        tokio::time::timeout(BOUND, stream.read_to_end(&mut told)).await.expect("it is held for ever").ok();
        assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 "), "{told:?}");
    }
    others_are_well().await;
}

/// A client that is slow, but goes on, is served to its end. The machine and the client may halt for a moment, so one
/// success in three tries is enough.
async fn is_served(client: impl AsyncFn() -> bool) {
    for _ in 0..3 {
        if client().await {
            return others_are_well().await;
        }
    }
    panic!("it was cut off");
}

async fn reads_slowly() {
    prepare().await;
    is_served(read_slowly).await;
}

async fn read_slowly() -> bool {
    let mut stream = connect(&asked("GET /files?path=/dev/shm/sparse", &to(sandbox().await, ENVD), "")).await;
    let began = Instant::now();
    let mut piece = vec![0; 4 << 20];
    while began.elapsed() < PATIENCE * 3 {
        let read = tokio::time::timeout(BOUND, stream.read(&mut piece)).await.expect("it is not held");
        if !read.is_ok_and(|length| length > 0) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    true
}

async fn sends_slowly() {
    is_served(send_slowly).await;
}

async fn send_slowly() -> bool {
    let pieces = futures::stream::unfold(0_u32, |sent| async move {
        if sent == 12 {
            return None;
        }
        tokio::time::sleep(PATIENCE / 4).await;
        Some((Ok::<_, std::io::Error>(vec![b'x'; 10]), sent + 1))
    });
    let upload = request(Method::POST, ENVD, "/files?path=/tmp/slowly", sandbox().await);
    let upload = upload.header("content-type", "application/octet-stream").body(reqwest::Body::wrap_stream(pieces));
    let is_taken = upload.send().await.is_ok_and(|answer| answer.status() == 200);
    is_taken && shell("stat -c %s /tmp/slowly").await.trim() == "120"
}

async fn says_nothing() {
    let quiet = PATIENCE.as_secs() * 2;
    let run = async {
        let body = json!({"language": "js", "code": format!("await new Promise(r => setTimeout(r, {quiet}000)); 7")});
        let run = server().http.post(format!("{}/v1/run", server().url)).header("x-api-key", KEY);
        let run = run.header("accept", "text/event-stream").json(&body).send().await.expect("an answer");
        assert!(run.text().await.expect("it goes on").contains("event: end"));
    };
    let execution = async {
        let code = json!({"code": format!("import time; time.sleep({quiet}); 8")});
        let execute = request(Method::POST, INTERPRETER, "/execute", sandbox().await).json(&code);
        let told = execute.send().await.expect("an answer").text().await.expect("it goes on");
        assert!(told.contains("\"text\":\"8\""), "{told}");
    };
    let command = async { assert_eq!(shell(&format!("sleep {quiet}; echo 9")).await, "9\n") };
    let watch = async {
        let watch = request(Method::POST, ENVD, "/filesystem.Filesystem/WatchDir", sandbox().await);
        let watch = watch.header("content-type", "application/connect+json");
        let body = envelope(0, json!({"path": "/home/user"}).to_string().as_bytes());
        let mut stream = Stream::new(watch.body(body).send().await.expect("an answer"));
        stream.message().await;
        tokio::time::sleep(Duration::from_secs(quiet)).await;
        shell("echo x > /home/user/seen").await;
        assert!(stream.message().await.to_string().contains("seen"));
    };
    tokio::join!(run, execution, command, watch);
}
