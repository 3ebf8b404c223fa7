//! Pauses and resumptions in immediate succession.

use reqwest::Method;
use serde_json::json;

use super::kept::{Kept, bash};
use crate::e2b::{ENVD, INTERPRETER};

async fn pause(kept: &Kept) {
    let paused = kept.control(Method::POST, &format!("/sandboxes/{}/pause", kept.id), None).await;
    assert_eq!(paused.status, 204, "{}", paused.text());
}

async fn resume(kept: &Kept) {
    let body = json!({"timeout": 86_400});
    let resumed = kept.control(Method::POST, &format!("/sandboxes/{}/resume", kept.id), Some(body)).await;
    assert_eq!(resumed.status, 201, "{}", resumed.text());
}

async fn pairs(kept: &Kept, busy: &str, commands: usize, pairs: usize) {
    let mut pids = Vec::new();
    for _ in 0..commands {
        pids.push(kept.background(busy, false).await);
    }
    for _ in 0..pairs {
        pause(kept).await;
        resume(kept).await;
    }
    for pid in pids {
        kept.end(pid).await;
    }
    assert_eq!(kept.shell("echo on").await, "on\n");
}

/// Commands begin and end inside meanwhile.
pub(super) async fn right_after_resumptions(kept: &Kept, _: u64) {
    pairs(kept, "while :; do /bin/true; done", 6, 5).await;
}

/// Many more commands are ready to run than there are processors, and each must be stopped.
pub(super) async fn of_many_commands_that_spin(kept: &Kept, _: u64) {
    pairs(kept, "while :; do :; done", 24, 5).await;
}

/// Open requests end with an error, and nothing else is lost.
pub(super) async fn of_open_streams(kept: &Kept, number: u64) {
    let mut printing = kept.stream("process.Process/Start", bash("exec yes", false)).await;
    let pid = printing.pid().await;
    let mut watch = kept.stream("filesystem.Filesystem/WatchDir", json!({"path": "/tmp"})).await;
    assert_eq!(watch.message().await, json!({"start": {}}));
    let unread = kept.unread_stream("process.Process/Connect", &json!({"process": {"pid": pid}})).await;
    for (port, path) in [(ENVD, "/files?path=/tmp/begun"), (INTERPRETER, "/contexts")] {
        let head = kept.head(port, "POST", path);
        let head = format!("{head}content-type: application/octet-stream\r\ncontent-length: 9\r\n\r\nbegun");
        kept.send_and_leave(head.as_bytes()).await;
    }
    pause(kept).await;
    for stream in [&mut printing, &mut watch] {
        assert_eq!(stream.error().await.0, "unavailable");
    }
    resume(kept).await;
    drop(unread);
    kept.end(pid).await;
    assert_eq!(kept.shell(&format!("echo {number}")).await, format!("{number}\n"));
}
