//! Invalid and hostile requests to the E2B API: each is refused with one of E2B's own errors, and affects no other
//! request.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::e2b::{
    ENVD, HEAD_TIMEOUT, INTERPRETER, KEY, OTHER_KEY, Sandbox, Stream, answer, api, connect, envelope, in_time, raw,
    request,
};

trials![
    bodies_of_the_control_plane_are_refused_by_member,
    list_queries_with_invalid_values_are_refused,
    a_path_that_is_nothing_is_an_error_in_the_shape_of_its_surface,
    without_a_key_nothing_of_the_control_plane_opens,
    one_tenant_never_meets_the_sandbox_of_another,
    the_token_of_one_sandbox_opens_no_other,
    half_an_address_and_strange_names_mean_no_sandbox,
    messages_of_calls_are_refused_by_member,
    envelopes_that_make_no_sense_end_a_stream,
    input_streams_that_make_no_sense_end_in_an_error,
    the_content_type_of_the_other_kind_of_call_is_a_415,
    bodies_that_are_too_large_are_refused,
    headers_of_ten_megabytes_are_a_431,
    what_is_not_http_is_a_400,
    a_client_that_sends_no_whole_request_is_hung_up_on,
    slow_clients_hold_up_no_other,
];

async fn bodies_of_the_control_plane_are_refused_by_member() {
    let sandbox = Sandbox::shared().await;
    let id = &sandbox.id;
    let create: &[(Value, u16, &str)] = &[
        (json!({"templateID": "none"}), 404, "template 'none' not found"),
        (json!({"templateID": ""}), 400, "templateID: "),
        (json!({"templateID": "../x y"}), 400, "templateID: "),
        (json!({"templateID": null}), 400, "templateID: invalid type"),
        (json!({}), 400, "missing field `templateID`"),
        (json!([]), 400, "the body: "),
        (json!({"templateID": "base", "timeout": 0}), 400, "Timeout must be greater than 0"),
        (json!({"templateID": "base", "timeout": -1}), 400, "Timeout must be greater than 0"),
        (json!({"templateID": "base", "timeout": 86_401}), 400, "Timeout cannot be greater than 24 hours"),
        (json!({"templateID": "base", "timeout": i64::MAX}), 400, "Timeout cannot be greater than 24 hours"),
        (json!({"templateID": "base", "timeout": 1e300}), 400, "timeout: invalid type"),
        (json!({"templateID": "base", "timeout": "60"}), 400, "timeout: invalid type"),
        (json!({"templateID": "base", "timeout": 1.5}), 400, "timeout: invalid type"),
        (json!({"templateID": "base", "metadata": []}), 400, "metadata: invalid type"),
        (json!({"templateID": "base", "metadata": {"a": 1}}), 400, "metadata.a: invalid type"),
        (json!({"templateID": "base", "envVars": {"a": null}}), 400, "envVars.a: invalid type"),
        (json!({"templateID": "base", "secure": "yes"}), 400, "secure: invalid type"),
        (json!({"templateID": "base", "autoPause": 1}), 400, "autoPause: invalid type"),
        (json!({"templateID": "base", "autoResume": true}), 400, "autoResume: invalid type"),
        (json!({"templateID": "base", "allow_internet_access": "no"}), 400, "allow_internet_access: invalid type"),
        (json!({"templateID": "base", "network": []}), 400, "network: invalid"),
        (json!({"templateID": "base", "network": {"rules": {"a.com": []}}}), 400, "network.rules is not enforced"),
        (
            json!({"templateID": "base", "network": {"allowOut": ["a.com"]}}),
            400,
            "network.allowOut: host names are accepted only if denyOut contains",
        ),
        (
            json!({"templateID": "base", "network": {"allowOut": ["*.a.com"], "denyOut": ["0.0.0.0/0"]}}),
            400,
            "network.allowOut: `*.a.com`: name each host by itself, without",
        ),
        (
            json!({"templateID": "base", "network": {"denyOut": ["a.com"]}}),
            400,
            "network.denyOut: `a.com` is not an IPv4 network",
        ),
        (json!({"templateID": "base", "network": {"denyOut": ["::/0"]}}), 400, "network.denyOut: `::/0` is IPv6"),
        (json!({"templateID": "base", "network": {"denyOut": [1]}}), 400, "network.denyOut: 1 is not a string"),
        (
            json!({"templateID": "base", "network": {"denyOut": vec!["1.1.1.1"; 129]}}),
            400,
            "must have at most 128 entries",
        ),
        (json!({"templateID": "base", "network": {"httpsPorts": [443]}}), 400, "network.httpsPorts is not enforced"),
    ];
    for path in ["/sandboxes", "/v2/sandboxes"] {
        for (body, status, expected) in create {
            let message = api(Method::POST, path, Some(body.clone())).await.error(*status);
            assert!(message.contains(expected), "{body}: `{message}` does not say `{expected}`");
        }
        for text in ["", "{", "nonsense", "{\"templateID\": \"base\"} {}", "\u{0}", "{\"templateID\": \"\\ud800\"}"] {
            answer(request(Method::POST, path).header("x-api-key", KEY).body(text)).await.error(400);
        }
    }
    for (path, body, status) in [
        ("timeout", json!({}), 400),
        ("timeout", json!({"timeout": "soon"}), 400),
        ("timeout", json!({"timeout": 86_401}), 400),
        ("timeout", json!({"timeout": null}), 400),
        ("connect", json!({"timeout": 0}), 400),
        ("connect", json!({"timeout": []}), 400),
        ("connect", json!({"timeout": 100_000}), 400),
        ("refreshes", json!({"duration": 3601}), 400),
        ("refreshes", json!({"duration": -1}), 400),
        ("refreshes", json!([1]), 400),
        ("resume", json!({"timeout": -1}), 400),
        ("resume", json!({"timeout": 60}), 409),
    ] {
        api(Method::POST, &format!("/sandboxes/{id}/{path}"), Some(body)).await.error(status);
    }
    for body in [json!({"allow_internet_access": false}), json!({"allowOut": ["1.1.1.1"]}), json!({"rules": {"a": []}})]
    {
        api(Method::PUT, &format!("/sandboxes/{id}/network"), Some(body)).await.error(400);
    }
    assert_eq!(sandbox.shell("echo alive").await, "alive\n");
}

async fn list_queries_with_invalid_values_are_refused() {
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=x",
        "limit=",
        "order=up",
        "state=dead",
        "state=",
        "startedAfter=then",
        "startedAfter=99999999999",
        "nextToken=x",
        "nextToken=",
        "nextToken=AAAA",
        "limit=1&limit=2",
    ] {
        api(Method::GET, &format!("/v2/sandboxes?{query}"), None).await.error(400);
    }
    for query in ["metadata=", "metadata=%25%25%25", "metadata==%3D%26%26", "template=%00", "unknown=1"] {
        assert_eq!(api(Method::GET, &format!("/v2/sandboxes?{query}"), None).await.status, 200, "{query}");
    }
}

async fn a_path_that_is_nothing_is_an_error_in_the_shape_of_its_surface() {
    let sandbox = Sandbox::shared().await;
    let id = &sandbox.id;
    for (method, path) in [
        (Method::GET, format!("/sandboxes/{id}/nothing")),
        (Method::POST, format!("/v2/sandboxes/{id}/nothing/more")),
        (Method::GET, "/v2/sandboxes/".to_owned()),
    ] {
        assert!(api(method, &path, None).await.error(404).contains(&path));
    }
    for (method, path) in [
        (Method::PUT, "/sandboxes".to_owned()),
        (Method::PATCH, format!("/sandboxes/{id}")),
        (Method::GET, format!("/sandboxes/{id}/timeout")),
        (Method::GET, "/v2/sandboxes/x/connect".to_owned()),
    ] {
        assert_eq!(api(method.clone(), &path, None).await.error(405), format!("{path} does not take {method}"));
    }
    for unknown in ["inobody", "x", "-", "%00", &"i".repeat(5000)] {
        for (method, path) in
            [(Method::GET, ""), (Method::DELETE, ""), (Method::POST, "/pause"), (Method::GET, "/metrics")]
        {
            api(method, &format!("/sandboxes/{unknown}{path}"), None).await.error(404);
        }
        api(Method::POST, &format!("/v2/sandboxes/{unknown}/connect"), Some(json!({}))).await.error(404);
    }
    answer(sandbox.envd(Method::GET, "/nothing")).await.error(404);
    answer(sandbox.envd(Method::GET, "/process.Process/List")).await.error(405);
}

/// Every route of the control plane about one sandbox.
fn routes(id: &str) -> Vec<(Method, String, Value)> {
    let timeout = json!({"timeout": 1});
    [
        (Method::GET, "", "", json!({})),
        (Method::DELETE, "", "", json!({})),
        (Method::POST, "", "/connect", timeout.clone()),
        (Method::POST, "/v2", "/connect", json!({})),
        (Method::POST, "", "/timeout", timeout.clone()),
        (Method::POST, "", "/refreshes", json!({"duration": 3600})),
        (Method::POST, "", "/pause", json!({})),
        (Method::POST, "", "/resume", timeout),
        (Method::PUT, "", "/network", json!({})),
        (Method::GET, "", "/metrics", json!({})),
        (Method::GET, "", "/logs", json!({})),
        (Method::GET, "/v2", "/logs", json!({})),
    ]
    .map(|(method, version, rest, body)| (method, format!("{version}/sandboxes/{id}{rest}"), body))
    .into()
}

async fn without_a_key_nothing_of_the_control_plane_opens() {
    let sandbox = Sandbox::shared().await;
    let mut all = routes(&sandbox.id);
    for (method, path) in [
        (Method::GET, "/sandboxes"),
        (Method::POST, "/v2/sandboxes"),
        (Method::GET, "/templates/aliases/base"),
        (Method::GET, "/templates"),
        (Method::GET, "/v2/templates"),
        (Method::GET, "/templates/base"),
        (Method::GET, "/teams"),
        (Method::GET, "/volumes/x"),
    ] {
        all.push((method, path.to_owned(), json!({"templateID": "base"})));
    }
    for (method, path, body) in all {
        let wrong = KEY.replace('1', "3");
        for header in [None, Some(wrong.as_str()), Some(""), Some(sandbox.token.as_str())] {
            let mut call = request(method.clone(), &path).json(&body);
            if let Some(key) = header {
                call = call.header("x-api-key", key);
            }
            assert_eq!(answer(call).await.error(401), "Invalid API key", "{method} {path}");
        }
    }
}

async fn one_tenant_never_meets_the_sandbox_of_another() {
    let sandbox = Sandbox::create(json!({"templateID": "base", "metadata": {"test": "tenants"}})).await;
    let id = &sandbox.id;
    for (method, path, body) in routes(id) {
        let call = request(method.clone(), &path).header("x-api-key", OTHER_KEY).json(&body);
        let message = answer(call).await.error(404);
        assert!(message.contains("doesn't exist or you don't have access to it"), "{method} {path}: {message}");
    }
    for path in ["/sandboxes", "/v2/sandboxes", "/v2/sandboxes?metadata=test%3Dtenants", "/v2/sandboxes?state=running"]
    {
        let listed = answer(request(Method::GET, path).header("x-api-key", OTHER_KEY)).await;
        assert!(listed.status == 200 && !listed.text().contains(id.as_str()), "{path}: {}", listed.text());
    }
    // A list's token is a position in the list, and does not reveal its creator.
    let page = api(Method::GET, "/v2/sandboxes?limit=1", None).await;
    if let Some(token) = page.headers.get("x-next-token") {
        let path = format!("/v2/sandboxes?nextToken={}", token.to_str().expect("text"));
        let listed = answer(request(Method::GET, &path).header("x-api-key", OTHER_KEY)).await;
        assert_eq!(listed.json(), json!([]));
    }
    // A key is not a token.
    for key in [KEY, OTHER_KEY] {
        let stat = sandbox.at(ENVD, Method::POST, "/filesystem.Filesystem/Stat").json(&json!({"path": "/"}));
        answer(stat.try_clone().expect("a copy").header("x-api-key", key)).await.error(401);
        answer(stat.header("x-access-token", key)).await.error(401);
    }
    let detail = sandbox.api(Method::GET, "", None).await.json();
    assert_eq!(detail["state"], "running");
    assert_eq!(sandbox.shell("echo untouched").await, "untouched\n");
    sandbox.kill().await;
}

async fn the_token_of_one_sandbox_opens_no_other() {
    let (sandbox, other) = (Sandbox::shared().await, Sandbox::create(json!({"templateID": "base"})).await);
    let almost = format!("{}x", &sandbox.token[..31]);
    for token in [None, Some(""), Some(other.token.as_str()), Some(almost.as_str()), Some(sandbox.id.as_str())] {
        let with = |method: Method, path: &str| {
            let call = sandbox.at(ENVD, method, path);
            token.into_iter().fold(call, |call, token| call.header("x-access-token", token))
        };
        for (method, path) in [
            (Method::POST, "/process.Process/List"),
            (Method::POST, "/process.Process/Start"),
            (Method::POST, "/process.Process/SendSignal"),
            (Method::POST, "/filesystem.Filesystem/Remove"),
            (Method::POST, "/filesystem.Filesystem/WatchDir"),
            (Method::GET, "/metrics"),
            (Method::GET, "/envs"),
            (Method::GET, "/files?path=/etc/passwd"),
            (Method::POST, "/files?path=/tmp/x"),
        ] {
            let refused = answer(with(method, path).json(&json!({}))).await.error(401);
            assert!(!refused.contains(&sandbox.token), "{refused}");
        }
        // Neither by the sandbox's host name.
        let host = format!("{ENVD}-{}.localhost", sandbox.id);
        let call = request(Method::GET, "/envs").header("host", host).header("x-api-key", KEY);
        let call = token.into_iter().fold(call, |call, token| call.header("x-access-token", token));
        answer(call).await.error(401);
        if let Some(token) = token {
            answer(sandbox.at(INTERPRETER, Method::GET, "/contexts").header("x-access-token", token)).await.error(401);
        }
    }
    other.kill().await;
}

async fn half_an_address_and_strange_names_mean_no_sandbox() {
    let id = &Sandbox::shared().await.id;
    let long = "i".repeat(10_000);
    for headers in [
        vec![("e2b-sandbox-id", id.as_str())],
        vec![("e2b-sandbox-port", "49983")],
        vec![("e2b-sandbox-id", id), ("e2b-sandbox-port", "")],
        vec![("e2b-sandbox-id", id), ("e2b-sandbox-port", "99999")],
        vec![("e2b-sandbox-id", id), ("e2b-sandbox-port", "-1")],
        vec![("e2b-sandbox-id", id), ("e2b-sandbox-port", "49983, 1")],
        vec![("e2b-sandbox-id", ""), ("e2b-sandbox-port", "49983")],
        vec![("e2b-sandbox-id", "../etc"), ("e2b-sandbox-port", "49983")],
        vec![("e2b-sandbox-id", "ABC"), ("e2b-sandbox-port", "49983")],
    ] {
        let call =
            headers.iter().fold(request(Method::GET, "/health"), |call, (name, value)| call.header(*name, *value));
        answer(call).await.error(400);
    }
    let nobody = request(Method::GET, "/health").header("e2b-sandbox-id", &long).header("e2b-sandbox-port", "1");
    assert_eq!(answer(nobody).await.status, 502);
    // Host names that are not a sandbox's belong to the server itself.
    for host in [
        format!("99999-{id}.localhost"),
        format!("x-{id}.localhost"),
        format!("{id}.localhost"),
        format!("49983-{id}"),
        format!("49983-{id}.localhost.example"),
        format!("49983-{id}.example"),
        "..".to_owned(),
        "localhost".to_owned(),
    ] {
        answer(request(Method::GET, "/sandboxes").header("host", &host)).await.error(401);
    }
}

async fn messages_of_calls_are_refused_by_member() {
    let sandbox = Sandbox::shared().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (method, body) in [
        ("filesystem.Filesystem/Stat", ""),
        ("filesystem.Filesystem/Stat", "{"),
        ("filesystem.Filesystem/Stat", "[]"),
        ("filesystem.Filesystem/Stat", "{\"path\": 1}"),
        ("filesystem.Filesystem/Stat", "{\"path\": null}"),
        ("filesystem.Filesystem/Stat", "{\"path\": \"/\"} x"),
        ("filesystem.Filesystem/Stat", &deep),
        ("filesystem.Filesystem/ListDir", "{\"path\": \"/\", \"depth\": -1}"),
        ("filesystem.Filesystem/ListDir", "{\"path\": \"/\", \"depth\": 4294967296}"),
        ("filesystem.Filesystem/Move", "{\"source\": []}"),
        ("filesystem.Filesystem/CreateWatcher", "{\"path\": \"/\", \"recursive\": \"yes\"}"),
        ("filesystem.Filesystem/GetWatcherEvents", "{\"watcherId\": 1}"),
        ("process.Process/List", "1"),
        ("process.Process/SendSignal", "{\"process\": {\"pid\": 1, \"tag\": \"t\"}, \"signal\": 9}"),
        ("process.Process/SendSignal", "{\"process\": {\"pid\": -1}, \"signal\": 9}"),
        ("process.Process/SendSignal", "{\"process\": {\"pid\": 4294967296}, \"signal\": 9}"),
        ("process.Process/SendSignal", "{\"process\": {\"pid\": 99999}, \"signal\": 3}"),
        ("process.Process/SendInput", "{\"process\": {\"pid\": 99999}}"),
        ("process.Process/CloseStdin", "{\"process\": null}"),
        ("process.Process/Update", "{\"process\": {\"pid\": 1}, \"pty\": {\"size\": {\"cols\": 70000, \"rows\": 1}}}"),
    ] {
        let call = sandbox.envd(Method::POST, &format!("/{method}")).header("content-type", "application/json");
        let refused = answer(call.body(body.to_owned())).await.call_error(400, "invalid_argument");
        assert!(!refused.is_empty() && refused.len() < 500, "{method} {body:.80}: {refused}");
    }
    assert_eq!(sandbox.shell("echo alive").await, "alive\n");
}

async fn stream_call(sandbox: &Sandbox, method: &str, body: Vec<u8>) -> (String, String) {
    let call = sandbox.envd(Method::POST, &format!("/{method}")).header("content-type", "application/connect+json");
    Stream::new(call.body(body).send().await.expect("an answer")).error().await
}

async fn envelopes_that_make_no_sense_end_a_stream() {
    let sandbox = Sandbox::shared().await;
    let good = envelope(0, br#"{"process": {"cmd": "/bin/true"}, "path": "/tmp"}"#);
    for method in ["process.Process/Start", "process.Process/Connect", "filesystem.Filesystem/WatchDir"] {
        for (body, expected) in [
            (vec![], "invalid_argument"),
            (b"{}".to_vec(), "invalid_argument"),
            (vec![0; 4], "invalid_argument"),
            (good[..good.len() - 1].to_vec(), "invalid_argument"),
            (b"\0\xff\xff\xff\xff{}".to_vec(), "invalid_argument"),
            (b"\0\x02\0\0\x01".to_vec(), "invalid_argument"),
            (envelope(1, b"\x1f\x8b"), "unimplemented"),
            (envelope(2, b"{}"), "invalid_argument"),
            (envelope(0x80, b"{}"), "invalid_argument"),
            (envelope(0, b""), "invalid_argument"),
            (envelope(0, b"{"), "invalid_argument"),
            (envelope(0, b"[1]"), "invalid_argument"),
            (envelope(0, b"\xff\xfe"), "invalid_argument"),
            (envelope(0, br#"{"process": 1, "path": 1}"#), "invalid_argument"),
        ] {
            let (code, message) = stream_call(sandbox, method, body.clone()).await;
            assert_eq!(code, expected, "{method} {body:?}: {message}");
        }
    }
    // Invalid members of a start request.
    for process in [
        json!({"cmd": 1}),
        json!({"cmd": "/bin/true", "args": "x"}),
        json!({"cmd": "/bin/true", "envs": {"A": 1}}),
        json!({"cmd": "/bin/true", "args": ["a\0b"]}),
        json!({"cmd": "/bin/tr\0ue"}),
        json!({"cmd": "/bin/true", "cwd": "/etc/passwd"}),
    ] {
        let body = envelope(0, json!({"process": process}).to_string().as_bytes());
        let (code, message) = stream_call(sandbox, "process.Process/Start", body).await;
        assert_eq!(code, "invalid_argument", "{process}: {message}");
    }
}

async fn input_streams_that_make_no_sense_end_in_an_error() {
    let sandbox = Sandbox::shared().await;
    let start = envelope(0, br#"{"start": {"process": {"pid": 999999}}}"#);
    let data = envelope(0, br#"{"data": {"input": {"stdin": "YQ=="}}}"#);
    for (body, expected) in [
        (data.clone(), "invalid_argument"),
        (envelope(0, br#"{"start": {}}"#), "invalid_argument"),
        ([start, data].concat(), "not_found"),
        (b"\0\xff\xff\xff\xff".to_vec(), "invalid_argument"),
    ] {
        let (code, message) = stream_call(sandbox, "process.Process/StreamInput", body.clone()).await;
        assert_eq!(code, expected, "{body:?}: {message}");
    }
}

/// The calls whose request or response is a stream, and all others.
const STREAMING: [&str; 4] = [
    "process.Process/Start",
    "process.Process/Connect",
    "process.Process/StreamInput",
    "filesystem.Filesystem/WatchDir",
];
const UNARY: [&str; 13] = [
    "process.Process/List",
    "process.Process/Update",
    "process.Process/SendInput",
    "process.Process/SendSignal",
    "process.Process/CloseStdin",
    "filesystem.Filesystem/Stat",
    "filesystem.Filesystem/MakeDir",
    "filesystem.Filesystem/Move",
    "filesystem.Filesystem/ListDir",
    "filesystem.Filesystem/Remove",
    "filesystem.Filesystem/CreateWatcher",
    "filesystem.Filesystem/GetWatcherEvents",
    "filesystem.Filesystem/RemoveWatcher",
];

async fn the_content_type_of_the_other_kind_of_call_is_a_415() {
    let sandbox = Sandbox::shared().await;
    let message = json!({"process": {"cmd": "/bin/touch", "args": ["/tmp/begun"]}, "path": "/tmp/begun"}).to_string();
    let wrapped = envelope(0, message.as_bytes());
    let others =
        ["", "text/plain", "application/proto", "application/grpc", "application/grpc-web", "application/jsonx"];
    for (methods, right, wrong) in [
        (&STREAMING[..], "application/connect+json", ["application/json", "application/connect+proto"]),
        (&UNARY[..], "application/json", ["application/connect+json", "application/connect+proto"]),
    ] {
        for method in methods {
            for kind in wrong.into_iter().chain(others) {
                for body in [wrapped.clone(), message.clone().into_bytes()] {
                    let call = sandbox.envd(Method::POST, &format!("/{method}")).header("content-type", kind);
                    let refused = answer(call.body(body)).await;
                    assert_eq!(refused.headers["accept-post"], right, "{method} {kind}");
                    refused.call_error(415, "unimplemented");
                }
            }
            // Neither case nor parameters matter.
            let kind = format!("{}; charset=utf-8", right.to_uppercase());
            let call = sandbox.envd(Method::POST, &format!("/{method}")).header("content-type", kind);
            let taken = answer(call.body("not JSON")).await;
            assert!(matches!(taken.status, 200 | 400), "{method}: {}", taken.text());
        }
    }
    let stat = sandbox.call("filesystem.Filesystem/Stat", json!({"path": "/tmp/begun"})).await;
    stat.call_error(404, "not_found");
}

async fn bodies_that_are_too_large_are_refused() {
    let sandbox = Sandbox::interpreted().await;
    let large = vec![b' '; (32 << 20) + 1];
    let create = request(Method::POST, "/v2/sandboxes").header("x-api-key", KEY);
    answer(create.body(large.clone())).await.error(413);
    for path in ["/execute", "/contexts"] {
        let refused = answer(sandbox.at(INTERPRETER, Method::POST, path).body(large.clone())).await;
        assert_eq!(refused.status, 413, "{path}: {}", refused.text());
    }
    let call = sandbox.envd(Method::POST, "/filesystem.Filesystem/Stat").header("content-type", "application/json");
    answer(call.body(large)).await.call_error(413, "invalid_argument");
    let many: Value =
        (0..20_000).map(|at| (format!("key{at}"), json!("v".repeat(100)))).collect::<serde_json::Map<_, _>>().into();
    let body = json!({"templateID": "none", "metadata": many, "envVars": many});
    api(Method::POST, "/v2/sandboxes", Some(body)).await.error(404);
    assert_eq!(sandbox.execute(&json!({"code": "1"})).await[1]["text"], "1");
}

async fn headers_of_ten_megabytes_are_a_431() {
    let line = format!("x-large: {}\r\n", "x".repeat(8000));
    let many = format!("GET /health HTTP/1.1\r\nhost: h\r\n{}\r\n", line.repeat(1250));
    let one = format!("GET /health HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(10 << 20));
    let path = format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "x".repeat(10 << 20));
    for (request, statuses) in [(many, ["431", "431"]), (one, ["431", "431"]), (path, ["414", "431"])] {
        let told = raw(request.as_bytes()).await;
        // The server hangs up before it has read everything, which may cost the answer.
        let refused = statuses.iter().any(|status| told.starts_with(&format!("HTTP/1.1 {status} ")));
        assert!(refused || told.is_empty(), "{told:.200}");
    }
    assert_eq!(answer(request(Method::GET, "/health")).await.status, 200);
}

async fn what_is_not_http_is_a_400() {
    let sandbox = Sandbox::shared().await;
    let Sandbox { id, token, .. } = sandbox;
    let upload = format!(
        "POST /files?path=/tmp/garbage HTTP/1.1\r\nhost: h\r\ne2b-sandbox-id: {id}\r\ne2b-sandbox-port: 49983\r\n\
         x-access-token: {token}\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    for (body, whole) in [
        ("zz\r\nxx\r\n0\r\n\r\n", false),
        ("5\r\nab\r\n0\r\n\r\n", false),
        ("ffffffffffffffffff\r\nx", false),
        ("1\r\nx\r\n0\r\n\r\n", true),
    ] {
        let told =
            raw(format!("{upload}{body}").replace("host: h\r\n", "host: h\r\nconnection: close\r\n").as_bytes()).await;
        let expected = if whole { "HTTP/1.1 200 " } else { "HTTP/1.1 400 " };
        assert!(told.starts_with(expected), "{body:?}: {told}");
    }
    for garbage in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT 127.0.0.1:22 \r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ] {
        let told = raw(garbage).await;
        assert!(
            told.is_empty() || told.starts_with("HTTP/1.1 400 ") || told.starts_with("HTTP/1.1 505 "),
            "{garbage:?}: {told}"
        );
    }
    assert_eq!(sandbox.shell("echo alive").await, "alive\n");
}

async fn a_client_that_sends_no_whole_request_is_hung_up_on() {
    let heads = [
        "",
        "G",
        "PRI * HTTP/2.0\r\n",
        "GET /health HTTP/1.1\r\nhost: h\r\n",
        "GET /health HTTP/1.1\r\nhost: h\r\n\r\n",
    ];
    let ends = heads.map(|head| async move {
        let (began, mut told) = (Instant::now(), Vec::new());
        let mut stream = connect().await;
        stream.write_all(head.as_bytes()).await.expect("it is sent");
        let end = tokio::time::timeout(HEAD_TIMEOUT * 5, stream.read_to_end(&mut told)).await;
        assert!(end.is_ok(), "{head:?}: it still listens");
        // The last request is complete, so it is answered. Nothing follows it, so the connection is closed.
        assert_eq!(told.starts_with(b"HTTP/1.1 200 OK"), head.ends_with("\r\n\r\n"), "{head:?}");
        assert!(began.elapsed() > HEAD_TIMEOUT / 2, "{head:?}: {:?}", began.elapsed());
    });
    futures::future::join_all(ends).await;
    // Single bytes do not count as progress.
    let mut stream = connect().await;
    let (began, mut sent) = (Instant::now(), 0);
    for byte in "GET /health HTTP/1.1\r\nhost: a-very-slow-client\r\n\r\n".bytes() {
        if stream.write_all(&[byte]).await.is_err() {
            break;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(sent < 40 && began.elapsed() < HEAD_TIMEOUT * 5, "{sent} bytes in {:?}", began.elapsed());
}

async fn slow_clients_hold_up_no_other() {
    let sandbox = Sandbox::shared().await;
    let Sandbox { id, token, .. } = sandbox;
    let envd = format!("host: h\r\ne2b-sandbox-id: {id}\r\ne2b-sandbox-port: {ENVD}\r\nx-access-token: {token}\r\n");
    let upload = "content-type: application/octet-stream\r\n";
    let begun = [
        "GET /health HT".to_owned(),
        format!("POST /v2/sandboxes HTTP/1.1\r\nhost: h\r\nx-api-key: {KEY}\r\ncontent-length: 9999\r\n\r\n{{"),
        format!(
            "POST /process.Process/List HTTP/1.1\r\n{envd}content-type: application/json\r\ncontent-length: 9999\r\n\r\n{{"
        ),
        format!(
            "POST /process.Process/Start HTTP/1.1\r\n{envd}content-type: application/connect+json\r\ncontent-length: 9999\r\n\r\n"
        ),
        format!("POST /files?path=/tmp/slow HTTP/1.1\r\n{envd}{upload}content-length: 9999\r\n\r\nx"),
    ];
    let mut streams = Vec::new();
    for head in begun.iter().cycle().take(150) {
        let mut stream = connect().await;
        stream.write_all(head.as_bytes()).await.expect("it is sent");
        streams.push(stream);
    }
    in_time(async {
        for _ in 0..10 {
            assert_eq!(sandbox.shell("echo quick").await, "quick\n");
            assert_eq!(api(Method::GET, "/v2/sandboxes", None).await.status, 200);
            let write =
                sandbox.envd(Method::POST, "/files?path=/tmp/quick").header("content-type", "application/octet-stream");
            assert_eq!(answer(write.body("quick")).await.status, 200);
        }
    })
    .await;
    // A request that was begun can still be completed.
    let mut last = streams.pop().expect("one");
    last.write_all(&[b'y'; 9998]).await.expect("it is sent");
    let mut told = [0; 12];
    last.read_exact(&mut told).await.expect("an answer");
    assert_eq!(&told, b"HTTP/1.1 200");
    drop(streams);
    assert_eq!(sandbox.shell("stat -c %s /tmp/slow").await.trim(), "9999");
}
