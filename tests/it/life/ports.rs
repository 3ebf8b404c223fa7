//! Ports of servers inside: answers in tiny pieces, clients that leave, and clients that do not read.

use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::kept::Kept;
use crate::e2b::answer;

const PORT: u16 = 8200;

/// Starts the server of the fixtures, once, and waits until it listens.
async fn serve(kept: &Kept) {
    kept.port
        .get_or_init(|| async {
            let script = include_str!("../../fixtures/e2b/pieces.js");
            assert_eq!(answer(kept.octets("/tmp/pieces.js").body(script)).await.status, 200);
            kept.background(&format!("exec node /tmp/pieces.js {PORT} /tmp/pieces.up"), false).await;
            kept.until_there("/tmp/pieces.up").await;
        })
        .await;
}

async fn get(kept: &Kept, path: &str) -> String {
    let found = answer(kept.at(PORT, Method::GET, path)).await;
    assert_eq!(found.status, 200, "{}", found.text());
    found.text()
}

pub(super) async fn answers_in_tiny_pieces(kept: &Kept, _: u64) {
    serve(kept).await;
    assert_eq!(get(kept, "/tiny").await, "0123456789".repeat(100));
}

pub(super) async fn left_by_clients(kept: &Kept, number: u64) {
    serve(kept).await;
    if number.is_multiple_of(3) {
        // The client leaves before there is an answer.
        return kept.send_and_leave(format!("{}\r\n", kept.head(PORT, "GET", "/endless")).as_bytes()).await;
    }
    let mut unread = kept.unread(PORT, Method::GET, "/endless", "", Vec::new()).await;
    assert!(unread.take(200).await.iter().all(|byte| *byte == b'x'));
}

/// An upgraded connection on which the server sends 20,000 single bytes. The client reads none before all are sent.
pub(super) async fn unread_streams(kept: &Kept, number: u64) {
    const SENT: usize = 20_000;
    serve(kept).await;
    let path = format!("/bytes/{number}");
    let mut connection = kept.connect().await;
    let head = kept.head(PORT, "GET", &path);
    let head = format!("{head}connection: Upgrade\r\nupgrade: bytes\r\n\r\n");
    connection.write_all(head.as_bytes()).await.expect("it is taken");
    let deadline = Instant::now() + Duration::from_secs(120);
    while get(kept, &format!("/sent{path}")).await != SENT.to_string() {
        assert!(Instant::now() < deadline, "they are not sent");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if number.is_multiple_of(2) {
        return;
    }
    let mut all = Vec::new();
    connection.read_to_end(&mut all).await.expect("it is not broken off");
    let text = String::from_utf8(all).expect("text");
    let (head, bytes) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!((bytes.len(), bytes.trim_end_matches('x')), (SENT, ""));
}
