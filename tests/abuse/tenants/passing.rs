//! Requests that are forwarded to a port inside: none of them reaches anything else.

use libtest_mimic::Trial;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::{SECRET, attackers, case, label, unharmed, victim};
use crate::attacker::{address, exchange, head, status};
use crate::e2b::{INTERPRETER, OTHER_KEY, Sandbox, answer, api, request, server};

const PORT: u16 = 8000;

/// A server inside that returns its request byte for byte, and accepts every upgrade.
const MIRROR: &str = r#"
import socket, threading
def serve(client):
    data = b""
    client.settimeout(1)
    try:
        while b"\r\n\r\n" not in data and (piece := client.recv(65536)):
            data += piece
        if b"upgrade: hostile" in data.lower():
            client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: hostile\r\n\r\n")
            client.settimeout(None)
            while piece := client.recv(65536):
                client.sendall(b"mirror:" + piece)
            return
        while b"end-of-body" not in data and (piece := client.recv(65536)):
            data += piece
    except TimeoutError:
        pass
    if b"/inject" in data:
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
    else:
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
    client.close()
listener = socket.create_server(("127.0.0.1", 8000))
print("up", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
"#;

/// The attacker's sandbox, with that server in it.
async fn mirror() -> &'static Sandbox {
    static MIRRORING: OnceCell<()> = OnceCell::const_new();
    let own = attackers().await;
    MIRRORING
        .get_or_init(|| async {
            let upload = own.envd(Method::POST, "/files?path=/tmp/mirror.py");
            let upload = upload.header("content-type", "application/octet-stream").body(MIRROR);
            assert_eq!(answer(upload).await.status, 200);
            own.shell("nohup python3 /tmp/mirror.py >/tmp/up 2>&1 & until grep -q up /tmp/up; do sleep 0.05; done")
                .await;
        })
        .await;
    own
}

/// Heads of requests to a port, and the bytes behind them. All try to reach something else.
type Build = fn(&Sandbox, &str) -> String;

const SENT: [(&str, Build); 14] = [
    ("a length and chunks", |own, inner| {
        let head = head(own, PORT, "POST /");
        format!("{head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}")
    }),
    ("chunks and a length", |own, inner| {
        let head = head(own, PORT, "POST /");
        format!("{head}transfer-encoding: chunked\r\ncontent-length: {}\r\n\r\n0\r\n\r\n{inner}", inner.len() + 5)
    }),
    ("chunks spelled oddly", |own, inner| {
        format!("{}transfer-encoding: xchunked\r\ncontent-length: 0\r\n\r\n{inner}", head(own, PORT, "POST /"))
    }),
    ("chunks twice", |own, inner| {
        let head = head(own, PORT, "POST /");
        format!("{head}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n{inner}")
    }),
    ("two lengths", |own, inner| {
        format!("{}content-length: 0\r\ncontent-length: {}\r\n\r\n{inner}", head(own, PORT, "POST /"), inner.len())
    }),
    ("a chunk whose size is a lie", |own, inner| {
        format!("{}transfer-encoding: chunked\r\n\r\n0;x=\n\r\n\r\n{inner}", head(own, PORT, "POST /"))
    }),
    ("a bare end of line", |own, inner| {
        format!("{}x-a: b\nx-c: d\r\ncontent-length: 0\r\n\r\n{inner}", head(own, PORT, "POST /"))
    }),
    ("a request behind it", |own, inner| format!("{}content-length: 0\r\n\r\n{inner}", head(own, PORT, "POST /"))),
    ("a body of GET", |own, inner| format!("{}content-length: 0\r\n\r\n{inner}", head(own, PORT, "GET /"))),
    ("an answer with two in it", |own, inner| {
        format!("{}content-length: 0\r\n\r\n{inner}", head(own, PORT, "GET /inject"))
    }),
    ("the server's own URL", |own, inner| {
        let line = format!("GET http://{}/v1/status", address(server()));
        format!("{}content-length: 0\r\n\r\n{inner}", head(own, PORT, &line))
    }),
    ("headers that are to be dropped", |own, inner| {
        let drop = "connection: e2b-sandbox-id, e2b-sandbox-port, x-access-token, host\r\n";
        format!("{}{drop}content-length: 0\r\n\r\n{inner}", head(own, PORT, "GET /"))
    }),
    ("a name that would end its line", |own, inner| {
        let line = "GET /x%0d%0ahost:%20evil%0d%0a%0d%0aGET%20/v1/status?%0d%0a";
        format!("{}x-a: b%0d%0ac: d\r\ncontent-length: 0\r\n\r\n{inner}", head(own, PORT, line))
    }),
    ("an upgrade that nobody asked for", |own, inner| {
        format!(
            "{}connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n{inner}",
            head(own, PORT, "GET /")
        )
    }),
];

pub(super) fn trials() -> Vec<Trial> {
    let sent = SENT.into_iter().map(|(what, build)| {
        case(&format!("{what} to a port inside gets nobody past a key"), move || gets_nobody_past(build))
    });
    sent.chain([
        case("an upgraded connection ends inside, whatever is said on it", upgraded_ends_inside),
        case("CONNECT makes the server nobody's proxy", connect_is_no_proxy),
        case("a port of a sandbox is never one of the host", no_port_of_the_host),
        case("the token of a private port opens no other sandbox's", private_port_opens_to_its_token),
        case("a port of another's sandbox gives no way to its daemon", no_way_to_the_daemon),
        case("what is passed on holds no line that was not sent", holds_no_other_line),
    ])
    .collect()
}

/// Requests smuggled behind another one: to the server's own API, and to the victim's daemon with the attacker's token.
async fn gets_nobody_past(build: Build) {
    let (victim, own) = (victim().await, mirror().await);
    let close = "connection: close\r\n\r\n";
    for inner in [
        format!("GET /v1/status HTTP/1.1\r\nhost: h\r\n{close}end-of-body"),
        format!("DELETE /sandboxes/{} HTTP/1.1\r\nhost: h\r\nx-api-key: {OTHER_KEY}\r\n{close}end-of-body", victim.id),
        format!("GET /envs HTTP/1.1\r\nhost: {}\r\nx-access-token: {}\r\n{close}end-of-body", label(victim), own.token),
    ] {
        let found = exchange(address(server()), build(own, &inner).as_bytes()).await;
        let text = String::from_utf8_lossy(&found);
        assert!(!text.contains(SECRET) && !text.contains("\"running\":"), "{text}");
        // Every answer of the server's own is a refusal.
        for line in text.lines().filter(|line| line.starts_with("HTTP/1.1 ")) {
            let refusal = ["400", "401", "403", "404", "501", "502"].iter().any(|code| line[9..].starts_with(code));
            assert!(refusal || line.starts_with("HTTP/1.1 200 "), "{text}");
        }
        assert!(!text.contains("\r\n\r\nforged"), "bytes behind an answer were passed on as one: {text}");
    }
    unharmed().await;
    // The same port returns an ordinary request.
    let rightly = answer(own.at(PORT, Method::POST, "/").body("end-of-body")).await;
    assert!(rightly.status == 200 && rightly.text().ends_with("end-of-body"), "{}", rightly.text());
}

async fn upgraded_ends_inside() {
    let own = mirror().await;
    let mut stream = TcpStream::connect(address(server())).await.expect("a connection");
    let head = format!("{}connection: upgrade\r\nupgrade: hostile\r\n\r\n", head(own, PORT, "GET /socket"));
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    let mut told = vec![0; 4096];
    let mut read = async |stream: &mut TcpStream| {
        let length = stream.read(&mut told).await.expect("an answer");
        assert!(length > 0, "it hung up");
        String::from_utf8_lossy(&told[..length]).into_owned()
    };
    let mut upgraded = read(&mut stream).await;
    while !upgraded.contains("\r\n\r\n") {
        upgraded += &read(&mut stream).await;
    }
    assert!(upgraded.starts_with("HTTP/1.1 101 "), "{upgraded}");
    for said in ["GET /v1/status HTTP/1.1\r\nhost: h\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        stream.write_all(said.as_bytes()).await.expect("it is sent");
        let mut back = String::new();
        while back.replace("mirror:", "").len() < said.len() {
            back += &read(&mut stream).await;
        }
        assert!(back.starts_with("mirror:") && back.replace("mirror:", "") == said, "{back}");
    }
}

async fn connect_is_no_proxy() {
    let (victim, own) = (victim().await, mirror().await);
    let target = address(server());
    // A listener on the host that no request may reach.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let other = listener.local_addr().expect("its address");
    for (line, headers) in [
        (format!("CONNECT {other} HTTP/1.1"), String::new()),
        (format!("CONNECT {target} HTTP/1.1"), format!("x-api-key: {OTHER_KEY}\r\n")),
        (format!("CONNECT {} HTTP/1.1", label(victim)), String::new()),
        (format!("CONNECT {}:80 HTTP/1.1", label(victim)), format!("x-access-token: {}\r\n", own.token)),
        (format!("GET http://{other}/ HTTP/1.1"), String::new()),
        (format!("GET http://{other}/ HTTP/1.1"), format!("x-api-key: {OTHER_KEY}\r\n")),
        (format!("CONNECT {other} HTTP/1.1"), {
            let Sandbox { id, token, .. } = own;
            format!("e2b-sandbox-id: {id}\r\ne2b-sandbox-port: {PORT}\r\nx-access-token: {token}\r\n")
        }),
    ] {
        let inner = "GET /envs HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\nend-of-body";
        let request = format!("{line}\r\nhost: h\r\n{headers}connection: close\r\n\r\n{inner}");
        let found = exchange(target, request.as_bytes()).await;
        assert!(!String::from_utf8_lossy(&found).contains(SECRET), "{line}");
        let is_refused = status(&found).is_none_or(|status| status >= 400);
        assert!(is_refused, "{line}: {}", String::from_utf8_lossy(&found));
    }
    let reached = tokio::time::timeout(std::time::Duration::from_millis(100), listener.accept()).await;
    assert!(reached.is_err(), "it was led to a port of the host");
    TcpStream::connect(other).await.expect("it does listen");
    unharmed().await;
}

async fn no_port_of_the_host() {
    let own = mirror().await;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    for port in [address(server()).port(), port, 22, 2375, 2376, 80] {
        for path in ["/v1/status", "/sandboxes", "/_ping", "/"] {
            let found = answer(own.at(port, Method::GET, path).header("x-api-key", OTHER_KEY)).await;
            assert_eq!((found.status, &found.json()["port"]), (502, &json!(port)), "{}", found.text());
            if path != "/" {
                break;
            }
        }
    }
    let reached = tokio::time::timeout(std::time::Duration::from_millis(50), listener.accept()).await;
    assert!(reached.is_err(), "it was led to a port of the host");
    assert_eq!(answer(own.at(PORT, Method::POST, "/").body("end-of-body")).await.status, 200);
}

async fn private_port_opens_to_its_token() {
    let private = json!({"templateID": "base", "network": {"allowPublicTraffic": false}});
    let made = [Sandbox::create(private.clone()).await, Sandbox::create(private).await];
    let token = |sandbox: &Sandbox| sandbox.created["trafficAccessToken"].as_str().expect("a token").to_owned();
    let (one, other) = (&made[0], &made[1]);
    let (right, theirs) = (token(one), token(other));
    let changed = format!("{}{}", &right[..right.len() - 1], if right.ends_with('x') { 'y' } else { 'x' });
    for port in [PORT, INTERPRETER, 1] {
        for wrong in ["", &theirs, &changed, &one.token, &other.token, &one.id, OTHER_KEY] {
            for call in [
                one.at(port, Method::GET, "/"),
                request(Method::GET, "/").header("host", format!("{port}-{}.localhost", one.id)),
            ] {
                let found = answer(call.header("e2b-traffic-access-token", wrong)).await;
                assert_eq!(found.status, 403, "{port} {wrong}: {}", found.text());
            }
        }
        let upgrade = one.at(port, Method::GET, "/").header("connection", "upgrade").header("upgrade", "websocket");
        assert_eq!(answer(upgrade).await.status, 403);
        let opened = answer(one.at(port, Method::GET, "/health").header("e2b-traffic-access-token", &right)).await;
        assert_ne!(opened.status, 403, "{}", opened.text());
    }
    for sandbox in made {
        sandbox.kill().await;
    }
}

async fn no_way_to_the_daemon() {
    let victim = victim().await;
    for port in [1, 3, 8000, 49982, 49984, 65535] {
        for path in ["/envs", "/files?path=secret", "/hello", "/executions", "/processes"] {
            let found = answer(victim.at(port, Method::GET, path)).await;
            assert!(found.status == 502 && !found.text().contains(SECRET), "{port} {path}: {}", found.text());
            if port != 1 {
                break;
            }
        }
    }
    // The agent's own routes are not routes of the daemon.
    for path in ["/hello", "/executions", "/processes", "/env", "/../hello", "//hello"] {
        for method in [Method::GET, Method::POST, Method::PUT] {
            let found = answer(victim.envd(method.clone(), path)).await;
            assert_eq!(found.status, 404, "{method} {path}: {}", found.text());
        }
    }
    assert_eq!(answer(victim.envd(Method::GET, "/files?path=secret")).await.text(), SECRET);
}

async fn holds_no_other_line() {
    let own = mirror().await;
    let masked = json!({"templateID": "base", "network": {"maskRequestHost": "x\r\nevil: 1"}});
    api(Method::POST, "/v2/sandboxes", Some(masked)).await.error(400);
    for masked in ["x y", "x\0", "x\n", "/x", "x/../y", "http://x"] {
        let body = json!({"templateID": "base", "network": {"maskRequestHost": masked}});
        api(Method::POST, "/v2/sandboxes", Some(body)).await.error(400);
    }
    let call = own.at(PORT, Method::POST, "/a%0d%0aevil:%201?b=%0d%0aevil:%202").header("x-own", "a%0d%0aevil: 3");
    let seen = answer(call.body("end-of-body")).await.text();
    let lines: Vec<&str> = seen.split("\r\n").collect();
    assert!(lines[0].starts_with("POST /a%0d%0aevil:%201?b=%0d%0aevil:%202 HTTP/1.1"), "{seen}");
    assert!(!lines.iter().any(|line| line.to_lowercase().starts_with("evil")), "{seen}");
    // Values that the server derives from input, here from a file's name, are one line too.
    let name = "/tmp/a%0d%0aevil:%204";
    let write =
        own.envd(Method::POST, &format!("/files?path={name}")).header("content-type", "application/octet-stream");
    assert_eq!(answer(write.body("x")).await.status, 200);
    let read = answer(own.envd(Method::GET, &format!("/files?path={name}"))).await;
    let sent = read.headers["content-disposition"].to_str().expect("text");
    assert!(read.status == 200 && !read.headers.contains_key("evil") && !sent.contains('\n'), "{sent}");
    let body: Value = own.call("filesystem.Filesystem/Stat", json!({"path": "/tmp/a\r\nevil: 4"})).await.json();
    assert_eq!(body["entry"]["name"], "a\r\nevil: 4");
}
