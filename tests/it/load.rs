//! Under more load than there are places, each run has the expected end, and a server that is killed under load leaves
//! nothing. `make soak` does the same for hours.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::e2b::ENVD;
use crate::life::Kept;
use crate::support::{Server, docker};
use crate::{kills, mix};

trials![
    each_end_is_named_rightly_under_full_load,
    a_server_killed_at_any_moment_leaves_nothing,
    a_crowd_of_uploads_takes_little_memory_and_gives_it_back;
    rare: each_end_is_named_rightly_under_full_load_for_minutes, a_server_killed_often_leaves_nothing,
];

/// The number of uploads at a time, and the bytes that the server may hold for each, in all its layers together.
const CROWD: u64 = 200;
const MAX_HELD_BYTES: u64 = 640 << 10;

/// The seed: from the environment to repeat a failed run, otherwise a random one.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("SEED={seed} repeats this");
    seed
}

async fn each_end_is_named_rightly_under_full_load() {
    full_load(50).await;
}

async fn each_end_is_named_rightly_under_full_load_for_minutes() {
    full_load(300).await;
}

async fn full_load(runs: usize) {
    let server = Server::start(&[("ONCEBOX_MAX_SANDBOXES", "6")]);
    let deadline = Instant::now() + Duration::from_secs(600);
    let tally = mix::load(&server, seed(), runs, 12, deadline, |_| {}).await;
    assert!(tally.wrong.is_empty() && tally.total() == runs, "{tally:#?}");
    server.until_busy(0, 0).await;
}

async fn a_server_killed_at_any_moment_leaves_nothing() {
    kill(3).await;
}

async fn a_server_killed_often_leaves_nothing() {
    kill(12).await;
}

async fn kill(rounds: u64) {
    let bystander = Server::start_cold(&[("ONCEBOX_TEMPLATES__NODE__WARM", "1")]);
    for number in 0..rounds {
        let round = kills::round(seed().wrapping_mul(1000) + number, &bystander).await;
        eprintln!("{round:?}");
    }
    assert_eq!(bystander.run("js", "1 + 1").await["results"], serde_json::json!(["2"]));
}

/// The sandbox is stopped, so that every upload stalls. Then the clients vanish.
async fn a_crowd_of_uploads_takes_little_memory_and_gives_it_back() {
    let server: &'static Server = Box::leak(Box::new(Server::start_cold(&[])));
    let kept = Kept::create(server, json!({"templateID": "base", "timeout": 900})).await;
    let [sandbox] = &server.sandboxes()[..] else { panic!("one sandbox") };
    let before = server.memory_bytes();
    docker(&["pause", sandbox]);
    let uploads: FuturesUnordered<_> = (0..CROWD).map(|number| begun_upload(&kept, number)).collect();
    let uploads: Vec<TcpStream> = uploads.collect().await;
    let held = server.memory_bytes().saturating_sub(before);
    drop(uploads);
    docker(&["unpause", sandbox]);
    assert!(held < CROWD * MAX_HELD_BYTES, "{CROWD} uploads hold {} KiB each", held / CROWD / 1024);
    // The sandbox writes to the disk what it has taken, however busy the disk is.
    let deadline = Instant::now() + Duration::from_secs(180);
    while server.memory_bytes() > before + held / 2 {
        assert!(Instant::now() < deadline, "{} of {held} bytes are kept", server.memory_bytes() - before);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    kept.kill().await;
    assert!(server.stop(), "the server ends well");
}

/// Sends as much of an upload as the server accepts without a pause of a second.
async fn begun_upload(kept: &Kept, number: u64) -> TcpStream {
    let mut connection = kept.connect().await;
    let head = kept.head(ENVD, "POST", &format!("/files?path=/tmp/{number}"));
    let part = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let kind = "content-type: multipart/form-data; boundary=b\r\ncontent-length: 33554432\r\n\r\n";
    connection.write_all(format!("{head}{kind}{part}").as_bytes()).await.expect("it is taken");
    let piece = vec![b'x'; 64 << 10];
    while let Ok(sent) = tokio::time::timeout(Duration::from_secs(1), connection.write_all(&piece)).await {
        sent.expect("the server goes on");
    }
    connection
}
