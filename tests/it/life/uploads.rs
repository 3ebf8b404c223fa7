//! Uploads of every kind and size, complete and broken off.

use std::convert::Infallible;

use async_compression::tokio::bufread::GzipEncoder;
use futures::{StreamExt, stream};
use reqwest::{Body, Method, RequestBuilder};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::kept::{Kept, content};
use crate::e2b::{ENVD, answer};

const MULTIPART: &str = "multipart/form-data; boundary=b";

/// Simultaneous uploads have different paths; later ones overwrite the files of earlier ones.
fn path(kind: &str, number: u64) -> String {
    format!("/tmp/{kind}-{}", number % 48)
}

async fn is_written(request: RequestBuilder, paths: &[String]) {
    let written = answer(request).await;
    assert_eq!(written.status, 200, "{}", written.text());
    let shape = |path: &String| json!({"path": path, "name": path.rsplit('/').next(), "type": "file"});
    assert_eq!(written.json(), json!(paths.iter().map(shape).collect::<Vec<_>>()));
}

async fn holds(kept: &Kept, path: &str, expected: &[u8]) {
    let found = kept.read(path).await;
    assert!(found.status == 200 && found.body == expected, "{path}: {}, {} bytes", found.status, found.body.len());
}

/// A part as `curl -F 'file=;filename=NAME'` sends it.
fn part(name: &str, content: &str) -> String {
    format!(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n{content}\r\n"
    )
}

pub(super) async fn of_an_empty_piece(kept: &Kept, number: u64) {
    let path = path("empty", number);
    let request = kept.envd(Method::POST, "/files").query(&[("path", &path)]).header("content-type", MULTIPART);
    is_written(request.body(part("a", "") + "--b--\r\n"), std::slice::from_ref(&path)).await;
    if number.is_multiple_of(10) {
        holds(kept, &path, b"").await;
    }
}

/// Every second file is empty.
pub(super) async fn of_many_pieces(kept: &Kept, number: u64) {
    let directory = path("pieces", number);
    let paths: Vec<_> = (0..24).map(|piece| format!("{directory}/{piece}")).collect();
    let text = |piece: usize| if piece.is_multiple_of(2) { String::new() } else { format!("{number} {piece}") };
    let parts: String = paths.iter().enumerate().map(|(piece, path)| part(path, &text(piece))).collect();
    let request = kept.envd(Method::POST, "/files").header("content-type", MULTIPART);
    is_written(request.body(parts + "--b--\r\n"), &paths).await;
    for piece in [0, 23] {
        holds(kept, &paths[piece], text(piece).as_bytes()).await;
    }
}

pub(super) async fn of_every_size(kept: &Kept, number: u64) {
    const SIZES: [usize; 6] = [0, 1, 17, 65_536, 1_000_003, 10_000_000];
    let (path, content) = (path("size", number), content(number, SIZES[number as usize % SIZES.len()]));
    is_written(kept.octets(&path).body(content.clone()), std::slice::from_ref(&path)).await;
    holds(kept, &path, &content).await;
}

pub(super) async fn compressed(kept: &Kept, number: u64) {
    let (path, content) = (path("packed", number), content(number, number as usize % 300_000));
    let mut packed = Vec::new();
    GzipEncoder::new(&content[..]).read_to_end(&mut packed).await.expect("it is packed");
    let request = kept.octets(&path).header("content-encoding", "gzip").body(packed);
    is_written(request, std::slice::from_ref(&path)).await;
    holds(kept, &path, &content).await;
}

pub(super) async fn byte_by_byte(kept: &Kept, number: u64) {
    let (path, content) = (path("bytes", number), content(number, 500));
    // Yielding keeps the pieces separate.
    let pieces = stream::iter(content.clone()).then(|byte| async move {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(vec![byte])
    });
    is_written(kept.octets(&path).body(Body::wrap_stream(pieces)), std::slice::from_ref(&path)).await;
    holds(kept, &path, &content).await;
}

/// The client hangs up after a part of the body.
pub(super) async fn broken_off(kept: &Kept, number: u64) {
    let path = path("half", number);
    let head = kept.head(ENVD, "POST", &format!("/files?path={path}"));
    let content = content(number, [0, 1, 1000, 100_000][number as usize / 3 % 4]);
    let (kind, body) = match number % 3 {
        0 => ("application/octet-stream\r\ncontent-length: 1000000", content),
        1 => ("application/octet-stream\r\ntransfer-encoding: chunked", [&b"20000\r\n"[..], &content].concat()),
        _ => (
            "multipart/form-data; boundary=b\r\ncontent-length: 1000000",
            [part("a", "").trim_end().as_bytes(), b"\r\n\r\n", &content].concat(),
        ),
    };
    let head = format!("{head}content-type: {kind}\r\n\r\n");
    let mut connection = kept.connect().await;
    connection.write_all(&[head.as_bytes(), &body].concat()).await.expect("it is taken");
    if number.is_multiple_of(2) {
        // Gives the agent time to receive a part.
        tokio::task::yield_now().await;
        assert_eq!(answer(kept.envd(Method::GET, "/health")).await.status, 204);
    }
}
