//! What a key may have: templates, a network, times, numbers of sandboxes, processor time. Each refusal names the limit,
//! and says whether to try again.

use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::{Answer, ENVD, INTERPRETER, Sandbox, answer};
use crate::key_file::{KeyFile, send, until_accepted, until_refused, with_key};
use crate::support::{Server, eventually};

trials![
    a_key_uses_the_templates_that_it_names,
    a_key_has_no_more_network_than_it_may,
    a_key_has_no_more_time_than_it_may,
    a_key_at_a_limit_of_its_own_is_refused_with_its_name,
    a_key_whose_processor_time_is_used_up_starts_nothing_more,
    a_kept_sandbox_uses_up_processor_time_even_if_it_is_soon_killed,
    limits_that_change_hold_from_then_on,
];

async fn run(server: &Server, key: &str, request: Value) -> Answer {
    send(server, key, Method::POST, "/v1/run", Some(request)).await
}

async fn create(server: &Server, key: &str, request: Value) -> Answer {
    send(server, key, Method::POST, "/v2/sandboxes", Some(request)).await
}

fn code(code: &str) -> Value {
    json!({"language": "python", "code": code})
}

/// Checks that an answer of the native API is a refusal with this code; returns the error.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) -> Value {
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{error}");
    error
}

/// What an answer says about another try: `Retry-After` and `Should-Retry`.
fn retry(answer: &Answer) -> (Option<&str>, Option<&str>) {
    let text = |name| answer.headers.get(name).map(|value| value.to_str().expect("text"));
    (text("retry-after"), text("should-retry"))
}

async fn a_key_uses_the_templates_that_it_names() {
    let (file, [key]) = KeyFile::with([&["some", "--template", "py,base"]]);
    let server = file.serve(&[]);
    assert_eq!(run(&server, &key, code("1")).await.json()["results"], json!(["1"]));
    let answer = run(&server, &key, json!({"language": "js", "code": "1"})).await;
    let error = refused(&answer, 403, "forbidden");
    assert!(error["message"].as_str().expect("a message").contains("`js`"), "{error}");
    assert_eq!(create(&server, &key, json!({"templateID": "base"})).await.status, 201);
    let message = create(&server, &key, json!({"templateID": "code-interpreter-v1"})).await.error(403);
    assert!(message.contains("`code-interpreter-v1`") && message.contains("py, base"), "{message}");
}

async fn a_key_has_no_more_network_than_it_may() {
    let (file, [none, allowlist]) =
        KeyFile::with([&["none", "--network", "none"], &["allowlist", "--network", "allowlist"]]);
    let server = file.serve(&[]);
    for key in [&none, &allowlist] {
        let with = |network: &str| json!({"language": "python", "code": "1", "network": network});
        let error = refused(&run(&server, key, with("full")).await, 403, "forbidden");
        assert!(error["message"].as_str().expect("a message").contains("`full`"), "{error}");
        assert_eq!(run(&server, key, with("none")).await.status, 200);
        // What is not chosen is lowered.
        assert_eq!(run(&server, key, code("1")).await.status, 200);
        assert_eq!(create(&server, key, json!({"templateID": "base"})).await.status, 201);
        // SDKs send this by themselves. The description of the sandbox has the truth.
        let by_default = json!({"templateID": "base", "allow_internet_access": true});
        let created = create(&server, key, by_default).await.json();
        let path = format!("/sandboxes/{}", created["sandboxID"].as_str().expect("an id"));
        let described = send(&server, key, Method::GET, &path, None).await.json();
        assert_eq!(described["allowInternetAccess"], false, "{described}");
        let everything = json!({"templateID": "base", "network": {"allowOut": ["1.1.1.1"]}});
        create(&server, key, everything).await.error(403);
    }
    let listed = json!({"templateID": "base", "network": {"allowOut": ["1.1.1.1"], "denyOut": ["0.0.0.0/0"]}});
    assert_eq!(create(&server, &allowlist, listed.clone()).await.status, 201);
    let message = create(&server, &none, listed).await.error(403);
    assert!(message.contains("`allowlist`") && message.contains("`none`"), "{message}");
}

async fn a_key_has_no_more_time_than_it_may() {
    let (file, [key, longer]) =
        KeyFile::with([&["short", "--max-timeout-ms", "2000"], &["longer", "--max-timeout-ms", "60000"]]);
    let server = file.serve(&[]);
    let answer = run(&server, &key, json!({"language": "python", "code": "1", "timeout_ms": 2001})).await;
    let error = refused(&answer, 400, "invalid_request");
    assert!(error["message"].as_str().expect("a message").starts_with("timeout_ms: "), "{error}");
    assert_eq!(error["limit"], json!({"name": "max_timeout_ms", "value": 2000}));
    assert_eq!(retry(&answer), (None, None));
    // One that asks for no time has no more either.
    let ended = run(&server, &key, code("import time; time.sleep(600)")).await.json();
    assert_eq!(ended["outcome"]["limit"], json!({"name": "timeout_ms", "value": 2000}), "{ended}");

    let message = create(&server, &key, json!({"templateID": "base", "timeout": 3})).await.error(400);
    assert!(message.starts_with("timeout: ") && message.contains("max_timeout_ms"), "{message}");
    assert_eq!(create(&server, &key, json!({"templateID": "base"})).await.status, 201);
    eventually("its time is over", async || {
        let list = send(&server, &key, Method::GET, "/v2/sandboxes", None).await.json();
        list.as_array().expect("a list").is_empty()
    })
    .await;

    let created = create(&server, &longer, json!({"templateID": "base", "timeout": 60})).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let sandbox = Sandbox::from(created.json());
    for (path, body) in [
        ("connect", json!({"timeout": 61})),
        ("timeout", json!({"timeout": 61})),
        ("resume", json!({"timeout": 61})),
        ("refreshes", json!({"duration": 61})),
    ] {
        let path = format!("/sandboxes/{}/{path}", sandbox.id);
        send(&server, &longer, Method::POST, &path, Some(body)).await.error(400);
    }
    let path = format!("/sandboxes/{}/timeout", sandbox.id);
    assert_eq!(send(&server, &longer, Method::POST, &path, Some(json!({"timeout": 60}))).await.status, 204);
}

async fn a_key_at_a_limit_of_its_own_is_refused_with_its_name() {
    let (file, [key, other, often]) = KeyFile::with([
        &["limited", "--max-sandboxes", "1", "--max-kept-sandboxes", "1"],
        &["other", "--scope", "run,metrics"],
        &["often", "--max-starts-per-minute", "2"],
    ]);
    let server = file.serve(&[("ONCEBOX_MAX_QUEUED", "0")]);
    let endless = code("import time; time.sleep(600)");
    let running = tokio::spawn(with_key(&server, &key, Method::POST, "/v1/run").json(&endless).send());
    eventually("it runs", async || send(&server, &other, Method::GET, "/v1/status", None).await.json()["running"] == 1)
        .await;
    let answer = run(&server, &key, code("1")).await;
    let error = refused(&answer, 429, "busy");
    assert_eq!(error["limit"], json!({"name": "max_sandboxes", "value": 1}));
    assert_eq!(retry(&answer), (Some("1"), None));
    assert_eq!(run(&server, &other, code("1")).await.status, 200, "another key has no such limit");
    running.abort();

    assert_eq!(create(&server, &key, json!({"templateID": "base"})).await.status, 201);
    let answer = create(&server, &key, json!({"templateID": "base"})).await;
    assert!(answer.error(429).contains("max_kept_sandboxes = 1"), "{}", answer.text());
    assert_eq!(retry(&answer), (None, Some("false")), "waiting kills no sandbox");

    // Another start is possible after half a minute.
    for _ in 0..2 {
        assert_eq!(run(&server, &often, code("1")).await.status, 200);
    }
    for answer in [run(&server, &often, code("1")).await, create(&server, &often, json!({"templateID": "base"})).await]
    {
        assert!(answer.status == 429 && answer.text().contains("max_starts_per_minute = 2"), "{}", answer.text());
        let (after, should) = retry(&answer);
        let after: u64 = after.expect("when to come back").parse().expect("a number");
        assert!((1..=30).contains(&after) && should.is_none(), "{after}");
    }
}

/// Code that uses more than a second of a processor.
const BUSY: &str = "import time\nend = time.process_time() + 1.2\nwhile time.process_time() < end: pass";

async fn a_key_whose_processor_time_is_used_up_starts_nothing_more() {
    let (file, [key, other]) = KeyFile::with([&["busy", "--cpu-seconds-per-day", "1"], &["other"]]);
    let server = file.serve(&[]);
    let used = |answer: &Answer| answer.json()["usage"]["cpu_ms"].as_u64();
    let first = run(&server, &key, code(BUSY)).await;
    assert_eq!(first.status, 200, "{}", first.text());
    // Where the processor time cannot be measured, the time that has passed counts.
    assert!(used(&first).is_none_or(|used| used >= 1000), "{}", first.text());
    let answer = run(&server, &key, code("1")).await;
    let error = refused(&answer, 429, "used_up");
    assert_eq!(error["limit"], json!({"name": "cpu_seconds_per_day", "value": 1}));
    assert_eq!(retry(&answer), (None, Some("false")));
    let answer = create(&server, &key, json!({"templateID": "base"})).await;
    assert!(answer.error(429).contains("cpu_seconds_per_day = 1"), "{}", answer.text());
    assert_eq!(retry(&answer), (None, Some("false")));
    assert_eq!(run(&server, &other, code("1")).await.status, 200);
}

/// The first regular reading of a sandbox comes after five seconds; it is killed before. A client that reads the metrics
/// takes no processor time away from that.
async fn a_kept_sandbox_uses_up_processor_time_even_if_it_is_soon_killed() {
    let arguments = |name| [name, "--cpu-seconds-per-day", "1", "--max-kept-sandboxes", "1"];
    let (file, keys) = KeyFile::with([&arguments("killed"), &arguments("read and killed")]);
    let server = file.serve(&[]);
    for (key, reads) in keys.iter().zip([false, true]) {
        let created = create(&server, key, json!({"templateID": "code-interpreter-v1"})).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let sandbox = Sandbox::from(created.json());
        let at = |method, port, path| {
            let request = server.http.request(method, format!("{}{path}", server.url));
            let request = request.header("E2b-Sandbox-Id", &sandbox.id).header("E2b-Sandbox-Port", port);
            request.header("X-Access-Token", &sandbox.token)
        };
        let executed = answer(at(Method::POST, INTERPRETER, "/execute").json(&json!({"code": BUSY}))).await;
        assert_eq!(executed.status, 200, "{}", executed.text());
        if reads {
            assert_eq!(answer(at(Method::GET, ENVD, "/metrics")).await.status, 200);
        }
        let path = format!("/sandboxes/{}", sandbox.id);
        assert_eq!(send(&server, key, Method::DELETE, &path, None).await.status, 204);
        // The place is free when the sandbox is gone, and its last reading comes before that.
        let mut message = String::new();
        eventually("it is gone", async || {
            message = create(&server, key, json!({"templateID": "base"})).await.error(429);
            !message.contains("max_kept_sandboxes")
        })
        .await;
        assert!(message.contains("cpu_seconds_per_day = 1"), "{message}");
    }
}

async fn limits_that_change_hold_from_then_on() {
    let (file, [key]) = KeyFile::with([&["changing", "--max-kept-sandboxes", "1"]]);
    let server = file.serve(&[("ONCEBOX_MAX_KEPT_SANDBOXES_PER_KEY", "1")]);
    let body = json!({"templateID": "base"});
    assert_eq!(create(&server, &key, body.clone()).await.status, 201);
    create(&server, &key, body.clone()).await.error(429);
    file.write(&file.text().replace("max_kept_sandboxes = 1", "max_kept_sandboxes = 2"));
    eventually("there is room for two", async || create(&server, &key, body.clone()).await.status == 201).await;
    create(&server, &key, body.clone()).await.error(429);
    // A key that loses a scope loses it at once.
    file.write(&file.text().replace("\"run\", ", ""));
    eventually("it runs nothing", async || run(&server, &key, code("1")).await.status == 403).await;
    let next = file.add(&["next"]);
    until_accepted(&server, &next).await;
    file.keys(&["revoke", "changing"]).expect("it is revoked");
    until_refused(&server, &key).await;
}
