//! A request can name its sandbox and the port in several places, which must agree.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::e2b::{ENVD, INTERPRETER, KEY, Sandbox, answer, raw, request};
use crate::support::{Server, eventually};

trials![
    a_request_whose_parts_name_different_sandboxes_is_refused,
    a_request_whose_parts_name_the_same_sandbox_is_served,
    heads_that_no_client_library_sends_must_agree_too,
    a_port_sees_the_host_by_which_it_was_found,
    in_debug_mode_the_port_of_the_connection_must_agree_too,
];

fn host(port: u16, id: &str) -> String {
    format!("{port}-{id}.localhost")
}

fn basic(port: u16, id: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{}:", host(port, id))))
}

/// A request for the environment of a sandbox, with its token.
fn envs(sandbox: &Sandbox) -> RequestBuilder {
    request(Method::GET, "/envs").header("x-access-token", &sandbox.token)
}

fn by_headers(call: RequestBuilder, port: u16, id: &str) -> RequestBuilder {
    call.header("e2b-sandbox-id", id).header("e2b-sandbox-port", port)
}

async fn a_request_whose_parts_name_different_sandboxes_is_refused() {
    let (one, other) = (Sandbox::shared().await, Sandbox::create(json!({"templateID": "base"})).await);
    // A page of one sandbox that knows the id and the token of another.
    for token in [&one.token, &other.token] {
        let envs = || request(Method::GET, "/envs").header("x-access-token", token);
        let both_ids = [one.id.as_str(), other.id.as_str()];
        let both_ports = ["49983", "8000"];
        for (call, named) in [
            (by_headers(envs(), ENVD, &other.id).header("host", host(ENVD, &one.id)), both_ids),
            (by_headers(envs(), ENVD, &one.id).header("host", host(ENVD, &other.id)), both_ids),
            (by_headers(envs(), ENVD, &one.id).header("host", host(8000, &one.id)), both_ports),
            (by_headers(envs(), 8000, &one.id).header("host", host(ENVD, &one.id)), both_ports),
            (by_headers(envs(), ENVD, &one.id).header("authorization", basic(ENVD, &other.id)), both_ids),
            (envs().header("host", host(8000, &one.id)).header("authorization", basic(ENVD, &one.id)), both_ports),
            (envs().header("host", host(ENVD, &one.id)).header("authorization", basic(ENVD, &other.id)), both_ids),
        ] {
            let message = answer(call).await.error(400);
            assert!(named.iter().all(|name| message.contains(name)), "{message}");
        }
        let twice = by_headers(by_headers(envs(), ENVD, &one.id), ENVD, &other.id);
        answer(twice).await.error(400);
        let twice = by_headers(envs(), ENVD, &one.id).header("e2b-sandbox-port", 8000);
        answer(twice).await.error(400);
    }
    // Values that cannot be read are not taken for missing ones.
    let strange = b"\xe9".as_slice();
    let call = envs(one).header("host", host(ENVD, &one.id)).header("e2b-sandbox-id", strange);
    answer(call.header("e2b-sandbox-port", strange)).await.error(400);
    other.kill().await;
}

async fn a_request_whose_parts_name_the_same_sandbox_is_served() {
    let sandbox = Sandbox::shared().await;
    let id = &sandbox.id;
    for call in [
        by_headers(envs(sandbox), ENVD, id).header("host", host(ENVD, id)),
        by_headers(envs(sandbox), ENVD, &format!("{id}-oncebox")).header("host", host(ENVD, id).to_uppercase()),
        by_headers(envs(sandbox), ENVD, id).header("authorization", basic(ENVD, id)),
        // The user of the call is not an address.
        by_headers(envs(sandbox), ENVD, id)
            .header("authorization", format!("Basic {}", BASE64_STANDARD.encode("root:"))),
        by_headers(by_headers(envs(sandbox), ENVD, id), ENVD, id),
    ] {
        let found = answer(call).await;
        assert_eq!((found.status, &found.json()["E2B_SANDBOX_ID"]), (200, &json!(id)));
    }
}

async fn heads_that_no_client_library_sends_must_agree_too() {
    let (one, other) = (Sandbox::shared().await, Sandbox::create(json!({"templateID": "base"})).await);
    let get = async |target: &str, hosts: &[&str]| {
        let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
        let token = &one.token;
        let head = format!("GET {target} HTTP/1.1\r\n{hosts}x-access-token: {token}\r\nconnection: close\r\n\r\n");
        raw(head.as_bytes()).await[9..12].to_owned()
    };
    let (own, others) = (host(ENVD, &one.id), host(ENVD, &other.id));
    assert_eq!(get("/envs", &[&own]).await, "200");
    assert_eq!(get("/envs", &[&own, &own]).await, "200");
    assert_eq!(get("/envs", &[&own, &others]).await, "400");
    assert_eq!(get("/envs", &[&others, &own]).await, "400");
    assert_eq!(get("/healthz", &["one", "other"]).await, "400");
    assert_eq!(get(&format!("http://{own}/envs"), &["elsewhere"]).await, "200");
    assert_eq!(get(&format!("http://{own}/envs"), &[&others]).await, "400");
    assert_eq!(get(&format!("http://{others}/envs"), &[&own]).await, "400");
    assert_eq!(get("http://elsewhere/envs", &[&own]).await, "400");
    other.kill().await;
}

/// Answers one request on a port of this machine, which the sandboxes of this engine share, with its head.
async fn mirror() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
        stream.write_all(&[answer.as_bytes(), &head].concat()).await
    });
    port
}

async fn a_port_sees_the_host_by_which_it_was_found() {
    let sandbox = Sandbox::shared().await;
    for forwarded in [false, true] {
        let port = mirror().await;
        let own = host(port, &sandbox.id);
        let (target, host) = if forwarded { (format!("http://{own}/"), "elsewhere") } else { ("/".to_owned(), &*own) };
        let seen = raw(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert!(seen.contains("\r\n\r\nGET / HTTP/1.1\r\n"), "{seen}");
        let hosts: Vec<_> = seen.lines().filter_map(|line| line.strip_prefix("host: ")).collect();
        assert_eq!(hosts, [own]);
    }
}

/// Starts a server that listens on the fixed ports, which another connection of this machine may use for a moment.
async fn start_debug(variables: &[(&str, &str)]) -> Server {
    let variables = [&[("ONCEBOX_DEBUG_PORTS", "true")][..], variables].concat();
    let mut started = None;
    eventually("the ports are free", async || {
        started =
            Server::try_start_cold(&variables).inspect_err(|said| assert!(said.contains("in use"), "{said}")).ok();
        started.is_some()
    })
    .await;
    started.expect("it has started")
}

async fn in_debug_mode_the_port_of_the_connection_must_agree_too() {
    let server = start_debug(&[("ONCEBOX_API_KEYS", KEY)]).await;
    let create = server.http.post(format!("{}/sandboxes", server.url)).header("x-api-key", KEY);
    let sandbox = Sandbox::from(answer(create.json(&json!({"templateID": "base"}))).await.json());
    let id = &sandbox.id;
    let dial = |port: u16, path: &str| {
        server.http.get(format!("http://localhost:{port}{path}")).header("x-access-token", &sandbox.token)
    };
    for call in [
        dial(ENVD, "/envs"),
        dial(ENVD, "/envs").header("e2b-sandbox-id", "debug_sandbox_id").header("e2b-sandbox-port", ENVD),
        by_headers(dial(ENVD, "/envs"), ENVD, id),
        dial(ENVD, "/envs").header("host", format!("{}:{ENVD}", host(ENVD, id))),
        by_headers(dial(INTERPRETER, "/health"), INTERPRETER, id),
    ] {
        let found = answer(call).await;
        assert_eq!(found.status, 200, "{}", found.text());
    }
    for (call, other) in [
        (by_headers(dial(ENVD, "/envs"), INTERPRETER, id), INTERPRETER),
        (by_headers(dial(INTERPRETER, "/health"), ENVD, id), INTERPRETER),
        (by_headers(dial(ENVD, "/envs"), INTERPRETER, "debug_sandbox_id"), INTERPRETER),
        (dial(ENVD, "/envs").header("e2b-sandbox-port", 8000), 8000),
        (dial(ENVD, "/envs").header("host", host(8000, id)), 8000),
    ] {
        let message = answer(call).await.error(400);
        assert!([ENVD, other].iter().all(|port| message.contains(&port.to_string())), "{message}");
    }
    assert!(server.stop());
}
