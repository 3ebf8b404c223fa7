//! The protocol of each version, frozen: `versions/N.json` holds the routes and the JSON schemas of everything that crosses the pipe.

use std::path::Path;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::*;

/// The routes, and the headers of their answers.
const ROUTES: [&str; 21] = [
    HELLO,
    ENV,
    METRICS,
    CONTEXTS,
    CONTEXT_RESTART,
    CONTEXT_INTERRUPT,
    EXECUTIONS,
    PROCESSES,
    PROCESS_EVENTS,
    PROCESS_STDIN,
    PROCESS_TERMINAL,
    PROCESS_SIGNAL,
    FILES,
    ENTRY,
    LIST,
    DIRECTORIES,
    MOVE,
    WATCH,
    WATCHERS,
    FILE_SIZE,
    FILE_MODIFIED,
];

/// Everything that crosses the pipe, the FIFOs of runners, and the pipe of a network namespace. What these contain is among
/// the schemas too.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct All<'a> {
    hello: Hello,
    refusal: Refusal,
    metrics: Metrics,
    start_context: StartContext,
    context: Context,
    context_query: ContextQuery,
    execute: Execute,
    event: Event,
    start_process: StartProcess,
    terminal_size: TerminalSize,
    process_event: ProcessEvent,
    process_info: ProcessInfo,
    process_query: ProcessQuery,
    send_signal: SendSignal,
    file_query: FileQuery,
    read_query: ReadQuery,
    write_query: WriteQuery,
    list_query: ListQuery,
    move_query: MoveQuery,
    entry: Entry,
    watch_query: WatchQuery,
    watch_event: WatchEvent,
    watcher: Watcher,
    egress: Egress,
    readiness: Readiness,
    addresses: Addresses,
    runner_request: runner::Request<'a>,
    runner_line: runner::Line,
}

/// Without descriptions, which are prose.
fn without_prose(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, value| !(name == "description" && value.is_string()));
            members.values_mut().for_each(without_prose);
        }
        Value::Array(list) => list.iter_mut().for_each(without_prose),
        _ => {}
    }
}

fn current() -> String {
    let schema = SchemaGenerator::default().into_root_schema_for::<All<'_>>();
    let mut types = serde_json::to_value(schema).expect("a schema is JSON");
    without_prose(&mut types);
    types.sort_all_objects();
    let mut whole = Map::new();
    whole.insert("routes".to_owned(), json!(ROUTES));
    whole.insert("types".to_owned(), types);
    format!("{:#}\n", Value::Object(whole))
}

/// A version that was frozen stays as it is. A new one is written by `UPDATE_FIXTURES=1`.
#[test]
fn what_crosses_the_pipe_changes_with_the_version_only() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/protocol/versions/{PROTOCOL_VERSION}.json"));
    if !path.exists() && std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, current()).expect("a new version");
    }
    let frozen = std::fs::read_to_string(&path)
        .unwrap_or_else(|_| panic!("version {PROTOCOL_VERSION} is new: UPDATE_FIXTURES=1 freezes it"));
    assert!(
        current() == frozen,
        "the protocol is not what version {PROTOCOL_VERSION} was: raise PROTOCOL_VERSION, and freeze it with UPDATE_FIXTURES=1"
    );
}
