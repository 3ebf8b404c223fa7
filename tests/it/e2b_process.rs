//! `process.Process` over plain HTTP: envelopes, ends, and processes that outlive their clients.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::{Sandbox, Stream, answer, envelope, in_time, is_as_recorded, raw, server, stdout};
use crate::support::eventually;

trials![
    a_stream_is_sent_in_envelopes_and_never_compressed,
    a_stream_that_fails_is_a_200_with_the_error_at_its_end,
    a_call_that_fails_has_the_status_of_its_code,
    a_stream_begins_before_the_command_prints,
    a_process_outlives_its_client_and_can_be_joined,
    a_stream_ends_with_an_error_when_the_sandbox_is_killed,
    keepalives_come_as_often_as_the_client_asks,
    a_deadline_may_be_a_fraction_and_ends_the_process,
    a_stream_that_nobody_reads_holds_up_no_other,
    headers_come_in_any_case_and_bodies_without_a_length,
    input_is_written_until_it_is_closed,
    input_may_come_as_a_stream,
    json_written_in_other_ways_is_read_too,
    processes_are_listed_as_they_were_started,
    the_daemon_reports_the_usage_of_the_sandbox,
];

async fn alive(sandbox: &Sandbox, pid: u64) -> bool {
    sandbox.shell(&format!("kill -0 {pid} 2>/dev/null && echo yes || echo no")).await == "yes\n"
}

async fn signal(sandbox: &Sandbox, pid: u64, signal: Value) {
    let sent = sandbox.call("process.Process/SendSignal", json!({"process": {"pid": pid}, "signal": signal})).await;
    assert_eq!((sent.status, sent.json()), (200, json!({})), "{}", sent.text());
}

async fn a_stream_is_sent_in_envelopes_and_never_compressed() {
    let sandbox = Sandbox::shared().await;
    let start = json!({
        "process": {"cmd": "/bin/bash", "args": ["-c", "echo out; echo err >&2; sleep 0.2; exit 3"]}, "stdin": false,
    });
    let accept = [("accept-encoding", "zstd,gzip,br"), ("connect-accept-encoding", "gzip")];
    let mut stream = sandbox.stream_with("process.Process/Start", start, &accept).await;
    assert_eq!(stream.response.headers()["content-type"].as_bytes(), b"application/connect+json");
    for absent in ["content-encoding", "connect-content-encoding", "content-length"] {
        assert!(!stream.response.headers().contains_key(absent), "{absent}");
    }
    assert!(stream.pid().await > 1);
    let mut messages = stream.rest().await.expect("it is not broken off");
    // The messages of the two streams may come in any order.
    messages[..2].sort_by_key(Value::to_string);
    assert_eq!(
        messages,
        [
            json!({"event": {"data": {"stderr": "ZXJyCg=="}}}),
            json!({"event": {"data": {"stdout": "b3V0Cg=="}}}),
            json!({"event": {"end": {"exitCode": 3, "exited": true, "status": "exit status 3", "error": "exit status 3"}}}),
            json!({}),
        ]
    );
}

async fn a_stream_that_fails_is_a_200_with_the_error_at_its_end() {
    let sandbox = Sandbox::shared().await;
    let start = |process: Value| ("process.Process/Start", json!({"process": process}));
    let cases = [
        (start(json!({"cmd": "/bin/true", "cwd": "/no/such"})), "invalid_argument", "cwd '/no/such' does not exist"),
        (start(json!({"cmd": ""})), "invalid_argument", ""),
        (start(json!({"cmd": "/no/such/program"})), "", ""),
        (
            ("process.Process/Connect", json!({"process": {"pid": 999_999}})),
            "not_found",
            "process with pid 999999 not found",
        ),
        (("process.Process/Connect", json!({"process": {"tag": "nobody"}})), "not_found", ""),
        (("process.Process/Connect", json!({"process": {}})), "invalid_argument", ""),
        (("filesystem.Filesystem/WatchDir", json!({"path": "/no/such"})), "not_found", ""),
        (("filesystem.Filesystem/WatchDir", json!({"path": "/etc/passwd"})), "invalid_argument", ""),
    ];
    for ((method, message), code, words) in cases {
        let (told, said) = sandbox.stream(method, message.clone()).await.error().await;
        assert!(told == code || code.is_empty(), "{message}: {told}: {said}");
        assert!(said.contains(words) && !said.is_empty(), "{message}: {said}");
    }
    // `nosuchuser:` in Base64, an account that does not exist.
    let user = [("authorization", "Basic bm9zdWNodXNlcjo=")];
    let mut refused = sandbox.stream_with("process.Process/Start", json!({"process": {"cmd": "id"}}), &user).await;
    let (code, message) = refused.error().await;
    assert_eq!((code.as_str(), message.as_str()), ("unauthenticated", "invalid username: 'nosuchuser'"));
}

async fn a_call_that_fails_has_the_status_of_its_code() {
    let sandbox = Sandbox::shared().await;
    sandbox.shell("mkdir -p /tmp/there && touch /tmp/file").await;
    let none = json!({"process": {"pid": 999_999}, "signal": "SIGNAL_SIGKILL", "input": {"stdin": "YQ=="}});
    let cases = [
        ("process.Process/SendSignal", none.clone(), 404, "not_found"),
        ("process.Process/SendInput", none.clone(), 404, "not_found"),
        ("process.Process/CloseStdin", none.clone(), 404, "not_found"),
        (
            "process.Process/Update",
            json!({"process": {"pid": 999_999}, "pty": {"size": {"cols": 1, "rows": 1}}}),
            404,
            "not_found",
        ),
        (
            "process.Process/SendSignal",
            json!({"process": {"pid": 999_999}, "signal": "SIGNAL_NONE"}),
            400,
            "invalid_argument",
        ),
        ("process.Process/SendInput", json!({"process": {"pid": 1}, "input": {"stdin": "?"}}), 400, "invalid_argument"),
        ("process.Process/SendInput", json!({"process": {"pid": 1}, "input": {}}), 400, "invalid_argument"),
        ("filesystem.Filesystem/Stat", json!({"path": "/no/such"}), 404, "not_found"),
        ("filesystem.Filesystem/Stat", json!({"path": "~nobody"}), 400, "invalid_argument"),
        ("filesystem.Filesystem/MakeDir", json!({"path": "/tmp/there"}), 409, "already_exists"),
        ("filesystem.Filesystem/MakeDir", json!({"path": "/tmp/file"}), 400, "invalid_argument"),
        ("filesystem.Filesystem/ListDir", json!({"path": "/tmp/file"}), 400, "invalid_argument"),
        ("filesystem.Filesystem/ListDir", json!({"path": "/no/such"}), 404, "not_found"),
        ("filesystem.Filesystem/Move", json!({"source": "/no/such", "destination": "/tmp/x"}), 404, "not_found"),
        ("filesystem.Filesystem/GetWatcherEvents", json!({"watcherId": "none"}), 404, "not_found"),
        ("filesystem.Filesystem/RemoveWatcher", json!({"watcherId": "none"}), 404, "not_found"),
    ];
    for (method, message, status, code) in cases {
        let refused = sandbox.call(method, message.clone()).await;
        assert_eq!(refused.headers["content-type"], "application/json");
        let said = refused.call_error(status, code);
        assert!(!said.is_empty(), "{method} {message}");
    }
    // Removing a file that does not exist succeeds.
    assert_eq!(sandbox.call("filesystem.Filesystem/Remove", json!({"path": "/no/such"})).await.json(), json!({}));
    sandbox.call("process.Process/Nothing", json!({})).await.error(404);
}

async fn a_stream_begins_before_the_command_prints() {
    let sandbox = Sandbox::shared().await;
    let mut stream = in_time(sandbox.start("until [ -e /tmp/speak ]; do sleep 0.02; done; echo late")).await;
    in_time(stream.pid()).await;
    sandbox.shell("touch /tmp/speak").await;
    assert_eq!(stdout(&stream.rest().await.expect("an end")), "late\n");
}

async fn a_process_outlives_its_client_and_can_be_joined() {
    let sandbox = Sandbox::shared().await;
    let mut stream = sandbox.start("until [ -e /tmp/join ]; do sleep 0.02; done; echo after; exec sleep 60").await;
    let pid = stream.pid().await;
    drop(stream);
    let mut joined = sandbox.stream("process.Process/Connect", json!({"process": {"pid": pid}})).await;
    assert_eq!(joined.pid().await, pid);
    sandbox.shell("touch /tmp/join").await;
    let said = joined.message().await;
    assert_eq!(stdout(&[said]), "after\n");
    assert!(alive(sandbox, pid).await);
    signal(sandbox, pid, json!(9)).await;
    let ended = joined.rest().await.expect("it is not broken off");
    let end = json!({"exitCode": -1, "exited": false, "status": "signal: killed", "error": "signal: killed"});
    assert_eq!(ended, [json!({"event": {"end": end}}), json!({})]);
    // The process is gone at once, and not only after a client waits for it.
    assert!(!alive(sandbox, pid).await);
}

async fn a_stream_ends_with_an_error_when_the_sandbox_is_killed() {
    let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
    let mut process = sandbox.start("sleep 60").await;
    process.pid().await;
    let mut watch = sandbox.stream("filesystem.Filesystem/WatchDir", json!({"path": "/tmp"})).await;
    assert_eq!(watch.message().await, json!({"start": {}}));
    sandbox.kill().await;
    assert_eq!(process.error().await.0, "unavailable");
    assert_eq!(watch.error().await.0, "unavailable");
    let stat = sandbox.call("filesystem.Filesystem/Stat", json!({"path": "/"})).await;
    let gone = json!({"sandboxId": sandbox.id, "message": "The sandbox was not found", "code": 502});
    assert_eq!((stat.status, stat.json()), (502, gone));
}

async fn keepalives_come_as_often_as_the_client_asks() {
    let sandbox = Sandbox::shared().await;
    let start = json!({"process": {"cmd": "/bin/sleep", "args": ["60"]}, "stdin": false});
    let pings = [("Keepalive-Ping-Interval", "1")];
    // The test measures the total time: a message that is read late would make the next one look early.
    let began = Instant::now();
    let mut stream = sandbox.stream_with("process.Process/Start", start, &pings).await;
    let pid = stream.pid().await;
    for _ in 0..4 {
        assert_eq!(stream.message().await, json!({"event": {"keepalive": {}}}));
    }
    assert!(began.elapsed() >= Duration::from_millis(3900), "{:?}", began.elapsed());
    signal(sandbox, pid, json!(9)).await;
    assert!(stream.rest().await.is_some());
}

async fn a_deadline_may_be_a_fraction_and_ends_the_process() {
    let sandbox = Sandbox::shared().await;
    let start = json!({"process": {"cmd": "/bin/sleep", "args": ["60"]}, "stdin": false});
    let mut stream = sandbox.stream_with("process.Process/Start", start, &[("Connect-Timeout-Ms", "3000.5")]).await;
    let pid = stream.pid().await;
    assert_eq!(stream.error().await.0, "deadline_exceeded");
    eventually("the process is gone", async || !alive(sandbox, pid).await).await;
    // A timeout longer than any clock can hold.
    let start = json!({"process": {"cmd": "/bin/true"}, "stdin": false});
    let mut stream = sandbox.stream_with("process.Process/Start", start, &[("Connect-Timeout-Ms", "1e30")]).await;
    assert!(stream.rest().await.is_some());
}

async fn a_stream_that_nobody_reads_holds_up_no_other() {
    let sandbox = Sandbox::shared().await;
    let mut unread = sandbox.start("exec yes").await;
    let pid = unread.pid().await;
    let mut reader = sandbox.stream("process.Process/Connect", json!({"process": {"pid": pid}})).await;
    reader.pid().await;
    in_time(async {
        for _ in 0..20 {
            assert_eq!(sandbox.shell("echo here").await, "here\n");
        }
    })
    .await;
    drop(reader);
    signal(sandbox, pid, json!("SIGNAL_SIGKILL")).await;
    eventually("the process is gone", async || !alive(sandbox, pid).await).await;
}

async fn headers_come_in_any_case_and_bodies_without_a_length() {
    let sandbox = Sandbox::shared().await;
    let Sandbox { id, token, .. } = sandbox;
    let message = envelope(0, br#"{"process":{"cmd":"/bin/echo","args":["raw"]},"stdin":false}"#);
    let head = format!(
        "POST /process.Process/Start HTTP/1.1\r\nhost: h\r\nE2B-SANDBOX-ID: {id}\r\ne2b-sandbox-port: 49983\r\n\
         x-AcCeSs-tOkEn: {token}\r\nCONTENT-TYPE: Application/Connect+JSON\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n"
    );
    // Split within an envelope.
    let (left, right) = message.split_at(3);
    let mut request = head.into_bytes();
    for piece in [left, right] {
        request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let answer = raw(&request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\ncontent-type: application/connect+json\r\n"), "{answer}");
    assert!(answer.contains("\r\ntransfer-encoding: chunked\r\n") && answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    assert!(answer.contains(&BASE64_STANDARD.encode("raw\n")), "{answer}");
    let create = format!(
        "POST /v2/sandboxes HTTP/1.1\r\nhost: h\r\nX-API-KEY: {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         f\r\n{{\"templateID\": \r\n6\r\n\"none\"\r\n1\r\n}}\r\n0\r\n\r\n",
        crate::e2b::KEY
    );
    let answer = raw(create.as_bytes()).await;
    assert!(answer.contains(r#"{"code":404,"message":"template 'none' not found"}"#), "{answer}");
}

async fn input_is_written_until_it_is_closed() {
    let sandbox = Sandbox::shared().await;
    // Without the member `stdin`, a process gets an input.
    let mut stream =
        sandbox.stream("process.Process/Start", json!({"process": {"cmd": "/bin/cat"}, "tag": "cat-in"})).await;
    stream.pid().await;
    let process = json!({"tag": "cat-in"});
    let input = json!({"process": process, "input": {"stdin": BASE64_STANDARD.encode("one\n")}});
    assert_eq!(sandbox.call("process.Process/SendInput", input.clone()).await.json(), json!({}));
    assert_eq!(stdout(&[stream.message().await]), "one\n");
    assert_eq!(sandbox.call("process.Process/CloseStdin", json!({"process": process})).await.json(), json!({}));
    let end = stream.rest().await.expect("an end");
    assert_eq!(end[0]["event"]["end"], json!({"exitCode": 0, "exited": true, "status": "exit status 0"}));
    let mut closed = sandbox
        .stream(
            "process.Process/Start",
            json!({
                "process": {"cmd": "/bin/sleep", "args": ["30"]}, "stdin": false, "tag": "no-in",
            }),
        )
        .await;
    let pid = closed.pid().await;
    let input = json!({"process": {"tag": "no-in"}, "input": {"stdin": "YQ=="}});
    sandbox.call("process.Process/SendInput", input).await.call_error(500, "internal");
    signal(sandbox, pid, json!("SIGNAL_SIGTERM")).await;
    let end = closed.rest().await.expect("an end");
    assert_eq!(end[0]["event"]["end"]["status"], "signal: terminated");
}

async fn input_may_come_as_a_stream() {
    let sandbox = Sandbox::shared().await;
    let mut stream =
        sandbox.stream("process.Process/Start", json!({"process": {"cmd": "/bin/cat"}, "stdin": true})).await;
    let pid = stream.pid().await;
    let data = |text: &str| json!({"data": {"input": {"stdin": BASE64_STANDARD.encode(text)}}});
    let messages = [json!({"start": {"process": {"pid": pid}}}), data("a"), json!({"keepalive": {}}), data("b\n")];
    let body: Vec<u8> = messages.iter().flat_map(|message| envelope(0, message.to_string().as_bytes())).collect();
    let request =
        sandbox.envd(Method::POST, "/process.Process/StreamInput").header("content-type", "application/connect+json");
    let mut answer = Stream::new(request.body(body).send().await.expect("an answer"));
    assert_eq!(answer.rest().await.expect("an end"), [json!({}), json!({})]);
    let close = json!({"process": {"pid": pid}});
    assert_eq!(sandbox.call("process.Process/CloseStdin", close).await.json(), json!({}));
    assert_eq!(stdout(&stream.rest().await.expect("an end")), "ab\n");
}

async fn json_written_in_other_ways_is_read_too() {
    let sandbox = Sandbox::shared().await;
    let watch = json!({"path": "/tmp", "include_entry": true, "unknown": {"x": []}});
    let created = sandbox.call("filesystem.Filesystem/CreateWatcher", watch).await.json();
    let id = created["watcherId"].as_str().expect("an id");
    assert_eq!(sandbox.call("filesystem.Filesystem/RemoveWatcher", json!({"watcher_id": id})).await.json(), json!({}));
    // Pretty-printed JSON, with a charset.
    let pretty = sandbox.envd(Method::POST, "/filesystem.Filesystem/Stat");
    let pretty = pretty.header("content-type", "application/json; charset=utf-8").body("{\n  \"path\": \"/tmp\"\n}\n");
    let stat = answer(pretty).await;
    assert_eq!(stat.json()["entry"]["type"], "FILE_TYPE_DIRECTORY", "{}", stat.text());
}

async fn processes_are_listed_as_they_were_started() {
    let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
    let process = json!({"cmd": "/bin/sleep", "args": ["60"], "envs": {"A": "1"}, "cwd": "/tmp"});
    let mut stream =
        sandbox.stream("process.Process/Start", json!({"process": process, "tag": "t", "stdin": false})).await;
    let pid = stream.pid().await;
    let listed = sandbox.call("process.Process/List", json!({})).await;
    assert_eq!(listed.json(), json!({"processes": [{"config": process, "pid": pid, "tag": "t"}]}));
    sandbox.kill().await;
    assert!(server().http.get(format!("{}/healthz", server().url)).send().await.is_ok());
}

async fn the_daemon_reports_the_usage_of_the_sandbox() {
    let sandbox = Sandbox::shared().await;
    let metrics = answer(sandbox.envd(Method::GET, "/metrics")).await;
    assert_eq!(metrics.status, 200);
    is_as_recorded("envd-metrics", metrics.json());
    answer(sandbox.at(49983, Method::GET, "/metrics")).await.error(401);
    answer(sandbox.envd(Method::POST, "/init").json(&json!({"accessToken": "mine"}))).await.error(404);
}
