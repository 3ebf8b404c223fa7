//! Commands that finish, that nobody reads, whose client leaves, whose readers leave, and that are listed.

use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::kept::{Kept, bash};
use crate::e2b::stdout;
use crate::support::eventually;

/// The number of bytes, printed one by one, of a command that nobody reads.
const PIECES: usize = 5000;

pub(super) async fn finished(kept: &Kept, number: u64) {
    let code = number % 200;
    let mut stream = kept.stream("process.Process/Start", bash(&format!("printf {number}; exit {code}"), false)).await;
    let messages = stream.rest().await.expect("it is not broken off");
    assert_eq!(stdout(&messages), number.to_string());
    assert_eq!(messages[messages.len() - 2]["event"]["end"]["exitCode"], code, "{messages:?}");
}

/// A command prints one byte at a time, and its client reads nothing until all are printed.
pub(super) async fn unread(kept: &Kept, number: u64) {
    let done = format!("/tmp/unread-{number}");
    // The input is open and silent, so that `read` waits for its timeout.
    let command =
        format!("for ((at = 0; at < {PIECES}; at++)); do printf x; read -t 0.001; done; touch {done}; exec cat");
    let unread = kept.unread_stream("process.Process/Start", &bash(&command, true)).await;
    kept.until_there(&done).await;
    kept.done("filesystem.Filesystem/Remove", json!({"path": done})).await;
    let listed = kept.done("process.Process/List", json!({})).await;
    let processes = listed["processes"].as_array().expect("a list");
    let own = processes.iter().find(|process| process["config"]["args"][1] == command).expect("it runs");
    let pid = own["pid"].as_u64().expect("a number");
    let close = kept.done("process.Process/CloseStdin", json!({"process": {"pid": pid}}));
    let (messages, _) = tokio::join!(unread.messages(), close);
    assert_eq!(messages[0]["event"]["start"]["pid"], pid);
    assert_eq!(stdout(&messages), "x".repeat(PIECES));
    assert_eq!(messages[messages.len() - 2]["event"]["end"]["exitCode"], 0);
}

/// The client hangs up before it receives anything.
pub(super) async fn abandoned(kept: &Kept, number: u64) {
    let command = ["exit 0", "printf x", "sleep 1", "seq 10000"][number as usize % 4];
    kept.send_and_leave(&kept.stream_request("process.Process/Start", &bash(command, false))).await;
    if number.is_multiple_of(20) {
        assert_eq!(kept.shell("echo on").await, "on\n");
    }
}

/// A command prints endlessly; one client after another starts to read the output, and leaves.
pub(super) async fn left_by_readers(kept: &Kept, _: u64) {
    let pid = kept.background("exec python3 -uc 'while 1: print(1)'", false).await;
    let leave = |_| async {
        let mut unread = kept.unread_stream("process.Process/Connect", &json!({"process": {"pid": pid}})).await;
        let begun = unread.take(200).await;
        let start = json!({"event": {"start": {"pid": pid}}}).to_string();
        assert_eq!(&begun[5..5 + start.len()], start.as_bytes(), "{}", String::from_utf8_lossy(&begun));
    };
    stream::iter(0..20).for_each_concurrent(4, leave).await;
    kept.end(pid).await;
}

/// A hundred commands with an environment of 100 kB each, which is more than 8 MiB together.
pub(super) async fn listed_with_large_environments(kept: &Kept, number: u64) {
    let value = "x".repeat(100_000);
    let tag = format!("large-{number}");
    let process = json!({"cmd": "/bin/sleep", "args": ["600"], "envs": {"LARGE": value}});
    let mut pids = Vec::new();
    for _ in 0..100 {
        let start = json!({"process": process, "tag": tag, "stdin": false});
        pids.push(kept.stream("process.Process/Start", start).await.pid().await);
    }
    let listed = kept.done("process.Process/List", json!({})).await;
    let processes = listed["processes"].as_array().expect("a list");
    let own: Vec<&Value> = processes.iter().filter(|process| process["tag"] == tag).collect();
    assert!(own.iter().all(|listed| listed["config"] == process), "other environments");
    assert_eq!(own.iter().map(|process| process["pid"].as_u64().expect("a number")).collect::<Vec<_>>(), pids);
    for pid in pids {
        kept.end(pid).await;
    }
    eventually("they are listed no longer", async || {
        let listed = kept.done("process.Process/List", json!({})).await;
        listed["processes"].as_array().expect("a list").iter().all(|process| process["tag"] != tag)
    })
    .await;
}
