//! Requests that are too large, too many, malformed, or not requests at all. Each is refused within a time limit, and
//! the next ordinary request is answered; no handler panics, and the server's memory does not grow.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::attacker::{self, GET, PREFACE, address, exchange, frame, head, status};
use crate::e2b::{ENVD, INTERPRETER, KEY, Sandbox};
use crate::support::{Server, oncebox};

/// The bytes that all of these attacks together may add to the server's memory: they send gigabytes, of which a few of
/// the largest bodies may be held at a time, and kept by the allocator.
const GROWTH: u64 = 128 << 20;

/// The time limit of the server for a connection that sends nothing more.
const PATIENCE: Duration = Duration::from_secs(2);

/// The time limit for an answer or an end, from a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The attacked server, its certificates, and its memory before the attacks.
struct Attacked {
    server: Server,
    ca: Vec<u8>,
    before: u64,
}

static ATTACKED: OnceLock<Attacked> = OnceLock::new();

fn attacked() -> &'static Attacked {
    ATTACKED.get_or_init(|| {
        let certs = tempfile::tempdir().expect("a directory");
        let made = oncebox().args(["certs", "--domain", "sandbox.test", "--out"]).arg(certs.path()).output();
        assert!(made.expect("oncebox certs").status.success());
        let file = |name: &str| certs.path().join(name).to_str().expect("text").to_owned();
        let server = Server::start_cold(&[
            ("ONCEBOX_API_KEYS", KEY),
            ("ONCEBOX_DOMAIN", "sandbox.test"),
            ("ONCEBOX_TLS_LISTEN", "127.0.0.1:0"),
            ("ONCEBOX_TLS_CERTIFICATE", &file("server.pem")),
            ("ONCEBOX_TLS_KEY", &file("server-key.pem")),
            ("ONCEBOX_TEMPLATES__FULL__DISK_BYTES", "67108864"),
            ("ONCEBOX_HEAD_TIMEOUT_MS", &PATIENCE.as_millis().to_string()),
            ("ONCEBOX_STALL_TIMEOUT_MS", &(4 * PATIENCE).as_millis().to_string()),
        ]);
        let ca = std::fs::read(certs.path().join("ca.pem")).expect("the CA");
        let before = server.memory_bytes();
        Attacked { server, ca, before }
    })
}

/// Stops the server, if a test has started it. False if it did not end well, or if a handler of the last request
/// panicked.
pub(crate) fn stop() -> bool {
    ATTACKED.get().is_none_or(|attacked| attacked.server.stop() && attacked.server.logged("panicked").is_empty())
}

async fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceCell<Sandbox> = OnceCell::const_new();
    SANDBOX.get_or_init(|| attacker::create(&attacked().server, "code-interpreter-v1")).await
}

/// Builds the bytes of an attack.
type Build = fn(&Sandbox) -> Vec<u8>;

/// The expected answers. There must be one.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// One of these statuses.
    Refused(&'static [u16]),
    /// A harmless request, which may succeed.
    Any,
}

use Answer::{Any, Refused};

const ODD: Answer = Refused(&[400, 404, 405, 411, 413, 414, 415, 417, 431, 501, 505]);

fn control(line: &str, more: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: h\r\nx-api-key: {KEY}\r\n{more}").into_bytes()
}

fn create(more: &str, body: &[u8]) -> Vec<u8> {
    [&control("POST /v2/sandboxes", &format!("content-type: application/json\r\n{more}\r\n")), body].concat()
}

fn json_body(body: &[u8]) -> Vec<u8> {
    create(&format!("connection: close\r\ncontent-length: {}\r\n", body.len()), body)
}

fn stream(sandbox: &Sandbox, body: &[u8]) -> Vec<u8> {
    let head = head(sandbox, ENVD, "POST /process.Process/Start");
    let kind = "content-type: application/connect+json\r\nconnection: close\r\n";
    [format!("{head}{kind}content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn upload(sandbox: &Sandbox, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = head(sandbox, ENVD, "POST /files?path=/dev/shm/attacked");
    [format!("{head}connection: close\r\n{kind}content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn execute(sandbox: &Sandbox, body: &[u8]) -> Vec<u8> {
    let head = head(sandbox, INTERPRETER, "POST /execute");
    [format!("{head}connection: close\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// Puts frames behind a client's preface and settings.
fn frames(frames: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, &[]), frames].concat()
}

fn nested(open: &str, close: &str) -> Vec<u8> {
    format!("{{\"templateID\": {}1{}}}", open.repeat(100_000), close.repeat(100_000)).into_bytes()
}

/// 256 MiB of zeros, compressed.
fn zeros_packed() -> Vec<u8> {
    let pack = "head -c 268435456 /dev/zero | gzip -1 -c";
    std::process::Command::new("sh").args(["-c", pack]).output().expect("gzip").stdout
}

const HTTP1: [(&str, Answer, Build); 46] = [
    ("ten megabytes of headers", ODD, |_| {
        control("GET /v1/status", &format!("{}\r\n", format!("x-large: {}\r\n", "x".repeat(8000)).repeat(1280)))
    }),
    ("a thousand headers", ODD, |_| {
        let many: String = (0..1000).map(|number| format!("x-{number}: y\r\n")).collect();
        control("GET /v1/status", &format!("{many}\r\n"))
    }),
    ("a thousand headers of one name", ODD, |_| {
        control("GET /v1/status", &format!("{}\r\n", "cookie: a=b\r\n".repeat(1000)))
    }),
    ("a header of a megabyte", ODD, |_| control("GET /v1/status", &format!("x: {}\r\n\r\n", "x".repeat(1 << 20)))),
    ("the name of a header of a megabyte", ODD, |_| control("GET /", &format!("{}: x\r\n\r\n", "x".repeat(1 << 20)))),
    ("a URI of a megabyte", ODD, |_| control(&format!("GET /{}", "x".repeat(1 << 20)), "\r\n")),
    ("a URI of 60,000 letters", ODD, |_| control(&format!("GET /{}", "x".repeat(60_000)), "connection: close\r\n\r\n")),
    ("a query of 60,000 members", ODD, |_| {
        control(&format!("GET /v2/sandboxes?{}", "limit=0&".repeat(8000)), "connection: close\r\n\r\n")
    }),
    ("a NUL in a path", ODD, |_| control("GET /a\0b", "\r\n")),
    ("a NUL in a header", ODD, |_| control("GET /v1/status", "x: a\0b\r\n\r\n")),
    ("a path that is not UTF-8", ODD, |_| {
        [b"GET /\xff\xfe HTTP/1.1\r\nhost: h\r\nx-api-key: ", KEY.as_bytes(), b"\r\nconnection: close\r\n\r\n"].concat()
    }),
    ("a key that is not UTF-8", Refused(&[400, 401]), |_| {
        b"GET /v1/status HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-api-key: \xff\xfe\r\n\r\n".to_vec()
    }),
    ("JSON that is not UTF-8", ODD, |_| json_body(b"{\"templateID\": \"\xff\xfe\"}")),
    ("JSON in UTF-16", ODD, |_| json_body(b"\xff\xfe{\0}\0")),
    ("lists nested 100,000 deep", ODD, |_| json_body(&nested("[", "]"))),
    ("objects nested 100,000 deep", ODD, |_| json_body(&nested("{\"a\":", "}"))),
    ("a member that nobody knows, nested 100,000 deep", ODD, |_| {
        json_body(
            &[
                b"{\"templateID\": \"none\", \"x\": ",
                "[".repeat(100_000).as_bytes(),
                "]".repeat(100_000).as_bytes(),
                b"}",
            ]
            .concat(),
        )
    }),
    ("the same member twice", ODD, |_| json_body(b"{\"templateID\": \"none\", \"templateID\": \"base\"}")),
    ("a number of a million digits", ODD, |_| {
        json_body(format!("{{\"templateID\": \"none\", \"timeout\": {}}}", "9".repeat(1_000_000)).as_bytes())
    }),
    ("a number with an exponent of 400 digits", ODD, |_| {
        json_body(format!("{{\"templateID\": \"none\", \"timeout\": 1e{}}}", "9".repeat(400)).as_bytes())
    }),
    ("a text of 30 megabytes", ODD, |_| {
        json_body(format!("{{\"templateID\": \"{}\"}}", "x".repeat(30 << 20)).as_bytes())
    }),
    ("a body of 64 megabytes", Refused(&[413]), |_| json_body(&vec![b' '; 64 << 20])),
    ("a body of 64 megabytes to an interpreter", Refused(&[413]), |sandbox| execute(sandbox, &vec![b' '; 64 << 20])),
    ("a length that is a lie, too long", ODD, |_| create("connection: close\r\ncontent-length: 999\r\n", b"{")),
    ("a length that is a lie, too short", ODD, |_| {
        create("connection: close\r\ncontent-length: 1\r\n", b"{\"templateID\": 1}")
    }),
    ("a length of 2^63", ODD, |_| create("content-length: 9223372036854775808\r\n", b"{")),
    ("a length of 2^64", ODD, |_| create("content-length: 18446744073709551616\r\n", b"{")),
    ("a length with a sign", ODD, |_| create("content-length: +1\r\n", b"{")),
    ("chunks without a size", ODD, |_| create("transfer-encoding: chunked\r\n", b"\r\n\r\n\r\n")),
    ("a chunk of 2^64 bytes", ODD, |_| create("transfer-encoding: chunked\r\n", b"10000000000000000\r\n{")),
    ("a chunk of minus one", ODD, |_| create("transfer-encoding: chunked\r\n", b"-1\r\n{")),
    ("a chunk's extension of 16 megabytes", ODD, |_| {
        create("transfer-encoding: chunked\r\n", &[b"1;", &vec![b'x'; 16 << 20][..]].concat())
    }),
    ("trailers of 16 megabytes", ODD, |_| {
        create(
            "transfer-encoding: chunked\r\n",
            &[b"2\r\n{}\r\n0\r\n", "x-t: y\r\n".repeat(2 << 20).as_bytes()].concat(),
        )
    }),
    ("an envelope of 2^32 bytes", Any, |sandbox| stream(sandbox, b"\0\xff\xff\xff\xff{}")),
    ("an envelope that says it is compressed", Any, |sandbox| stream(sandbox, b"\x01\0\0\0\x02\x1f\x8b")),
    ("an envelope that is cut short", Any, |sandbox| stream(sandbox, b"\0\0\0\0\xff{}")),
    ("40,000 envelopes with nothing in them", Any, |sandbox| stream(sandbox, &[0; 200_000])),
    ("256 megabytes packed into one", Refused(&[400, 413, 507]), |sandbox| {
        upload(sandbox, "content-type: application/octet-stream\r\ncontent-encoding: gzip\r\n", &zeros_packed())
    }),
    ("a boundary of parts that never comes", ODD, |sandbox| {
        upload(sandbox, "content-type: multipart/form-data; boundary=b\r\n", &vec![b'-'; 16 << 20])
    }),
    ("a part whose headers never end", ODD, |sandbox| {
        upload(
            sandbox,
            "content-type: multipart/form-data; boundary=b\r\n",
            &[b"--b\r\n".to_vec(), b"x-long: y\r\n".repeat(1 << 20)].concat(),
        )
    }),
    ("ten thousand parts without an end", ODD, |sandbox| {
        let part = b"--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\n\r\n";
        upload(sandbox, "content-type: multipart/form-data; boundary=b\r\n", &part.repeat(10_000))
    }),
    ("a request of HTTP/0.9", ODD, |_| b"GET /v1/status\r\n\r\n".to_vec()),
    ("a request of HTTP/3.7", ODD, |_| b"GET / HTTP/3.7\r\nhost: h\r\n\r\n".to_vec()),
    ("a TRACE", Refused(&[400, 404, 405]), |_| {
        control("TRACE /v1/status", "x-secret: told\r\nconnection: close\r\n\r\n")
    }),
    ("a method of a megabyte", ODD, |_| control(&format!("{} /", "X".repeat(1 << 20)), "\r\n")),
    ("an Expect of something else", Any, |_| {
        create("expect: 200-ok\r\ncontent-length: 2\r\nconnection: close\r\n", b"{}")
    }),
];

/// Builds the frames of an attack.
type Frames = fn() -> Vec<u8>;

const HTTP2: [(&str, Frames); 22] = [
    ("10,000 streams that are reset at once", || {
        let pair = |id: u32| [frame(1, 5, id, GET), frame(3, 0, id, &[0, 0, 0, 8])].concat();
        frames(&(0..10_000).flat_map(|at| pair(at * 2 + 1)).collect::<Vec<_>>())
    }),
    ("10,000 streams at once", || frames(&(0..10_000).flat_map(|at| frame(1, 5, at * 2 + 1, GET)).collect::<Vec<_>>())),
    ("streams that are never ended", || {
        frames(&(0..5000).flat_map(|at| frame(1, 4, at * 2 + 1, GET)).collect::<Vec<_>>())
    }),
    ("headers that go on for ever", || {
        let more = frame(9, 0, 1, &[0x40, 1, b'x', 1, b'y'].repeat(3000));
        frames(&[frame(1, 0, 1, GET), more.repeat(2000)].concat())
    }),
    ("headers that go on with nothing", || {
        frames(&[frame(1, 0, 1, GET), frame(9, 0, 1, &[]).repeat(200_000)].concat())
    }),
    ("a header that is read from the table 100,000 times", || {
        let large = [&[0x40, 1, b'x', 0x7f, 0x81, 0x1f][..], &[b'y'; 4096]].concat();
        frames(&frame(1, 4, 1, &[GET, &large, &[0xbe; 11_000]].concat()))
    }),
    ("a table of 2^32 entries", || frames(&frame(1, 5, 1, &[&[0x3f, 0xe1, 0xff, 0xff, 0xff, 0x0f], GET].concat()))),
    ("an index that is in no table", || frames(&frame(1, 5, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f]))),
    ("a number that never ends", || frames(&frame(1, 5, 1, &[0xff; 10_000]))),
    ("a frame of 16 megabytes", || frames(&frame(0, 0, 1, &vec![0; (1 << 24) - 1]))),
    ("100,000 pings", || frames(&frame(6, 0, 0, &[0; 8]).repeat(100_000))),
    ("100,000 settings", || frames(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]).repeat(100_000))),
    ("settings of which none is allowed", || {
        frames(&frame(4, 0, 0, &[0, 5, 0, 0, 0, 1, 0, 4, 0xff, 0xff, 0xff, 0xff]))
    }),
    ("a window that runs over", || frames(&frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2))),
    ("a window of nothing", || frames(&frame(8, 0, 0, &[0; 4]).repeat(1000))),
    ("100,000 priorities", || {
        frames(&(0..100_000).flat_map(|at| frame(2, 0, at * 2 + 1, &[0, 0, 0, 3, 9])).collect::<Vec<_>>())
    }),
    ("data with nothing in it, without an end", || {
        let post = [0x83, 0x86, 0x84, 0x41, 1, b'h'];
        frames(&[frame(1, 4, 1, &post), frame(0, 0, 1, &[]).repeat(100_000)].concat())
    }),
    ("data of a stream that was never opened", || frames(&frame(0, 1, 99, b"data"))),
    ("a push of what nobody asked", || frames(&frame(5, 4, 1, &[&[0, 0, 0, 2], GET].concat()))),
    ("frames of no known kind", || frames(&frame(0xee, 0xff, 7, &[0xff; 1000]).repeat(10_000))),
    ("a CONNECT to a host", || {
        frames(&frame(1, 4, 1, &[&[0x02, 7][..], b"CONNECT", &[0x41, 12], b"127.0.0.1:22"].concat()))
    }),
    ("a preface that is cut short", || PREFACE[..20].to_vec()),
];

pub(crate) fn trials() -> Vec<Trial> {
    let http1 = HTTP1.into_iter().map(|(what, answer, build)| {
        case(&format!("{what}: refused, and nothing else harmed"), move || harms_nothing(answer, build))
    });
    let http2 = HTTP2.into_iter().map(|(what, build)| {
        case(&format!("{what}, in HTTP/2: an end of the connection at most"), move || costs_its_connection(build))
    });
    http1
        .chain(http2)
        .chain([
            case("what harms nothing in the clear harms nothing under TLS", tls_is_no_weaker),
            case("a thousand requests in one piece are answered one after the other", pipelined),
            case("a client that is told to go on and does not is hung up on", goes_not_on),
            case("requests that hang up before the answer leave nothing running", hang_up),
            case("an endless body is refused at its bound", endless_body),
        ])
        .collect()
}

fn case<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial {
    crate::case("requests", name, test)
}

/// The control: an ordinary request is answered soon, no handler has panicked, and the memory has not grown.
async fn is_well() {
    let Attacked { server, before, .. } = attacked();
    let began = Instant::now();
    let list = server.http.get(format!("{}/v2/sandboxes", server.url)).header("x-api-key", KEY);
    assert_eq!(list.send().await.expect("an answer").status(), 200);
    assert!(began.elapsed() < SOON, "it answers after {:?}", began.elapsed());
    let sandbox = sandbox().await;
    let call =
        server.http.request(Method::GET, format!("{}/envs", server.url)).header("x-access-token", &sandbox.token);
    let call = call.header("e2b-sandbox-id", &sandbox.id).header("e2b-sandbox-port", ENVD);
    assert_eq!(call.send().await.expect("an answer").status(), 200);
    assert_eq!(server.logged("panicked"), [""; 0]);
    // Memory that was held while an attack was read is given back, but not at once.
    crate::support::eventually("its memory is what it was", async || {
        server.memory_bytes().saturating_sub(*before) < GROWTH
    })
    .await;
}

async fn harms_nothing(answer: Answer, build: Build) {
    let sent = build(sandbox().await);
    let began = Instant::now();
    let found = exchange(address(&attacked().server), &sent).await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    let text = String::from_utf8_lossy(&found[..found.len().min(300)]).into_owned();
    match (answer, status(&found)) {
        // A handler that panics hangs up without an answer.
        (_, None) => panic!("hung up on without a word: {text:?}"),
        (Refused(statuses), Some(status)) => assert!(statuses.contains(&status), "{text}"),
        (Any, Some(status)) => assert!(status < 500, "{text}"),
    }
    is_well().await;
}

async fn costs_its_connection(build: Frames) {
    let began = Instant::now();
    let found = exchange(address(&attacked().server), &build()).await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    // If the server sends anything, its settings come first.
    assert!(found.is_empty() || found.get(3) == Some(&4) || found.starts_with(b"HTTP/1.1 400"), "{:?}", &found[..9]);
    is_well().await;
}

async fn tls_is_no_weaker() {
    let Attacked { server, ca, .. } = attacked();
    let address = server.tls_url.as_deref().expect("TLS").trim_start_matches("https://").parse().expect("an address");
    let ca = reqwest::Certificate::from_pem(ca).expect("a certificate");
    let client = reqwest::Client::builder().add_root_certificate(ca).resolve("api.sandbox.test", address);
    let client = client.pool_max_idle_per_host(0).build().expect("a client");
    let url = |path: &str| format!("https://api.sandbox.test:{}{path}", address.port());
    let large = "x".repeat(1 << 20);
    for (path, header, body, expected) in [
        // Over HTTP/2, endless headers close the connection, without another answer.
        ("/v2/sandboxes".to_owned(), large.clone(), Vec::new(), None),
        (format!("/{}", &large[..60_000]), String::new(), Vec::new(), Some(431)),
        ("/v2/sandboxes".to_owned(), String::new(), vec![b' '; 40 << 20], Some(413)),
        ("/v2/sandboxes".to_owned(), String::new(), nested("[", "]"), Some(400)),
    ] {
        let post = client.post(url(&path)).header("x-api-key", KEY).header("x-large", header).body(body);
        match (post.send().await, expected) {
            (Ok(found), expected) => assert_eq!(found.status(), expected.unwrap_or(431)),
            (Err(err), expected) => assert_eq!(expected, None, "{err:?}"),
        }
        let health = client.get(url("/healthz")).send().await.expect("an answer");
        assert_eq!(health.status(), 200);
        is_well().await;
    }
    for sent in [&b"\x16\x03\x01\x40\x00\x01"[..], &[0x16; 20_000], b"GET / HTTP/1.1\r\n\r\n", &[0x80, 0x2e, 1, 3, 1]] {
        let found = tokio::time::timeout(SOON, exchange(address, sent)).await.expect("an end");
        assert!(!found.starts_with(b"HTTP"), "{found:?}");
    }
    is_well().await;
}

async fn pipelined() {
    let one = String::from_utf8(control("GET /v1/languages", "\r\n")).expect("text");
    let last = String::from_utf8(control("GET /healthz", "connection: close\r\n\r\n")).expect("text");
    let found = exchange(address(&attacked().server), (one.repeat(1000) + &last).as_bytes()).await;
    let answers = String::from_utf8_lossy(&found).matches("HTTP/1.1 200 OK").count();
    assert_eq!(answers, 1001);
    is_well().await;
}

async fn goes_not_on() {
    let mut stream = TcpStream::connect(address(&attacked().server)).await.expect("a connection");
    stream.write_all(&create("expect: 100-continue\r\ncontent-length: 9\r\n", b"")).await.expect("it is sent");
    let mut found = Vec::new();
    let end = tokio::time::timeout(SOON, stream.read_to_end(&mut found)).await;
    assert!(end.is_ok(), "it still listens");
    assert!(found.starts_with(b"HTTP/1.1 100 Continue\r\n\r\n"), "{}", String::from_utf8_lossy(&found));
    is_well().await;
}

async fn hang_up() {
    let server = &attacked().server;
    let body = json!({"language": "python", "code": "import time; time.sleep(60)"}).to_string();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address(server)).await.expect("a connection");
        let head = control("POST /v1/run", &format!("content-length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(&head).await.expect("it is sent");
        drop(stream);
    }
    crate::support::eventually("nothing runs", async || {
        let status = server.http.get(format!("{}/v1/status", server.url)).header("x-api-key", KEY);
        let status: serde_json::Value = status.send().await.expect("an answer").json().await.expect("JSON");
        status["running"] == 0 && status["queued"] == 0
    })
    .await;
    is_well().await;
}

async fn endless_body() {
    let server = &attacked().server;
    let chunk = [b"10000\r\n", &[b' '; 1 << 16][..], b"\r\n"].concat();
    for path in ["/v2/sandboxes", "/v1/run"] {
        // The body is larger than every limit and never ends. A client that only writes would not see the answer.
        let sent =
            [control(&format!("POST {path}"), "transfer-encoding: chunked\r\n\r\n"), chunk.repeat(1024)].concat();
        let found =
            tokio::time::timeout(SOON, exchange(address(server), &sent)).await.expect("it is not read for ever");
        assert_eq!(status(&found), Some(413), "{:.300}", String::from_utf8_lossy(&found));
    }
    is_well().await;
}
