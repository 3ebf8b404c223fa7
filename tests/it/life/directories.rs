//! Directories: watched through thousands of changes, listed with thousands of entries, and removed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::kept::Kept;

/// Creates files with different names in an existing directory.
async fn fill(kept: &Kept, directory: &str, files: usize, suffix: &str) {
    let command = format!("cd '{directory}' && for each in $(seq {files}); do echo > ${{each}}{suffix}; done");
    kept.shell(&command).await;
}

async fn make(kept: &Kept, directory: &str) {
    kept.shell(&format!("rm -rf '{directory}' && mkdir -p '{directory}'")).await;
}

async fn remove(kept: &Kept, path: &str) {
    assert_eq!(kept.done("filesystem.Filesystem/Remove", json!({"path": path})).await, json!({}));
    let stat = kept.call("filesystem.Filesystem/Stat", json!({"path": path})).await;
    stat.call_error(404, "not_found");
}

fn created(event: &Value) -> Option<String> {
    (event["type"] == "EVENT_TYPE_CREATE").then(|| event["name"].as_str().expect("a name").to_owned())
}

pub(super) async fn watched_as_a_stream(kept: &Kept, number: u64) {
    const FILES: usize = 2000;
    let directory = format!("/tmp/streamed-{number}");
    make(kept, &directory).await;
    let watch = json!({"path": directory, "includeEntry": number.is_multiple_of(2)});
    let mut stream = kept.stream("filesystem.Filesystem/WatchDir", watch).await;
    assert_eq!(stream.message().await, json!({"start": {}}));
    let mut names = BTreeSet::new();
    let read = async {
        while names.len() < FILES {
            names.extend(created(&stream.message().await["filesystem"]));
        }
    };
    tokio::join!(fill(kept, &directory, FILES, ""), read);
    assert_eq!(names, (1..=FILES).map(|name| name.to_string()).collect());
    drop(stream);
    remove(kept, &directory).await;
}

async fn watch(kept: &Kept, directory: &str) -> Value {
    let watch = json!({"path": directory, "recursive": true, "includeEntry": true});
    kept.done("filesystem.Filesystem/CreateWatcher", watch).await["watcherId"].clone()
}

async fn events(kept: &Kept, id: &Value) -> Vec<Value> {
    let told = kept.done("filesystem.Filesystem/GetWatcherEvents", json!({"watcherId": id})).await;
    told["events"].as_array().expect("a list").clone()
}

async fn unwatch(kept: &Kept, id: &Value) {
    assert_eq!(kept.done("filesystem.Filesystem/RemoveWatcher", json!({"watcherId": id})).await, json!({}));
}

pub(super) async fn watched_by_asking(kept: &Kept, number: u64) {
    const FILES: usize = 1000;
    let directory = format!("/tmp/asked-{number}");
    make(kept, &directory).await;
    let id = watch(kept, &directory).await;
    let mut names = BTreeSet::new();
    for round in 0..3 {
        let suffix = format!(".{round}");
        fill(kept, &directory, FILES / 2, &suffix).await;
        names.extend(events(kept, &id).await.iter().filter_map(created));
        assert_eq!(names.len(), (round + 1) * FILES / 2);
    }
    assert_eq!(events(kept, &id).await, Vec::<Value>::new());
    unwatch(kept, &id).await;
    remove(kept, &directory).await;
}

/// Long paths, so that the events that are kept for the client are more than 8 MiB.
pub(super) async fn watched_with_more_events_than_8_mib(kept: &Kept, number: u64) {
    const FILES: usize = 4000;
    let parent = format!("/tmp/deep-{number}");
    let directory = format!("{parent}{}", format!("/{}", "d".repeat(250)).repeat(3));
    make(kept, &directory).await;
    let id = watch(kept, &directory).await;
    fill(kept, &directory, FILES, &"f".repeat(200)).await;
    let events = events(kept, &id).await;
    assert!(json!(events).to_string().len() > 8 << 20, "they are too few");
    assert_eq!(events.iter().filter_map(created).collect::<BTreeSet<_>>().len(), FILES);
    unwatch(kept, &id).await;
    remove(kept, &parent).await;
}

/// A listing of more than 8 MiB.
pub(super) async fn listed_and_removed(kept: &Kept, number: u64) {
    const FILES: usize = 8000;
    let directory = format!("/tmp/listed-{number}/{}/{}", "d".repeat(250), "d".repeat(250));
    make(kept, &directory).await;
    fill(kept, &directory, FILES, &"f".repeat(200)).await;
    let listed = kept.done("filesystem.Filesystem/ListDir", json!({"path": directory, "depth": 1})).await;
    let entries = listed["entries"].as_array().expect("a list");
    let names: BTreeSet<_> = entries.iter().map(|entry| entry["name"].as_str().expect("a name")).collect();
    assert_eq!((entries.len(), names.len()), (FILES, FILES));
    assert!(entries.iter().all(|entry| entry["size"] == "1" && entry["type"] == "FILE_TYPE_FILE"));
    remove(kept, &format!("/tmp/listed-{number}")).await;
}
