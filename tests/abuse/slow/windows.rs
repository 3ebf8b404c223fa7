//! HTTP/2 clients that keep their flow control windows closed, which does not show on the connection, or that have no
//! more requests.

use std::time::Instant;

use libtest_mimic::Trial;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BOUND, PATIENCE, case, connect, is_held, others_are_well, prepare, sandbox};
use crate::attacker::{PREFACE, frame};
use crate::e2b::Sandbox;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        case("a stream of HTTP/2 whose window stays shut is given up", window_stays_shut),
        case("an answer of one piece in HTTP/2 whose window stays shut is given up", one_piece_is_not_taken),
        case("a refusal in HTTP/2 whose window stays shut is given up", refusal_is_not_taken),
        case("a connection of HTTP/2 that asked once is closed after its time", asked_once),
    ]
}

/// An HTTP/2 header without HPACK's table. Name and value are shorter than 127 bytes.
fn header(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("it is short");
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

async fn window_stays_shut() {
    prepare().await;
    let Sandbox { id, token, .. } = sandbox().await;
    let headers = [
        header(":method", "GET"),
        header(":scheme", "http"),
        header(":path", "/files?path=/dev/shm/sparse"),
        header(":authority", "h"),
        header("e2b-sandbox-id", id),
        header("e2b-sandbox-port", "49983"),
        header("x-access-token", token),
    ];
    let mut stream = connect("").await;
    let sent = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, &headers.concat())].concat();
    stream.write_all(&sent).await.expect("it is sent");
    let (client, began) = (stream.local_addr().expect("its address"), Instant::now());
    let mut told = Vec::new();
    // The client reads everything that is sent, so that only the window holds the answer up.
    tokio::time::timeout(BOUND, stream.read_to_end(&mut told)).await.expect("it is held for ever").ok();
    assert!((60_000..200_000).contains(&told.len()), "{} bytes were sent", told.len());
    assert!(began.elapsed() > PATIENCE && !is_held(client), "already after {:?}", began.elapsed());
    others_are_well().await;
}

/// The first byte of an answer's head in HPACK: 200 has its own index, another status follows the index of its name.
const OK: u8 = 0x88;
const REFUSED: u8 = 0x48;

async fn one_piece_is_not_taken() {
    is_given_up(&[header(":path", "/healthz")], OK).await;
}

async fn refusal_is_not_taken() {
    is_given_up(&[header(":path", "/v2/sandboxes"), header("x-api-key", "none")], REFUSED).await;
}

/// The head of the answer arrives, no byte of its body can, and the connection is closed after its time limit.
async fn is_given_up(headers: &[Vec<u8>], status: u8) {
    let headers = [&[header(":method", "GET"), header(":scheme", "http")], headers].concat().concat();
    let mut stream = connect("").await;
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    let sent = [PREFACE, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]), &frame(1, 5, 1, &headers)].concat();
    stream.write_all(&sent).await.expect("it is sent");
    let (client, began) = (stream.local_addr().expect("its address"), Instant::now());
    let mut told = Vec::new();
    tokio::time::timeout(BOUND, stream.read_to_end(&mut told)).await.expect("it is held for ever").ok();
    assert!(began.elapsed() > PATIENCE && !is_held(client), "already after {:?}", began.elapsed());
    let frames = frames(&told);
    let head = frames.iter().find(|(kind, stream, _)| (*kind, *stream) == (1, 1)).expect("the head of an answer");
    assert_eq!(head.2.first(), Some(&status), "{frames:?}");
    assert!(!frames.iter().any(|(kind, _, payload)| *kind == 0 && !payload.is_empty()), "{frames:?}");
    others_are_well().await;
}

/// Splits HTTP/2 bytes into frames: the kind, the stream and the payload of each.
fn frames(mut told: &[u8]) -> Vec<(u8, u32, &[u8])> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = told.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        frames.push((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
        told = rest;
    }
    frames
}

async fn asked_once() {
    let headers = [header(":method", "GET"), header(":scheme", "http"), header(":path", "/healthz")].concat();
    let mut stream = connect("").await;
    let sent = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, &headers)].concat();
    stream.write_all(&sent).await.expect("it is sent");
    let (began, mut told) = (Instant::now(), Vec::new());
    tokio::time::timeout(BOUND, stream.read_to_end(&mut told)).await.expect("it is held for ever").ok();
    assert!(began.elapsed() > PATIENCE / 2, "already after {:?}", began.elapsed());
    assert!(told.windows(2).any(|bytes| bytes == b"ok"), "{told:?}");
    others_are_well().await;
}
