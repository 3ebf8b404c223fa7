//! Requests that are refused early.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::kept::{Kept, bash};
use crate::e2b::{ENVD, answer};

pub(super) async fn of_what_makes_no_sense(kept: &Kept, number: u64) {
    let download = |query: &str| kept.envd(Method::GET, &format!("/files?{query}"));
    answer(download("path=/no/such")).await.error(404);
    answer(download("path=/tmp")).await.error(400);
    answer(download("path=/tmp/x&username=nosuchuser")).await.error(401);
    answer(kept.envd(Method::DELETE, "/files?path=x")).await.error(405);
    let body = vec![0; [0, 1, 100_000, 4_000_000][number as usize % 4]];
    for path in ["", "/tmp", "/tmp/nul\0byte"] {
        answer(kept.octets(path).body(body.clone())).await.error(400);
    }
    answer(kept.octets("/tmp/x").query(&[("username", "nosuchuser")]).body(body.clone())).await.error(401);
    answer(kept.octets("/tmp/x").header("content-encoding", "gzip").body(vec![1; 100])).await.error(400);
    let multipart = kept.envd(Method::POST, "/files?path=/tmp/x").header("content-type", "multipart/form-data");
    answer(multipart.body(body)).await.error(400);
    let calls: [(&str, Value, u16, &str); 5] = [
        ("filesystem.Filesystem/Stat", json!({"path": "/no/such"}), 404, "not_found"),
        ("filesystem.Filesystem/MakeDir", json!({"path": "/tmp"}), 409, "already_exists"),
        ("filesystem.Filesystem/GetWatcherEvents", json!({"watcherId": "none"}), 404, "not_found"),
        ("process.Process/SendInput", json!({"process": {"pid": 1}, "input": {"stdin": ""}}), 404, "not_found"),
        ("process.Process/SendSignal", json!({"process": {"tag": "none"}, "signal": 9}), 404, "not_found"),
    ];
    for (method, message, status, code) in calls {
        kept.call(method, message).await.call_error(status, code);
    }
    let stat = kept.envd(Method::POST, "/filesystem.Filesystem/Stat").json(&json!({"path": "/tmp"}));
    answer(stat.basic_auth("nosuchuser", None::<&str>)).await.call_error(401, "unauthenticated");
    let mut nowhere = bash("true", false);
    nowhere["process"]["cwd"] = json!("/no/such");
    assert_eq!(kept.stream("process.Process/Start", nowhere).await.error().await.0, "invalid_argument");
    let missing = kept.stream("filesystem.Filesystem/WatchDir", json!({"path": "/no/such"})).await.error().await;
    assert_eq!(missing.0, "not_found");
    let closed = answer(kept.at(9, Method::GET, "/")).await;
    assert_eq!((closed.status, closed.json()["port"].clone()), (502, json!(9)), "{}", closed.text());
}

/// Checks that the request was refused, and that the sandbox was not lost.
#[track_caller]
fn is_refused(what: &str, status: u16, text: &str) {
    assert!((400..500).contains(&status), "{what}: {status}, {text:.300}");
    assert!(!text.contains("sandbox was not found"), "{what}: {text:.300}");
}

/// Sends a request whose first line may be longer than HTTP clients allow. A server may hang up while it is sent: a
/// missing answer counts as a refusal.
async fn with_long_query(kept: &Kept, method: &str, path: &str) {
    let mut connection = kept.connect().await;
    let head = kept.head(ENVD, method, &format!("/files?path={path}"));
    let head =
        format!("{head}content-type: application/octet-stream\r\ncontent-length: 7\r\nconnection: close\r\n\r\n");
    let sent = connection.write_all(format!("{head}content").as_bytes()).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), connection.read_to_end(&mut answer)).await;
    let read = read.expect("it neither answers nor hangs up");
    if answer.is_empty() && (sent.is_err() || read.is_err()) {
        return;
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let what = format!("{method} with a query of {} bytes", path.len());
    is_refused(&what, status.unwrap_or_else(|| panic!("{what}: {answer:.300}")), &answer);
}

/// Paths of 10 kB, 100 kB and 5 MB, in the query and in JSON.
pub(super) async fn of_long_paths(kept: &Kept, number: u64) {
    let length = [10_000, 100_000, 5_000_000][number as usize % 3];
    let path = format!("/tmp/{}", "long/".repeat(length / 5));
    for method in ["GET", "POST"] {
        with_long_query(kept, method, &path).await;
    }
    let what = |kind: &str| format!("{kind} with a path of {length} bytes");
    let calls = [
        ("filesystem.Filesystem/Stat", json!({"path": path})),
        ("filesystem.Filesystem/MakeDir", json!({"path": path})),
        ("filesystem.Filesystem/ListDir", json!({"path": path})),
        ("filesystem.Filesystem/CreateWatcher", json!({"path": path})),
        ("filesystem.Filesystem/Move", json!({"source": "/tmp", "destination": path})),
        ("process.Process/SendSignal", json!({"process": {"tag": path}, "signal": 9})),
    ];
    for (method, message) in calls {
        let answer = kept.call(method, message).await;
        is_refused(&what(method), answer.status, &answer.text());
    }
    let mut nowhere = bash("true", false);
    nowhere["process"]["cwd"] = json!(path);
    let (code, message) = kept.stream("process.Process/Start", nowhere).await.error().await;
    assert!(code != "unavailable" && message.len() < length + 500, "{}: {code}, {message:.300}", what("Start"));
}
