//! `filesystem.Filesystem`: directories of a sandbox, and watches on them.
//!
//! Source: e2b-dev/infra, `packages/envd/spec/filesystem/filesystem.proto`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{Extension, FromRequestParts};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::connect::{self, ServerStreaming, StreamError, StreamTimeouts, Unary};
use super::error::ConnectError;
use super::user::User;
use crate::protocol::{Entry, EntryKind, FileQuery, ListQuery, MoveQuery, WatchEvent, WatchKind, WatchQuery, Watcher};
use crate::sandbox::{OperationError, Sandbox};

/// The prefix of the extended attributes that contain a file's metadata.
pub(super) const METADATA: &str = "user.e2b.";

type UnaryResult = Result<Json<Value>, ConnectError>;

pub(in crate::http::e2b) fn routes() -> Router {
    Router::new()
        .route("/filesystem.Filesystem/Stat", post(stat))
        .route("/filesystem.Filesystem/MakeDir", post(make_directory))
        .route("/filesystem.Filesystem/Move", post(rename))
        .route("/filesystem.Filesystem/ListDir", post(list))
        .route("/filesystem.Filesystem/Remove", post(remove))
        .route("/filesystem.Filesystem/WatchDir", post(watch))
        .route("/filesystem.Filesystem/CreateWatcher", post(create_watcher))
        .route("/filesystem.Filesystem/GetWatcherEvents", post(watcher_events))
        .route("/filesystem.Filesystem/RemoveWatcher", post(remove_watcher))
}

#[derive(Debug, Deserialize)]
struct PathRequest {
    #[serde(default)]
    path: String,
}

async fn stat(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    User(user): User,
    members: Members,
    Unary(PathRequest { path }): Unary<PathRequest>,
) -> UnaryResult {
    let entry = sandbox.stat(&FileQuery { path, user }).await?;
    Ok(Json(json!({"entry": shape(entry, members)})))
}

async fn make_directory(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    User(user): User,
    members: Members,
    Unary(PathRequest { path }): Unary<PathRequest>,
) -> UnaryResult {
    let entry = sandbox.make_directory(&FileQuery { path, user }).await?;
    Ok(Json(json!({"entry": shape(entry, members)})))
}

async fn remove(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    User(user): User,
    Unary(PathRequest { path }): Unary<PathRequest>,
) -> UnaryResult {
    sandbox.remove(&FileQuery { path, user }).await?;
    Ok(Json(json!({})))
}

#[derive(Debug, Deserialize)]
struct MoveRequest {
    #[serde(default)]
    source: String,
    #[serde(default)]
    destination: String,
}

async fn rename(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    User(user): User,
    members: Members,
    Unary(MoveRequest { source, destination }): Unary<MoveRequest>,
) -> UnaryResult {
    let entry = sandbox.rename(&MoveQuery { from: source, to: destination, user }).await?;
    Ok(Json(json!({"entry": shape(entry, members)})))
}

#[derive(Debug, Deserialize)]
struct ListRequest {
    #[serde(default)]
    path: String,
    #[serde(default)]
    depth: u32,
}

/// Lists a directory. The response is streamed, because there may be any number of entries.
async fn list(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    User(user): User,
    members: Members,
    Unary(ListRequest { path, depth }): Unary<ListRequest>,
) -> Result<Response, ConnectError> {
    let entries = sandbox.list(&ListQuery { path, user, depth }).await?;
    let body = Body::from_stream(listing(entries, members));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn listing(
    entries: impl Stream<Item = Result<Entry, OperationError>> + Send + 'static,
    members: Members,
) -> impl Stream<Item = Result<Bytes, OperationError>> + Send + 'static {
    let piece = |text: &'static str| futures::stream::iter([Ok(Bytes::from_static(text.as_bytes()))]);
    let entries = entries.enumerate().map(move |(at, entry)| {
        let comma = if at == 0 { "" } else { "," };
        Ok(Bytes::from(format!("{comma}{}", shape(entry?, members))))
    });
    piece("{\"entries\":[").chain(entries).chain(piece("]}"))
}

/// The members of an entry that a client can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Members {
    All,
    /// Those of the first version: name, type and path. Python's SDK up to 1.7 knows no others, and up to 1.5.3 it fails
    /// on a message with one that it does not know.
    First,
}

/// The user agent of Python's SDK up to 1.7 in calls to envd. Later versions send another one.
const FIRST_USER_AGENT: &str = "connect-python";

impl<S: Send + Sync> FromRequestParts<S> for Members {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let is_first = parts.headers.get(header::USER_AGENT).is_some_and(|agent| agent == FIRST_USER_AGENT);
        Ok(if is_first { Self::First } else { Self::All })
    }
}

/// Renders an `EntryInfo`.
fn shape(entry: Entry, members: Members) -> Value {
    let kind = match entry.kind {
        EntryKind::File => "FILE_TYPE_FILE",
        EntryKind::Directory => "FILE_TYPE_DIRECTORY",
        EntryKind::Other => "FILE_TYPE_UNSPECIFIED",
    };
    if members == Members::First {
        return json!({"name": entry.name, "type": kind, "path": entry.path});
    }
    let mut shape = json!({
        "name": entry.name,
        "type": kind,
        "path": entry.path,
        // A string, as in protobuf's JSON: a number in JavaScript cannot hold 64 bits.
        "size": entry.size.to_string(),
        "mode": entry.symlink_target.as_ref().map_or(Some(entry.mode), |_| entry.target_mode).unwrap_or_default() & 0o777,
        "permissions": permissions(entry.mode),
        "owner": entry.owner,
        "group": entry.group,
        "modifiedTime": humantime::format_rfc3339_nanos(time(entry.modified_ns)).to_string(),
    });
    let members = shape.as_object_mut().expect("an object");
    members.extend(entry.symlink_target.map(|target| ("symlinkTarget".to_owned(), target.into())));
    let metadata = entry.attributes.iter().filter_map(|(name, value)| Some((name.strip_prefix(METADATA)?, value)));
    let metadata: BTreeMap<_, _> = metadata.collect();
    if !metadata.is_empty() {
        members.insert("metadata".to_owned(), json!(metadata));
    }
    shape
}

/// Formats an `st_mode` like Go's `FileMode.String`: letters for the type and the special bits, then nine permission
/// bits.
fn permissions(mode: u32) -> String {
    let kind = mode & 0o170000;
    let letters = [
        (kind == 0o040000, 'd'),
        (kind == 0o120000, 'L'),
        (matches!(kind, 0o060000 | 0o020000), 'D'),
        (kind == 0o010000, 'p'),
        (kind == 0o140000, 'S'),
        (mode & 0o4000 != 0, 'u'),
        (mode & 0o2000 != 0, 'g'),
        (kind == 0o020000, 'c'),
        (mode & 0o1000 != 0, 't'),
    ];
    let mut text: String = letters.into_iter().filter_map(|(is_so, letter)| is_so.then_some(letter)).collect();
    if text.is_empty() {
        text.push('-');
    }
    let bits = "rwxrwxrwx".chars().enumerate();
    text.extend(bits.map(|(at, letter)| if mode & (0o400 >> at) == 0 { '-' } else { letter }));
    text
}

/// Converts a time of the agent. Times before 1970, which cannot be formatted, become 1970.
pub(in crate::http::e2b) fn time(ns: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

/// The request of a watch. `allowNetworkMounts` is ignored: sandboxes have no network mounts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WatchRequest {
    #[serde(default)]
    path: String,
    #[serde(default)]
    recursive: bool,
    #[serde(default, alias = "include_entry")]
    include_entry: bool,
}

impl WatchRequest {
    fn query(self, user: Option<String>) -> WatchQuery {
        WatchQuery { path: self.path, user, recursive: self.recursive, entries: self.include_entry }
    }
}

async fn watch(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    User(user): User,
    timeouts: StreamTimeouts,
    ServerStreaming(request): ServerStreaming<WatchRequest>,
) -> Result<Response, StreamError> {
    let events = sandbox.watch(&request.query(user)).await?;
    Ok(connect::message_stream(messages(events).boxed(), timeouts, json!({"keepalive": {}})))
}

/// Returns the messages of a watch. A watch does not end by itself, so the end of the events means that the sandbox is
/// lost.
fn messages(
    events: impl Stream<Item = Result<WatchEvent, OperationError>> + Send,
) -> impl Stream<Item = Result<Value, ConnectError>> + Send {
    let start = futures::stream::iter([Ok(json!({"start": {}}))]);
    let events = events.map(|event| match event {
        Ok(event) => Ok(json!({"filesystem": event_shape(event)})),
        Err(_) => Err(ConnectError::lost()),
    });
    start.chain(events).chain(futures::stream::iter([Err(ConnectError::lost())]))
}

fn event_shape(event: WatchEvent) -> Value {
    let kind = match event.kind {
        WatchKind::Create => "EVENT_TYPE_CREATE",
        WatchKind::Write => "EVENT_TYPE_WRITE",
        WatchKind::Remove => "EVENT_TYPE_REMOVE",
        WatchKind::Rename => "EVENT_TYPE_RENAME",
        WatchKind::Chmod => "EVENT_TYPE_CHMOD",
    };
    let mut value = json!({"name": event.name, "type": kind});
    // Clients that ask for entries in events can read all their members.
    value
        .as_object_mut()
        .expect("an object")
        .extend(event.entry.map(|entry| ("entry".to_owned(), shape(entry, Members::All))));
    value
}

async fn create_watcher(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    User(user): User,
    Unary(request): Unary<WatchRequest>,
) -> UnaryResult {
    let watcher = sandbox.create_watcher(&request.query(user)).await?;
    Ok(Json(json!({"watcherId": watcher.id})))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WatcherRequest {
    #[serde(default, alias = "watcher_id")]
    watcher_id: String,
}

async fn watcher_events(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    Unary(WatcherRequest { watcher_id: id }): Unary<WatcherRequest>,
) -> Result<Response, ConnectError> {
    let events = sandbox.watcher_events(&Watcher { id }).await?;
    Ok(connect::list_response("events", events.map_ok(event_shape)))
}

async fn remove_watcher(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    Unary(WatcherRequest { watcher_id: id }): Unary<WatcherRequest>,
) -> UnaryResult {
    sandbox.remove_watcher(&Watcher { id }).await?;
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            kind: EntryKind::File,
            path: format!("/home/user/{name}"),
            size: 1 << 60,
            mode: 0o100644,
            owner: "user".to_owned(),
            group: "user".to_owned(),
            modified_ns: 1_500_000_000_123_456_789,
            symlink_target: None,
            target_mode: None,
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn an_entry_has_protobufs_json_form() {
        let expected = json!({
            "name": "a", "type": "FILE_TYPE_FILE", "path": "/home/user/a", "size": "1152921504606846976", "mode": 420,
            "permissions": "-rw-r--r--", "owner": "user", "group": "user",
            "modifiedTime": "2017-07-14T02:40:00.123456789Z",
        });
        assert_eq!(shape(entry("a"), Members::All), expected);
        let link =
            Entry { symlink_target: Some("/x".to_owned()), mode: 0o120777, target_mode: Some(0o100640), ..entry("a") };
        let broken = shape(Entry { target_mode: None, ..link.clone() }, Members::All);
        assert_eq!((&broken["mode"], &broken["permissions"]), (&json!(0), &json!("Lrwxrwxrwx")));
        let link = shape(link, Members::All);
        assert_eq!((&link["symlinkTarget"], &link["mode"]), (&json!("/x"), &json!(0o640)));
        assert_eq!(link["permissions"], "Lrwxrwxrwx");
        let attributes =
            [("user.e2b.k", "v"), ("user.own", "w")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let with_metadata = Entry { attributes: attributes.into(), ..entry("a") };
        assert_eq!(shape(with_metadata, Members::All)["metadata"], json!({"k": "v"}));
        // The owner of a file can set any date.
        assert_eq!(
            shape(Entry { modified_ns: -1, ..entry("a") }, Members::All)["modifiedTime"],
            "1970-01-01T00:00:00.000000000Z"
        );
    }

    #[test]
    fn permissions_are_formatted_as_in_go() {
        for (mode, text) in [
            (0o100644, "-rw-r--r--"),
            (0o100751, "-rwxr-x--x"),
            (0o104755, "urwxr-xr-x"),
            (0o041777, "dtrwxrwxrwx"),
            (0o020666, "Dcrw-rw-rw-"),
            (0o060660, "Drw-rw----"),
            (0o010644, "prw-r--r--"),
            (0o140777, "Srwxrwxrwx"),
        ] {
            assert_eq!(permissions(mode), text, "{mode:o}");
        }
    }

    #[tokio::test]
    async fn a_listing_is_one_json_value() {
        for names in [&[][..], &["a"], &["a", "b", "c"]] {
            let entries: Vec<_> = names.iter().map(|name| Ok(entry(name))).collect();
            let pieces: Vec<_> =
                listing(futures::stream::iter(entries), Members::All).try_collect().await.expect("pieces");
            let value: Value = serde_json::from_slice(&pieces.concat()).expect("JSON");
            let found: Vec<_> = value["entries"].as_array().expect("a list").iter().map(|e| &e["name"]).collect();
            assert_eq!(found, names);
        }
    }

    #[test]
    fn both_spellings_of_member_names_are_read() {
        for key in ["includeEntry", "include_entry"] {
            let request: WatchRequest = serde_json::from_value(json!({"path": "/", key: true})).expect("a request");
            assert!(request.query(None).entries, "{key}");
        }
    }
}
