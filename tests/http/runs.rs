//! The records of runs: one for each run by every door, for its own key only, without code or output; and the audit log.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::{Answer, KEY, OTHER_KEY, Sandbox, answer, request};
use crate::key_file::{KeyFile, send, with_key};
use crate::support::{Server, eventually, refuses_to_start};

trials![
    each_end_has_a_record_and_a_line_of_the_audit_log,
    a_record_has_these_members_and_nothing_of_the_code,
    a_run_whose_client_hangs_up_was_cancelled,
    executions_and_commands_have_records_too,
    what_is_refused_is_no_run,
    the_audit_log_can_be_moved_away_and_is_complete_when_the_server_has_stopped,
    an_audit_log_that_cannot_be_opened_stops_the_start,
];

/// What nobody may find in a record.
const SECRET: &str = "secret-9d2f61";

async fn run(server: &Server, key: &str, body: Value) -> Answer {
    let ran = send(server, key, Method::POST, "/v1/run", Some(body)).await;
    assert_eq!(ran.status, 200, "{}", ran.text());
    ran
}

/// The records of a key, the newest first.
async fn records(server: &Server, key: &str) -> Vec<Value> {
    let found = send(server, key, Method::GET, "/v1/runs", None).await;
    assert_eq!(found.status, 200, "{}", found.text());
    found.json()["runs"].as_array().expect("a list").clone()
}

/// The lines of an audit log.
pub(crate) fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

async fn each_end_has_a_record_and_a_line_of_the_audit_log() {
    let (file, [first, second]) = KeyFile::with([&["first"], &["second"]]);
    let log = file.path().with_file_name("audit.jsonl");
    let server = file.serve(&[("ONCEBOX_AUDIT_LOG", log.to_str().expect("text"))]);
    let python = |code: &str| json!({"language": "python", "code": code, "timeout_ms": 60_000});
    let ends = [
        ("ok", None, python("1 + 1")),
        ("exception", None, python("1 / 0")),
        ("exit", None, python("raise SystemExit(3)")),
        ("timeout", Some("timeout_ms"), json!({"language": "python", "code": "while True: pass", "timeout_ms": 300})),
        (
            "output_limit",
            Some("output_bytes"),
            json!({"language": "python", "code": "print('x' * 5000)", "limits": {"output_bytes": 1024}}),
        ),
    ];
    for (kind, limit, body) in &ends {
        let ran = run(&server, &first, body.clone()).await;
        let answered = ran.json();
        assert_eq!(answered["outcome"]["kind"], *kind, "{answered}");
        let record = records(&server, &first).await.remove(0);
        assert_eq!((&record["outcome"], &record["limit"]), (&json!(kind), &json!(limit)), "{record}");
        assert_eq!(record["run_id"], ran.headers["x-request-id"].to_str().expect("text"), "{record}");
        for figure in ["wall_ms", "cpu_ms", "peak_memory_bytes"] {
            assert_eq!(record.get(figure), answered["usage"].get(figure), "{record} {answered}");
        }
        for figure in ["template", "warm", "wait_ms"] {
            assert_eq!(record[figure], answered["sandbox"][figure], "{record} {answered}");
        }
    }
    run(&server, &second, python("2")).await;
    let (of_first, of_second) = (records(&server, &first).await, records(&server, &second).await);
    assert_eq!((of_first.len(), of_second.len()), (ends.len(), 1));
    eventually("every run has a line", async || lines(&log).len() == ends.len() + 1).await;
    // The same in the order in which they ended, with the event and the client.
    let expected = of_first.into_iter().rev().chain(of_second).map(|mut record| {
        record["event"] = json!("run");
        record["client"] = json!("127.0.0.1");
        record
    });
    assert_eq!(lines(&log), expected.collect::<Vec<_>>());
}

async fn a_record_has_these_members_and_nothing_of_the_code() {
    let (file, [key]) = KeyFile::with([&["some"]]);
    let log = file.path().with_file_name("audit.jsonl");
    let server = file.serve(&[("ONCEBOX_AUDIT_LOG", log.to_str().expect("text"))]);
    let code = format!("print('{SECRET}', end=''); '{SECRET}'");
    let body = json!({
        "language": "python", "code": code, "env": {SECRET: SECRET}, "stdin": SECRET,
        "files": [{"path": SECRET, "content": SECRET}],
    });
    for _ in 0..2 {
        run(&server, &key, body.clone()).await;
    }
    run(&server, &key, json!({"language": "python", "code": "1"})).await;
    let records = records(&server, &key).await;
    let record = records[1].as_object().expect("an object");
    // The process engine counts no processor time and no memory.
    let members = "at code_bytes code_hash door key outcome output_bytes run_id template wait_ms wall_ms warm";
    let known: BTreeSet<_> = members.split(' ').chain(["cpu_ms", "peak_memory_bytes"]).collect();
    let found: BTreeSet<_> = record.keys().map(String::as_str).collect();
    assert!(found.is_subset(&known) && members.split(' ').all(|member| found.contains(member)), "{found:?}");
    assert_eq!(
        (&record["door"], &record["key"], &record["template"]),
        (&json!("run"), &json!("some"), &json!("python"))
    );
    assert_eq!(record["code_bytes"], code.len());
    let returned = format!("\"'{SECRET}'\"");
    assert_eq!(record["output_bytes"], SECRET.len() + returned.len());
    assert_eq!(records[1]["code_hash"], records[2]["code_hash"]);
    assert_ne!(records[0]["code_hash"], records[1]["code_hash"]);
    let shown = json!(records).to_string();
    assert!(!shown.contains(SECRET), "{shown}");
    eventually("every run has a line", async || lines(&log).len() == 3).await;
    assert!(!std::fs::read_to_string(&log).expect("the log").contains(SECRET));
    assert!(server.logged(SECRET).is_empty());
}

async fn a_run_whose_client_hangs_up_was_cancelled() {
    let (file, [key]) = KeyFile::with([&["some"]]);
    let server = file.serve(&[]);
    let code = "print('begun', flush=True)\nwhile True: pass";
    let body = json!({"language": "python", "code": code, "timeout_ms": 60_000});
    let call = with_key(&server, &key, Method::POST, "/v1/run").header("accept", "text/event-stream").json(&body);
    let mut events = call.send().await.expect("an answer");
    while !String::from_utf8_lossy(&events.chunk().await.expect("a part").expect("no end")).contains("begun") {}
    assert!(records(&server, &key).await.is_empty(), "it has not ended");
    drop(events);
    eventually("it is recorded", async || !records(&server, &key).await.is_empty()).await;
    assert_eq!(records(&server, &key).await[0]["outcome"], "cancelled");
}

/// The records of the runs in a sandbox, the newest first.
async fn records_of(sandbox: &Sandbox) -> Vec<Value> {
    let found = answer(request(Method::GET, "/v1/runs").header("x-api-key", KEY)).await.json();
    let all = found["runs"].as_array().expect("a list").iter();
    all.filter(|record| record["sandbox_id"] == sandbox.id.as_str()).cloned().collect()
}

/// Waits until a sandbox has so many records, and returns the newest.
async fn newest_of(sandbox: &Sandbox, number: usize) -> Value {
    eventually("it is recorded", async || records_of(sandbox).await.len() == number).await;
    records_of(sandbox).await.remove(0)
}

async fn executions_and_commands_have_records_too() {
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1"})).await;
    sandbox.execute(&json!({"code": "print('abc')"})).await;
    let record = newest_of(&sandbox, 1).await;
    assert_eq!((&record["door"], &record["outcome"]), (&json!("interpreter"), &json!("ok")), "{record}");
    assert_eq!((&record["output_bytes"], &record["code_bytes"]), (&json!(4), &json!(12)), "{record}");
    assert!(record.get("wait_ms").is_none() && record.get("warm").is_none(), "{record}");
    sandbox.execute(&json!({"code": "1 / 0"})).await;
    assert_eq!(newest_of(&sandbox, 2).await["outcome"], "exception");

    for (number, command, outcome) in [(3, "printf abc", "ok"), (4, "exit 3", "exit"), (5, "kill -9 $$", "signal")] {
        sandbox.start(command).await.rest().await.expect("an end");
        let record = newest_of(&sandbox, number).await;
        assert_eq!((&record["door"], &record["outcome"]), (&json!("command"), &json!(outcome)), "{record}");
        assert!(record.get("code_hash").is_none() && !record.to_string().contains(command), "{record}");
    }
    // A command goes on when its client hangs up, and nobody waits for its end.
    let mut waiting = sandbox.start("sleep 600").await;
    waiting.pid().await;
    drop(waiting);
    assert_eq!(newest_of(&sandbox, 6).await["outcome"], json!(null));
    // What is going on when its sandbox is killed was cancelled.
    let code = json!({"code": "print('begun', flush=True)\nwhile True: pass"});
    let call = sandbox.at(crate::e2b::INTERPRETER, Method::POST, "/execute").json(&code);
    let mut executing = call.send().await.expect("an answer");
    while !String::from_utf8_lossy(&executing.chunk().await.expect("a part").expect("no end")).contains("begun") {}
    sandbox.kill().await;
    assert_eq!(newest_of(&sandbox, 7).await["outcome"], "cancelled");
    let others = answer(request(Method::GET, "/v1/runs").header("x-api-key", OTHER_KEY)).await;
    assert!(others.status == 200 && !others.text().contains(&sandbox.id), "{}", others.text());
}

async fn what_is_refused_is_no_run() {
    let (file, [key]) = KeyFile::with([&["some"]]);
    let server = file.serve(&[]);
    for body in [
        json!({"language": "cobol", "code": "1"}),
        json!({"language": "python", "code": "1", "timeout_ms": 0}),
        json!({"language": "python", "code": "1", "files": [{"path": "/proc/none/x", "content": ""}]}),
    ] {
        let refused = send(&server, &key, Method::POST, "/v1/run", Some(body)).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
    }
    assert!(records(&server, &key).await.is_empty());
    for (query, field) in [("limit=0", "limit"), ("limit=201", "limit"), ("limit=x", "limit"), ("key=other", "key")] {
        let refused = send(&server, &key, Method::GET, &format!("/v1/runs?{query}"), None).await;
        let message = refused.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(refused.status == 400 && message.contains(field), "{query}: {message}");
    }
    for code in ["1", "2", "3"] {
        run(&server, &key, json!({"language": "python", "code": code})).await;
    }
    let newest = send(&server, &key, Method::GET, "/v1/runs?limit=2", None).await.json();
    assert_eq!(newest["runs"].as_array().expect("a list")[..], records(&server, &key).await[..2]);
}

async fn the_audit_log_can_be_moved_away_and_is_complete_when_the_server_has_stopped() {
    let (file, [key]) = KeyFile::with([&["some"]]);
    let (log, moved) = (file.path().with_file_name("audit.jsonl"), file.path().with_file_name("audit.jsonl.1"));
    let variables = [("ONCEBOX_AUDIT_LOG", log.to_str().expect("text"))];
    let server = file.serve(&variables);
    let python = |code: &str| json!({"language": "python", "code": code});
    run(&server, &key, python("1")).await;
    eventually("it is written", async || lines(&log).len() == 1).await;
    std::fs::rename(&log, &moved).expect("it is moved");
    run(&server, &key, python("1")).await;
    assert!(server.stop());
    let (old, new) = (lines(&moved), lines(&log));
    assert_eq!((old.len(), new.len()), (1, 1));
    // The hashes of another process of the same installation can be compared.
    let server = file.serve(&variables);
    run(&server, &key, python("1")).await;
    assert!(server.stop());
    let all = lines(&log);
    assert_eq!(all.len(), 2);
    assert!(all.iter().chain(&old).all(|line| line["code_hash"] == new[0]["code_hash"]), "{all:?} {old:?}");
}

async fn an_audit_log_that_cannot_be_opened_stops_the_start() {
    let said = refuses_to_start(&[("ONCEBOX_AUDIT_LOG", "/proc/none/audit.jsonl")], None);
    assert!(said.contains("audit_log") && said.contains("/proc/none/audit.jsonl"), "{said}");
}
