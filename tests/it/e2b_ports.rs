//! Ports of sandboxes: HTTP and WebSocket to servers that user code starts.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::e2b::{Sandbox, answer, api, connect, in_time, raw, request, server};
use crate::support::eventually;

trials![
    a_server_on_loopback_is_reached_by_headers_and_by_host_name,
    a_request_arrives_as_it_was_sent,
    bodies_of_any_size_pass_both_ways,
    ranges_are_the_servers_own_matter,
    a_request_that_expects_100_continue_gets_it,
    a_closed_port_is_a_502_that_names_it,
    a_port_that_speaks_no_http_is_a_502_that_names_it,
    messages_of_a_websocket_pass_both_ways,
    a_websocket_is_reached_by_host_name_and_refused_where_nobody_takes_it,
    a_websocket_ends_with_its_client_and_with_its_sandbox,
    a_slow_server_holds_up_no_other_request,
    a_client_that_hangs_up_closes_the_connection_inside,
    an_answer_that_breaks_off_inside_breaks_off_outside,
    a_server_of_http_1_0_answers_in_whole,
    one_connection_serves_requests_to_anything,
    a_masked_host_is_what_the_server_sees,
    a_private_port_needs_the_traffic_token,
    a_paused_sandbox_answers_only_if_it_may_resume,
    a_request_that_is_refused_resumes_nothing,
    what_is_open_when_a_sandbox_is_paused_does_not_cost_it_its_life,
];

const PORT: u16 = 8000;

/// Starts the server of the fixtures and waits until it listens.
async fn serve(sandbox: &Sandbox) {
    let script = include_str!("../fixtures/e2b/port.js");
    let upload =
        sandbox.envd(Method::POST, "/files?path=/tmp/port.js").header("content-type", "application/octet-stream");
    assert_eq!(answer(upload.body(script)).await.status, 200);
    let mut stream = sandbox.start(&format!("exec node /tmp/port.js {PORT}")).await;
    stream.pid().await;
    let said = crate::e2b::stdout(&[stream.message().await]);
    assert_eq!(said, "listening\n");
}

/// The sandbox that most of these tests share.
async fn served() -> &'static Sandbox {
    static SERVED: OnceCell<Sandbox> = OnceCell::const_new();
    SERVED
        .get_or_init(|| async {
            let sandbox = Sandbox::create(json!({"templateID": "base", "timeout": 900})).await;
            serve(&sandbox).await;
            sandbox
        })
        .await
}

fn to(sandbox: &Sandbox, method: Method, path: &str) -> RequestBuilder {
    sandbox.at(PORT, method, path)
}

async fn get(sandbox: &Sandbox, path: &str) -> crate::e2b::Answer {
    answer(to(sandbox, Method::GET, path)).await
}

fn closed(sandbox: &Sandbox, port: u16) -> Value {
    let message = "The sandbox is running but port is not open";
    json!({"sandboxId": sandbox.id, "message": message, "port": port, "code": 502})
}

async fn a_server_on_loopback_is_reached_by_headers_and_by_host_name() {
    let sandbox = served().await;
    assert_eq!(get(sandbox, "/").await.json()["url"], "/");
    let id = &sandbox.id;
    // Old SDKs append the client id to the sandbox id; upper and lower case are the same in host names.
    for host in [
        format!("{PORT}-{id}.localhost"),
        format!("{PORT}-{id}.localhost:3000"),
        format!("{PORT}-{id}-oncebox.LocalHost"),
        format!("{PORT}-{}.localhost", id.to_uppercase()),
    ] {
        let found = answer(request(Method::GET, "/here?x=1").header("host", &host)).await;
        assert_eq!((found.status, &found.json()["headers"]["host"]), (200, &json!(host)), "{}", found.text());
    }
}

async fn a_request_arrives_as_it_was_sent() {
    let sandbox = served().await;
    let path = "/a%2Fb/../c//d%20e/%F0?q=1&q=%26&empty=";
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
        let raw = raw(format!(
            "{method} {path} HTTP/1.1\r\nHOST: 127.0.0.1:1234\r\ne2b-sandbox-id: {}\r\nE2B-SANDBOX-PORT: {PORT}\r\n\
             X-Own: a, b\r\nAuthorization: Bearer own\r\nCookie: c=d\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            sandbox.id
        )
        .as_bytes())
        .await;
        let (head, body) = raw.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{raw}");
        let told: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&told["method"], &told["url"]), (&json!(method), &json!(path)));
        let headers = &told["headers"];
        for (name, value) in
            [("host", "127.0.0.1:1234"), ("x-own", "a, b"), ("authorization", "Bearer own"), ("cookie", "c=d")]
        {
            assert_eq!(headers[name], value, "{headers}");
        }
    }
    let head = answer(to(sandbox, Method::HEAD, "/")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

async fn bodies_of_any_size_pass_both_ways() {
    let sandbox = served().await;
    let sent: Vec<u8> = (0..8_u32 << 20).map(|at| (at % 251) as u8).collect();
    let known = answer(to(sandbox, Method::POST, "/echo").body(sent.clone())).await;
    assert!(known.status == 200 && known.body == sent, "{} bytes came back", known.body.len());
    let pieces: Vec<_> = sent.chunks(70_001).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let chunked = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let unknown = answer(to(sandbox, Method::POST, "/echo").body(chunked)).await;
    assert!(unknown.status == 200 && unknown.body == sent, "{} bytes came back", unknown.body.len());
    assert_eq!(get(sandbox, "/large").await.body.len(), 32 << 20);
    assert_eq!(answer(to(sandbox, Method::POST, "/echo").body("")).await.body.len(), 0);
}

async fn ranges_are_the_servers_own_matter() {
    let part = answer(to(served().await, Method::GET, "/range").header("range", "bytes=3-5")).await;
    assert_eq!((part.status, part.text().as_str()), (206, "345"));
    assert_eq!(part.headers["content-range"], "bytes 3-5/10");
}

async fn a_request_that_expects_100_continue_gets_it() {
    let sandbox = served().await;
    let head = format!("e2b-sandbox-id: {}\r\nx-access-token: {}\r\nhost: h\r\n", sandbox.id, sandbox.token);
    for (path, port) in [("/echo", PORT), ("/files?path=/tmp/asked", 49983)] {
        let mut stream = connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\n{head}e2b-sandbox-port: {port}\r\ncontent-type: application/octet-stream\r\n\
             content-length: 4\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("it is sent");
        let mut told = [0; 25];
        stream.read_exact(&mut told).await.expect("an answer");
        assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n", "{path}");
        stream.write_all(b"body").await.expect("it is sent");
        let mut told = String::new();
        stream.read_to_string(&mut told).await.expect("an answer");
        assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {told}");
    }
}

async fn a_closed_port_is_a_502_that_names_it() {
    let sandbox = served().await;
    for port in [1, 9999, 65535] {
        let refused = answer(sandbox.at(port, Method::GET, "/")).await;
        assert_eq!((refused.status, refused.json()), (502, closed(sandbox, port)));
        assert_eq!(refused.headers["content-type"], "application/json");
        let host = answer(request(Method::POST, "/x").header("host", format!("{port}-{}.localhost", sandbox.id))).await;
        assert_eq!((host.status, host.json()), (502, closed(sandbox, port)));
    }
    for method in [Method::GET, Method::POST] {
        let nobody = request(method, "/").header("e2b-sandbox-id", "inobody").header("e2b-sandbox-port", PORT);
        let gone = answer(nobody).await;
        let message = json!({"sandboxId": "inobody", "message": "The sandbox was not found", "code": 502});
        assert_eq!((gone.status, gone.json()), (502, message));
    }
}

async fn a_port_that_speaks_no_http_is_a_502_that_names_it() {
    let sandbox = Sandbox::shared().await;
    let code = "import socket; s = socket.create_server(('', 8100)); print('up', flush=True)\n\
                for answer in (b'', b'220 smtp.example ready\\r\\n', b'HTTP/1.1 nonsense\\r\\n\\r\\n', b'\\0' * 9000):\n    \
                c, _ = s.accept(); c.recv(9999); c.sendall(answer); c.close()";
    let mut stream = sandbox.start(&format!("exec python3 -c \"{code}\"")).await;
    stream.pid().await;
    stream.message().await;
    for _ in 0..4 {
        let refused = answer(sandbox.at(8100, Method::GET, "/")).await;
        let message = "The server on this port of the sandbox sent no HTTP response";
        let expected = json!({"sandboxId": sandbox.id, "message": message, "port": 8100, "code": 502});
        assert_eq!((refused.status, refused.json()), (502, expected));
    }
}

type Socket = WebSocketStream<TcpStream>;

async fn websocket(sandbox: &Sandbox, headers: &[(&'static str, String)]) -> (Socket, Option<String>) {
    let mut request =
        format!("ws://{}-{}.localhost/socket", PORT, sandbox.id).into_client_request().expect("a request");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    let (socket, response) = tokio_tungstenite::client_async(request, connect().await).await.expect("a WebSocket");
    let asked = response.headers().get("x-asked-host").map(|host| host.to_str().expect("text").to_owned());
    (socket, asked)
}

async fn messages_of_a_websocket_pass_both_ways() {
    let sandbox = served().await;
    let id = ("e2b-sandbox-id", sandbox.id.clone());
    let headers = [("host", "sandbox.example".to_owned()), id, ("e2b-sandbox-port", PORT.to_string())];
    let (mut socket, asked) = websocket(sandbox, &headers).await;
    assert_eq!(asked.as_deref(), Some("sandbox.example"));
    let large: Vec<u8> = (0..1_u32 << 20).map(|at| (at % 251) as u8).collect();
    for message in [Message::text("é 😀"), Message::binary(large), Message::text(""), Message::text("x".repeat(70_000))]
    {
        socket.send(message.clone()).await.expect("it is sent");
        let back = socket.next().await.expect("a message").expect("a message");
        assert!(back == message, "{} bytes came back", back.len());
    }
    for number in 0..100 {
        socket.feed(Message::text(number.to_string())).await.expect("it is sent");
    }
    socket.flush().await.expect("it is sent");
    for number in 0..100 {
        assert_eq!(socket.next().await.expect("a message").expect("a message"), Message::text(number.to_string()));
    }
    socket.close(None).await.expect("it is closed");
    while let Some(message) = socket.next().await {
        assert!(message.expect("an orderly end").is_close());
    }
}

async fn a_websocket_is_reached_by_host_name_and_refused_where_nobody_takes_it() {
    let sandbox = served().await;
    let (mut socket, asked) = websocket(sandbox, &[]).await;
    assert_eq!(asked, Some(format!("{PORT}-{}.localhost", sandbox.id)));
    socket.send(Message::text("by name")).await.expect("it is sent");
    assert_eq!(socket.next().await.expect("a message").expect("a message"), Message::text("by name"));
    let url = format!("ws://9999-{}.localhost/", sandbox.id);
    match tokio_tungstenite::client_async(url, connect().await).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(refused)) => assert_eq!(refused.status(), 502),
        other => panic!("{other:?}"),
    }
}

async fn counts(sandbox: &Sandbox) -> (u64, u64) {
    let counts = get(sandbox, "/counts").await.json();
    (counts["open"].as_u64().expect("a number"), counts["closed"].as_u64().expect("a number"))
}

async fn a_websocket_ends_with_its_client_and_with_its_sandbox() {
    let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
    serve(&sandbox).await;
    let (socket, _) = websocket(&sandbox, &[]).await;
    assert_eq!(counts(&sandbox).await, (1, 0));
    drop(socket);
    eventually("its connection inside is closed", async || counts(&sandbox).await == (1, 1)).await;
    let (mut socket, _) = websocket(&sandbox, &[]).await;
    sandbox.kill().await;
    let end = tokio::time::timeout(Duration::from_secs(30), socket.next()).await.expect("it ends at once");
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
}

async fn a_slow_server_holds_up_no_other_request() {
    let sandbox = served().await;
    let held: Vec<_> = (0..8).map(|_| tokio::spawn(answer(to(sandbox, Method::GET, "/hold")))).collect();
    // Nobody reads these messages.
    let unread = futures::future::join_all((0..4).map(|_| to(sandbox, Method::GET, "/large").send())).await;
    in_time(async {
        for _ in 0..10 {
            assert_eq!(get(sandbox, "/quick").await.status, 200);
            assert_eq!(sandbox.shell("echo quick").await, "quick\n");
        }
        eventually("all of them are released", async || get(sandbox, "/release").await.text() == "8").await;
    })
    .await;
    for held in held {
        assert_eq!(held.await.expect("an answer").text(), "held");
    }
    assert!(unread.iter().all(Result::is_ok));
}

async fn a_client_that_hangs_up_closes_the_connection_inside() {
    let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
    serve(&sandbox).await;
    let mut response = to(&sandbox, Method::GET, "/drip").send().await.expect("an answer");
    assert_eq!(&response.chunk().await.expect("it goes on").expect("a piece")[..], b"drip");
    assert_eq!(counts(&sandbox).await, (1, 0));
    drop(response);
    eventually("its connection inside is closed", async || counts(&sandbox).await == (1, 1)).await;
    let mut response = to(&sandbox, Method::GET, "/drip").send().await.expect("an answer");
    response.chunk().await.expect("it goes on");
    sandbox.kill().await;
    assert!(response.chunk().await.is_err(), "an orderly end looks like a success");
}

async fn an_answer_that_breaks_off_inside_breaks_off_outside() {
    let mut response = to(served().await, Method::GET, "/break").send().await.expect("an answer");
    assert_eq!(&response.chunk().await.expect("it goes on").expect("a piece")[..], b"half");
    assert!(response.chunk().await.is_err(), "an orderly end looks like a success");
}

async fn a_server_of_http_1_0_answers_in_whole() {
    let sandbox = Sandbox::shared().await;
    // An answer without a length ends with the connection.
    let code = "import http.server as h\nclass H(h.BaseHTTPRequestHandler):\n    def do_GET(self):\n        \
                self.send_response(200); self.end_headers(); [self.wfile.write(b'x' * 65536) for _ in range(16)]\n\
                s = h.ThreadingHTTPServer(('127.0.0.1', 8101), H); print('up', flush=True); s.serve_forever()";
    let mut stream = sandbox.start(&format!("exec python3 -c \"{code}\"")).await;
    stream.pid().await;
    stream.message().await;
    let found = answer(sandbox.at(8101, Method::GET, "/")).await;
    assert_eq!((found.status, found.body.len()), (200, 1 << 20));
    let head = format!("e2b-sandbox-id: {}\r\ne2b-sandbox-port: 8101\r\nhost: h\r\n", sandbox.id);
    let raw =
        raw(format!("GET / HTTP/1.1\r\n{head}\r\nGET / HTTP/1.1\r\n{head}connection: close\r\n\r\n").as_bytes()).await;
    assert_eq!(raw.matches("HTTP/1.1 200 OK\r\n").count(), 2, "the client's own connection goes on");
    assert!(raw.ends_with("\r\n0\r\n\r\n"), "the end of an answer can be told from a break");
}

async fn one_connection_serves_requests_to_anything() {
    let (one, other) = (served().await, Sandbox::shared().await);
    let head = |sandbox: &Sandbox, port: u16| {
        format!("e2b-sandbox-id: {}\r\ne2b-sandbox-port: {port}\r\nhost: h\r\n\r\n", sandbox.id)
    };
    let requests = format!(
        "GET /one HTTP/1.1\r\n{}GET /health HTTP/1.1\r\n{}GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n\
         GET /two HTTP/1.1\r\n{}GET /contexts/none HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
        head(one, PORT),
        head(other, 49983),
        head(other, 9999)
    );
    let raw = raw(requests.as_bytes()).await;
    let statuses: Vec<_> = raw.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "204", "200", "502", "404"], "{raw}");
}

async fn a_masked_host_is_what_the_server_sees() {
    let network = json!({"maskRequestHost": "inside.example:${PORT}"});
    let sandbox = Sandbox::create(json!({"templateID": "base", "network": network})).await;
    serve(&sandbox).await;
    let name = format!("{PORT}-{}.localhost", sandbox.id);
    let headers = answer(request(Method::GET, "/").header("host", &name)).await.json()["headers"].clone();
    assert_eq!((&headers["host"], &headers["x-forwarded-host"]), (&json!("inside.example:8000"), &json!(name)));
    let detail = sandbox.api(Method::GET, "", None).await.json();
    assert_eq!(detail["network"]["maskRequestHost"], "inside.example:${PORT}");
    sandbox.kill().await;
    for host in ["a b", "a/b", "é", "a\r\nx: y"] {
        let body = json!({"templateID": "base", "network": {"maskRequestHost": host}});
        let refused = api(Method::POST, "/v2/sandboxes", Some(body)).await.error(400);
        assert!(refused.starts_with("network.maskRequestHost: "), "{refused}");
    }
}

async fn a_private_port_needs_the_traffic_token() {
    let body = json!({"templateID": "base", "network": {"allowPublicTraffic": false}});
    let sandbox = Sandbox::create(body.clone()).await;
    serve(&sandbox).await;
    let token = sandbox.created["trafficAccessToken"].as_str().expect("a token");
    assert_ne!(token, sandbox.token);
    for port in [PORT, 9999, 49999] {
        let refused = |message: &str| json!({"sandboxId": sandbox.id, "message": message, "code": 403});
        let missing = answer(sandbox.at(port, Method::GET, "/")).await;
        let message =
            "Sandbox is secured with traffic access token. Token header 'e2b-traffic-access-token' is missing";
        assert_eq!((missing.status, missing.json()), (403, refused(message)));
        for wrong in ["", "x", &sandbox.token] {
            let wrong = answer(sandbox.at(port, Method::GET, "/").header("e2b-traffic-access-token", wrong)).await;
            let message = "Sandbox is secured with traffic access token. Provided token in header \
                           'e2b-traffic-access-token' is invalid";
            assert_eq!((wrong.status, wrong.json()), (403, refused(message)));
        }
    }
    let right = |port: u16, path: &str| sandbox.at(port, Method::GET, path).header("E2b-Traffic-Access-Token", token);
    assert_eq!(answer(right(PORT, "/")).await.status, 200);
    assert_eq!(answer(right(49999, "/health")).await.status, 200);
    // The daemon has its own token.
    assert_eq!(answer(sandbox.at(49983, Method::GET, "/health")).await.status, 204);
    assert_eq!(sandbox.shell("echo in").await, "in\n");
    let connected = sandbox.api(Method::POST, "/connect", Some(json!({}))).await.json();
    assert_eq!(connected, sandbox.created);
    assert_eq!(sandbox.api(Method::GET, "", None).await.json()["network"], json!({"allowPublicTraffic": false}));
    sandbox.kill().await;
    api(Method::POST, "/sandboxes", Some(body)).await.error(400);
}

async fn a_paused_sandbox_answers_only_if_it_may_resume() {
    for auto in [false, true] {
        let sandbox = Sandbox::create(json!({"templateID": "base", "autoResume": {"enabled": auto}})).await;
        serve(&sandbox).await;
        assert_eq!(sandbox.api(Method::POST, "/pause", None).await.status, 204);
        let found = get(&sandbox, "/").await;
        let state = sandbox.api(Method::GET, "", None).await.json()["state"].clone();
        match auto {
            true => assert_eq!((found.status, state), (200, json!("running"))),
            false => {
                let gone = json!({"sandboxId": sandbox.id, "message": "The sandbox was not found", "code": 502});
                assert_eq!((found.status, found.json(), state), (502, gone, json!("paused")));
            }
        }
        sandbox.kill().await;
    }
    assert_eq!(server().get("/healthz").await.0, 200);
}

async fn a_request_that_is_refused_resumes_nothing() {
    let sandbox = Sandbox::create(json!({"templateID": "base", "autoResume": {"enabled": true}})).await;
    assert_eq!(sandbox.api(Method::POST, "/pause", None).await.status, 204);
    let stat = "/filesystem.Filesystem/Stat";
    for (port, method, path) in [
        (49983, Method::POST, stat),
        (49983, Method::GET, "/files?path=/etc/hostname"),
        (49983, Method::GET, "/files?path=/etc/hostname&signature=v1_x"),
        (49983, Method::GET, "/envs"),
        (49999, Method::GET, "/contexts"),
    ] {
        let refused = sandbox.at(port, method, path).header("x-access-token", "wrong").json(&json!({"path": "/"}));
        assert_eq!(answer(refused).await.status, 401, "{port}{path}");
        assert_eq!(sandbox.api(Method::GET, "", None).await.json()["state"], "paused", "{port}{path}");
    }
    assert_eq!(sandbox.call(stat.trim_start_matches('/'), json!({"path": "/"})).await.status, 200);
    assert_eq!(sandbox.api(Method::GET, "", None).await.json()["state"], "running");
    sandbox.kill().await;
}

async fn what_is_open_when_a_sandbox_is_paused_does_not_cost_it_its_life() {
    let sandbox = Sandbox::create(json!({"templateID": "base", "timeout": 600})).await;
    serve(&sandbox).await;
    // The clients neither read on nor send.
    let (mut socket, _) = websocket(&sandbox, &[]).await;
    let printing = sandbox.start("yes").await;
    let begun = futures::stream::iter([Ok::<_, std::io::Error>("begun")]).chain(futures::stream::pending());
    let upload = sandbox.envd(Method::POST, "/files?path=/tmp/part").header("content-type", "application/octet-stream");
    let upload = tokio::spawn(upload.body(reqwest::Body::wrap_stream(begun)).send());
    let dripping = to(&sandbox, Method::GET, "/drip").send().await.expect("an answer");
    let held = tokio::spawn(to(&sandbox, Method::GET, "/hold").send());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sandbox.api(Method::POST, "/pause", None).await.status, 204);
    // A link on which the server waits for an answer is declared broken after twice 20 seconds.
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!(sandbox.api(Method::GET, "", None).await.json()["state"], "paused");
    assert!(!matches!(socket.next().await, Some(Ok(_))));
    assert_eq!(sandbox.api(Method::POST, "/resume", Some(json!({}))).await.status, 201);
    assert_eq!(sandbox.shell("echo on").await, "on\n");
    assert!(
        !upload.is_finished() || upload.await.expect("a task").map_or(true, |answer| !answer.status().is_success())
    );
    drop((printing, dripping, held));
    sandbox.kill().await;
}
