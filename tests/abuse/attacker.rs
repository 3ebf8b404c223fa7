//! Tools of attackers: bare connections and HTTP/2 frames.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::e2b::{KEY, Sandbox};
use crate::support::Server;

/// The connection preface of an HTTP/2 client.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The headers of `GET http://h/`, encoded with HPACK's static table only.
pub(crate) const GET: &[u8] = b"\x82\x86\x84\x41\x01h";

/// Builds an HTTP/2 frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The address at which a server listens.
pub(crate) fn address(server: &Server) -> SocketAddr {
    server.url.trim_start_matches("http://").parse().expect("an address")
}

/// Sends raw bytes; returns the received bytes once the server hangs up, which it must do soon. Works even if the
/// server does not read all bytes.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let (mut reader, mut writer) = stream.split();
    let mut received = Vec::new();
    let both = async {
        tokio::join!(
            async {
                // The server may hang up before it has read everything.
                let _ = writer.write_all(bytes).await;
            },
            async {
                let _ = reader.read_to_end(&mut received).await;
            }
        )
    };
    tokio::time::timeout(Duration::from_secs(40), both).await.expect("the connection is not held for ever");
    received
}

/// The status of an HTTP/1 answer; `None` if there is no answer.
pub(crate) fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.1 ")?;
    line.get(..3)?.parse().ok()
}

/// Creates a kept sandbox on a given server.
pub(crate) async fn create(server: &Server, template: &str) -> Sandbox {
    let post = server.http.post(format!("{}/v2/sandboxes", server.url)).header("x-api-key", KEY);
    let created = post.json(&json!({"templateID": template, "timeout": 7200})).send().await.expect("an answer");
    assert_eq!(created.status(), 201);
    Sandbox::from(created.json::<Value>().await.expect("JSON"))
}

/// The first lines of an HTTP/1 request to a sandbox's port, with the sandbox's token.
pub(crate) fn head(sandbox: &Sandbox, port: u16, line: &str) -> String {
    let Sandbox { id, token, .. } = sandbox;
    format!(
        "{line} HTTP/1.1\r\nhost: h\r\ne2b-sandbox-id: {id}\r\ne2b-sandbox-port: {port}\r\nx-access-token: {token}\r\n"
    )
}
